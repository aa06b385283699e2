//! How much one source may write to the log: so much at once, and so much a second in the long run.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Bytes that may be written at once.
const BURST: u64 = 512 * 1024;

/// Bytes that are added in a second, up to [`BURST`].
const PER_SECOND: u64 = 32 * 1024;

/// How many there have to be before lines are written again after some were not.
const AGAIN: u64 = 2 * PER_SECOND;

/// What a line costs beside its own bytes.
const LINE: u64 = 256;

/// The lines of one source.
#[derive(Debug)]
pub struct Flow {
    room: Mutex<Room>,
}

#[derive(Debug)]
struct Room {
    bytes: u64,
    since: Instant,
    skipped: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is written, and so many before it were not.
    Write {
        /// How many.
        skipped: u64,
    },
    /// It is the first that is not.
    FirstSkipped,
    /// It is not either.
    Skipped,
}

/// One that has let nothing through yet.
impl Default for Flow {
    fn default() -> Self {
        Self { room: Mutex::new(Room { bytes: BURST, since: Instant::now(), skipped: 0 }) }
    }
}

impl Flow {
    /// Decides on a line of so many bytes.
    pub fn admit(&self, bytes: usize) -> Admission {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.admit(bytes, Instant::now())
    }

    /// How many lines were not written since the last that was.
    pub fn skipped(&self) -> u64 {
        self.room.lock().unwrap_or_else(PoisonError::into_inner).skipped
    }
}

impl Room {
    fn admit(&mut self, bytes: usize, now: Instant) -> Admission {
        let passed = u64::try_from(now.saturating_duration_since(self.since).as_millis());
        let more = passed.unwrap_or(u64::MAX).saturating_mul(PER_SECOND) / 1000;
        if more > 0 {
            self.bytes = self.bytes.saturating_add(more).min(BURST);
            self.since = now;
        }
        let cost = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(LINE);
        // Once it is too much, it begins again with room for more than a line.
        let enough = self.skipped == 0 || self.bytes >= AGAIN;
        if enough && cost <= self.bytes {
            self.bytes -= cost;
            return Admission::Write { skipped: std::mem::take(&mut self.skipped) };
        }
        self.skipped += 1;
        if self.skipped == 1 { Admission::FirstSkipped } else { Admission::Skipped }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_within_the_rate_are_written_and_others_counted() {
        let began = Instant::now();
        let mut room = Room { bytes: BURST, since: began, skipped: 0 };
        let line = 1024 - usize::try_from(LINE).expect("small");
        for _ in 0..512 {
            assert_eq!(room.admit(line, began), Admission::Write { skipped: 0 });
        }
        assert_eq!(room.admit(line, began), Admission::FirstSkipped);
        for _ in 0..9 {
            assert_eq!(room.admit(line, began), Admission::Skipped);
        }
        let soon = began + Duration::from_secs(1);
        assert_eq!(room.admit(line, soon), Admission::Skipped, "not for a line or two");
        let later = began + Duration::from_secs(2);
        assert_eq!(room.admit(line, later), Admission::Write { skipped: 11 });
        for _ in 0..63 {
            assert_eq!(room.admit(line, later), Admission::Write { skipped: 0 });
        }
        assert_eq!(room.admit(line, later), Admission::FirstSkipped);
        let much_later = later + Duration::from_secs(1_000_000);
        assert_eq!(room.admit(line, much_later), Admission::Write { skipped: 1 });
        assert_eq!(room.bytes, BURST - 1024, "no more than so much at once");
        assert_eq!(room.admit(usize::MAX, much_later), Admission::FirstSkipped);
    }
}

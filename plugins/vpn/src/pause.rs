//! Pauses before another try: longer from time to time, short again after a time of success.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// What went well for so long had nothing to do with the failure before it.
const WELL: Duration = Duration::from_secs(30);

/// The pauses of one thing that is tried again and again.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Pauses {
    /// The pause after something that went well for a time, 0 for not at all.
    pub(crate) fn after(&mut self, well: Duration) -> Duration {
        if well >= WELL {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }

    /// Something new is to be tried.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_grow_and_begin_again() {
        let mut pauses = Pauses::default();
        let mut after = |seconds| pauses.after(Duration::from_secs(seconds)).as_secs();
        let failing: Vec<_> = (0..7).map(|_| after(0)).collect();
        assert_eq!(failing, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(after(29), 30);
        assert_eq!(after(30), 1);
        assert_eq!(after(1), 2);
    }
}

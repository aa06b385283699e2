//! The only place that reads clocks. There are two times, both in Unix seconds.
//!
//! [`unix_now`] is the host's own time: the wall clock at the start of the process and what has
//! passed since, also while the machine slept. Setting the wall clock does not change it, so a span
//! between two of its values is a time that has really passed. Everything that decides "for so
//! long" uses it: inactivity, suspension, measured sessions, time-outs, backoff, rates.
//!
//! [`wall_now`] is what others see on their clocks: for what is signed, and for what others have
//! signed.
//!
//! The two are the same until somebody sets the wall clock. The host's time follows at the next
//! start: [`offset`] is noted in the database while the host runs, and what the database holds for
//! spans is moved by it then, before anything is decided.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Seconds since 1970-01-01T00:00:00Z.
pub type UnixSeconds = u64;

/// The host's own time. See the top of this file.
pub fn unix_now() -> UnixSeconds {
    start().at(since_boot())
}

/// The wall clock; 0 on a machine whose clock stands before 1970.
pub fn wall_now() -> UnixSeconds {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    #[cfg(any(test, feature = "testing"))]
    let wall = wall.saturating_add_signed(testing::set_forward_by());
    wall
}

/// By how many seconds the wall clock is ahead of the host's own time.
pub fn offset() -> i64 {
    difference(wall_now(), unix_now())
}

/// How far a time is ahead of another.
pub fn difference(time: UnixSeconds, other: UnixSeconds) -> i64 {
    let apart = i64::try_from(time.abs_diff(other)).unwrap_or(i64::MAX);
    if time < other { -apart } else { apart }
}

/// Where the host's own time begins.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// The wall clock then, since 1970.
    wall: Duration,
    /// What had passed since the machine was started.
    since_boot: Duration,
}

impl Start {
    fn at(self, since_boot: Duration) -> UnixSeconds {
        (self.wall + since_boot.saturating_sub(self.since_boot)).as_secs()
    }
}

fn start() -> Start {
    static START: OnceLock<Start> = OnceLock::new();
    *START.get_or_init(|| Start {
        wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        since_boot: since_boot(),
    })
}

/// Goes on while the machine sleeps, and cannot be set.
fn since_boot() -> Duration {
    // Every Linux has this clock; without it time would stand still, and nothing would be ended.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// What tests do to the wall clock of their thread.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use std::cell::Cell;

    thread_local! {
        static FORWARD: Cell<i64> = const { Cell::new(0) };
    }

    pub(super) fn set_forward_by() -> i64 {
        FORWARD.get()
    }

    /// Sets the wall clock of this thread forward, or back.
    pub fn set_forward(seconds: i64) {
        FORWARD.set(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_passed_moves_the_hosts_time() {
        let start = Start { wall: Duration::from_millis(1_000_900), since_boot: seconds(50) };
        for (since_boot, expected) in [(50, 1000), (51, 1001), (50 + 86_400, 1000 + 86_400)] {
            assert_eq!(start.at(seconds(since_boot)), expected, "{since_boot}");
        }
        assert_eq!(start.at(seconds(49)), 1000, "it does not run backwards");
    }

    #[test]
    fn setting_the_wall_clock_leaves_the_hosts_time_alone() {
        assert_eq!(offset().abs() / 2, 0, "they begin together");
        let before = unix_now();
        for set in [86_400_000, -86_400_000] {
            testing::set_forward(set);
            assert!(unix_now() - before < 1000, "{set}");
            assert!((offset() - set).abs() < 1000, "{set}");
        }
    }

    #[test]
    fn differences_have_a_sign() {
        for (time, other, expected) in [(5, 5, 0), (7, 5, 2), (5, 7, -2), (u64::MAX, 0, i64::MAX)] {
            assert_eq!(difference(time, other), expected, "{time} {other}");
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}

//! How long to wait before what failed is tried again: a channel's service, a module's start.

use std::time::Duration;

/// The longest that anything waits.
pub const LONGEST: Duration = Duration::from_secs(300);

/// After so many failures in a row, from 1: 5 s, 10 s, … 5 min.
pub fn back_off(count: u32) -> Duration {
    Duration::from_secs(5u64 << count.saturating_sub(1).min(6)).min(LONGEST)
}

/// The same for what hurts sooner, a cheque that was not acknowledged: 1 s, 2 s, … 5 min.
pub fn soon(count: u32) -> Duration {
    Duration::from_secs(1u64 << count.saturating_sub(1).min(9)).min(LONGEST)
}

/// The times that are due, in Unix seconds: those up to the first, and those beyond the second. What
/// is due later than anything is put off was put off by a clock that has been set since.
pub fn due(now: u64) -> (u64, u64) {
    (now, now.saturating_add(LONGEST.as_secs()))
}

/// Whether a time is among them.
pub fn is_due(at: u64, now: u64) -> bool {
    let (by, beyond) = due(now);
    at <= by || at > beyond
}

#[cfg(test)]
mod tests {
    use super::{back_off, is_due, soon};

    #[test]
    fn what_was_put_off_by_a_clock_that_was_set_is_due() {
        let now = 1000;
        for (at, expected) in
            [(0, true), (999, true), (1000, true), (1001, false), (1300, false), (1301, true)]
        {
            assert_eq!(is_due(at, now), expected, "{at}");
        }
    }

    #[test]
    fn faults_are_forgiven_later_and_later() {
        let seconds: Vec<u64> = (1..9).map(|count| back_off(count).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off(u32::MAX).as_secs(), 300);
        let seconds: Vec<u64> = (1..11).map(|count| soon(count).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(soon(u32::MAX).as_secs(), 300);
    }
}

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

#[cfg(test)]
mod tests {
    use super::{back_off, soon};

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

//! What a usage report does to a session's account.
//!
//! Reports may be repeated after a time-out or a crash: neither kind counts anything twice.

use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::message::Usage;

/// A session's account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Smallest units used so far.
    pub usage: u64,
    /// The last sequence number of an incremental report; 0 before the first.
    pub sequence: u64,
}

/// The report is below what is known, or above what can be; nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// A total below the last one.
    #[error("{reported} is below {known}")]
    WentBackwards {
        /// What was reported.
        reported: u64,
        /// What was reported before.
        known: u64,
    },
    /// Sequence numbers begin at 1: 0 is what a session has before its first report.
    #[error("sequence numbers begin at 1")]
    NoSequence,
    /// The sum leaves the range of integers.
    #[error("the usage of a session ends at {MAX_INTEGER}")]
    TooLarge,
}

/// The account after a report.
///
/// # Errors
/// [`UsageError`].
pub fn report(account: Account, report: Usage) -> Result<Account, UsageError> {
    match report {
        Usage::Total(total) if total > MAX_INTEGER => Err(UsageError::TooLarge),
        Usage::Total(total) if total < account.usage => {
            Err(UsageError::WentBackwards { reported: total, known: account.usage })
        }
        Usage::Total(total) => Ok(Account { usage: total, ..account }),
        Usage::Incremental { sequence: 0, .. } => Err(UsageError::NoSequence),
        // Acknowledged and not added again.
        Usage::Incremental { sequence, .. } if sequence <= account.sequence => Ok(account),
        Usage::Incremental { sequence, amount } => {
            let usage = account.usage.checked_add(amount).filter(|sum| *sum <= MAX_INTEGER);
            usage.map(|usage| Account { usage, sequence }).ok_or(UsageError::TooLarge)
        }
    }
}

/// The most seconds between two marks of a session that the core itself measures: beyond it nobody was
/// there to measure, because the machine slept or its clock was set.
pub const MOST_BETWEEN_MARKS: u64 = 10;

/// The usage of a measured session, marked now: it was `usage` at its last mark, at `marked`. Times are
/// Unix seconds.
pub fn measured(usage: u64, marked: u64, now: u64) -> u64 {
    usage.saturating_add(now.saturating_sub(marked).min(MOST_BETWEEN_MARKS))
}

/// The usage of a channel: that of its closed sessions and that of its open one. It ends where integers
/// do.
pub fn of_channel(closed: u64, open: u64) -> u64 {
    closed.saturating_add(open).min(MAX_INTEGER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn add(sequence: u64, amount: u64) -> Usage {
        Usage::Incremental { sequence, amount }
    }

    #[test]
    fn reports_and_what_they_do() {
        let known = Account { usage: 100, sequence: 3 };
        let ok = |usage, sequence| Ok(Account { usage, sequence });
        for (usage, expected) in [
            (Usage::Total(100), ok(100, 3)),
            (Usage::Total(250), ok(250, 3)),
            (Usage::Total(99), Err(UsageError::WentBackwards { reported: 99, known: 100 })),
            (Usage::Total(MAX_INTEGER), ok(MAX_INTEGER, 3)),
            (Usage::Total(MAX_INTEGER + 1), Err(UsageError::TooLarge)),
            (add(4, 10), ok(110, 4)),
            (add(9, 10), ok(110, 9)),
            (add(3, 10), ok(100, 3)),
            (add(0, 10), Err(UsageError::NoSequence)),
            (add(4, MAX_INTEGER), Err(UsageError::TooLarge)),
            (add(4, u64::MAX), Err(UsageError::TooLarge)),
        ] {
            assert_eq!(report(known, usage), expected, "{usage:?}");
        }
    }

    proptest! {
        /// However often reports are repeated, as long as they come in order at first.
        #[test]
        fn repetition_changes_nothing(
            amounts in proptest::collection::vec(0u64..1000, 1..20),
            repeats in proptest::collection::vec(0usize..20, 0..40),
        ) {
            let mut account = Account::default();
            for (index, amount) in amounts.iter().enumerate() {
                account = report(account, add(index as u64 + 1, *amount)).expect("in range");
                for repeat in repeats.iter().filter(|repeat| **repeat <= index) {
                    let again = add(*repeat as u64 + 1, amounts[*repeat]);
                    prop_assert_eq!(report(account, again), Ok(account));
                }
            }
            prop_assert_eq!(account.usage, amounts.iter().sum::<u64>());
        }
    }
}

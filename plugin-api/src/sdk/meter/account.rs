//! What a meter has counted, reported, and been allowed: plain numbers.

use crate::manifest::UsageReporting;
use crate::message::Usage;

/// A session's usage as its meter knows it.
#[derive(Debug)]
pub(super) struct Account {
    /// Counted, never below what was sent.
    used: u64,
    /// Given back after it was sent: granted again before anything else.
    surplus: u64,
    /// Set aside for what is being passed on at this moment: not used, and nobody else's.
    reserved: u64,
    /// The largest usage that any report has named.
    sent: u64,
    /// What the core has acknowledged.
    acknowledged: u64,
    /// The usage up to which the core allows use.
    limit: Option<u64>,
    /// The largest credit that the core has stated.
    largest: u64,
    /// The sequence number of the last incremental report.
    sequence: u64,
    /// A report that was sent and not acknowledged. It is repeated as it is.
    pending: Option<(Usage, u64)>,
}

impl Account {
    pub(super) fn new(credit: Option<u64>) -> Self {
        Self {
            used: 0,
            surplus: 0,
            reserved: 0,
            sent: 0,
            acknowledged: 0,
            limit: credit,
            largest: credit.unwrap_or_default(),
            sequence: 0,
            pending: None,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.saturating_sub(self.surplus)
    }

    /// How much may be granted.
    pub(super) fn left(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.used() + self.reserved))
    }

    /// Whether the credit is low: less than a quarter of the largest is left.
    pub(super) fn is_low(&self) -> bool {
        self.left().is_some_and(|left| left < self.largest / 4)
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Grants up to `most`.
    pub(super) fn take(&mut self, most: u64) -> u64 {
        let granted = self.left().map_or(most, |left| left.min(most));
        self.record(granted);
        granted
    }

    /// Sets up to `most` aside, without counting it; [`settle`](Self::settle) follows.
    pub(super) fn reserve(&mut self, most: u64) -> u64 {
        let granted = self.left().map_or(most, |left| left.min(most));
        self.reserved = self.reserved.saturating_add(granted);
        granted
    }

    /// Counts what was used of what was set aside, and frees the rest.
    pub(super) fn settle(&mut self, reserved: u64, used: u64) {
        self.reserved = self.reserved.saturating_sub(reserved);
        self.record(used);
    }

    pub(super) fn record(&mut self, used: u64) {
        let known = used.min(self.surplus);
        self.surplus -= known;
        self.used = self.used.saturating_add(used - known);
    }

    /// What was reported cannot be taken back: it is kept for what is used next.
    pub(super) fn give_back(&mut self, unused: u64) {
        let unsent = unused.min(self.used - self.sent);
        self.used -= unsent;
        self.surplus = self.surplus.saturating_add(unused - unsent).min(self.used);
    }

    /// Whether a report should go out before its time: a quarter of the last credit is used. With
    /// three quarters left a fast line does not stop while the report is under way.
    pub(super) fn wants_report(&self) -> bool {
        self.limit.is_some_and(|limit| {
            let credit = limit.saturating_sub(self.acknowledged);
            credit > 0 && self.used - self.acknowledged >= (credit / 4).max(1)
        })
    }

    /// What the core has not acknowledged.
    pub(super) fn unreported(&self) -> u64 {
        self.used - self.acknowledged
    }

    /// The next report: the one that is pending, or a new one.
    pub(super) fn report(&mut self, reporting: UsageReporting) -> (Usage, u64) {
        if let Some(pending) = self.pending {
            return pending;
        }
        let usage = match reporting {
            UsageReporting::Total => Usage::Total(self.used),
            UsageReporting::Incremental => {
                self.sequence += 1;
                let amount = self.used - self.acknowledged;
                Usage::Incremental { sequence: self.sequence, amount }
            }
        };
        self.sent = self.used;
        self.pending = Some((usage, self.used));
        (usage, self.used)
    }

    /// A report was acknowledged.
    pub(super) fn acknowledge(&mut self, total: u64, credit: Option<u64>) {
        self.pending = None;
        self.acknowledged = self.acknowledged.max(total);
        self.limit = credit.map(|credit| total.saturating_add(credit));
        self.largest = self.largest.max(credit.unwrap_or_default());
    }
}

//! How the members of a session share its credit.

/// Credit of which one member may take all.
const LAST: u64 = 32 * 1024;

/// Of one member.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) taken: u64,
    /// Delivered, which may be ahead: what waits to be read is delivered and not taken.
    pub(super) delivered: u64,
}

impl Share {
    pub(super) fn reserved(self) -> u64 {
        self.taken.saturating_sub(self.delivered)
    }
}

/// How much a member may take of a credit: all of the last bytes, and of more, so much that it never
/// has the larger part. One reader that has stopped reading leaves something to the others.
pub(super) fn allowance(left: Option<u64>, reserved: u64, own: u64) -> u64 {
    let Some(left) = left else { return u64::MAX };
    let free = left.saturating_sub(reserved);
    if free <= LAST { free } else { free.saturating_sub(own) / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_leaves_credit_to_the_others() {
        for (left, reserved, own, expected) in [
            (None, 0, 0, u64::MAX),
            (Some(0), 0, 0, 0),
            (Some(1), 0, 0, 1),
            (Some(LAST), 0, 0, LAST),
            (Some(LAST), LAST - 1, 0, 1),
            (Some(LAST), LAST + 1, 0, 0),
            (Some(4 * LAST), 0, 0, 2 * LAST),
            // It has half of it.
            (Some(4 * LAST), 2 * LAST, 2 * LAST, 0),
            (Some(4 * LAST), LAST, LAST, LAST),
            // Another one.
            (Some(4 * LAST), 2 * LAST, 0, LAST),
        ] {
            assert_eq!(allowance(left, reserved, own), expected, "{left:?} {reserved} {own}");
        }
    }
}

//! What a client has used, from what the firewall and OpenVPN have counted.
//!
//! OpenVPN counts datagrams before it knows who has sent them, so anybody could run up a client's
//! bill. The firewall counts what comes out of the tunnel and what goes into it: that is the usage.
//! What OpenVPN says of bytes it has *sent* only corrects it, since the firewall sees the packets
//! to a client before the kernel has cut large ones into those that are sent, each with headers of
//! its own, and before a full queue has dropped some.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::session::Meter;

/// What OpenVPN adds to each packet: opcode and peer, packet number, tag.
const WRAPPING: u64 = 24;

/// Headers of IPv4 and TCP with time stamps, which each part of a cut packet has.
const HEADERS: u64 = 52;

/// Packets that are sent have at least this size when they are parts of a large one.
const PART: u64 = 1300;

/// For so many looks at the firewall after the last packet, what OpenVPN says it has sent belongs
/// to packets; later it is what OpenVPN sends by itself.
const FRESH: u8 = 3;

/// Packets and their bytes, as the firewall has counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) bytes: u64,
    pub(super) packets: u64,
}

impl Traffic {
    pub(super) fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, packets: self.packets + other.packets }
    }
}

/// Of one client: from it and to it, in the tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) up: Traffic,
    pub(super) down: Traffic,
}

impl Passed {
    pub(super) fn bytes(self) -> u64 {
        self.up.bytes + self.down.bytes
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { up: self.up.and(other.up), down: self.down.and(other.down) }
    }
}

/// What went to a client, given what the firewall saw and how many bytes OpenVPN has sent.
fn delivered(seen: Traffic, sent: u64, fresh: bool) -> u64 {
    let wrapped = seen.bytes + seen.packets * WRAPPING;
    let Some(more) = sent.checked_sub(wrapped) else {
        // Not all of it was sent, or not yet.
        let part = u128::from(seen.bytes) * u128::from(sent) / u128::from(wrapped.max(1));
        return u64::try_from(part).unwrap_or(seen.bytes);
    };
    // Each further part has cost its headers and a wrapping; and there are not more parts than fit.
    let parts = (seen.bytes / PART).saturating_sub(seen.packets);
    let parts = if fresh { parts.min(more / (HEADERS + WRAPPING)) } else { 0 };
    seen.bytes + parts * HEADERS
}

/// One client's count. The session ends when the last hand lets go of it.
#[derive(Debug)]
pub(super) struct Tally {
    meter: Meter,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    passed: Passed,
    sent: u64,
    fresh: u8,
    used: u64,
}

impl Tally {
    pub(super) fn new(meter: Meter) -> Self {
        Self { meter, counted: Mutex::default() }
    }

    /// The firewall says what has passed since the session began.
    pub(super) fn passed(&self, passed: Passed) {
        self.change(|counted| {
            let more = passed.down != counted.passed.down;
            counted.fresh = if more { FRESH } else { counted.fresh.saturating_sub(1) };
            counted.passed = passed;
        });
    }

    /// What the session has been told.
    pub(super) fn used(&self) -> u64 {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).used
    }

    /// OpenVPN says what it has sent to the client since it connected.
    pub(super) fn sent(&self, sent: u64) {
        self.change(|counted| counted.sent = counted.sent.max(sent));
    }

    fn change(&self, change: impl FnOnce(&mut Counted)) {
        let mut counted: MutexGuard<'_, Counted> =
            self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counted);
        let Counted { passed, sent, fresh, used } = *counted;
        let delivered = delivered(passed.down, sent, fresh > 0);
        counted.used = used.max(passed.up.bytes + delivered);
        self.meter.count(counted.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivered_bytes() {
        let near = |found: u64, expected: u64| found.abs_diff(expected) * 300 <= expected;
        // 1,000 packets of 1,400 bytes, as they are sent; and seen as 25 large ones, which have one
        // header of 52 bytes each instead of forty.
        let sent = 1_000 * (1_400 + WRAPPING);
        let inner = 1_400_000;
        for (seen, sent, expected) in [
            (Traffic { bytes: inner, packets: 1_000 }, sent, inner),
            (Traffic { bytes: inner - 975 * 52, packets: 25 }, sent, inner),
            // Without time stamps.
            (Traffic { bytes: inner - 975 * 40, packets: 25 }, sent, inner),
            // Half of it was dropped on the way into the tunnel.
            (Traffic { bytes: inner, packets: 1_000 }, sent / 2, inner / 2),
            // Small packets: the wrapping is not the client's.
            (Traffic { bytes: 60_000, packets: 1_000 }, 84_000, 60_000),
            // What OpenVPN sends by itself is nobody's usage.
            (Traffic::default(), 1_000_000, 0),
            (Traffic::default(), 0, 0),
            (Traffic { bytes: 1_000, packets: 10 }, 0, 0),
        ] {
            let found = delivered(seen, sent, true);
            assert!(near(found, expected), "{seen:?}, {sent} sent: {found}, not {expected}");
        }
        // However much was sent, it is not much more than what has passed; and nothing where no
        // large packet was cut, or where nothing has passed for a while.
        let large = Traffic { bytes: 1_300_000, packets: 100 };
        assert_eq!(delivered(large, u64::MAX / 2, true), 1_300_000 + 900 * 52);
        assert_eq!(delivered(large, u64::MAX / 2, false), 1_300_000);
        assert_eq!(delivered(Traffic { bytes: 1_000, packets: 1 }, u64::MAX / 2, true), 1_000);
    }
}

//! What a client has used, from what the firewall and OpenVPN have counted.
//!
//! OpenVPN counts datagrams before it knows who has sent them, so anybody could run up a client's
//! bill. The firewall counts what comes out of the tunnel and what goes into it: that is the usage.
//! What OpenVPN says of bytes it has *sent* only corrects it, since the firewall sees the packets
//! to a client before the kernel has cut large ones into those that are sent, each with headers of
//! its own, and before a full queue has dropped some. Until then the device's own count bounds it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::gate::WAITING;
use crate::session::Meter;

/// What OpenVPN adds to each packet: opcode and peer, packet number, tag.
const WRAPPING: u64 = 24;

/// Headers of IPv4 and TCP with time stamps, which each part of a cut packet has.
const HEADERS: u64 = 52;

/// Packets that are sent have at least this size when they are parts of a large one.
const PART: u64 = 1300;

/// What may wait on its way to OpenVPN: the queue of a tunnel's device holds 500 packets, by OpenVPN's
/// and the kernel's default, and before it there is that of a client's class.
const QUEUE: u64 = 500 * 1_500 + WAITING;

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

/// How much of what the firewall has let through to all clients since the last look the device has carried:
/// queues before it drop what comes too fast, in bursts of more than they hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) carried: u64,
    pub(super) seen: u64,
}

impl Carried {
    /// Of one client's bytes as much as of all. What waits is carried later, and known then.
    fn of(self, bytes: u64) -> u64 {
        let part = u128::from(bytes) * u128::from(self.carried.min(self.seen));
        u64::try_from(part / u128::from(self.seen.max(1))).unwrap_or(bytes)
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

/// The most that can have been delivered of what the firewall has seen.
fn with_headers(seen: u64) -> u64 {
    seen.saturating_add(seen / PART * HEADERS)
}

/// How much the firewall may see, so that no more than this is delivered.
pub(super) fn without_headers(bytes: u64) -> u64 {
    bytes / (PART + HEADERS) * PART
}

/// One client's count. The session ends when the last hand lets go of it.
#[derive(Debug)]
pub(super) struct Tally {
    meter: Meter,
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    passed: Passed,
    /// When that was seen.
    looked: Instant,
    sent: u64,
    /// When OpenVPN has said so, if the firewall was not looked at since.
    said: Option<Instant>,
    fresh: u8,
    /// What went to the client by the time of OpenVPN's last word.
    delivered: u64,
    /// What the device has carried to it since the look that heard of that word.
    carried: u64,
    /// What the firewall had seen by the last look before that word, which is not more than by the word.
    seen_before: u64,
    /// What may have waited in the device's queue then: it will be sent, or is lost.
    queued: u64,
    used: u64,
    taken: u64,
    /// Nothing passes any more.
    shut: bool,
}

impl Tally {
    pub(super) fn new(meter: Meter) -> Self {
        let counted = Counted::new(Instant::now());
        Self { meter, counted: Mutex::new(counted) }
    }

    /// The firewall says what has passed since the session began, and the device what it has carried since
    /// the last look.
    pub(super) fn passed(&self, passed: Passed, carried: Carried) {
        let mut counted = self.counted();
        counted.look(passed, carried, Instant::now());
        self.meter.count(counted.used);
    }

    /// The same of a client that is shut out: what OpenVPN has said last is all that it has sent.
    pub(super) fn passed_last(&self, passed: Passed) {
        let mut counted = self.counted();
        let now = Instant::now();
        counted.said = counted.said.map(|_| now);
        counted.look(passed, Carried::default(), now);
        counted.shut = true;
        self.meter.count(counted.used);
    }

    /// OpenVPN says what it has sent to a client that is gone, perhaps after that was shut out.
    pub(super) fn sent_last(&self, sent: u64) {
        self.sent(sent);
        let passed = {
            let counted = self.counted();
            counted.shut.then_some(counted.passed)
        };
        if let Some(passed) = passed {
            self.passed_last(passed);
        }
    }

    /// The client is shut out, and nothing has passed since the last look.
    #[cfg(test)]
    pub(super) fn ends(&self) {
        let passed = self.counted().passed;
        self.passed_last(passed);
    }

    /// What may not be used any more, whatever becomes of it: all that the firewall has let through,
    /// but for what is known not to have been sent. It may be more than was used by what passes
    /// between two looks at the firewall, and is never less than that which was sent or waits.
    pub(super) fn taken(&self) -> u64 {
        self.counted().taken
    }

    /// OpenVPN says what it has sent to the client since it connected.
    pub(super) fn sent(&self, sent: u64) {
        self.counted().hear(sent, Instant::now());
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn new(now: Instant) -> Self {
        Self {
            passed: Passed::default(),
            looked: now,
            sent: 0,
            said: None,
            fresh: 0,
            delivered: 0,
            carried: 0,
            seen_before: 0,
            queued: 0,
            used: 0,
            taken: 0,
            shut: false,
        }
    }

    fn hear(&mut self, sent: u64, now: Instant) {
        if sent > self.sent {
            (self.sent, self.said) = (sent, Some(now));
        }
    }

    /// OpenVPN speaks once a second, and much passes in that time. Until its next word that counts which the
    /// device has carried. What it has carried between the word and the look that hears of it is not told
    /// apart, and counts with the next word.
    fn look(&mut self, passed: Passed, carried: Carried, now: Instant) {
        let (before, down) = (self.passed.down, passed.down);
        let more = down != before;
        self.fresh = if more { FRESH } else { self.fresh.saturating_sub(1) };
        self.carried += carried.of(down.bytes.saturating_sub(before.bytes));
        if let Some(said) = self.said.take() {
            let span = now.saturating_duration_since(self.looked).as_micros().max(1);
            let part = said.saturating_duration_since(self.looked).as_micros().min(span);
            let between = |from: u64, to: u64| {
                let grown = u128::from(to.saturating_sub(from)) * part / span;
                from.saturating_add(u64::try_from(grown).unwrap_or(0))
            };
            let seen = Traffic {
                bytes: between(before.bytes, down.bytes),
                packets: between(before.packets, down.packets),
            };
            self.delivered = delivered(seen, self.sent, self.fresh > 0);
            self.queued = QUEUE.min(before.bytes.saturating_sub(self.seen_before));
            (self.carried, self.seen_before) = (0, before.bytes);
        }
        (self.passed, self.looked) = (passed, now);
        self.used = self.used.max(passed.up.bytes + self.delivered + self.carried);
        let since = down.bytes.saturating_sub(self.seen_before);
        let taken = passed.up.bytes + self.delivered + with_headers(since + self.queued);
        self.taken = self.used.max(taken);
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
        for credit in [0, 1_000, 1_500, 64 << 10, 4 << 20] {
            assert!(with_headers(without_headers(credit)) <= credit, "{credit}");
        }
    }
    /// Steps of a session, each a tenth of a second after the one before.
    enum Step {
        /// The firewall has seen so many full packets to the client, and the device has carried so many
        /// since the last look.
        Look(u64, u64),
        /// OpenVPN has sent so many of them.
        Sent(u64),
    }

    #[test]
    fn what_has_passed_is_taken_before_openvpn_speaks_of_it() {
        use Step::{Look, Sent};
        const PACKET: u64 = 1_300;
        for (what, steps, used, taken) in [
            // 52 bytes of headers are 4 % of such a packet; of what has passed in the second before
            // the word, as much as the queue holds, 778 packets, may still wait.
            ("nothing is heard", &[Look(1_000, 1_000), Look(3_000, 2_000)][..], 3_000, 3_120),
            ("some of it waits, or is lost", &[Look(3_000, 2_100)], 2_100, 3_120),
            ("all of it is sent", &[Look(1_000, 1_000), Sent(1_000), Look(1_000, 0)], 1_000, 1_809),
            (
                "nothing can wait any more",
                &[Look(1_000, 1_000), Sent(1_000), Look(1_000, 0), Sent(1_001), Look(1_000, 0)],
                1_000,
                1_000,
            ),
            (
                "more has passed since",
                &[Look(1_000, 1_000), Sent(1_000), Look(1_000, 0), Look(9_000, 8_000)],
                9_000,
                10_129,
            ),
            // Of two thousand between the looks, a half is before the word; the other counts with the next.
            (
                "between two looks",
                &[Look(1_000, 1_000), Sent(2_000), Look(3_000, 2_000)],
                2_000,
                4_889,
            ),
            (
                "what was lost is given back, and was never used",
                &[Look(1_000, 900), Sent(900), Look(1_000, 0), Look(1_200, 200)],
                1_100,
                1_917,
            ),
        ] {
            let mut now = Instant::now();
            let mut counted = Counted::new(now);
            for step in steps {
                now += std::time::Duration::from_millis(100);
                match step {
                    Look(packets, carried) => {
                        let down = Traffic { bytes: packets * PACKET, packets: *packets };
                        let seen = down.bytes - counted.passed.down.bytes;
                        let carried = Carried { carried: carried * PACKET, seen };
                        counted.look(Passed { down, ..Passed::default() }, carried, now);
                    }
                    Sent(packets) => counted.hear(packets * (PACKET + WRAPPING), now),
                }
            }
            let near = |found: u64, expected: u64| found.abs_diff(expected * PACKET) <= 2 * PACKET;
            assert!(near(counted.taken, taken), "{what}: {} taken", counted.taken / PACKET);
            assert!(near(counted.used, used), "{what}: {} used", counted.used / PACKET);
        }
    }
}

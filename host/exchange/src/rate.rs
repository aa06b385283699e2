//! How many requests an address may make in a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::networks::{Network, Share, share, shares};

const WINDOW: Duration = Duration::from_secs(60);

/// So many addresses are remembered before old windows are forgotten for the first time.
const ADDRESSES: usize = 10_000;

/// Counts requests by address.
#[derive(Debug)]
pub(super) struct Rate {
    limit: u32,
    windows: Mutex<Windows>,
}

#[derive(Debug)]
struct Windows {
    by_network: HashMap<Network, (Instant, u64)>,
    /// How many there have to be for old ones to be looked for: twice as many as were left the
    /// last time, so that looking costs each request the same however many there are.
    sweep_at: usize,
}

impl Rate {
    pub(super) fn new(limit: u32) -> Self {
        let windows = Windows { by_network: HashMap::new(), sweep_at: ADDRESSES };
        Self { limit, windows: Mutex::new(windows) }
    }

    /// Whether one more request is within the limit.
    pub(super) fn allows(&self, address: IpAddr, now: Instant) -> bool {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.by_network.len() >= windows.sweep_at {
            windows.by_network.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            windows.sweep_at = ADDRESSES.max(2 * windows.by_network.len());
        }
        let mut allowed = true;
        for (network, halves) in counted(address) {
            let (since, count) = windows.by_network.entry(network).or_insert((now, 0));
            if now.duration_since(*since) >= WINDOW {
                (*since, *count) = (now, 0);
            }
            *count = count.saturating_add(1);
            allowed &= *count <= share(self.limit, halves);
        }
        allowed
    }
}

/// Requests come one after the other, so that neighbours do not take each other's places: an IPv4
/// address counts alone, and a /64 and a /48 of IPv6 addresses together.
fn counted(address: IpAddr) -> impl Iterator<Item = Share> {
    shares(address).into_iter().filter(|((_, bits), _)| matches!(bits, 32 | 64 | 48))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_its_limit_and_ends() {
        let rate = Rate::new(2);
        let (begin, a, b) = (Instant::now(), [192, 0, 2, 1], [192, 0, 2, 2]);
        let check = |address: [u8; 4], seconds, expected| {
            let now = begin + Duration::from_secs(seconds);
            assert_eq!(rate.allows(address.into(), now), expected, "{address:?} at {seconds}");
        };
        check(a, 0, true);
        check(a, 1, true);
        check(a, 59, false);
        check(b, 59, true);
        check(a, 60, true);
        check(a, 61, true);
        check(a, 62, false);
    }

    #[test]
    fn old_windows_are_forgotten() {
        let rate = Rate::new(1);
        let begin = Instant::now();
        let known = || rate.windows.lock().expect("no panic").by_network.len();
        let from = |number: usize, now| {
            let number = u32::try_from(number).expect("small");
            rate.allows(std::net::Ipv4Addr::from(number).into(), now)
        };
        for number in 0..3 * ADDRESSES {
            assert!(from(number, begin), "{number}");
        }
        assert_eq!(known(), 3 * ADDRESSES, "none was old");
        let later = begin + WINDOW;
        for number in 0..=ADDRESSES {
            from(3 * ADDRESSES + number, later);
        }
        assert_eq!(known(), ADDRESSES + 1);
        assert!(!from(4 * ADDRESSES, later), "the others are remembered");
    }

    #[test]
    fn addresses_of_one_network_share_a_window() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
        ] {
            let (rate, now) = (Rate::new(1), Instant::now());
            let allows = |text: &str| rate.allows(text.parse().expect("an address"), now);
            assert_eq!((allows(one), allows(other)), (true, !same), "{one} {other}");
        }
    }

    #[test]
    fn a_48_has_four_windows_together() {
        let (rate, now) = (Rate::new(2), Instant::now());
        let allows = |number: u16, from: u16| {
            rate.allows(format!("2001:db8:{from}:{number}::1").parse().expect("one"), now)
        };
        assert_eq!((0..20).filter(|number| allows(number / 2, 1)).count(), 8);
        assert!(allows(0, 2), "another one");
    }
}

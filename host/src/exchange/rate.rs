//! How many requests an address may make in a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    by_network: HashMap<IpAddr, (Instant, u32)>,
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
        let (since, count) = windows.by_network.entry(network(address)).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= self.limit
    }
}

/// A customer usually has a whole /64 of IPv6 addresses.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => {
                let mask = u128::MAX << 64;
                IpAddr::V6((u128::from(v6) & mask).into())
            }
        },
    }
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
            let network = |text: &str| network(text.parse().unwrap());
            assert_eq!(network(one) == network(other), same, "{one} {other}");
        }
    }
}

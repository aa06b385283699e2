//! How many requests an address may make in a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);

/// The most addresses remembered; beyond it, old windows are forgotten.
const ADDRESSES: usize = 100_000;

/// Counts requests by address.
#[derive(Debug)]
pub(super) struct Rate {
    limit: u32,
    windows: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Rate {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, windows: Mutex::default() }
    }

    /// Whether one more request is within the limit.
    pub(super) fn allows(&self, address: IpAddr, now: Instant) -> bool {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= ADDRESSES {
            windows.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        let (since, count) = windows.entry(network(address)).or_insert((now, 0));
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

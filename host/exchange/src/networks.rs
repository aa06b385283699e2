//! The networks that an address is counted in. One address is cheap, and so is each of the many that
//! come with a connection: a customer has a /64 of IPv6 addresses, often a /48.

use std::net::IpAddr;

/// A network: its first address, and how many bits of it count.
pub(super) type Network = (IpAddr, u8);

/// A network with the share of a limit that it has, in halves.
pub(super) type Share = (Network, u64);

/// The address itself, for what is remembered of it. An IPv4 address within IPv6 is what it stands for.
pub(super) fn own(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The networks of an address, the smallest first. One IPv6 address has half of the limit, so that it
/// leaves room for its neighbours; a /64 has the limit, as an IPv4 address has; and what is handed out
/// in bulk, four times as much.
pub(super) fn shares(address: IpAddr) -> Vec<Share> {
    match own(address) {
        IpAddr::V4(v4) => [(32, 2), (24, 8)]
            .map(|(bits, halves)| {
                let mask = u32::MAX << (32 - bits);
                ((IpAddr::V4((u32::from(v4) & mask).into()), bits), halves)
            })
            .to_vec(),
        IpAddr::V6(v6) => [(128, 1), (64, 2), (48, 8)]
            .map(|(bits, halves)| {
                let mask = u128::MAX << (128 - bits);
                ((IpAddr::V6((u128::from(v6) & mask).into()), bits), halves)
            })
            .to_vec(),
    }
}

/// A share of a limit; one at least.
pub(super) fn share(limit: u32, halves: u64) -> u64 {
    (u64::from(limit) * halves / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_counted_in_several_networks() {
        for (address, expected) in [
            ("192.0.2.77", "192.0.2.77/32 2, 192.0.2.0/24 8"),
            ("::ffff:192.0.2.77", "192.0.2.77/32 2, 192.0.2.0/24 8"),
            (
                "2001:db8:1:2:3:4:5:6",
                "2001:db8:1:2:3:4:5:6/128 1, 2001:db8:1:2::/64 2, 2001:db8:1::/48 8",
            ),
        ] {
            let found: Vec<_> = shares(address.parse().expect("an address"))
                .into_iter()
                .map(|((network, bits), halves)| format!("{network}/{bits} {halves}"))
                .collect();
            assert_eq!(found.join(", "), expected);
        }
    }

    #[test]
    fn a_share_is_one_at_least() {
        for (limit, halves, expected) in [(1, 1, 1), (64, 1, 32), (64, 2, 64), (64, 8, 256)] {
            assert_eq!(share(limit, halves), expected);
        }
    }
}

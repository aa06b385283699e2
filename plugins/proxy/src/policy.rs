//! Which destinations a client may reach: those of the public Internet, and nothing that is only
//! near the agent.
//!
//! It judges addresses, never names: a name is resolved first, and what is connected to is the
//! address that was judged. An address that carries another inside is judged by that one. Public
//! addresses that lead to the agent itself are the concern of `near`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the address belongs to the public Internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Everything but the special-purpose networks of RFC 6890 and its successors.
fn is_public_v4(address: Ipv4Addr) -> bool {
    const SPECIAL: [([u8; 4], u32); 16] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 0, 2, 0], 24),
        ([192, 88, 99, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([198, 51, 100, 0], 24),
        ([203, 0, 113, 0], 24),
        ([224, 0, 0, 0], 4),
        ([240, 0, 0, 0], 4),
        ([255, 255, 255, 255], 32),
    ];
    let address = address.to_bits();
    !SPECIAL
        .iter()
        .any(|(network, length)| (address ^ u32::from_be_bytes(*network)) >> (32 - length) == 0)
}

/// Global unicast, and of it not what is set aside for protocols or documents.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = carried(address.into()) {
        return is_public_v4(inner);
    }
    let [a, b, ..] = address.segments();
    match [a, b] {
        // Teredo, benchmarks, ORCHID and other protocol assignments.
        [0x2001, 0..0x200] => false,
        // Documentation.
        [0x2001, 0xdb8] | [0x3fff, 0..0x1000] => false,
        _ => a & 0xe000 == 0x2000,
    }
}

/// The IPv4 address inside of an IPv6 address, to which packets for it are delivered.
pub(crate) fn carried(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, g, h] = address.segments();
    match [a, b] {
        // NAT64.
        [0x64, 0xff9b] if [c, d, e, f] == [0; 4] => Some(v4(g, h)),
        // 6to4.
        [0x2002, _] => Some(v4(b, c)),
        _ => address.to_ipv4_mapped(),
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addresses: &[&str], expected: bool) {
        for text in addresses {
            assert_eq!(is_public(text.parse().expect("an address")), expected, "{text}");
        }
    }

    #[test]
    fn public_v4() {
        check(&["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"], true);
        check(&["126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0"], true);
        check(&["172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255"], true);
        check(&["192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"], true);
    }

    #[test]
    fn special_v4() {
        check(&["0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.0"], false);
        check(&["100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254"], false);
        check(&["172.16.0.1", "172.31.255.255", "192.0.0.170", "192.0.2.1"], false);
        check(&["192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1"], false);
        check(&["198.19.255.255", "198.51.100.7", "203.0.113.7", "224.0.0.1"], false);
        check(&["239.255.255.255", "240.0.0.1", "255.255.255.255"], false);
    }

    #[test]
    fn public_v6() {
        check(&["2606:4700:4700::1111", "2001:4860:4860::8888", "2a00::1", "2001:200::1"], true);
        check(&["::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1", "3ffe::1"], true);
    }

    #[test]
    fn special_v6() {
        check(&["::", "::1", "::1.1.1.1", "::ffff:0:1.1.1.1", "100::1"], false);
        check(&["fc00::1", "fdff::1", "fe80::1", "fec0::1", "ff02::1"], false);
        check(&["2001::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff::1"], false);
        check(&["2001:db8::1", "3fff::1", "3fff:fff::1", "4000::1", "1fff::1"], false);
    }

    #[test]
    fn an_inner_address_decides() {
        check(&["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"], false);
        check(&["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::101:101"], false);
        check(&["2002:7f00:1::1", "2002:a00:1::", "2002:c0a8:101::1"], false);
    }
}

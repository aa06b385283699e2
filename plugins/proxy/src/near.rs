//! What is near the agent although its address is public: the agent's own machine, and the IPv6
//! network that this machine is on.
//!
//! The system is asked anew for each destination, because addresses come and go. An address that is
//! on no interface can still lead back here (a route of the type `local`): the system's choice of a
//! source address shows it. IPv4 neighbors with public addresses count as public: there, a network
//! with public addresses is usually a provider's, not the operator's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::policy::carried;

/// The addresses of this machine, as they are now.
#[derive(Debug, Default)]
pub(crate) struct Near {
    own: Vec<IpAddr>,
    /// Addresses and masks of the IPv6 networks that this machine is on.
    networks: Vec<(u128, u128)>,
}

impl Near {
    pub(crate) fn look() -> io::Result<Self> {
        let interfaces = getifaddrs()?;
        Ok(Self::of(interfaces.filter_map(|it| Some((ip(&it.address?)?, ip(&it.netmask?)?)))))
    }

    /// Of addresses with their masks.
    fn of(addresses: impl IntoIterator<Item = (IpAddr, IpAddr)>) -> Self {
        let mut near = Self::default();
        for (address, mask) in addresses {
            near.own.push(address);
            if let (IpAddr::V6(address), IpAddr::V6(mask)) = (address, mask)
                && mask != Ipv6Addr::UNSPECIFIED
            {
                near.networks.push((address.to_bits() & mask.to_bits(), mask.to_bits()));
            }
        }
        near
    }

    /// Whether the address, or the one that it carries inside, is near.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let carried = carried(address).map(IpAddr::V4);
        self.own.contains(&address)
            || carried.is_some_and(|address| self.own.contains(&address))
            || matches!(address, IpAddr::V6(address) if self.is_neighbor(address))
    }

    fn is_neighbor(&self, address: Ipv6Addr) -> bool {
        self.networks.iter().any(|(network, mask)| address.to_bits() & mask == *network)
    }
}

/// Whether the system would deliver what is sent there to this machine itself. Nothing is sent.
pub(crate) fn leads_back(address: SocketAddr) -> bool {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address.ip())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(address.ip().into());
    }
    address.as_sockaddr_in6().map(|address| address.ip().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_of_its_ipv6_networks_are_near() {
        let near = Near::of(
            [
                ("127.0.0.1", "255.0.0.0"),
                ("9.9.9.4", "255.255.255.0"),
                ("9.9.9.5", "255.255.255.0"),
                ("2a00:1::1", "ffff:ffff:ffff:ffff::"),
                ("2a00:2::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                // An interface without a network.
                ("2a00:3::1", "::"),
            ]
            .map(|(address, mask)| (parse(address), parse(mask))),
        );
        for (address, expected) in [
            ("9.9.9.4", true),
            ("9.9.9.5", true),
            ("9.9.9.6", false),
            ("::ffff:9.9.9.5", true),
            ("::ffff:9.9.9.6", false),
            ("64:ff9b::909:905", true),
            ("64:ff9b::909:906", false),
            ("2002:909:905::1", true),
            ("2002:909:906::1", false),
            ("2a00:1::1", true),
            ("2a00:1::2", true),
            ("2a00:1:0:1::1", false),
            ("2a00:2::1", true),
            ("2a00:2::2", false),
            ("2a00:3::1", true),
            ("2a00:3::2", false),
        ] {
            assert_eq!(near.has(parse(address)), expected, "{address}");
        }
    }

    #[test]
    fn loopback_is_near_and_leads_back() {
        let near = Near::look().expect("addresses");
        assert!(near.has(parse("127.0.0.1")), "{near:?}");
        assert!(leads_back("127.0.0.1:9".parse().expect("an address")));
    }

    fn parse(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }
}

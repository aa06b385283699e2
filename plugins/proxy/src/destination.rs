//! From what a client asks for to a connection: resolve, judge, connect.
//!
//! What is near the agent is refused before anything is sent there, so that a client learns nothing
//! of it: an open port, a closed one and an address without a machine get the same answer. Exactly the addresses that were judged are connected to, so that a name which resolves
//! differently a moment later gains nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fast_socks5::ReplyError;
use fast_socks5::util::target_addr::TargetAddr;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::accept::prepare;
use crate::near::{Near, leads_back};
use crate::policy::is_public;

/// Names looked up at once: each takes a thread for as long as the system's resolver does.
const LOOKUPS: usize = 64;

/// Why a destination was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DestinationError {
    #[error("resolving the name")]
    Resolve(#[source] io::Error),
    #[error("the name has no address")]
    NoAddress,
    #[error("the address {0} is not of the public Internet")]
    NotPublic(SocketAddr),
    #[error("the address {0} leads to the agent itself or to its network")]
    Near(SocketAddr),
    #[error("reading this machine's addresses")]
    Addresses(#[source] io::Error),
    #[error("connecting")]
    Connect(#[source] io::Error),
    #[error("no connection within {0:?}")]
    Late(Duration),
}

impl DestinationError {
    /// What the client is told.
    pub(crate) fn reply(&self) -> ReplyError {
        match self {
            Self::NotPublic(_) | Self::Near(_) => ReplyError::ConnectionNotAllowed,
            Self::Resolve(_) | Self::NoAddress => ReplyError::HostUnreachable,
            Self::Late(_) => ReplyError::TtlExpired,
            Self::Addresses(_) => ReplyError::GeneralFailure,
            Self::Connect(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => ReplyError::ConnectionRefused,
                io::ErrorKind::NetworkUnreachable => ReplyError::NetworkUnreachable,
                io::ErrorKind::HostUnreachable => ReplyError::HostUnreachable,
                io::ErrorKind::TimedOut => ReplyError::TtlExpired,
                _ => ReplyError::GeneralFailure,
            },
        }
    }
}

/// The agent's way to destinations.
pub(crate) struct Destinations {
    allow_private: bool,
    within: Duration,
    lookups: Semaphore,
}

impl Destinations {
    pub(crate) fn new(allow_private: bool, within: Duration) -> Self {
        Self { allow_private, within, lookups: Semaphore::new(LOOKUPS) }
    }

    /// A connection to the first address that may be reached and can be.
    pub(crate) async fn connect(&self, target: &TargetAddr) -> Result<TcpStream, DestinationError> {
        let until = Instant::now() + self.within;
        let resolved = timeout(self.within, self.resolve(target)).await;
        let resolved = resolved.map_err(|_| DestinationError::Late(self.within))??;
        let allowed = self.judge(resolved, &self.near()?)?;
        let mut last = DestinationError::NoAddress;
        for (tried, address) in (0_u32..).zip(&allowed) {
            // An address that swallows packets leaves time for those after it.
            let left = u32::try_from(allowed.len()).unwrap_or(u32::MAX) - tried;
            let share = until.saturating_duration_since(Instant::now()) / left;
            last = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    self.still_far(*address)?;
                    prepare(&stream);
                    return Ok(stream);
                }
                Ok(Err(error)) => DestinationError::Connect(error),
                Err(_) => DestinationError::Late(self.within),
            };
        }
        Err(last)
    }

    async fn resolve(&self, target: &TargetAddr) -> Result<Vec<SocketAddr>, DestinationError> {
        match target {
            TargetAddr::Ip(address) => Ok(vec![*address]),
            TargetAddr::Domain(name, port) => {
                // Nobody closes the semaphore.
                let _turn = self.lookups.acquire().await;
                let found = lookup_host((name.as_str(), *port)).await;
                Ok(found.map_err(DestinationError::Resolve)?.collect())
            }
        }
    }

    /// What is near now; nothing where everything may be reached.
    fn near(&self) -> Result<Near, DestinationError> {
        if self.allow_private {
            return Ok(Near::default());
        }
        Near::look().map_err(DestinationError::Addresses)
    }

    /// The addresses that may be reached.
    fn judge(
        &self,
        mut addresses: Vec<SocketAddr>,
        near: &Near,
    ) -> Result<Vec<SocketAddr>, DestinationError> {
        let mut refused = DestinationError::NoAddress;
        addresses.retain(|address| {
            if self.allow_private {
                return true;
            }
            if !is_public(address.ip()) {
                refused = DestinationError::NotPublic(*address);
                return false;
            }
            if near.has(address.ip()) || leads_back(*address) {
                refused = DestinationError::Near(*address);
                return false;
            }
            true
        });
        if addresses.is_empty() { Err(refused) } else { Ok(addresses) }
    }

    /// The address may have become one of this machine while it was being connected to.
    fn still_far(&self, address: SocketAddr) -> Result<(), DestinationError> {
        self.judge(vec![address], &self.near()?).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allow_private: bool, addresses: &[&str], expected: Result<&[&str], &str>) {
        let parse = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|text| text.parse().expect("an address")).collect()
        };
        let destinations = Destinations::new(allow_private, Duration::from_secs(1));
        let judged = destinations
            .judge(parse(addresses), &Near::default())
            .map_err(|error| error.to_string());
        assert_eq!(judged, expected.map(parse).map_err(str::to_owned), "{addresses:?}");
    }

    #[test]
    fn only_judged_addresses_are_left() {
        const REFUSED: &str = "the address [::1]:80 is not of the public Internet";
        check(false, &["1.1.1.1:80", "10.0.0.1:80"], Ok(&["1.1.1.1:80"]));
        check(false, &["[::ffff:10.0.0.1]:80", "1.1.1.1:80"], Ok(&["1.1.1.1:80"]));
        check(false, &["127.0.0.1:80", "[::1]:80"], Err(REFUSED));
        check(false, &[], Err("the name has no address"));
        check(true, &["127.0.0.1:80", "[::1]:80"], Ok(&["127.0.0.1:80", "[::1]:80"]));
    }
}

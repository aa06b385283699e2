//! What an agent's module tells its clients of the address that it listens on.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// No client could connect to the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no address that clients can connect to: set `address` as well")]
pub struct NoAddress(SocketAddr);

/// What [`Core::set_product_config`](super::Core::set_product_config) is told of a listener: `address`,
/// host and port, and `externalIP`, the host, which becomes the service endpoint address. `address` is
/// what the operator has set instead of the listener's own.
///
/// # Errors
/// The listener's address is that of every interface, and no other is set.
pub fn announced(
    own: SocketAddr,
    address: Option<&str>,
) -> Result<BTreeMap<String, String>, NoAddress> {
    if address.is_none() && own.ip().is_unspecified() {
        return Err(NoAddress(own));
    }
    let address = address.map_or_else(|| own.to_string(), str::to_owned);
    let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok([("externalIP".to_owned(), host), ("address".to_owned(), address)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_the_host_of_the_address() {
        for (own, address, told) in [
            ("127.0.0.1:7", None, Some(("127.0.0.1", "127.0.0.1:7"))),
            ("[::1]:7", None, Some(("::1", "[::1]:7"))),
            ("0.0.0.0:7", Some("echo.example:7"), Some(("echo.example", "echo.example:7"))),
            ("127.0.0.1:7", Some("echo.example"), Some(("echo.example", "echo.example"))),
            ("0.0.0.0:7", None, None),
            ("[::]:7", None, None),
        ] {
            let config = announced(own.parse().expect("an address"), address);
            let config = config.as_ref().map(|map| (&*map["externalIP"], &*map["address"]));
            assert_eq!(config.ok(), told, "{own} {address:?}");
        }
    }
}

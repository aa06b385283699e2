//! Why a tunnel did not come up, in words for its user: which address, which protocol, what came.

use std::net::IpAddr;

use crate::settings::Protocol;

/// One try that has failed.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) addresses: &'a [IpAddr],
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// Bytes that came in this try.
    pub(super) received: u64,
    /// How OpenVPN calls the failure.
    pub(super) detail: &'a str,
    /// What OpenVPN has said of errors.
    pub(super) said: Option<&'a str>,
}

/// What happened, why, and what to do.
pub(super) fn diagnosis(attempt: &Attempt<'_>) -> String {
    let Attempt { addresses, port, protocol, received, detail, said } = attempt;
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let place = format!(
        "no tunnel to the agent's server at {}, {} port {port}",
        addresses.join(" or "),
        protocol.as_str().to_uppercase(),
    );
    let name = protocol.as_str().to_uppercase();
    let why = if *received == 0 {
        format!(
            "nothing was received. Look whether a firewall on the way lets {name} port {port} \
             through, and ask the agent whether its server runs"
        )
    } else {
        format!(
            "{received} bytes were received, but they did not become a connection. Look whether \
             another program answers at this address, and ask the agent"
        )
    };
    let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    let said = said.map(|said| format!(". OpenVPN says: {said}")).unwrap_or_default();
    format!("{place}{detail}: {why}{said}. It is tried again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_try_says_where_how_and_what_came() {
        let addresses = ["192.0.2.1".parse().expect("one"), "2001:db8::1".parse().expect("one")];
        for (protocol, received, said, parts) in [
            (Protocol::Udp, 0, None, ["UDP port 1194", "nothing was received", "firewall"]),
            (Protocol::Tcp, 0, Some("Connection refused"), ["TCP port 1194", "nothing", "refused"]),
            (Protocol::Udp, 54, None, ["192.0.2.1 or 2001:db8::1", "54 bytes were", "server_poll"]),
        ] {
            let detail = "server_poll";
            let attempt =
                Attempt { addresses: &addresses, port: 1194, protocol, received, detail, said };
            let text = diagnosis(&attempt);
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}

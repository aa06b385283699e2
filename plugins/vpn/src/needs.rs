//! What the module needs of the machine; said whole before anything is touched.

use std::fs::{self, OpenOptions};
use std::path::Path;

use crate::run;

/// Bit of `CAP_NET_ADMIN` in a capability mask.
const NET_ADMIN: u32 = 12;

/// The oldest OpenVPN that will do.
const OLDEST: (u32, u32) = (2, 6);

/// What is missing, each with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("the VPN cannot run here: {}", .0.join("; "))]
pub(crate) struct Missing(Vec<String>);

/// Programs, and the Debian package of each.
const PROGRAMS: [(&str, &str); 4] =
    [("openvpn", "openvpn"), ("nft", "nftables"), ("ip", "iproute2"), ("setpriv", "util-linux")];

/// Looks for all of it.
pub(crate) async fn check(shaping: bool) -> Result<(), Missing> {
    let mut missing = Vec::new();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !has_net_admin(&status) {
        missing.push("it needs root or CAP_NET_ADMIN (in a unit of systemd: AmbientCapabilities=CAP_NET_ADMIN)".to_owned());
    }
    let tun = Path::new("/dev/net/tun");
    if let Err(error) = OpenOptions::new().read(true).write(true).open(tun) {
        missing.push(format!(
            "{} cannot be opened ({error}): load the module tun and let this user have the device",
            tun.display()
        ));
    }
    let tc = shaping.then_some(("tc", "iproute2"));
    for (program, package) in PROGRAMS.into_iter().chain(tc) {
        if run::find(program).is_none() {
            missing.push(format!("{program} is not installed: apt-get install {package}"));
        }
    }
    if run::find("openvpn").is_some() {
        missing.extend(old_openvpn().await);
    }
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}

async fn old_openvpn() -> Option<String> {
    let said = match run::run("openvpn", &["--version"]).await {
        Ok(said) => said,
        // Some versions end with status 1 after having said it.
        Err(error) => return Some(format!("openvpn does not say its version: {error}")),
    };
    match version(&said) {
        Some(version) if version >= OLDEST => None,
        Some((major, minor)) => Some(format!("openvpn is {major}.{minor}; 2.6 or newer is needed")),
        None => Some(format!("openvpn does not say its version: {:?}", said.lines().next())),
    }
}

fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.strip_prefix("OpenVPN ")?.split(['.', ' ', '_', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn has_net_admin(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> NET_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (said, expected) in [
            ("OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)]", Some((2, 6))),
            ("OpenVPN 2.7_beta1 x86_64", Some((2, 7))),
            ("OpenVPN 3.0 x", Some((3, 0))),
            ("openvpn", None),
            ("OpenVPN two", None),
        ] {
            assert_eq!(version(said), expected, "{said}");
        }
    }

    #[test]
    fn capabilities() {
        for (status, expected) in [
            ("Name:\tx\nCapEff:\t000001ffffffffff\n", true),
            ("CapEff:\t0000000000001000\n", true),
            ("CapEff:\t0000000000000fff\n", false),
            ("CapPrm:\t000001ffffffffff\n", false),
            ("", false),
        ] {
            assert_eq!(has_net_admin(status), expected, "{status}");
        }
    }

    #[test]
    fn all_that_is_missing_is_named() {
        let error = Missing(vec!["a".into(), "b".into()]);
        assert_eq!(error.to_string(), "the VPN cannot run here: a; b");
    }
}

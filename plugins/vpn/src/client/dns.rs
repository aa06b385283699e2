//! The machine's resolvers while a tunnel carries everything.
//!
//! Where systemd-resolved is in charge the tunnel's device gets resolvers of its own, which go
//! with it. Elsewhere `/etc/resolv.conf` is written in place, since it may be mounted, and put back
//! afterwards unless somebody else has changed it meanwhile.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::journal::{Entry, Journal, JournalError, write_in_place};
use crate::run;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const RESOLVED: &str = "/run/systemd/resolve";

/// Sets the resolvers; what has to be put back afterwards, if anything.
pub(super) async fn set(
    device: &str,
    resolvers: &[IpAddr],
    journal: &Journal,
) -> Result<Option<Entry>, JournalError> {
    if resolvers.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(RESOLV_CONF);
    if is_resolved(&path) && run::find("resolvectl").is_some() {
        let addresses: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
        let mut arguments = vec!["dns", device];
        arguments.extend(addresses.iter().map(String::as_str));
        run::run("resolvectl", &arguments).await?;
        run::run("resolvectl", &["domain", device, "~."]).await?;
        return Ok(None);
    }
    let put = |source| JournalError::PutBack { path: path.clone(), source };
    let before = fs::read_to_string(&path).map_err(put)?;
    let set = text(resolvers);
    let entry = Entry::Text { path: path.clone(), before, set: set.clone() };
    journal.note(entry.clone())?;
    if let Err(error) = write_in_place(&path, &set) {
        journal.strike(&entry)?;
        return Err(put(error));
    }
    Ok(Some(entry))
}

fn is_resolved(path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|path| path.starts_with(RESOLVED))
}

fn text(resolvers: &[IpAddr]) -> String {
    let mut text = "# Set by privatix while its VPN is up.\n".to_owned();
    for resolver in resolvers {
        // Writing to a string does not fail.
        let _ = writeln!(text, "nameserver {resolver}");
    }
    text
}

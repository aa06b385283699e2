//! What a tunnel's device has carried.
//!
//! The kernel counts there what OpenVPN has decrypted and what it has taken to encrypt: nothing
//! that a stranger sends to OpenVPN's port gets so far.

use std::path::PathBuf;

/// Where the kernel's counters of network devices are; those of the caller's own network.
#[derive(Debug, Clone)]
pub(super) struct Statistics(pub(super) PathBuf);

impl Default for Statistics {
    fn default() -> Self {
        Self("/proc/thread-self/net/dev".into())
    }
}

impl Statistics {
    /// Bytes in both directions since the device was made; `None` if there is no such device.
    pub(super) fn of(&self, device: &str) -> Option<u64> {
        read(&std::fs::read_to_string(&self.0).ok()?, device)
    }
}

fn read(text: &str, device: &str) -> Option<u64> {
    let line =
        text.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    let mut fields = line.split_whitespace();
    let incoming: u64 = fields.next()?.parse().ok()?;
    let outgoing: u64 = fields.nth(7)?.parse().ok()?;
    incoming.checked_add(outgoing)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The kernel's text for one device.
    pub(in crate::client) fn text(device: &str, incoming: u64, outgoing: u64) -> String {
        format!(
            "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
             lo: 500 5 0 0 0 0 0 0 500 5 0 0 0 0 0 0\n\
             {device}: {incoming} 7 0 0 0 0 0 0 {outgoing} 9 0 0 0 0 0 0\n"
        )
    }

    #[test]
    fn both_directions_of_the_right_device() {
        let text = text("pvx0", 300, 20);
        assert_eq!(read(&text, "pvx0"), Some(320));
        assert_eq!(read(&text, "lo"), Some(1000));
        assert_eq!(read(&text, "pvx"), None);
        assert_eq!(read("pvx0: x", "pvx0"), None);
        assert!(Statistics::default().of("lo").is_some());
    }
}

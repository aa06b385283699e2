//! The speeds of clients: queues of the tunnel's device, and of a mirror of it for what clients send.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::journal::{Entry, Journal};
use crate::run::{self, RunError};

/// A client's speeds in kbit/s; 0 means no limit, or no guarantee.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::agent) struct Speeds {
    pub(in crate::agent) down: Speed,
    pub(in crate::agent) up: Speed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::agent) struct Speed {
    pub(in crate::agent) least: u64,
    pub(in crate::agent) most: u64,
}

impl Speeds {
    /// What an offering promises.
    pub(in crate::agent) fn of(offering: &Value) -> Self {
        let get = |name: &str| offering["additionalParams"][name].as_u64().unwrap_or(0);
        let speed = |least, most| Speed { least: get(least), most: get(most) };
        Self {
            down: speed("minDownloadSpeed", "maxDownloadSpeed"),
            up: speed("minUploadSpeed", "maxUploadSpeed"),
        }
    }
}

impl Speed {
    fn is_free(self) -> bool {
        self.least == 0 && self.most == 0
    }
}

/// The queues of one device.
pub(super) struct Shaper {
    device: String,
    capacity: u64,
    journal: Arc<Journal>,
    shaped: HashSet<Ipv4Addr>,
    /// Whether the device has its queues.
    down_ready: bool,
    up_ready: bool,
}

impl Shaper {
    pub(super) fn new(device: &str, capacity: u64, journal: Arc<Journal>) -> Self {
        Self {
            device: device.to_owned(),
            capacity,
            journal,
            shaped: HashSet::new(),
            down_ready: false,
            up_ready: false,
        }
    }

    /// The device is new: queues go with it.
    pub(super) fn forget(&mut self) {
        (self.down_ready, self.up_ready) = (false, false);
        self.shaped.clear();
    }

    /// Gives clients their speeds, or takes them away.
    pub(super) async fn shape(
        &mut self,
        wanted: Vec<(Ipv4Addr, Option<Speeds>)>,
    ) -> Result<(), RunError> {
        let (mut less, mut more) = (String::new(), String::new());
        for (address, speeds) in wanted {
            if self.shaped.remove(&address) {
                for device in [self.device.clone(), self.mirror()] {
                    unshape(&mut less, &device, address);
                }
            }
            let Some(speeds) = speeds else { continue };
            if !speeds.down.is_free() {
                self.prepare_down().await?;
                shape(&mut more, &self.device, "dst", address, speeds.down, self.capacity);
                self.shaped.insert(address);
            }
            if !speeds.up.is_free() {
                self.prepare_up().await?;
                shape(&mut more, &self.mirror(), "src", address, speeds.up, self.capacity);
                self.shaped.insert(address);
            }
        }
        if !less.is_empty() {
            // Not both directions need have been shaped, and queues may be gone with their device.
            let _ = run::tc(&less, true).await;
        }
        if more.is_empty() { Ok(()) } else { run::tc(&more, false).await }
    }

    /// What clients send is queued on a device of its own, since queues are for what leaves.
    fn mirror(&self) -> String {
        format!("{}i", self.device)
    }

    async fn prepare_down(&mut self) -> Result<(), RunError> {
        if !self.down_ready {
            run::tc(&root(&self.device, self.capacity), false).await?;
            self.down_ready = true;
        }
        Ok(())
    }

    async fn prepare_up(&mut self) -> Result<(), RunError> {
        if self.up_ready {
            return Ok(());
        }
        let (device, mirror) = (&self.device, self.mirror());
        if !Path::new("/sys/class/net").join(&mirror).exists() {
            if let Err(error) = self.journal.note(Entry::Device { name: mirror.clone() }) {
                tracing::error!(error = &error as &dyn std::error::Error, "the journal");
            }
            run::run("ip", &["link", "add", &mirror, "type", "ifb"]).await?;
        }
        run::run("ip", &["link", "set", &mirror, "up"]).await?;
        let redirect = format!(
            "qdisc replace dev {device} handle ffff: ingress\n\
             filter replace dev {device} parent ffff: protocol ip pref 1 handle 800::800 \
             u32 match u32 0 0 action mirred egress redirect dev {mirror}\n"
        );
        run::tc(&(root(&mirror, self.capacity) + &redirect), false).await?;
        self.up_ready = true;
        Ok(())
    }
}

/// The queue of a device, of which each client gets a class.
fn root(device: &str, capacity: u64) -> String {
    format!(
        "qdisc replace dev {device} root handle 1: htb default 0\n\
         class replace dev {device} parent 1: classid 1:1 htb rate {capacity}kbit quantum 60000\n"
    )
}

/// The number of a client's class and filter: the host part of its address, at most 16 bits.
fn minor(address: Ipv4Addr) -> u16 {
    let [.., high, low] = address.octets();
    u16::from_be_bytes([high, low])
}

fn shape(
    script: &mut String,
    device: &str,
    side: &str,
    address: Ipv4Addr,
    speed: Speed,
    capacity: u64,
) {
    let most = if speed.most == 0 { capacity } else { speed.most }.clamp(8, capacity.max(8));
    // A class with a rate of nothing is not to be had.
    let least = speed.least.clamp(8, most);
    let minor = minor(address);
    let _ = writeln!(
        script,
        "class replace dev {device} parent 1:1 classid 1:{minor:x} htb rate {least}kbit \
         ceil {most}kbit quantum 3000\n\
         filter add dev {device} parent 1: protocol ip pref {minor} \
         u32 match ip {side} {address}/32 flowid 1:{minor:x}"
    );
}

fn unshape(script: &mut String, device: &str, address: Ipv4Addr) {
    let minor = minor(address);
    let _ = writeln!(
        script,
        "filter del dev {device} parent 1: protocol ip pref {minor}\n\
         class del dev {device} classid 1:{minor:x}"
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn speeds_are_those_of_the_offering() {
        for (params, down, up) in [
            (json!({}), (0, 0), (0, 0)),
            (json!({"maxDownloadSpeed": 5000}), (0, 5000), (0, 0)),
            (json!({"minUploadSpeed": 10, "maxUploadSpeed": 20}), (0, 0), (10, 20)),
            (json!({"maxDownloadSpeed": "fast"}), (0, 0), (0, 0)),
        ] {
            let speeds = Speeds::of(&json!({"additionalParams": params}));
            assert_eq!((speeds.down.least, speeds.down.most), down, "{params}");
            assert_eq!((speeds.up.least, speeds.up.most), up, "{params}");
        }
        assert_eq!(Speeds::of(&Value::Null), Speeds::default());
    }

    #[test]
    fn a_class_has_its_rate_and_its_limit() {
        let script = |least, most| {
            let mut script = String::new();
            let address = Ipv4Addr::new(10, 89, 1, 2);
            shape(&mut script, "tun9", "dst", address, Speed { least, most }, 100_000);
            script
        };
        for ((least, most), expected) in [
            ((0, 5000), "htb rate 8kbit ceil 5000kbit"),
            ((1000, 5000), "htb rate 1000kbit ceil 5000kbit"),
            ((1000, 0), "htb rate 1000kbit ceil 100000kbit"),
            ((9000, 5000), "htb rate 5000kbit ceil 5000kbit"),
            ((0, 1), "htb rate 8kbit ceil 8kbit"),
            ((0, 1_000_000), "htb rate 8kbit ceil 100000kbit"),
        ] {
            let script = script(least, most);
            assert!(script.contains(expected) && script.contains("classid 1:102 "), "{script}");
        }
    }
}

//! The speeds of clients: queues of the tunnel's device, and of a mirror of it for what clients send.

use std::collections::HashMap;
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
    /// The same, but no faster than a client is paced.
    fn paced(self, pace: Option<u64>) -> Self {
        let Some(pace) = pace else { return self };
        let most = if self.most == 0 { pace } else { self.most.min(pace) };
        Self { most, ..self }
    }

    fn is_free(self) -> bool {
        self.least == 0 && self.most == 0
    }
}

/// What may wait in the queue of a client's class, where it is paced. A merged packet has up to
/// 64 KiB; and at the least pace it is sent within seconds.
pub(in crate::agent) const WAITING: u64 = 256 << 10;

/// The directions in which a client has a class.
#[derive(Debug, Clone, Copy, Default)]
struct Shaped {
    down: bool,
    up: bool,
}

/// What a client's classes are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) speeds: Speeds,
    /// No more than this in kbit/s, whatever the offering says.
    pub(super) pace: Option<u64>,
}

/// The queues of one device.
pub(super) struct Shaper {
    device: String,
    capacity: u64,
    journal: Arc<Journal>,
    /// Who has a class, and in which directions.
    shaped: HashMap<Ipv4Addr, Shaped>,
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
            shaped: HashMap::new(),
            down_ready: false,
            up_ready: false,
        }
    }

    /// The device is new: queues go with it.
    pub(super) fn forget(&mut self) {
        (self.down_ready, self.up_ready) = (false, false);
        self.shaped.clear();
    }

    /// Gives clients their speeds and paces, or takes them away.
    pub(super) async fn shape(
        &mut self,
        wanted: Vec<(Ipv4Addr, Option<Wanted>)>,
    ) -> Result<(), RunError> {
        let addresses: Vec<_> = wanted.iter().map(|(address, _)| *address).collect();
        let outcome = self.try_to_shape(wanted).await;
        if outcome.is_err() {
            // What there is of their classes is not known; they are made anew.
            self.unshape(&addresses).await;
        }
        outcome
    }

    async fn try_to_shape(
        &mut self,
        wanted: Vec<(Ipv4Addr, Option<Wanted>)>,
    ) -> Result<(), RunError> {
        let gone = wanted.iter().filter(|(_, wanted)| wanted.is_none());
        let gone: Vec<_> = gone.map(|(address, _)| *address).collect();
        self.unshape(&gone).await;
        let (devices, capacity) = ([self.device.clone(), self.mirror()], self.capacity);
        let mut script = String::new();
        for (address, wanted) in wanted {
            let Some(Wanted { speeds, pace }) = wanted else { continue };
            let (down, up) = (speeds.down.paced(pace), speeds.up.paced(pace));
            let known = self.shaped.get(&address).copied().unwrap_or_default();
            let shaped =
                Shaped { down: known.down || !down.is_free(), up: known.up || !up.is_free() };
            if shaped.down {
                self.prepare_down().await?;
                shape(&mut script, &devices[0], address, down, capacity);
            }
            if shaped.up {
                self.prepare_up().await?;
                shape(&mut script, &devices[1], address, up, capacity);
            }
            if pace.is_some() {
                devices.iter().for_each(|device| queue(&mut script, device, address));
            }
            if shaped.down && !known.down {
                classify(&mut script, &devices[0], "dst", address);
            }
            if shaped.up && !known.up {
                classify(&mut script, &devices[1], "src", address);
            }
            if shaped.down || shaped.up {
                self.shaped.insert(address, shaped);
            }
        }
        if script.is_empty() { Ok(()) } else { run::tc(&script, false).await }
    }

    async fn unshape(&mut self, addresses: &[Ipv4Addr]) {
        let (down, up) = (self.device.clone(), self.mirror());
        let mut script = String::new();
        for address in addresses {
            let Some(shaped) = self.shaped.remove(address) else { continue };
            for (device, _) in [(&down, shaped.down), (&up, shaped.up)].iter().filter(|way| way.1) {
                unshape(&mut script, device, *address);
            }
        }
        if !script.is_empty() {
            // Queues may be gone with their device.
            let _ = run::tc(&script, true).await;
        }
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

fn shape(script: &mut String, device: &str, address: Ipv4Addr, speed: Speed, capacity: u64) {
    let most = if speed.most == 0 { capacity } else { speed.most }.clamp(8, capacity.max(8));
    // A class with a rate of nothing is not to be had.
    let least = speed.least.clamp(8, most);
    let minor = minor(address);
    let _ = writeln!(
        script,
        "class replace dev {device} parent 1:1 classid 1:{minor:x} htb rate {least}kbit \
         ceil {most}kbit quantum 3000"
    );
}

/// Leads what belongs to a client into its class.
fn classify(script: &mut String, device: &str, side: &str, address: Ipv4Addr) {
    let minor = minor(address);
    let _ = writeln!(
        script,
        "filter add dev {device} parent 1: protocol ip pref {minor} \
         u32 match ip {side} {address}/32 flowid 1:{minor:x}"
    );
}

/// Bounds what waits for a client. A queue that is there is changed, and keeps what waits.
fn queue(script: &mut String, device: &str, address: Ipv4Addr) {
    let minor = minor(address);
    let _ = writeln!(script, "qdisc replace dev {device} parent 1:{minor:x} bfifo limit {WAITING}");
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
    fn a_pace_is_no_more_than_the_offering_allows() {
        for (least, most, pace, expected) in [
            (0, 0, None, (0, 0)),
            (0, 0, Some(900), (0, 900)),
            (0, 500, Some(900), (0, 500)),
            (0, 5000, Some(900), (0, 900)),
            (700, 5000, None, (700, 5000)),
        ] {
            let paced = Speed { least, most }.paced(pace);
            assert_eq!((paced.least, paced.most), expected, "{least} {most} {pace:?}");
        }
    }

    #[test]
    fn a_class_has_its_rate_and_its_limit() {
        let script = |least, most| {
            let mut script = String::new();
            let address = Ipv4Addr::new(10, 89, 1, 2);
            shape(&mut script, "tun9", address, Speed { least, most }, 100_000);
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

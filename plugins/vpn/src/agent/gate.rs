//! What lets clients through: forwarding, address translation and speed, in a table of nftables
//! and in queues of the tunnel's device.
//!
//! Only addresses with an open session are forwarded. Orders are carried out one after the other
//! by a task of their own, all that wait at once, since each costs a process.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::Board;
use crate::journal::{Entry, Journal, JournalError, write_in_place};
use crate::run::{self, RunError};
use crate::settings::Settings;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Networks that are only near the agent.
const PRIVATE: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, \
                       172.16.0.0/12, 192.168.0.0/16, 224.0.0.0/3";

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub(super) enum GateError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the rules of nftables")]
    Rules(#[source] RunError),
    #[error("forwarding cannot be switched on")]
    Forwarding(#[source] std::io::Error),
}

/// A client's speeds in kbit/s; 0 means no limit, or no guarantee.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Speeds {
    pub(super) down: Speed,
    pub(super) up: Speed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Speed {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Speeds {
    /// What an offering promises.
    pub(super) fn of(offering: &Value) -> Self {
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

/// Something to be done to the gate.
enum Order {
    /// The device is new: nobody is served.
    Empty,
    Open(Ipv4Addr, Speeds),
    Shut(Ipv4Addr),
    Down(oneshot::Sender<()>),
}

/// The server's hand on the gate.
pub(super) struct Gate(mpsc::UnboundedSender<Order>);

impl Gate {
    /// Makes the rules; nobody is served yet.
    pub(super) async fn up(
        settings: &Settings,
        journal: Arc<Journal>,
        board: Board,
    ) -> Result<Self, GateError> {
        let table = format!("privatix_{}", settings.device);
        let entry = Entry::Table { name: table.clone(), kill_switch: None, agent: Vec::new() };
        journal.note(entry)?;
        run::nft(&rules(settings, &table)).await.map_err(GateError::Rules)?;
        forward(&journal)?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let keeper = Keeper {
            table,
            device: settings.device.clone(),
            capacity: settings.capacity_kbit,
            journal,
            board,
            served: HashSet::new(),
            shaped: HashSet::new(),
            down_ready: false,
            up_ready: false,
        };
        tokio::spawn(keeper.run(inbox));
        Ok(Self(orders))
    }

    /// One that only says what it was told, a word and an address each.
    #[cfg(test)]
    pub(super) fn in_words() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (orders, mut inbox) = mpsc::unbounded_channel();
        let (say, words) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(order) = inbox.recv().await {
                let word = match order {
                    Order::Empty => "empty".to_owned(),
                    Order::Open(address, _) => format!("open {address}"),
                    Order::Shut(address) => format!("shut {address}"),
                    Order::Down(done) => {
                        let _ = done.send(());
                        "down".to_owned()
                    }
                };
                let _ = say.send(word);
            }
        });
        (Self(orders), words)
    }

    pub(super) fn empty(&self) {
        self.order(Order::Empty);
    }

    pub(super) fn open(&self, address: Ipv4Addr, speeds: Speeds) {
        self.order(Order::Open(address, speeds));
    }

    pub(super) fn shut(&self, address: Ipv4Addr) {
        self.order(Order::Shut(address));
    }

    /// Takes it all away.
    pub(super) async fn down(&self) {
        let (done, gone) = oneshot::channel();
        self.order(Order::Down(done));
        let _ = gone.await;
    }

    fn order(&self, order: Order) {
        // The task ends only after `down`.
        let _ = self.0.send(order);
    }
}

/// Switches forwarding on, if it is off.
fn forward(journal: &Journal) -> Result<(), GateError> {
    let path = PathBuf::from(FORWARDING);
    let before = fs::read_to_string(&path).map_err(GateError::Forwarding)?;
    if before.trim() == "0" {
        journal.note(Entry::Setting { path: path.clone(), before, set: "1\n".into() })?;
        write_in_place(&path, "1\n").map_err(GateError::Forwarding)?;
    }
    Ok(())
}

fn rules(settings: &Settings, table: &str) -> String {
    let Settings { device, network, .. } = settings;
    let gateway = network.hosts().next().unwrap_or_else(|| network.network());
    let private = if settings.allow_private {
        String::new()
    } else {
        format!("    iifname \"{device}\" ip daddr @private drop\n")
    };
    let resolver = if settings.announced_dns().contains(&gateway.into()) {
        format!("    ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept\n")
    } else {
        String::new()
    };
    format!(
        "table inet {table} {{}}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
         \x20 set served {{ type ipv4_addr; }}\n\
         \x20 set private {{ type ipv4_addr; flags interval; elements = {{ {PRIVATE} }}; }}\n\
         \x20 chain forward {{\n\
         \x20   type filter hook forward priority filter; policy accept;\n\
         \x20   iifname \"{device}\" ip saddr != @served drop\n\
         \x20   oifname \"{device}\" ip daddr != @served drop\n\
         \x20   iifname \"{device}\" meta nfproto ipv6 drop\n\
         \x20   oifname \"{device}\" meta nfproto ipv6 drop\n\
         \x20   iifname \"{device}\" oifname \"{device}\" drop\n\
         {private}\
         \x20   iifname \"{device}\" tcp flags syn tcp option maxseg size set rt mtu\n\
         \x20   oifname \"{device}\" tcp flags syn tcp option maxseg size set rt mtu\n\
         \x20 }}\n\
         \x20 chain input {{\n\
         \x20   type filter hook input priority filter; policy accept;\n\
         \x20   iifname != \"{device}\" accept\n\
         \x20   ip saddr != @served drop\n\
         \x20   ct state established,related accept\n\
         \x20   ip daddr {gateway} icmp type echo-request accept\n\
         {resolver}\
         \x20   drop\n\
         \x20 }}\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat; policy accept;\n\
         \x20   ip saddr {network} oifname != \"{device}\" masquerade\n\
         \x20 }}\n\
         }}\n"
    )
}

struct Keeper {
    table: String,
    device: String,
    capacity: u64,
    journal: Arc<Journal>,
    board: Board,
    served: HashSet<Ipv4Addr>,
    shaped: HashSet<Ipv4Addr>,
    /// Whether the device has its queues.
    down_ready: bool,
    up_ready: bool,
}

impl Keeper {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        while let Some(first) = inbox.recv().await {
            let (mut filter, mut shaping) = (String::new(), Vec::new());
            let mut next = Some(first);
            let mut end = None;
            while let Some(order) = next {
                match order {
                    Order::Down(done) => {
                        end = Some(done);
                        break;
                    }
                    order => self.take(order, &mut filter, &mut shaping),
                }
                next = inbox.try_recv().ok();
            }
            let outcome = if filter.is_empty() { Ok(()) } else { run::nft(&filter).await };
            let shaped = self.shape(shaping).await;
            let trouble = [outcome.err(), shaped.err()].into_iter().flatten().next();
            if let Some(error) = &trouble {
                tracing::error!(error = error as &dyn std::error::Error, "the gate");
                let text = format!("clients are not let through as they should be: {error}");
                self.board.change(|report| report.gate = Some(text));
            }
            if let Some(done) = end {
                self.down().await;
                // Whoever asked may have gone.
                let _ = done.send(());
                return;
            }
        }
    }

    /// Adds to what the firewall is told; what the queues are told is gathered.
    fn take(
        &mut self,
        order: Order,
        filter: &mut String,
        shaping: &mut Vec<(Ipv4Addr, Option<Speeds>)>,
    ) {
        let table = &self.table;
        // Writing to a string does not fail.
        let _ = match order {
            Order::Empty => {
                // Queues go with the device.
                (self.down_ready, self.up_ready) = (false, false);
                self.served.clear();
                self.shaped.clear();
                shaping.clear();
                self.board.change(|report| report.gate = None);
                writeln!(filter, "flush set inet {table} served")
            }
            Order::Open(address, speeds) if self.served.insert(address) => {
                shaping.push((address, Some(speeds)));
                writeln!(filter, "add element inet {table} served {{ {address} }}")
            }
            Order::Shut(address) if self.served.remove(&address) => {
                shaping.push((address, None));
                writeln!(filter, "delete element inet {table} served {{ {address} }}")
            }
            Order::Open(..) | Order::Shut(_) | Order::Down(_) => Ok(()),
        };
    }

    async fn shape(&mut self, wanted: Vec<(Ipv4Addr, Option<Speeds>)>) -> Result<(), RunError> {
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

    async fn down(&self) {
        let ours = |entry: &Entry| {
            matches!(
                entry,
                Entry::Table { kill_switch: None, .. }
                    | Entry::Device { .. }
                    | Entry::Setting { .. }
            )
        };
        let (_, problem) = self.journal.recover(|entry| !ours(entry)).await;
        if let Some(error) = problem {
            tracing::error!(error = &error as &dyn std::error::Error, "not all was put back");
        }
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

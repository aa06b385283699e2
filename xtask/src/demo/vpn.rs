//! `cargo xtask demo --vpn`: the same way with the VPN module, as root.
//!
//! Agent, client and a far machine are network namespaces, joined by virtual cables; what is
//! fetched comes from the far one with iperf3, which says from where it was asked. Nothing of the
//! machine's own network is changed, and what was made is removed at the end.

pub(crate) mod bench;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::node::Node;
use super::stage::{Stage, wait};
use super::{Options, TAIL, directory, signals};
use crate::cargo::{Outcome, built, cargo, step};

const MODULE: &str = "vpn";

const AGENT: &str = "192.0.2.1";
const CLIENT: &str = "192.0.2.2";
const AGENT_OUTSIDE: &str = "198.51.100.1";
const FAR: &str = "198.51.100.2";

/// A count and what the device has carried may differ by one part in so many, 5 %. The firewall sees
/// packets that the kernel has merged (GRO, GSO), of which up to forty have one header of 52 bytes
/// together. That is up to 3.5 % of full packets (4.8 % with IPv6 and its larger headers). The module
/// corrects its count by what OpenVPN has sent, but it cannot do so exactly.
const TOLERANCE: u64 = 20;

/// What is fetched, in bytes.
const SIZE: u64 = 32 << 20;

/// The demo of what is built already, to be run as a step of another command.
pub(crate) fn command() -> Outcome<Command> {
    let mut command = Command::new(built("debug")?.join("xtask"));
    command.args(["demo", "--vpn", "--built"]);
    Ok(command)
}

pub(super) fn run(options: &Options) -> Outcome {
    if !options.built {
        let mut build = cargo(&["build", "--locked", "-p", "privatix", "-p", "privatix-vpn"]);
        if options.release {
            build.arg("--release");
        }
        step("building", &mut build)?;
    }
    let binaries = built(options.profile())?;
    let _caught = signals::Caught::new()?;
    let home = directory()?;
    let mut story = Story::new(binaries, &home)?;
    let played = story.play();
    if played.is_err() && !signals::interrupted() {
        for node in [&story.agent, &story.client] {
            eprintln!("\n--- the end of {}'s log\n{}", node.role, node.log_tail(TAIL));
        }
    }
    let Story { stage, agent, client, network, .. } = story;
    let (mut agent, mut client) = (agent, client);
    let cleared = stage.ending("stopped both hosts and removed the three machines", || {
        let stopped = client.stop().and(agent.stop());
        let left = network.left();
        drop(network);
        let removed = fs::remove_dir_all(&home);
        stopped?;
        left?;
        removed.map_err(|error| format!("removing {}: {error}", home.display()))
    });
    stage.close();
    played.and(cleared)
}

struct Story {
    stage: Stage,
    agent: Node,
    client: Node,
    network: Network,
    binaries: PathBuf,
}

impl Story {
    /// Three machines, and on two of them a host that does not run yet.
    fn new(binaries: PathBuf, home: &Path) -> Outcome<Self> {
        let network = Network::new()?;
        Ok(Self {
            stage: Stage::new(),
            agent: Node::new("agent", &binaries, home).inside(&network.agent),
            client: Node::new("client", &binaries, home).inside(&network.client),
            network,
            binaries,
        })
    }

    fn play(&mut self) -> Outcome {
        self.begin()?;
        for node in [&self.agent, &self.client] {
            self.install(node)?;
        }
        let offering = self.offer()?;
        let channel = self.order(&offering)?;
        self.fetch("fetched through the tunnel with iperf3")?;
        self.accounts(&channel)?;
        self.suspend_and_resume(&channel)?;
        self.kill_and_restart(&channel)?;
        self.terminate(&channel)
    }

    fn begin(&mut self) -> Outcome {
        let Self { stage, agent, client, .. } = self;
        let key = stage.step("a client runs in a namespace of its own", || {
            client.init()?;
            client.set("client", "poll_interval", "1")?;
            client.start()?;
            let key = client.ask_for(&["identity"], "signingKey")?;
            Ok((format!("its address is {CLIENT}"), key))
        })?;
        stage.step("an agent that takes its orders runs in another", || {
            agent.init()?;
            agent.set("exchange", "listen", "\"0.0.0.0:8480\"")?;
            agent.set("exchange", "url", &json!(format!("http://{AGENT}:8480")).to_string())?;
            agent.set("agent", "allowlist", &json!([key]).to_string())?;
            agent.add(&format!(
                "[modules.{MODULE}]\nexternal_ip = \"{AGENT}\"\nkeepalive_seconds = 1\n"
            ))?;
            agent.start()?;
            Ok((format!("for clients at http://{AGENT}:8480"), ()))
        })
    }

    fn install(&self, node: &Node) -> Outcome {
        let what = format!("dropped the VPN module into the {}'s plugins directory", node.role);
        self.stage.step(&what, || Ok((node.install(MODULE, &self.binaries)?, ())))
    }

    fn offer(&self) -> Outcome<String> {
        let fields = json!({
            "serviceName": "VPN demo", "country": "SE", "supply": 3, "unitName": "MiB",
            "unitType": "units", "unitSize": 1_048_576, "billingType": "postpaid",
            "setupPrice": 0, "unitPrice": 0, "minUnits": 0, "billingInterval": 1,
            "maxBillingUnitLag": 2, "freeUnits": 0, "additionalParams": {},
        });
        self.stage.step("the agent offers it, the client fetches the offering", || {
            let hash = self.agent.offer(MODULE, &fields)?;
            let url = self.agent.ask_for(&["identity"], "exchange")?;
            let agent = self.agent.ask_for(&["identity"], "fingerprint")?;
            self.client.ask(&["offering", "fetch", &url, "--agent", &agent])?;
            Ok((String::new(), hash))
        })
    }

    fn order(&self, offering: &str) -> Outcome<String> {
        self.stage.step("the client orders it: the tunnel is up", || {
            let channel = self.client.ask_for(&["order", offering], "channel")?;
            self.client.wait_channel(&channel, "active")?;
            self.agent.wait_channel(&channel, "active")?;
            Ok((format!("channel {channel}"), channel))
        })
    }

    /// Fetches from the far machine, which has to see the agent's address.
    fn fetch(&self, what: &str) -> Outcome {
        self.stage.step(what, || {
            let (speed, seen) = wait("bytes from the far machine", || Ok(self.network.fetch()))?;
            if seen != AGENT_OUTSIDE {
                return Err(format!("the far machine saw {seen}, not {AGENT_OUTSIDE}"));
            }
            Ok((format!("{} MiB at {:.0} Mbit/s", SIZE >> 20, speed / 1e6), ()))
        })?;
        self.stage.note(&format!("the far machine saw the agent's address, {AGENT_OUTSIDE}"));
        Ok(())
    }

    fn accounts(&self, channel: &str) -> Outcome {
        let usage = |node: &Node| -> Outcome<u64> {
            let view = node.ask(&["channel", "show", channel])?;
            view["usage"].as_u64().ok_or_else(|| format!("no usage: {view}"))
        };
        let (agents, clients) = self.stage.step(
            "both count what their end of the tunnel carried, within 5 %",
            || {
                let counted = wait("the counters to agree", || {
                    let carried = [
                        self.network.carried(&self.network.agent, "privatix0")?,
                        self.network.carried(&self.network.client, &client_device(channel))?,
                    ];
                    let used = [usage(&self.agent)?, usage(&self.client)?];
                    let near = |side: usize| {
                        carried[side] > SIZE
                            && used[side].abs_diff(carried[side]) * TOLERANCE <= carried[side]
                    };
                    Ok(if near(0) && near(1) {
                        Ok((used[0], used[1]))
                    } else {
                        Err(format!("used {used:?}, carried {carried:?}"))
                    })
                })?;
                Ok((String::new(), counted))
            },
        )?;
        self.stage.note(&format!("agent   usage {agents}"));
        self.stage.note(&format!("client  usage {clients}"));
        Ok(())
    }

    fn suspend_and_resume(&self, channel: &str) -> Outcome {
        self.stage.step("the agent suspends the channel, and nothing goes through", || {
            self.agent.ask(&["channel", "suspend", channel])?;
            self.agent.wait_channel(channel, "suspended")?;
            match self.network.fetch() {
                Ok(_) => Err("bytes came through a suspended channel".into()),
                Err(_) => Ok(("no way past the tunnel either".into(), ())),
            }
        })?;
        self.agent.ask(&["channel", "resume", channel])?;
        self.fetch("the agent resumes it, and bytes come through again")
    }

    fn kill_and_restart(&mut self, channel: &str) -> Outcome {
        let Self { stage, agent, network, .. } = self;
        stage.step("killed the agent's host with -9: OpenVPN went with it", || {
            agent.kill()?;
            wait("OpenVPN's end", || {
                let running = network.device("privatix0");
                Ok(if running { Err("its device is still there".into()) } else { Ok(()) })
            })?;
            Ok((String::new(), ()))
        })?;
        stage.step("started it again", || {
            agent.start()?;
            agent.wait_channel(channel, "active")?;
            Ok((String::new(), ()))
        })?;
        self.fetch("the client is back without help")
    }

    fn terminate(&self, channel: &str) -> Outcome {
        self.stage.step("the client terminates it: terminated on both sides", || {
            self.client.ask(&["channel", "terminate", channel])?;
            for node in [&self.client, &self.agent] {
                node.wait_channel(channel, "terminated")?;
            }
            Ok((String::new(), ()))
        })
    }
}

fn client_device(channel: &str) -> String {
    let id: String = channel.chars().filter(|c| *c != '-').take(10).collect();
    format!("pvx{id}")
}

/// Three machines: client, agent, and one far away.
struct Network {
    agent: String,
    client: String,
    far: String,
}

impl Network {
    fn new() -> Outcome<Self> {
        let of = |side: &str| format!("pvxd{}{side}", std::process::id());
        // Dropped, it removes what there is of it.
        let network = Self { agent: of("a"), client: of("c"), far: of("f") };
        for name in network.names() {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            let etc = etc(name);
            let made = fs::create_dir_all(&etc)
                .and_then(|()| fs::write(etc.join("resolv.conf"), "nameserver 192.0.2.53\n"));
            made.map_err(|error| format!("making {}: {error}", etc.display()))?;
        }
        let Self { agent, client, far } = &network;
        join((agent, "near", AGENT), (client, "eth0", CLIENT))?;
        join((agent, "out", AGENT_OUTSIDE), (far, "eth0", FAR))?;
        ip(&["-n", client, "route", "add", "default", "via", AGENT])?;
        ip(&["-n", far, "route", "add", "default", "via", AGENT_OUTSIDE])?;
        Ok(network)
    }

    fn names(&self) -> [&str; 3] {
        [&self.agent, &self.client, &self.far]
    }

    /// Fetches from the far machine: bits per second, and whom that machine saw.
    fn fetch(&self) -> Result<(f64, String), String> {
        let server =
            inside(&self.far, "iperf3", &["-s", "-1", "-J"]).stdout(Stdio::piped()).spawn();
        let server = Server(server.map_err(|error| format!("iperf3: {error}"))?);
        let size = SIZE.to_string();
        let arguments = ["-c", FAR, "-R", "-n", &size, "-J", "--connect-timeout", "1000"];
        let mut last = String::new();
        // The server may not listen yet.
        for _ in 0..3 {
            let asked = inside(&self.client, "timeout", &["10", "iperf3"]).args(arguments).output();
            let asked = asked.map_err(|error| format!("iperf3: {error}"))?;
            let report: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
            if let Some(speed) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
                let seen = server.report()?["start"]["accepted_connection"]["host"].clone();
                return Ok((speed, seen.as_str().unwrap_or_default().to_owned()));
            }
            last = report["error"].to_string();
        }
        Err(last)
    }

    /// What a device has carried, with what OpenVPN adds.
    fn carried(&self, namespace: &str, device: &str) -> Outcome<u64> {
        let text = ip(&["-n", namespace, "-s", "-j", "link", "show", device])?;
        let links: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let ways = ["rx", "tx"].map(|way| links[0]["stats64"][way]["bytes"].as_u64());
        Ok(ways.into_iter().flatten().sum())
    }

    /// Whether the agent has this device.
    fn device(&self, name: &str) -> bool {
        ip(&["-n", &self.agent, "link", "show", name]).is_ok()
    }

    /// Whatever the hosts should not have left.
    fn left(&self) -> Outcome {
        for name in [&self.agent, &self.client] {
            let tables = inside(name, "nft", &["list", "tables"]).output();
            let tables = tables.map_err(|error| format!("nft: {error}"))?;
            if !tables.stdout.is_empty() {
                return Err(format!("left behind: {}", String::from_utf8_lossy(&tables.stdout)));
            }
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.names() {
            // What is not there need not be removed.
            for pid in ip(&["netns", "pids", name]).unwrap_or_default().split_whitespace() {
                if let Ok(pid) = pid.parse() {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
            }
            let _ = ip(&["netns", "delete", name]);
            let _ = fs::remove_dir_all(etc(name));
        }
    }
}

/// iperf3's server for one client; it does not outlive the question.
struct Server(Child);

impl Server {
    fn report(mut self) -> Outcome<Value> {
        let Some(output) = self.0.stdout.take() else { return Ok(Value::Null) };
        serde_json::from_reader(output).map_err(|error| format!("iperf3's report: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn inside(namespace: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]).args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn join(one: (&str, &str, &str), other: (&str, &str, &str)) -> Outcome {
    let ((a, a_device, _), (b, b_device, _)) = (one, other);
    let peer = ["type", "veth", "peer", "name", b_device, "netns", b];
    ip(&[&["link", "add", a_device, "netns", a], &peer[..]].concat())?;
    for (name, device, address) in [one, other] {
        ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", device])?;
        ip(&["-n", name, "link", "set", device, "up"])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {} (it has to be run as root)", arguments.join(" "), said.trim()))
}

fn etc(namespace: &str) -> PathBuf {
    PathBuf::from("/etc/netns").join(namespace)
}

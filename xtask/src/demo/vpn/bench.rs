//! `cargo xtask bench --vpn`: what the module's tunnel carries beside OpenVPN run by hand, in the
//! same namespaces with the same keys and ciphers, in turns; and what the module itself costs.
//!
//! Nothing passes or fails by speed: the figures are printed beside their targets.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::super::node::Node;
use super::super::stage::{Stage, wait};
use super::super::{directory, signals};
use super::{AGENT, FAR, Network, Story, inside};
use crate::cargo::{Outcome, built, cargo, step};

/// Seconds of each transfer, and how often each is made.
const FULL: (u32, usize) = (5, 5);
const QUICK: (u32, usize) = (2, 1);

/// Both directions of a tunnel, in bits per second, as far as the receiver got them.
#[derive(Debug, Clone, Copy)]
struct Speed {
    down: f64,
    up: f64,
}

pub(crate) fn run(quick: bool, as_json: bool) -> Outcome {
    let package = ["--package=privatix", "--package=privatix-vpn"];
    let mut build = cargo(&["build", "--release", "--locked", "--bins", "--lib"]);
    step("building for release", build.args(package))?;
    let binaries = built("release")?;
    let _caught = signals::Caught::new()?;
    let home = directory()?;
    let network = Network::new()?;
    let mut story = Story {
        stage: Stage::new(),
        agent: Node::new("agent", &binaries, &home).inside(&network.agent),
        client: Node::new("client", &binaries, &home).inside(&network.client),
        network,
        binaries,
    };
    let measured = measure(&mut story, if quick { QUICK } else { FULL });
    let stopped = story.client.stop().and(story.agent.stop());
    drop(story);
    let removed = fs::remove_dir_all(&home);
    let figures = measured?;
    stopped?;
    removed.map_err(|error| format!("removing {}: {error}", home.display()))?;
    println!("{}", if as_json { format!("{figures:#}") } else { table(&figures) });
    Ok(())
}

fn measure(story: &mut Story, (seconds, rounds): (u32, usize)) -> Outcome<Value> {
    story.begin()?;
    for node in [&story.agent, &story.client] {
        story.install(node)?;
    }
    let offering = story.offer()?;
    let since = Instant::now();
    let channel = story.client.ask_for(&["order", &offering], "channel")?;
    story.client.wait_channel(&channel, "active")?;
    let up = since.elapsed().as_secs_f64();
    let (mut module, mut hand) = (Vec::new(), Vec::new());
    let (mut own, mut openvpn) = (0, 0);
    for _ in 0..rounds {
        let host = story.agent.pid().ok_or("no agent")?;
        let server = openvpn_of(&story.network.agent)?;
        let before = (ticks(&host)?, ticks(&server)?);
        module.push(story.stage.step("through the module's tunnel", || {
            let speed = speed(&story.network, seconds)?;
            Ok((shown(speed), speed))
        })?);
        own += ticks(&host)? - before.0;
        openvpn += ticks(&server)? - before.1;
        // With its kill switch, nothing else would get through.
        story.client.ask(&["channel", "suspend", &channel])?;
        story.client.wait_channel(&channel, "suspended")?;
        hand.push(story.stage.step("through OpenVPN run by hand", || {
            let _by_hand = ByHand::start(story)?;
            let speed = speed(&story.network, seconds)?;
            Ok((shown(speed), speed))
        })?);
        story.client.ask(&["channel", "resume", &channel])?;
        story.client.wait_channel(&channel, "active")?;
    }
    let share = |of: fn(&Speed) -> f64| median(module.iter().map(of)) / median(hand.iter().map(of));
    #[allow(clippy::cast_precision_loss)]
    let cpu = own as f64 / (openvpn as f64).max(1.0);
    Ok(json!({
        "tunnelUpSeconds": up,
        "module": { "downBits": median(module.iter().map(|s| s.down)), "upBits": median(module.iter().map(|s| s.up)) },
        "byHand": { "downBits": median(hand.iter().map(|s| s.down)), "upBits": median(hand.iter().map(|s| s.up)) },
        "shareDown": share(|speed| speed.down),
        "shareUp": share(|speed| speed.up),
        "hostCpuOfOpenvpn": cpu,
    }))
}

fn table(figures: &Value) -> String {
    let number =
        |pointer: &str| figures.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let speed = |name: &str, way: &str| {
        format!(
            "{way:<22} {:>7.0} Mbit/s   by hand {:>7.0} Mbit/s   share {:>5.1} %   target 95 %",
            number(&format!("/module/{name}Bits")) / 1e6,
            number(&format!("/byHand/{name}Bits")) / 1e6,
            number(if name == "down" { "/shareDown" } else { "/shareUp" }) * 100.0,
        )
    };
    [
        speed("down", "towards the client"),
        speed("up", "from the client"),
        format!(
            "the agent's host takes {:.2} % of OpenVPN's CPU time             target 3 %",
            number("/hostCpuOfOpenvpn") * 100.0
        ),
        format!("from order to tunnel   {:.2} s   target 3 s", number("/tunnelUpSeconds")),
    ]
    .join("\n")
}

fn shown(Speed { down, up }: Speed) -> String {
    format!("{:.0} Mbit/s down, {:.0} Mbit/s up", down / 1e6, up / 1e6)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn speed(network: &Network, seconds: u32) -> Outcome<Speed> {
    let mut server = inside(&network.far, "iperf3", &["-s"]).stdout(Stdio::null()).spawn();
    let one = |reverse: bool| {
        let time = seconds.to_string();
        let mut arguments = vec!["-c", FAR, "-t", &time, "-J", "--connect-timeout", "1000"];
        arguments.extend(reverse.then_some("-R"));
        wait("a transfer", || {
            let asked = inside(&network.client, "iperf3", &arguments).output();
            let asked = asked.map_err(|error| format!("iperf3: {error}"))?;
            let report: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
            let speed = report["end"]["sum_received"]["bits_per_second"].as_f64();
            Ok(speed.filter(|speed| *speed > 0.0).ok_or_else(|| report["error"].to_string()))
        })
    };
    let outcome = one(true).and_then(|down| one(false).map(|up| Speed { down, up }));
    if let Ok(server) = &mut server {
        let _ = server.kill();
        let _ = server.wait();
    }
    outcome
}

/// The server's process in a namespace.
fn openvpn_of(namespace: &str) -> Outcome<String> {
    let pids = super::ip(&["netns", "pids", namespace])?;
    let is = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "openvpn")
    };
    pids.split_whitespace().find(is).map(str::to_owned).ok_or_else(|| "no OpenVPN".into())
}

/// The CPU time a process has had.
fn ticks(pid: &str) -> Outcome<u64> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|e| format!("{pid}: {e}"))?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11));
    let times = fields.into_iter().flatten().take(2).filter_map(|field| field.parse::<u64>().ok());
    Ok(times.sum())
}

/// OpenVPN of both sides, without a module.
struct ByHand {
    processes: Vec<Child>,
}

impl ByHand {
    fn start(story: &Story) -> Outcome<Self> {
        let Story { network, agent, .. } = story;
        let pki = agent.home.join("modules/vpn/pki");
        let pki = pki.display();
        let common = format!(
            "dev-type tun\ntopology subnet\ndisable-dco\nca {pki}/ca.crt\n\
             tls-crypt {pki}/tls-crypt.key\ndata-ciphers AES-256-GCM:CHACHA20-POLY1305\nverb 1\n"
        );
        let write = |name: &str, text: &str| {
            let path = agent.home.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(path.to_string_lossy().into_owned())
        };
        // Whoever comes is let in.
        let login = write("hand.login", "somebody\nsomething\n")?;
        let server = format!(
            "{common}dev hand0\nproto udp4\nport 1195\nserver 10.91.0.0 255.255.0.0\nmultihome\n\
             cert {pki}/server.crt\nkey {pki}/server.key\ndh none\nverify-client-cert none\n\
             script-security 2\nauth-user-pass-verify /bin/true via-file\n\
             ping 1\nping-restart 4\npush \"ping 1\"\npush \"ping-restart 4\"\n"
        );
        let client = format!(
            "{common}client\ndev hand0\nremote {AGENT} 1195 udp4\nnobind\nremote-cert-tls server\n\
             redirect-gateway def1\ntls-timeout 1\nauth-user-pass {login}\n"
        );
        let rules = "add table ip hand\nadd chain ip hand out \
                     { type nat hook postrouting priority srcnat; }\n\
                     add rule ip hand out ip saddr 10.91.0.0/16 oifname != hand0 masquerade\n";
        let rules = write("hand.nft", rules)?;
        let _ = inside(&network.agent, "nft", &["delete", "table", "ip", "hand"]).status();
        let _ = inside(&network.agent, "nft", &["-f", &rules]).status();
        let mut by_hand = Self { processes: Vec::new() };
        for (namespace, name, text) in
            [(&network.agent, "hand.server", server), (&network.client, "hand.client", client)]
        {
            let config = write(name, &text)?;
            let mut command = inside(namespace, "openvpn", &["--config", &config]);
            let child = command.stdout(Stdio::null()).spawn();
            by_hand.processes.push(child.map_err(|error| format!("openvpn: {error}"))?);
        }
        wait("the tunnel by hand", || {
            let there = super::ip(&["-n", &network.client, "route", "show", "dev", "hand0"]);
            Ok(match there {
                Ok(routes) if routes.contains("128.0.0.0/1") => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })?;
        Ok(by_hand)
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

//! `cargo xtask bench --vpn`: what the module's tunnel carries beside OpenVPN run by hand, in the
//! same namespaces with the same keys and ciphers, in turns; and what the module itself costs.
//!
//! Nothing passes or fails by speed: the figures are printed beside their targets.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::super::node::Node;
use super::super::stage::wait;
use super::super::{directory, signals};
use super::{AGENT, FAR, Network, Story, inside};
use crate::cargo::{Outcome, built, cargo, step};

/// Seconds of each transfer, and how many pairs are made.
const FULL: (u32, usize) = (5, 8);
const QUICK: (u32, usize) = (2, 1);

/// The first of them, in which TCP finds its pace, do not count.
const WARM_UP: &str = "1";

/// What a tunnel carried in one turn, and the CPU time it took.
struct Turn {
    down: Transfer,
    up: Transfer,
    /// Ticks of OpenVPN at the agent's end, and at both.
    server: u64,
    openvpn: u64,
}

/// As far as the receiver got it.
struct Transfer {
    bits_per_second: f64,
    bytes: f64,
}

impl Turn {
    fn ticks_a_byte(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let ticks = self.openvpn as f64;
        ticks / (self.down.bytes + self.up.bytes)
    }

    fn shown(&self) -> String {
        let [down, up] = [&self.down, &self.up].map(|way| way.bits_per_second / 1e6);
        format!("{down:.0} Mbit/s down, {up:.0} Mbit/s up")
    }
}

/// The module's turns and those by hand, in pairs; and what the hosts took during the module's.
#[derive(Default)]
struct Turns {
    pairs: Vec<(Turn, Turn)>,
    agent: u64,
    client: u64,
}

pub(crate) fn run(quick: bool, as_json: bool) -> Outcome {
    step("building for release", &mut cargo(&["build", "--release", "--workspace", "--locked"]))?;
    let _caught = signals::Caught::new()?;
    let home = directory()?;
    let mut story = Story::new(built("release")?, &home)?;
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
    let mut turns = Turns::default();
    for round in 0..rounds {
        // Whoever comes second may find another machine; so each is second in turn.
        let pair = if round % 2 == 0 {
            let module = turns.of_module(story, &channel, seconds)?;
            (module, by_hand(story, &channel, seconds)?)
        } else {
            let hand = by_hand(story, &channel, seconds)?;
            (turns.of_module(story, &channel, seconds)?, hand)
        };
        turns.pairs.push(pair);
    }
    Ok(turns.figures(up))
}

impl Turns {
    fn of_module(&mut self, story: &Story, channel: &str, seconds: u32) -> Outcome<Turn> {
        story.client.wait_channel(channel, "active")?;
        let network = &story.network;
        let ends = [openvpn_of(&network.agent)?, openvpn_of(&network.client)?];
        let pids = [&story.agent, &story.client].map(Node::pid);
        let [Some(agent), Some(client)] = pids else { return Err("a host is gone".into()) };
        let before = (ticks(&agent)?, ticks(&client)?);
        let turn = story.stage.step("through the module's tunnel", || {
            let turn = turn(network, &ends, seconds)?;
            Ok((turn.shown(), turn))
        })?;
        self.agent += ticks(&agent)? - before.0;
        self.client += ticks(&client)? - before.1;
        Ok(turn)
    }

    /// Of pairs the median of shares, which a machine that is slower for a while does not move.
    fn figures(&self, up: f64) -> Value {
        let share = |of: fn(&Turn) -> f64| {
            median(self.pairs.iter().map(|(module, hand)| of(module) / of(hand)))
        };
        let down = |turn: &Turn| turn.down.bits_per_second;
        let from = |turn: &Turn| turn.up.bits_per_second;
        let module = |of: fn(&Turn) -> f64| median(self.pairs.iter().map(|(turn, _)| of(turn)));
        let hand = |of: fn(&Turn) -> f64| median(self.pairs.iter().map(|(_, turn)| of(turn)));
        let server: u64 = self.pairs.iter().map(|(module, _)| module.server).sum();
        let both: u64 = self.pairs.iter().map(|(module, _)| module.openvpn).sum();
        #[allow(clippy::cast_precision_loss)]
        let of = |own: u64, openvpn: u64| own as f64 / (openvpn as f64).max(1.0);
        json!({
            "tunnelUpSeconds": up,
            "module": { "downBits": module(down), "upBits": module(from) },
            "byHand": { "downBits": hand(down), "upBits": hand(from) },
            "shareDown": share(down),
            "shareUp": share(from),
            "openvpnCpuOfByHand": share(Turn::ticks_a_byte),
            "agentCpuOfOpenvpn": of(self.agent, server),
            "clientCpuOfOpenvpn": of(self.client, both - server),
        })
    }
}

/// The same through OpenVPN without a module; with its kill switch, nothing else would get through.
fn by_hand(story: &Story, channel: &str, seconds: u32) -> Outcome<Turn> {
    story.client.ask(&["channel", "suspend", channel])?;
    story.client.wait_channel(channel, "suspended")?;
    let turn = story.stage.step("through OpenVPN run by hand", || {
        let by_hand = ByHand::start(story)?;
        let ends = by_hand.pids();
        let turn = turn(&story.network, &ends, seconds)?;
        Ok((turn.shown(), turn))
    })?;
    story.client.ask(&["channel", "resume", channel])?;
    story.client.wait_channel(channel, "active")?;
    Ok(turn)
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
    let percent = |name: &str| number(name) * 100.0;
    [
        speed("down", "towards the client"),
        speed("up", "from the client"),
        format!(
            "OpenVPN's CPU time for a byte is {:.1} % of that by hand",
            percent("/openvpnCpuOfByHand")
        ),
        format!(
            "the hosts take {:.2} % (agent) and {:.2} % (client) of OpenVPN's CPU time   target 3 %",
            percent("/agentCpuOfOpenvpn"),
            percent("/clientCpuOfOpenvpn"),
        ),
        format!("from order to tunnel   {:.2} s   target 3 s", number("/tunnelUpSeconds")),
    ]
    .join("\n")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let pair = [values.get(middle.saturating_sub(1)), values.get(middle)];
    match pair {
        [Some(below), Some(above)] if values.len().is_multiple_of(2) => {
            f64::midpoint(*below, *above)
        }
        [_, Some(middle)] => *middle,
        _ => f64::NAN,
    }
}

/// Both directions, one after the other; `ends` are the server's process and the client's.
fn turn(network: &Network, ends: &[String], seconds: u32) -> Outcome<Turn> {
    let taken = || ends.iter().map(|pid| ticks(pid)).collect::<Outcome<Vec<_>>>();
    let before = taken()?;
    let server = inside(&network.far, "iperf3", &["-s"]).stdout(Stdio::null()).spawn();
    let outcome = transfer(network, seconds, true)
        .and_then(|down| transfer(network, seconds, false).map(|up| (down, up)));
    if let Ok(mut server) = server {
        let _ = server.kill();
        let _ = server.wait();
    }
    let (down, up) = outcome?;
    let after = taken()?;
    let mut took = after.iter().zip(&before).map(|(after, before)| after - before);
    let server = took.next().unwrap_or_default();
    Ok(Turn { down, up, server, openvpn: server + took.sum::<u64>() })
}

fn transfer(network: &Network, seconds: u32, reverse: bool) -> Outcome<Transfer> {
    let time = seconds.to_string();
    let mut arguments =
        vec!["-c", FAR, "-t", &time, "-O", WARM_UP, "-J", "--connect-timeout", "1000"];
    arguments.extend(reverse.then_some("-R"));
    wait("a transfer", || {
        let asked = inside(&network.client, "iperf3", &arguments).output();
        let asked = asked.map_err(|error| format!("iperf3: {error}"))?;
        let report: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        let received = |name: &str| report["end"]["sum_received"][name].as_f64();
        let got = received("bits_per_second").zip(received("bytes"));
        Ok(match got {
            Some((bits_per_second, bytes)) if bytes > 0.0 => {
                Ok(Transfer { bits_per_second, bytes })
            }
            _ => Err(report["error"].to_string()),
        })
    })
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

/// OpenVPN of both sides, without a module, as somebody would set it up who knows it well.
struct ByHand {
    /// The server's, then the client's.
    processes: Vec<Child>,
}

impl ByHand {
    fn pids(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.id().to_string()).collect()
    }

    fn start(story: &Story) -> Outcome<Self> {
        let Story { network, agent, .. } = story;
        let pki = agent.home.join("modules/vpn/pki");
        let pki = pki.display();
        let common = format!(
            "dev-type tun\ntopology subnet\ndisable-dco\nca {pki}/ca.crt\n\
             tls-crypt {pki}/tls-crypt.key\ndata-ciphers AES-256-GCM:CHACHA20-POLY1305\nverb 1\n\
             rcvbuf 1048576\nfast-io\n"
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

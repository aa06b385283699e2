//! The story that the demo tells, step by step.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::http::{Server, Url};
use super::node::Node;
use super::socks;
use super::stage::{Stage, wait};
use crate::cargo::Outcome;

/// The module that is sold and bought.
const MODULE: &str = "proxy";

/// What the client promises to spend at most, in the smallest unit of money.
const DEPOSIT: &str = "100000";

pub(super) struct Story {
    pub(super) stage: Stage,
    pub(super) agent: Node,
    pub(super) client: Node,
    /// The channel that was opened last, and its local port.
    pub(super) last: Option<(String, SocketAddr)>,
    binaries: PathBuf,
    url: Option<Url>,
}

/// Something to fetch, and what it has to be.
struct Target {
    url: Url,
    page: Option<std::sync::Arc<Vec<u8>>>,
}

impl Target {
    /// Fetches it; how many bytes it was.
    fn fetch(&self, port: SocketAddr) -> Outcome<(String, u64)> {
        let got = self.url.get(port)?;
        let length = got.len();
        let same = match &self.page {
            Some(page) if **page != got => {
                return Err(format!(
                    "expected the {} bytes that were served, got {length} others",
                    page.len()
                ));
            }
            Some(_) => ", the same that were served",
            None => "",
        };
        Ok((format!("{length} bytes{same}"), length as u64))
    }
}

impl Story {
    pub(super) fn new(
        stage: Stage,
        agent: Node,
        client: Node,
        binaries: PathBuf,
        url: Option<Url>,
    ) -> Self {
        Self { stage, agent, client, last: None, binaries, url }
    }

    pub(super) fn play(&mut self, again: bool) -> Outcome {
        self.begin()?;
        for node in [&self.agent, &self.client] {
            self.install(node)?;
        }
        let offering = self.offer()?;
        let target = self.target()?;
        let (channel, port) = self.order(&offering)?;
        let fetched = self
            .stage
            .step(&format!("fetched {} with a plain SOCKS5 client", target.url.as_str()), || {
                target.fetch(port)
            })?;
        self.accounts(&channel, fetched)?;
        self.suspend(&channel, port)?;
        let more = self.resume(&channel, port, &target)?;
        self.accounts(&channel, fetched + more)?;
        self.terminate(&channel, port)?;
        self.cheque()?;
        if again {
            self.last = Some(self.order(&offering)?);
        }
        Ok(())
    }

    /// Two hosts that run, know of each other and have no module.
    fn begin(&mut self) -> Outcome {
        let Self { stage, agent, client, .. } = self;
        stage.step("made a client", || {
            client.init()?;
            client.set("client", "poll_interval", "1")?;
            Ok((client.home.display().to_string(), ()))
        })?;
        let key = stage.step("the client runs", || {
            client.start()?;
            let key = client.ask_for(&["identity"], "signingKey")?;
            Ok((format!("its key is {key}"), key))
        })?;
        stage.step("made an agent that takes this client's orders", || {
            agent.init()?;
            agent.set("exchange", "listen", "\"127.0.0.1:0\"")?;
            agent.set("agent", "orders", "\"allowlist\"")?;
            agent.set("agent", "allowlist", &json!([key]).to_string())?;
            // What is fetched below is on this machine.
            agent.add(&format!("[modules.{MODULE}]\nallow_private = true\n"))?;
            Ok((agent.home.display().to_string(), ()))
        })?;
        stage.step("the agent runs", || {
            agent.start()?;
            let url = agent.ask_for(&["identity"], "exchange")?;
            // The address is in its offerings, so it has to be the same after a restart.
            agent.set(
                "exchange",
                "listen",
                &json!(url.trim_start_matches("http://")).to_string(),
            )?;
            Ok((format!("for clients at {url}"), ()))
        })
    }

    /// Drops the module into a running host.
    fn install(&self, node: &Node) -> Outcome {
        let what = format!("dropped the proxy module into the {}'s plugins directory", node.role);
        self.stage.step(&what, || Ok((node.install(MODULE, &self.binaries)?, ())))
    }

    /// What the agent sells, known to the client.
    fn offer(&self) -> Outcome<String> {
        let fields = json!({
            "serviceName": "demo", "country": "SE", "supply": 3, "unitName": "MiB",
            "unitType": "units", "unitSize": 1_048_576, "billingType": "prepaid",
            "setupPrice": 5, "unitPrice": 10, "minUnits": 0, "billingInterval": 8,
            "freeUnits": 0, "additionalParams": {},
        });
        let what = "the agent offers it: 5 at the beginning, and 10 for each MiB in advance";
        let hash = self.stage.step(what, || {
            let hash = self.agent.offer(MODULE, &fields)?;
            Ok((format!("offering {}", short(&hash)), hash))
        })?;
        self.stage.step("the client fetches the offering and checks who signed it", || {
            let url = self.agent.ask_for(&["identity"], "exchange")?;
            let agent = self.agent.ask_for(&["identity"], "fingerprint")?;
            let fetched = self.client.ask(&["offering", "fetch", &url, "--agent", &agent])?;
            let mut known = fetched["offerings"].as_array().into_iter().flatten();
            if !known.any(|offering| offering["hash"] == *hash) {
                return Err(format!("expected {hash} among what was fetched: {fetched}"));
            }
            Ok((format!("the agent {}", short(&agent)), ()))
        })?;
        Ok(hash)
    }

    fn target(&self) -> Outcome<Target> {
        if let Some(url) = self.url.clone() {
            return Ok(Target { url, page: None });
        }
        let Server { url, page } = Server::start()?;
        Ok(Target { url, page: Some(page) })
    }

    /// Orders and waits until the service can be used; the channel and its local port.
    fn order(&self, offering: &str) -> Outcome<(String, SocketAddr)> {
        let Self { stage, agent, client, .. } = self;
        let channel =
            stage.step(&format!("the client orders it, for {DEPOSIT} at most"), || {
                let order = ["order", offering, "--deposit", DEPOSIT];
                let channel = client.ask_for(&order, "channel")?;
                Ok((format!("channel {channel}"), channel))
            })?;
        let port = stage.step("the channel is active on both sides", || {
            client.wait_channel(&channel, "active")?;
            agent.wait_channel(&channel, "active")?;
            let port = self.port(&channel)?;
            Ok((format!("SOCKS5 at {port}"), port))
        })?;
        stage.note(&format!("curl --socks5-hostname {port} URL"));
        Ok((channel, port))
    }

    /// Where the client's module says that it listens for a channel.
    fn port(&self, channel: &str) -> Outcome<SocketAddr> {
        let directory = self.client.home.join("modules").join(MODULE).join("channels");
        let path = directory.join(format!("{channel}.json"));
        let wrong = |why: String| format!("the local port in {}: {why}", path.display());
        let text = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let entry: Value = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        let port = entry["socks5"].as_str().unwrap_or_default().parse();
        port.map_err(|error| wrong(format!("{error}: {entry}")))
    }

    /// Both sides have counted the same, at least what was fetched, and it is paid.
    fn accounts(&self, channel: &str, fetched: u64) -> Outcome {
        let what = format!("both sides account for the same bytes, at least {fetched}, and money");
        let account = self.stage.step(&what, || {
            let account = wait("the same account on both sides", || {
                let (agent, client) =
                    (account(&self.agent, channel)?, account(&self.client, channel)?);
                let paid = agent.paid >= agent.cost && agent.usage >= fetched;
                Ok(if agent == client && paid {
                    Ok(agent)
                } else {
                    Err(format!("{agent:?} at the agent, {client:?} at the client"))
                })
            })?;
            Ok((String::new(), account))
        })?;
        let Account { usage, cost, paid } = account;
        for node in [&self.agent, &self.client] {
            let role = node.role;
            self.stage.note(&format!("{role:6}  usage {usage}, cost {cost}, paid {paid}"));
        }
        Ok(())
    }

    /// What the agent has in its hands is worth something without either host.
    fn cheque(&self) -> Outcome {
        self.stage.step("the agent exports its cheque, and anybody can check it", || {
            let path = self.agent.home.join("cheques.json");
            let path = path.to_string_lossy();
            self.agent.run(&["cheque", "export", "--out", &path])?;
            let verified = self.client.ask(&["cheque", "verify", &path])?;
            let balance = verified[0]["balance"].as_u64();
            let balance = balance.ok_or_else(|| format!("no balance: {verified}"))?;
            Ok((format!("{balance} is owed"), ()))
        })
    }

    fn suspend(&self, channel: &str, port: SocketAddr) -> Outcome {
        self.stage.step("the client suspends the channel, and access is gone", || {
            self.client.ask(&["channel", "suspend", channel])?;
            self.client.wait_channel(channel, "suspended")?;
            Ok((gone(port)?, ()))
        })
    }

    fn resume(&self, channel: &str, port: SocketAddr, target: &Target) -> Outcome<u64> {
        self.stage.step("the client resumes it, and access is back", || {
            self.client.ask(&["channel", "resume", channel])?;
            self.client.wait_channel(channel, "active")?;
            let now = self.port(channel)?;
            if now != port {
                return Err(format!("expected the port to be {port} again, it is {now}"));
            }
            target.fetch(port)
        })
    }

    fn terminate(&self, channel: &str, port: SocketAddr) -> Outcome {
        self.stage.step("the client terminates it: terminated on both sides", || {
            self.client.ask(&["channel", "terminate", channel])?;
            for node in [&self.client, &self.agent] {
                node.wait_channel(channel, "terminated")?;
            }
            Ok((gone(port)?, ()))
        })
    }
}

/// A channel's account on one side.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    usage: u64,
    cost: u64,
    paid: u64,
}

fn account(node: &Node, channel: &str) -> Outcome<Account> {
    let view = node.ask(&["channel", "show", channel])?;
    let number = |value: &Value| value.as_u64().ok_or_else(|| format!("no account: {view}"));
    let money = &view["money"];
    Ok(Account {
        usage: number(&view["usage"])?,
        cost: number(&money["cost"])?,
        paid: number(&money["paid"])?,
    })
}

/// That nobody serves a local port any more, in the words of the program that tried.
fn gone(port: SocketAddr) -> Outcome<String> {
    match socks::connect(port, "127.0.0.1", 9) {
        Ok(_) => Err(format!("expected no service at {port}, got a connection")),
        // A proxy that answers, even with a refusal, is one that serves.
        Err(problem) if problem.contains("SOCKS code") => Err(problem),
        Err(problem) => Ok(problem),
    }
}

fn short(hash: &str) -> String {
    hash.chars().take(16).collect()
}

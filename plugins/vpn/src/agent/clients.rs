//! The clients of the server: who is let in, what they used, and who has to go.
//!
//! What OpenVPN says of a client goes in, commands for OpenVPN come out, and nothing here waits for
//! it. A channel has one session: a second login ends the first, and is let in when that is gone.
//! The core is asked by tasks of their own; what became of it comes in as [`News`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Board;
use super::denials::Denials;
use super::gate::{Gate, Speeds};
use super::tally::Tally;
use crate::management::{ClientEvent, ClientEventKind, is_credential, quoted};
use crate::session::{self, Limit, Side, Verdict};

/// A client that was told to go has so long to do it. OpenVPN alone would give it five seconds.
const GOODBYE: Duration = Duration::from_millis(300);

/// A login that came to nothing is forgotten after so long.
const LOGIN: Duration = Duration::from_secs(120);

/// Of a user name, so many characters are logged.
const MAX_SHOWN: usize = 40;

/// What is said to whoever wants in while the channel is being stopped.
pub(super) const STOPPED: &str = "the channel is stopped";

/// A client of one process. OpenVPN counts from 0 in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PeerId {
    process: u64,
    client: u64,
}

/// What became of something the core was asked.
pub(super) enum News {
    Judged(Judged),
    Session(PeerId, ClientKey, Verdict),
}

/// The core's word on a login.
pub(super) struct Judged {
    id: PeerId,
    channel: ClientKey,
    key: u64,
    /// Of a client that is in already and has renewed its keys.
    again: bool,
    outcome: Result<(), ApiError>,
}

struct Peer {
    channel: ClientKey,
    login: Login,
    /// Where it comes from.
    from: Option<SocketAddr>,
    address: Option<Ipv4Addr>,
    tally: Option<Arc<Tally>>,
    /// When it was told to go.
    leaving: Option<Leaving>,
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    /// The core is being asked.
    Asked,
    /// It may enter when its predecessor is gone.
    Waiting {
        key: u64,
    },
    Accepted,
}

#[derive(Debug, Clone, Copy)]
struct Leaving {
    until: Instant,
    thrown_out: bool,
}

pub(super) struct Clients {
    core: Core,
    gate: Gate,
    board: Board,
    process: u64,
    peers: HashMap<PeerId, Peer>,
    /// Sessions that are not closed yet, by channel.
    keepers: HashMap<ClientKey, usize>,
    /// Who waits for a channel to be free.
    cuts: Vec<(ClientKey, oneshot::Sender<()>)>,
    judged: Stream<Judged>,
    verdicts: Stream<((PeerId, ClientKey), Verdict)>,
    /// For OpenVPN.
    commands: Vec<String>,
    denials: Denials,
}

/// Both ends of what comes back from tasks.
struct Stream<T> {
    send: mpsc::UnboundedSender<T>,
    receive: mpsc::UnboundedReceiver<T>,
}

impl<T> Default for Stream<T> {
    fn default() -> Self {
        let (send, receive) = mpsc::unbounded_channel();
        Self { send, receive }
    }
}

impl Clients {
    pub(super) fn new(core: Core, gate: Gate, board: Board) -> Self {
        Self {
            core,
            gate,
            board,
            process: 0,
            peers: HashMap::new(),
            keepers: HashMap::new(),
            cuts: Vec::new(),
            judged: Stream::default(),
            verdicts: Stream::default(),
            commands: Vec::new(),
            denials: Denials::default(),
        }
    }

    /// Lets those in whose predecessors are gone, answers those who wait for a channel to be free,
    /// and hands out what OpenVPN is to be told; to be called after everything else.
    pub(super) fn commands(&mut self) -> Vec<String> {
        self.admit();
        self.settle();
        std::mem::take(&mut self.commands)
    }

    /// Waits for what became of something. May be dropped and called again.
    pub(super) async fn news(&mut self) -> News {
        // Both ends are kept here, so neither is ever closed.
        tokio::select! {
            Some(judged) = self.judged.receive.recv() => News::Judged(judged),
            Some(((id, channel), verdict)) = self.verdicts.receive.recv() => {
                News::Session(id, channel, verdict)
            }
            else => std::future::pending().await,
        }
    }

    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Judged(judged) => self.judged(judged),
            News::Session(id, _, Verdict::Open(offering, limit)) => {
                self.serve(id, &offering, limit);
            }
            News::Session(id, _, Verdict::Refused | Verdict::Over) => self.cut(id),
            News::Session(_, channel, Verdict::Closed) => self.closed(channel),
        }
    }

    fn id(&self, client: u64) -> PeerId {
        PeerId { process: self.process, client }
    }

    fn say(&mut self, command: String) {
        self.commands.push(command);
    }

    fn deny(&mut self, client: u64, key: u64, why: &str) {
        let why = quoted(why);
        self.say(format!("client-deny {client} {key} {why} {why}"));
    }

    /// OpenVPN says what a client has done.
    pub(super) fn event(&mut self, event: &ClientEvent) {
        match event.kind {
            ClientEventKind::Connect => self.connect(event, false),
            ClientEventKind::Reauth => self.connect(event, true),
            ClientEventKind::Established => self.established(event),
            ClientEventKind::Disconnect => self.disconnected(event),
            ClientEventKind::Other => {}
        }
    }

    /// A client got an address; the first one is its own.
    pub(super) fn address(&mut self, client: u64, address: Ipv4Addr) {
        let id = self.id(client);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.address.get_or_insert(address);
        }
    }

    /// OpenVPN has sent so many bytes to a client.
    pub(super) fn sent(&self, client: u64, bytes: u64) {
        let peer = self.peers.get(&self.id(client));
        if let Some(tally) = peer.and_then(|peer| peer.tally.as_ref()) {
            tally.sent(bytes);
        }
    }

    /// A client has shown its credentials.
    fn connect(&mut self, event: &ClientEvent, again: bool) {
        let (id, key) = (self.id(event.client), event.key);
        let user = event.get("username").unwrap_or_default();
        let password = event.get("password").unwrap_or_default().to_owned();
        let channel = user.parse::<ClientKey>().ok().filter(|_| is_credential(&password));
        let Some(channel) = channel else {
            let place = from(event, "untrusted");
            if self.denials.count(place, Instant::now()) {
                let user: String = user.chars().take(MAX_SHOWN).collect();
                tracing::info!(?user, from = ?place, "denied: no such user name and password can be");
            }
            self.deny(event.client, key, "no such user");
            if again {
                self.cut(id);
            }
            return;
        };
        if again && self.peers.get(&id).is_none_or(|peer| peer.channel != channel) {
            self.deny(event.client, key, "another user");
            return self.cut(id);
        }
        if !again {
            let peer = Peer {
                channel,
                login: Login::Asked,
                from: from(event, "untrusted"),
                address: None,
                tally: None,
                leaving: None,
                since: Instant::now(),
            };
            self.peers.insert(id, peer);
        }
        let (core, answers) = (self.core.clone(), self.judged.send.clone());
        tokio::spawn(async move {
            let outcome = core.auth_client(channel, &password).await;
            // The server is gone only when nobody has to be answered any more.
            let _ = answers.send(Judged { id, channel, key, again, outcome });
        });
    }

    fn judged(&mut self, judged: Judged) {
        let Judged { id, channel, key, again, outcome } = judged;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Err(error) = outcome {
            let from = peer.from;
            if self.denials.count(from, Instant::now()) {
                tracing::info!(%channel, %error, ?from, "denied");
            }
            self.deny(id.client, key, error.name.text());
            if again {
                return self.cut(id);
            }
            self.peers.remove(&id);
            return;
        }
        if again {
            // One that was told to go need not be told anything else.
            if peer.leaving.is_none() {
                self.say(format!("client-auth-nt {} {key}", id.client));
            }
            return;
        }
        if self.cuts.iter().any(|(cut, _)| *cut == channel) {
            // One that comes again and again would keep the stop from ever being over.
            self.peers.remove(&id);
            return self.deny(id.client, key, STOPPED);
        }
        peer.login = Login::Waiting { key };
        let others: Vec<_> = self.of_channel(channel).filter(|other| *other != id).collect();
        for other in others {
            self.supersede(other);
        }
    }

    /// Makes room for a newer login of the same channel.
    fn supersede(&mut self, id: PeerId) {
        match self.peers.get(&id).map(|peer| peer.login) {
            Some(Login::Waiting { key }) => {
                self.peers.remove(&id);
                self.deny(id.client, key, "logged in elsewhere");
            }
            Some(Login::Accepted) => self.cut(id),
            // It will be the newer one itself when the core has answered.
            Some(Login::Asked) | None => {}
        }
    }

    /// Lets those in whose predecessors are gone.
    fn admit(&mut self) {
        let waiting = self.peers.iter().filter_map(|(id, peer)| match peer.login {
            Login::Waiting { key } => Some((*id, peer.channel, key)),
            _ => None,
        });
        let waiting: Vec<_> = waiting.collect();
        for (id, channel, key) in waiting {
            if self.is_busy(channel) {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.login = Login::Accepted;
            }
            self.say(format!("client-auth-nt {} {key}", id.client));
        }
    }

    fn established(&mut self, event: &ClientEvent) {
        let id = self.id(event.client);
        let known = self.peers.get_mut(&id).filter(|peer| peer.login == Login::Accepted);
        let Some(peer) = known else {
            tracing::warn!(client = event.client, "a client that was not let in");
            return self.say(format!("client-kill {} HALT", id.client));
        };
        let pushed = event.get("ifconfig_pool_remote_ip").and_then(|text| text.parse().ok());
        peer.address = peer.address.or(pushed);
        peer.from = from(event, "trusted").or(peer.from);
        let (channel, core, sink) = (peer.channel, self.core.clone(), self.verdicts.send.clone());
        let meter = session::open(core, channel, Side::Agent, peer.from, (id, channel), sink);
        peer.tally = Some(Arc::new(Tally::new(meter)));
        *self.keepers.entry(channel).or_default() += 1;
        tracing::info!(%channel, from = ?peer.from, address = ?peer.address, "connected");
    }

    fn disconnected(&mut self, event: &ClientEvent) {
        let id = self.id(event.client);
        let Some(peer) = self.peers.remove(&id) else { return };
        if let (Some(tally), Some(bytes)) = (&peer.tally, event.bytes()) {
            tally.sent_last(bytes.outgoing);
        }
        if let Some(address) = peer.address {
            self.gate.shut(address);
        }
        tracing::info!(channel = %peer.channel, "disconnected");
        // The session ends when the gate has said its last count.
    }

    /// The session is open: now the client is let through.
    fn serve(&mut self, id: PeerId, offering: &serde_json::Value, limit: Limit) {
        // A credit in seconds is the core's own to measure.
        let limit = if offering["unitType"] == "seconds" {
            tokio::sync::watch::channel(None).1
        } else {
            limit
        };
        let Some(peer) = self.peers.get(&id) else { return };
        if let (Some(address), None, Some(tally)) = (peer.address, peer.leaving, &peer.tally) {
            self.gate.open(address, Speeds::of(offering), Arc::clone(tally), limit);
            let channel = peer.channel;
            self.board.change(|report| {
                if !report.served.contains(&channel) {
                    report.served.push(channel);
                }
            });
        }
    }

    fn closed(&mut self, channel: ClientKey) {
        let left = self.keepers.get_mut(&channel).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left.unwrap_or(0) == 0 {
            self.keepers.remove(&channel);
            self.board.change(|report| report.served.retain(|served| *served != channel));
        }
    }

    /// Sends a channel's clients away; whoever asked is told when they are gone.
    pub(super) fn cut_channel(&mut self, channel: ClientKey, done: oneshot::Sender<()>) {
        self.cuts.push((channel, done));
        let all: Vec<_> = self.of_channel(channel).collect();
        for id in all {
            match self.peers.get(&id).map(|peer| peer.login) {
                Some(Login::Waiting { key }) => {
                    self.peers.remove(&id);
                    self.deny(id.client, key, STOPPED);
                }
                // The core has been asked; it knows that the channel is stopped.
                Some(Login::Asked) | None => {}
                Some(Login::Accepted) => self.cut(id),
            }
        }
    }

    /// Shuts the gate for a client and tells it to go.
    fn cut(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.leaving.is_some() {
            return;
        }
        if let Some(address) = peer.address {
            self.gate.shut(address);
        }
        peer.leaving = Some(Leaving { until: Instant::now() + GOODBYE, thrown_out: false });
        if peer.tally.is_none() {
            // OpenVPN says nothing of clients that go before they are in.
            self.peers.remove(&id);
        }
        self.say(format!("client-kill {} HALT", id.client));
    }

    /// When somebody is to be thrown out next.
    pub(super) fn due(&self) -> Option<Instant> {
        let leaving = self.peers.values().filter_map(|peer| peer.leaving);
        leaving.filter(|leaving| !leaving.thrown_out).map(|leaving| leaving.until).min()
    }

    /// Clients that did not go when they were told.
    pub(super) fn throw_out(&mut self) {
        let now = Instant::now();
        for peer in self.peers.values_mut() {
            let Some(leaving) = &mut peer.leaving else { continue };
            if leaving.thrown_out || leaving.until > now {
                continue;
            }
            leaving.thrown_out = true;
            // Others, OpenVPN removes by itself five seconds after they were told.
            if let Some(SocketAddr::V4(from)) = peer.from {
                self.commands.push(format!("kill {from}"));
            }
        }
    }

    fn of_channel(&self, channel: ClientKey) -> impl Iterator<Item = PeerId> + '_ {
        let peers = self.peers.iter().filter(move |(_, peer)| peer.channel == channel);
        peers.map(|(id, _)| *id)
    }

    /// Whether somebody is in, or was and is not yet accounted for.
    fn is_busy(&self, channel: ClientKey) -> bool {
        let inside =
            |id: PeerId| self.peers.get(&id).is_some_and(|peer| peer.login == Login::Accepted);
        self.keepers.contains_key(&channel) || self.of_channel(channel).any(inside)
    }

    /// Answers those who wait for a channel to be free.
    fn settle(&mut self) {
        let cuts = std::mem::take(&mut self.cuts);
        for (channel, done) in cuts {
            if self.is_busy(channel) {
                self.cuts.push((channel, done));
            } else {
                // Whoever asked may have gone.
                let _ = done.send(());
            }
        }
    }

    pub(super) fn forget_old_logins(&mut self) {
        for line in self.denials.summaries(Instant::now()) {
            tracing::info!("{line}");
        }
        self.peers.retain(|_, peer| peer.tally.is_some() || peer.since.elapsed() < LOGIN);
    }

    /// There is another process, or none: its clients are gone.
    pub(super) fn forget_all(&mut self) {
        self.process += 1;
        self.gate.empty();
        self.peers.clear();
        self.commands.clear();
        self.settle();
    }

    /// Takes the gate away and waits for the last sessions.
    pub(super) async fn close(&mut self, until: Instant) {
        self.gate.down().await;
        while !self.keepers.is_empty() {
            let Ok(news) = timeout_at(until, self.news()).await else {
                tracing::warn!("sessions were still open at the deadline");
                break;
            };
            self.take(news);
        }
        self.settle();
    }
}

/// Where a client comes from; `kind` is `trusted` once it has logged in.
fn from(event: &ClientEvent, kind: &str) -> Option<SocketAddr> {
    let ip = event.get(&format!("{kind}_ip")).or_else(|| event.get(&format!("{kind}_ip6")))?;
    let ip: IpAddr = ip.parse().ok()?;
    let port = event.get(&format!("{kind}_port"))?.parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port))
}

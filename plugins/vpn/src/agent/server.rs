//! Runs the OpenVPN server and decides on its clients.
//!
//! One task has all state and takes one thing after the other: what OpenVPN says, what the core
//! answered, what sessions became, what the module is told. A channel has one session: a second
//! login ends the first, and is let in when that is gone. A process that ends, hangs or does not
//! come up is started again with back-off; its clients' sessions end at their last count.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Board;
use super::gate::{Gate, Speeds};
use crate::journal::Journal;
use crate::management::{Bytes, ClientEvent, ClientEventKind, Message, quoted};
use crate::openvpn::{Asked, Line, Openvpn, OpenvpnError, Place};
use crate::pause::Pauses;
use crate::pki::Pki;
use crate::session::{self, Meter, Verdict};
use crate::settings::Settings;
use crate::{full, render};

/// How often OpenVPN is asked for a sign of life.
const PULSE: Duration = Duration::from_secs(5);

/// A client that was told to go has so long to do it. OpenVPN alone would give it five seconds.
const GOODBYE: Duration = Duration::from_millis(300);

/// How long the process has to end when it was told to.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A login that came to nothing is forgotten after so long.
const LOGIN: Duration = Duration::from_secs(120);

/// What the module tells the server.
pub(super) enum Order {
    /// The channel's clients have to go; answered when they are gone and their sessions closed.
    Cut { channel: ClientKey, done: oneshot::Sender<()> },
    /// All have to go, for good.
    Shutdown { deadline: Duration, done: oneshot::Sender<()> },
}

/// A client of one process. OpenVPN counts from 0 in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PeerId {
    process: u64,
    client: u64,
}

/// The core's word on a login.
struct Judged {
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
    meter: Option<Meter>,
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

/// Why a process is no longer attended to.
enum End {
    Shutdown,
    Failed(OpenvpnError),
}

pub(super) struct Server {
    core: Core,
    settings: Settings,
    pki: Pki,
    place: Place,
    journal: Arc<Journal>,
    gate: Gate,
    board: Board,
    process: u64,
    peers: HashMap<PeerId, Peer>,
    /// Sessions that are not closed yet, by channel.
    keepers: HashMap<ClientKey, usize>,
    /// Who waits for a channel to be free.
    cuts: Vec<(ClientKey, oneshot::Sender<()>)>,
    ending: Option<(Instant, oneshot::Sender<()>)>,
    judged: Stream<Judged>,
    verdicts: Stream<((PeerId, ClientKey), Verdict)>,
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

impl Server {
    pub(super) fn new(
        core: Core,
        settings: Settings,
        pki: Pki,
        place: Place,
        journal: Arc<Journal>,
        gate: Gate,
        board: Board,
    ) -> Self {
        Self {
            core,
            settings,
            pki,
            place,
            journal,
            gate,
            board,
            process: 0,
            peers: HashMap::new(),
            keepers: HashMap::new(),
            cuts: Vec::new(),
            ending: None,
            judged: Stream::default(),
            verdicts: Stream::default(),
        }
    }

    /// Keeps a server running until it is told to shut down.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut pauses = Pauses::default();
        while self.ending.is_none() {
            let begun = Instant::now();
            let End::Failed(error) = self.attend(&mut orders).await else { break };
            let why = full(&error);
            tracing::error!(error = why, "the server is down");
            self.board.change(|report| report.down = Some(format!("the server is down: {why}")));
            self.idle(&mut orders, Instant::now() + pauses.after(begun.elapsed())).await;
        }
        self.close(&mut orders).await;
    }

    /// Starts a process and attends to it until it ends.
    async fn attend(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> End {
        self.process += 1;
        let config = render::server(&self.settings, &self.pki, &self.place.socket);
        let started = Openvpn::start(&self.place, &config, &self.journal).await;
        let (mut openvpn, mut line) = match started {
            Ok(started) => started,
            Err(error) => return End::Failed(error),
        };
        self.gate.empty();
        let end = self.converse(&mut line, orders).await;
        if matches!(end, End::Shutdown) {
            self.farewell(&mut line).await;
        }
        drop(line);
        openvpn.end(LAST_WORDS).await;
        self.forget_all();
        match end {
            // That the line broke says little; what the process said last does.
            End::Failed(OpenvpnError::Ended(_)) => {
                End::Failed(OpenvpnError::Ended(openvpn.last_words()))
            }
            end => end,
        }
    }

    async fn converse(
        &mut self,
        line: &mut Line,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> End {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.peers.values().filter_map(|peer| peer.leaving);
            let due = due.filter(|leaving| !leaving.thrown_out).map(|l| l.until).min();
            let outcome = tokio::select! {
                message = line.next() => match message {
                    None => Err(OpenvpnError::Ended(String::new())),
                    Some(Err(error)) => Err(error),
                    Some(Ok(message)) => self.heard(line, message).await,
                },
                order = orders.recv() => match order {
                    Some(Order::Cut { channel, done }) => {
                        self.cuts.push((channel, done));
                        self.cut_channel(line, channel).await
                    }
                    Some(Order::Shutdown { deadline, done }) => {
                        self.ending = Some((Instant::now() + deadline, done));
                        return End::Shutdown;
                    }
                    None => return End::Shutdown,
                },
                Some(judged) = self.judged.receive.recv() => self.judged(line, judged).await,
                Some((mark, verdict)) = self.verdicts.receive.recv() => {
                    self.verdict(line, mark, verdict).await
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.throw_out(line).await
                }
                _ = pulse.tick() => {
                    self.forget_old_logins();
                    line.ping().await
                }
            };
            let outcome = match outcome {
                Ok(()) => self.admit(line).await,
                failed => failed,
            };
            self.settle();
            if let Err(error) = outcome {
                return End::Failed(error);
            }
        }
    }

    async fn heard(&mut self, line: &mut Line, message: Message) -> Result<(), OpenvpnError> {
        match message {
            Message::Success(_) => drop(line.answered()),
            Message::Failure(why) => {
                // A client that was to be killed may be gone by itself.
                tracing::debug!(why, "a command failed");
                line.answered();
            }
            Message::Hold => {
                line.send("bytecount 1", Asked::Done).await?;
                line.send("state on", Asked::Done).await?;
                line.send("hold release", Asked::Done).await?;
            }
            Message::State { name, .. } if name == "CONNECTED" => {
                tracing::info!(port = self.settings.port, "the server is up");
                self.board.change(|report| report.down = None);
            }
            Message::Client(event) => return self.client(line, &event).await,
            Message::Address { client, address } => {
                let id = self.id(client);
                if let Some(peer) = self.peers.get_mut(&id) {
                    // The first one is the client's own.
                    peer.address.get_or_insert(address);
                }
            }
            Message::ClientBytes { client, bytes } => self.count(client, bytes),
            Message::Fatal(why) => tracing::error!(why, "openvpn"),
            other => tracing::trace!(?other, "openvpn"),
        }
        Ok(())
    }

    fn id(&self, client: u64) -> PeerId {
        PeerId { process: self.process, client }
    }

    fn count(&self, client: u64, bytes: Bytes) {
        let peer = self.peers.get(&self.id(client));
        if let Some(meter) = peer.and_then(|peer| peer.meter.as_ref()) {
            meter.count(bytes.total());
        }
    }

    async fn client(&mut self, line: &mut Line, event: &ClientEvent) -> Result<(), OpenvpnError> {
        match event.kind {
            ClientEventKind::Connect => self.connect(line, event, false).await,
            ClientEventKind::Reauth => self.connect(line, event, true).await,
            ClientEventKind::Established => self.established(line, event).await,
            ClientEventKind::Disconnect => {
                self.disconnected(event);
                Ok(())
            }
            ClientEventKind::Other => Ok(()),
        }
    }

    /// A client has shown its credentials.
    async fn connect(
        &mut self,
        line: &mut Line,
        event: &ClientEvent,
        again: bool,
    ) -> Result<(), OpenvpnError> {
        let (id, key) = (self.id(event.client), event.key);
        let user = event.get("username").unwrap_or_default();
        let Ok(channel) = user.parse::<ClientKey>() else {
            tracing::info!(user, "the user name is no client key");
            return deny(line, event.client, key, "no such user").await;
        };
        if again && self.peers.get(&id).is_none_or(|peer| peer.channel != channel) {
            deny(line, event.client, key, "another user").await?;
            return self.cut(line, id).await;
        }
        if !again {
            let peer = Peer {
                channel,
                login: Login::Asked,
                from: from(event, "untrusted"),
                address: None,
                meter: None,
                leaving: None,
                since: Instant::now(),
            };
            self.peers.insert(id, peer);
        }
        let password = event.get("password").unwrap_or_default().to_owned();
        let (core, answers) = (self.core.clone(), self.judged.send.clone());
        tokio::spawn(async move {
            let outcome = core.auth_client(channel, &password).await;
            // The server is gone only when nobody has to be answered any more.
            let _ = answers.send(Judged { id, channel, key, again, outcome });
        });
        Ok(())
    }

    async fn judged(&mut self, line: &mut Line, judged: Judged) -> Result<(), OpenvpnError> {
        let Judged { id, channel, key, again, outcome } = judged;
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        let leaving = peer.leaving.is_some();
        if let Err(error) = outcome {
            tracing::info!(%channel, %error, from = ?peer.from, "denied");
            deny(line, id.client, key, error.name.text()).await?;
            if again {
                return self.cut(line, id).await;
            }
            self.peers.remove(&id);
            return Ok(());
        }
        if again && !leaving {
            return line.send(&format!("client-auth-nt {} {key}", id.client), Asked::Done).await;
        }
        peer.login = Login::Waiting { key };
        let others: Vec<_> = self.of_channel(channel).filter(|other| *other != id).collect();
        for other in others {
            self.supersede(line, other).await?;
        }
        Ok(())
    }

    /// Makes room for a newer login of the same channel.
    async fn supersede(&mut self, line: &mut Line, id: PeerId) -> Result<(), OpenvpnError> {
        match self.peers.get(&id).map(|peer| peer.login) {
            Some(Login::Waiting { key }) => {
                self.peers.remove(&id);
                deny(line, id.client, key, "logged in elsewhere").await
            }
            Some(Login::Accepted) => self.cut(line, id).await,
            // It will be the newer one itself when the core has answered.
            Some(Login::Asked) | None => Ok(()),
        }
    }

    /// Lets those in whose predecessors are gone.
    async fn admit(&mut self, line: &mut Line) -> Result<(), OpenvpnError> {
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
            line.send(&format!("client-auth-nt {} {key}", id.client), Asked::Done).await?;
        }
        Ok(())
    }

    async fn established(
        &mut self,
        line: &mut Line,
        event: &ClientEvent,
    ) -> Result<(), OpenvpnError> {
        let id = self.id(event.client);
        let known = self.peers.get_mut(&id).filter(|peer| peer.login == Login::Accepted);
        let Some(peer) = known else {
            tracing::warn!(client = event.client, "a client that was not let in");
            return line.send(&format!("client-kill {} HALT", id.client), Asked::Done).await;
        };
        let pushed = event.get("ifconfig_pool_remote_ip").and_then(|text| text.parse().ok());
        peer.address = peer.address.or(pushed);
        peer.from = from(event, "trusted").or(peer.from);
        let (channel, core, sink) = (peer.channel, self.core.clone(), self.verdicts.send.clone());
        peer.meter = Some(session::open(core, channel, peer.from, (id, channel), sink));
        *self.keepers.entry(channel).or_default() += 1;
        tracing::info!(%channel, from = ?peer.from, address = ?peer.address, "connected");
        Ok(())
    }

    fn disconnected(&mut self, event: &ClientEvent) {
        let id = self.id(event.client);
        let Some(peer) = self.peers.remove(&id) else { return };
        if let Some(address) = peer.address {
            self.gate.shut(address);
        }
        if let (Some(meter), Some(bytes)) = (&peer.meter, event.bytes()) {
            meter.count(bytes.total());
        }
        tracing::info!(channel = %peer.channel, "disconnected");
        // With the meter goes the session.
    }

    async fn verdict(
        &mut self,
        line: &mut Line,
        (id, channel): (PeerId, ClientKey),
        verdict: Verdict,
    ) -> Result<(), OpenvpnError> {
        match verdict {
            Verdict::Open(offering) => {
                self.serve(id, &offering);
                Ok(())
            }
            Verdict::Refused | Verdict::Over => self.cut(line, id).await,
            Verdict::Closed => {
                self.closed(channel);
                Ok(())
            }
        }
    }

    /// The session is open: now the client is let through.
    fn serve(&mut self, id: PeerId, offering: &serde_json::Value) {
        let Some(peer) = self.peers.get(&id) else { return };
        if let (Some(address), None) = (peer.address, peer.leaving) {
            self.gate.open(address, Speeds::of(offering));
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

    async fn cut_channel(
        &mut self,
        line: &mut Line,
        channel: ClientKey,
    ) -> Result<(), OpenvpnError> {
        let all: Vec<_> = self.of_channel(channel).collect();
        for id in all {
            match self.peers.get(&id).map(|peer| peer.login) {
                Some(Login::Waiting { key }) => {
                    self.peers.remove(&id);
                    deny(line, id.client, key, "the channel is stopped").await?;
                }
                // The core has been asked; it knows that the channel is stopped.
                Some(Login::Asked) | None => {}
                Some(Login::Accepted) => self.cut(line, id).await?,
            }
        }
        Ok(())
    }

    /// Shuts the gate for a client and tells it to go.
    async fn cut(&mut self, line: &mut Line, id: PeerId) -> Result<(), OpenvpnError> {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        if peer.leaving.is_some() {
            return Ok(());
        }
        if let Some(address) = peer.address {
            self.gate.shut(address);
        }
        peer.leaving = Some(Leaving { until: Instant::now() + GOODBYE, thrown_out: false });
        if peer.meter.is_none() {
            // OpenVPN says nothing of clients that go before they are in.
            self.peers.remove(&id);
        }
        line.send(&format!("client-kill {} HALT", id.client), Asked::Done).await
    }

    /// Clients that did not go when they were told.
    async fn throw_out(&mut self, line: &mut Line) -> Result<(), OpenvpnError> {
        let now = Instant::now();
        for peer in self.peers.values_mut() {
            let Some(leaving) = &mut peer.leaving else { continue };
            if leaving.thrown_out || leaving.until > now {
                continue;
            }
            leaving.thrown_out = true;
            // Others, OpenVPN removes by itself five seconds after they were told.
            if let Some(SocketAddr::V4(from)) = peer.from {
                line.send(&format!("kill {from}"), Asked::Done).await?;
            }
        }
        Ok(())
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

    fn forget_old_logins(&mut self) {
        self.peers.retain(|_, peer| peer.meter.is_some() || peer.since.elapsed() < LOGIN);
    }

    /// The process is gone, and with it all clients.
    fn forget_all(&mut self) {
        self.gate.empty();
        self.peers.clear();
        self.settle();
    }

    /// Ends the process in order: it says what each client has used.
    async fn farewell(&mut self, line: &mut Line) {
        let words = async {
            line.send("signal SIGTERM", Asked::Done).await?;
            while let Some(message) = line.next().await {
                match message? {
                    Message::Client(event) if event.kind == ClientEventKind::Disconnect => {
                        self.disconnected(&event);
                    }
                    Message::ClientBytes { client, bytes } => self.count(client, bytes),
                    _ => {}
                }
            }
            Ok::<_, OpenvpnError>(())
        };
        if let Ok(Err(error)) = timeout(LAST_WORDS, words).await {
            tracing::warn!(error = full(&error), "openvpn ended without its last words");
        }
    }

    /// Goes on without a process until the time is there.
    async fn idle(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>, until: Instant) {
        loop {
            self.settle();
            tokio::select! {
                () = sleep_until(until) => return,
                order = orders.recv() => match order {
                    Some(Order::Cut { channel, done }) => self.cuts.push((channel, done)),
                    Some(Order::Shutdown { deadline, done }) => {
                        self.ending = Some((Instant::now() + deadline, done));
                        return;
                    }
                    None => return,
                },
                Some(((_, channel), verdict)) = self.verdicts.receive.recv() => {
                    if matches!(verdict, Verdict::Closed) {
                        self.closed(channel);
                    }
                }
                // Of clients that are gone.
                Some(_) = self.judged.receive.recv() => {}
            }
        }
    }

    /// Waits for the last sessions and takes the gate away.
    async fn close(mut self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        self.gate.down().await;
        let ending = self.ending.take();
        let until =
            ending.as_ref().map_or_else(|| Instant::now() + LAST_WORDS, |(until, _)| *until);
        let rest = async {
            while !self.keepers.is_empty() {
                let Some(((_, channel), verdict)) = self.verdicts.receive.recv().await else {
                    return;
                };
                if matches!(verdict, Verdict::Closed) {
                    self.closed(channel);
                }
            }
        };
        if tokio::time::timeout_at(until, rest).await.is_err() {
            tracing::warn!("sessions were still open at the deadline");
        }
        self.settle();
        orders.close();
        if let Some((_, done)) = ending {
            let _ = done.send(());
        }
    }
}

async fn deny(line: &mut Line, client: u64, key: u64, why: &str) -> Result<(), OpenvpnError> {
    let why = quoted(why);
    line.send(&format!("client-deny {client} {key} {why} {why}"), Asked::Done).await
}

/// Where a client comes from; `kind` is `trusted` once it has logged in.
fn from(event: &ClientEvent, kind: &str) -> Option<SocketAddr> {
    let ip = event.get(&format!("{kind}_ip")).or_else(|| event.get(&format!("{kind}_ip6")))?;
    let ip: IpAddr = ip.parse().ok()?;
    let port = event.get(&format!("{kind}_port"))?.parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port))
}

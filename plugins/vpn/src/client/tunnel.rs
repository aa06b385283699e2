//! One channel's tunnel: an OpenVPN client that is kept running from start to stop.
//!
//! OpenVPN waits for `hold release` before each try, so the pauses are made here. Each time it is
//! connected there is a session of its own, whose usage is what the tunnel's device carried in that
//! time: packets that were decrypted, or are to be encrypted, and nothing that a stranger sends.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::diagnosis::{Attempt, diagnosis};
use super::dns;
use super::guards::Guards;
use super::statistics::Statistics;
use crate::journal::{Entry, Journal};
use crate::management::{Message, load_stats, quoted};
use crate::openvpn::{Asked, LastWords, Line, Openvpn, OpenvpnError, Place};
use crate::pause::Pauses;
use crate::profile::{Profile, Routes};
use crate::session::{self, COUNT, Meter, Side, Verdict, Verdicts};
use crate::{full, render};

#[cfg(test)]
mod tests;

/// How often OpenVPN is asked for a sign of life.
const PULSE: Duration = Duration::from_secs(5);

/// How long the process has to end when it was told to.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// What the module tells a tunnel.
pub(super) enum Order {
    /// Another access message.
    Apply(Box<(Profile, Vec<IpAddr>)>),
    /// Try at once.
    Wake,
    /// Take it down; answered when its session is closed. With it goes its guard, if that is to be
    /// lifted: whoever hears that the session is closed finds the plain network.
    Stop { done: oneshot::Sender<()>, lift: bool },
}

/// How a tunnel is, for the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Board(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    address: Option<Ipv4Addr>,
    session: bool,
    trouble: Option<String>,
    /// Whether that is the agent's own word on the login.
    refused: bool,
}

impl Board {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_up(&self) -> bool {
        self.change(|state| state.address.is_some() && state.session)
    }

    pub(super) fn has_session(&self) -> bool {
        self.change(|state| state.session)
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.change(|state| state.trouble.clone())
    }

    pub(super) fn describe(&self, device: &str) -> BTreeMap<String, String> {
        let mut known: BTreeMap<_, _> = [("device".to_owned(), device.to_owned())].into();
        if let Some(address) = self.change(|state| state.address) {
            known.insert("address".to_owned(), address.to_string());
        }
        known
    }
}

pub(super) struct Tunnel {
    pub(super) core: Core,
    pub(super) channel: ClientKey,
    pub(super) profile: Profile,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) device: String,
    pub(super) place: Place,
    pub(super) set_dns: bool,
    pub(super) journal: Arc<Journal>,
    pub(super) guards: Arc<Guards>,
    pub(super) statistics: Statistics,
    pub(super) board: Board,
}

/// Why a process is no longer attended to.
enum End {
    Stop {
        done: Option<oneshot::Sender<()>>,
        lift: bool,
    },
    Apply,
    /// The core does not want the channel to be used any more.
    Over,
    Failed(OpenvpnError),
}

/// One process, while it is attended to.
struct Attended<'a> {
    tunnel: &'a mut Tunnel,
    line: Line,
    pauses: &'a mut Pauses,
    keepers: &'a mut Keepers,
    /// What OpenVPN has received, from whomever; to say what became of a try, never usage.
    received: u64,
    /// The same when the present try began.
    received_before: u64,
    /// How the last try failed, if that has not been told yet.
    failed: Option<String>,
    /// What the device has said last; one that is made anew begins at 0.
    last: u64,
    /// What all have carried, and what they had when the present session began.
    carried: u64,
    base: u64,
    meter: Option<Meter>,
    connected: Option<Instant>,
    /// When to release the hold.
    release: Option<Instant>,
    resolvers: Option<Entry>,
    holds: u32,
    said: LastWords,
}

/// Sessions of the tunnel that are not closed yet.
struct Keepers {
    send: Verdicts<u64>,
    receive: mpsc::UnboundedReceiver<(u64, Verdict)>,
    open: usize,
    last: u64,
}

impl Tunnel {
    /// Keeps the tunnel up until it is told to stop.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let (send, receive) = mpsc::unbounded_channel();
        let mut keepers = Keepers { send, receive, open: 0, last: 0 };
        let mut pauses = Pauses::default();
        let done = loop {
            let begun = Instant::now();
            let until = match self.attend(&mut orders, &mut pauses, &mut keepers).await {
                End::Stop { done, .. } => break done,
                End::Apply => continue,
                End::Over => {
                    tracing::info!(channel = %self.channel, "not to be used any more");
                    None
                }
                End::Failed(error) => {
                    let why = full(&error);
                    tracing::warn!(channel = %self.channel, error = why, "the tunnel is down");
                    let is_ours = matches!(error, OpenvpnError::NoAddress | OpenvpnError::Link(_));
                    self.trouble(why, is_ours);
                    Some(Instant::now() + pauses.after(begun.elapsed()))
                }
            };
            if let Some(done) = self.idle(&mut orders, &mut keepers, until).await {
                break done;
            }
        };
        keepers.close().await;
        self.board.change(|state| *state = State::default());
        if let Some(done) = done {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }

    fn trouble(&self, why: String, is_ours: bool) {
        // The first words say more than that of the process that ended for it.
        self.board.change(|state| {
            if state.trouble.is_none() || is_ours {
                state.trouble = Some(why);
            }
        });
    }

    /// Goes on without a process until the time is there, or an order.
    async fn idle(
        &mut self,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        keepers: &mut Keepers,
        until: Option<Instant>,
    ) -> Option<Option<oneshot::Sender<()>>> {
        loop {
            tokio::select! {
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    return None;
                }
                order = orders.recv() => match order {
                    Some(Order::Apply(news)) => {
                        (self.profile, self.addresses) = *news;
                        return None;
                    }
                    Some(Order::Wake) => return None,
                    Some(Order::Stop { done, .. }) => return Some(Some(done)),
                    None => return Some(None),
                },
                Some((_, verdict)) = keepers.receive.recv() => keepers.note(&verdict),
            }
        }
    }

    /// Starts a process and attends to it until it ends.
    async fn attend(
        &mut self,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        pauses: &mut Pauses,
        keepers: &mut Keepers,
    ) -> End {
        let config =
            render::client(&self.profile, &self.addresses, &self.device, &self.place.socket);
        let started = Openvpn::start(&self.place, &config, &self.journal).await;
        let (mut openvpn, line) = match started {
            Ok(started) => started,
            Err(error) => return End::Failed(error),
        };
        let said = openvpn.words();
        let mut attended = Attended {
            tunnel: self,
            line,
            pauses,
            keepers,
            received: 0,
            received_before: 0,
            failed: None,
            last: 0,
            carried: 0,
            base: 0,
            meter: None,
            connected: None,
            release: None,
            resolvers: None,
            holds: 0,
            said,
        };
        let end = attended.converse(orders).await;
        if !matches!(end, End::Failed(_)) {
            attended.farewell().await;
        }
        let meter = attended.gone().await;
        drop(attended);
        let hangs = matches!(end, End::Failed(OpenvpnError::Hangs));
        openvpn.end(if hangs { Duration::ZERO } else { LAST_WORDS }).await;
        if matches!(end, End::Stop { lift: true, .. }) {
            let channel = self.channel;
            // Whoever stops it lifts it once more, and says what is wrong.
            let _ = self.guards.lift(|owner| owner == channel).await;
        }
        // With the meter goes the session.
        drop(meter);
        match end {
            End::Failed(OpenvpnError::Ended(_) | OpenvpnError::Line(_)) => {
                End::Failed(OpenvpnError::Ended(openvpn.last_words()))
            }
            end => end,
        }
    }
}

impl Attended<'_> {
    async fn converse(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> End {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = interval(COUNT);
        count.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let release = self.release;
            let outcome = tokio::select! {
                message = self.line.next() => match message {
                    None => Err(OpenvpnError::Ended(String::new())),
                    Some(Err(error)) => Err(error),
                    Some(Ok(message)) => self.heard(message).await,
                },
                order = orders.recv() => match order {
                    Some(Order::Apply(news)) => {
                        (self.tunnel.profile, self.tunnel.addresses) = *news;
                        self.pauses.reset();
                        return End::Apply;
                    }
                    Some(Order::Wake) => {
                        self.release = self.release.map(|_| Instant::now());
                        Ok(())
                    }
                    Some(Order::Stop { done, lift }) => {
                        return End::Stop { done: Some(done), lift };
                    }
                    None => return End::Stop { done: None, lift: false },
                },
                Some((mark, verdict)) = self.keepers.receive.recv() => {
                    self.keepers.note(&verdict);
                    // Of an earlier session there is nothing more to be learnt.
                    let news = mark == self.keepers.last && self.meter.is_some();
                    match verdict {
                        Verdict::Over | Verdict::Refused if news => return End::Over,
                        Verdict::Open(..) if news => {
                            self.tunnel.board.change(|state| state.session = true);
                        }
                        _ => {}
                    }
                    Ok(())
                }
                () = sleep_until(release.unwrap_or_else(Instant::now)), if release.is_some() => {
                    self.try_now().await
                }
                _ = count.tick(), if self.meter.is_some() => {
                    self.count();
                    Ok(())
                }
                _ = pulse.tick() => self.line.ping().await,
            };
            if let Err(error) = outcome {
                return End::Failed(error);
            }
        }
    }

    async fn heard(&mut self, message: Message) -> Result<(), OpenvpnError> {
        match message {
            Message::Success(answer) => self.done(&answer),
            Message::Failure(why) => {
                tracing::debug!(why, "a command failed");
                if self.line.answered() == Some(Asked::Stats) {
                    self.diagnose();
                }
            }
            Message::Hold => return self.hold().await,
            Message::NeedPassword(what) if what == "Auth" => return self.log_in().await,
            Message::Refused(why) => {
                tracing::info!(channel = %self.tunnel.channel, why, "the agent refused the login");
                self.tunnel.board.change(|state| {
                    state.trouble = Some(format!("the agent refused the login: {why}"));
                    state.refused = true;
                });
            }
            Message::Bytes(bytes) => self.received = self.received.max(bytes.incoming),
            Message::State { name, detail, address } => {
                return self.state(&name, &detail, address).await;
            }
            Message::Fatal(why) => {
                tracing::error!(channel = %self.tunnel.channel, why, "openvpn");
                self.tunnel.board.change(|state| state.trouble = Some(why));
            }
            other => tracing::trace!(?other, "openvpn"),
        }
        Ok(())
    }

    /// A command was done; one of them was asked for what has come.
    fn done(&mut self, answer: &str) {
        if self.line.answered() == Some(Asked::Stats) {
            let incoming = load_stats(answer).map_or(0, |bytes| bytes.incoming);
            self.received = self.received.max(incoming);
            self.diagnose();
        }
    }

    /// Says why a try has failed, now that it is known what came in it.
    fn diagnose(&mut self) {
        let Some(detail) = self.failed.take() else { return };
        let tunnel = &*self.tunnel;
        let said = self.said.telling();
        let why = diagnosis(&Attempt {
            addresses: &tunnel.addresses,
            port: tunnel.profile.port,
            protocol: tunnel.profile.protocol,
            received: self.received.saturating_sub(self.received_before),
            detail: &detail,
            said: said.as_deref(),
        });
        tracing::warn!(channel = %tunnel.channel, "{why}");
        tunnel.board.change(|state| {
            // The agent's own word says more.
            if !state.refused {
                state.trouble = Some(why);
            }
        });
    }

    /// OpenVPN waits before a try: the first one is made at once.
    async fn hold(&mut self) -> Result<(), OpenvpnError> {
        self.disconnected();
        self.holds += 1;
        if self.holds == 1 {
            self.line.send("bytecount 1", Asked::Done).await?;
            self.line.send("state on", Asked::Done).await?;
            self.release = Some(Instant::now());
            return Ok(());
        }
        let well = self.connected.take().map(|since| since.elapsed()).unwrap_or_default();
        self.release = Some(Instant::now() + self.pauses.after(well));
        Ok(())
    }

    async fn try_now(&mut self) -> Result<(), OpenvpnError> {
        self.release = None;
        self.tunnel.board.change(|state| state.refused = false);
        self.line.send("hold release", Asked::Done).await
    }

    async fn log_in(&mut self) -> Result<(), OpenvpnError> {
        let Profile { user, password, .. } = &self.tunnel.profile;
        let user = format!("username \"Auth\" {}", quoted(user));
        let password = format!("password \"Auth\" {}", quoted(&password.0));
        self.line.send(&user, Asked::Done).await?;
        self.line.send(&password, Asked::Done).await
    }

    async fn state(
        &mut self,
        name: &str,
        detail: &str,
        address: Option<Ipv4Addr>,
    ) -> Result<(), OpenvpnError> {
        match name {
            "CONNECTED" => return self.up(detail, address).await,
            "WAIT" | "TCP_CONNECT" => self.received_before = self.received,
            "RECONNECTING" | "EXITING" => {
                tracing::info!(channel = %self.tunnel.channel, why = detail, "disconnected");
                if self.meter.is_some() {
                    let why = format!("the connection was lost: {detail}");
                    self.tunnel.board.change(|state| state.trouble = Some(why));
                } else {
                    self.failed = Some(detail.to_owned());
                }
                self.disconnected();
                self.line.send("load-stats", Asked::Stats).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn up(&mut self, detail: &str, address: Option<Ipv4Addr>) -> Result<(), OpenvpnError> {
        let tunnel = &mut *self.tunnel;
        let Some(own) = address else { return Err(OpenvpnError::NoAddress) };
        tunnel
            .guards
            .link(tunnel.channel, own)
            .await
            .map_err(|error| OpenvpnError::Link(full(&error)))?;
        tracing::info!(channel = %tunnel.channel, ?address, detail, "connected");
        let mut trouble =
            (detail != "SUCCESS").then(|| format!("connected, but not all is set up: {detail}"));
        if tunnel.set_dns && tunnel.profile.routes == Routes::Everything && self.resolvers.is_none()
        {
            match dns::set(&tunnel.device, &tunnel.profile.dns, &tunnel.journal).await {
                Ok(entry) => self.resolvers = entry,
                Err(error) => {
                    trouble = Some(format!("the resolvers are not set: {}", full(&error)))
                }
            }
        }
        tunnel.board.change(|state| {
            state.address = address;
            state.trouble = trouble;
        });
        self.connected = Some(Instant::now());
        // What was dropped meanwhile is nobody's.
        self.count();
        self.base = self.carried;
        self.keepers.last += 1;
        self.keepers.open += 1;
        let tunnel = &*self.tunnel;
        let (mark, sink) = (self.keepers.last, self.keepers.send.clone());
        self.meter = Some(session::open(
            tunnel.core.clone(),
            tunnel.channel,
            Side::Client,
            None,
            mark,
            sink,
        ));
        Ok(())
    }

    /// Takes a count of what the device has carried since it was made.
    fn count(&mut self) {
        let now = self.tunnel.statistics.of(&self.tunnel.device).unwrap_or(0);
        self.carried += now.checked_sub(self.last).unwrap_or(now);
        self.last = now;
        if let Some(meter) = &self.meter {
            meter.count(self.carried - self.base);
        }
    }

    /// The connection is over. With the meter goes the session.
    fn disconnected(&mut self) {
        self.count();
        self.meter = None;
        self.tunnel.board.change(|state| (state.address, state.session) = (None, false));
    }

    /// Ends the process in order, with the last count.
    async fn farewell(&mut self) {
        // Nothing passes any more: what was counted is all.
        self.tunnel.guards.unlink(self.tunnel.channel).await;
        self.count();
        let words = async {
            self.line.send("signal SIGTERM", Asked::Done).await?;
            while let Some(message) = self.line.next().await {
                match message? {
                    Message::Success(answer) => self.done(&answer),
                    Message::Failure(_) => drop(self.line.answered()),
                    _ => {}
                }
            }
            Ok::<_, OpenvpnError>(())
        };
        if let Ok(Err(error)) = timeout(LAST_WORDS, words).await {
            tracing::warn!(error = full(&error), "openvpn ended without its last words");
        }
    }

    /// The process is gone, or about to be. The session is open as long as the meter is kept.
    async fn gone(&mut self) -> Option<Meter> {
        self.count();
        let meter = self.meter.take();
        self.disconnected();
        self.tunnel.guards.unlink(self.tunnel.channel).await;
        if let Some(entry) = self.resolvers.take()
            && let Err(error) = self.tunnel.journal.undo(&entry).await
        {
            tracing::error!(error = full(&error), "the resolvers were not put back");
        }
        meter
    }
}

impl Keepers {
    fn note(&mut self, verdict: &Verdict) {
        if matches!(verdict, Verdict::Closed) {
            self.open = self.open.saturating_sub(1);
        }
    }

    /// Waits until all sessions are closed.
    async fn close(&mut self) {
        while self.open > 0 {
            let Some((_, verdict)) = self.receive.recv().await else { return };
            self.note(&verdict);
        }
    }
}

//! The line to a standalone module: how commands reach its program, and its answers the host.
//!
//! A program subscribes, and from then on is told; one at a time for a product, so that who comes back
//! while its old connection is not known to be dead yet is told at once. What was told and not answered
//! when a subscription ends counts as not told. Nothing here knows of sockets: a [`Subscription`] is
//! read by whatever brings its commands to the program.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use privatix_plugin_api::message::{
    ClientKey, Description, Done, Health, ModuleRequest, Sessions, Started, StopReason,
};
use privatix_plugin_api::{Fault, FaultKind};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::door::Door;
use super::registry::{ConnectionView, Registry};
use privatix_base::clock;
use privatix_base::logging::{Admission, Flow};
use privatix_core::Caller;

/// How long a program that asks for commands now and then counts as there after it has asked last.
pub const LEASE: Duration = Duration::from_secs(60);

/// The most channels of one connection of which it is remembered that a stop was told.
const MOST_STOPPED: usize = 65_536;

/// What a program is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Rises within a subscription, from 1.
    pub number: u64,
    /// What to do.
    pub order: Order,
}

/// See [`ModuleRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Serve a channel.
    Start(ClientKey),
    /// Serve it no longer.
    Stop(ClientKey, StopReason),
    /// Say which channels are served.
    Sessions,
    /// For tests alone: carry about so much through a channel, in smallest units.
    Exercise(ClientKey, u64),
}

impl Order {
    /// Whether it means something where no answer can be given.
    fn can_be_told(self) -> bool {
        matches!(self, Self::Start(_) | Self::Stop(..))
    }
}

/// When a command counts as carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// When the program says so.
    Answered,
    /// When it was given to the program's connection: it has no way to say more.
    Told,
}

/// How a program learns of its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By its connection, with which the subscription ends.
    Pushed {
        /// Which connection.
        connection: Uuid,
    },
    /// It asks; the subscription ends when it does not for [`LEASE`].
    Asked,
}

/// See the module's documentation.
pub struct Line {
    door: Arc<Door>,
    card: Value,
    registry: Arc<Registry>,
    inner: Mutex<Inner>,
    /// Notes in the log about its program.
    notes: Flow,
}

#[derive(Default)]
struct Inner {
    current: Option<Arc<Subscription>>,
    /// Channels that the program serves, as far as it has said.
    serving: HashSet<ClientKey>,
    descriptions: HashMap<ClientKey, Description>,
    over: bool,
}

/// Why a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// One of another connection has taken its place.
    TakenOver,
    /// One of the same connection has.
    Renewed,
    /// The program wants to be told no more; its connection goes on.
    Left,
    /// The module is not run any more, or the connection is gone.
    Over,
}

/// The module is not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the module is not run any more")]
pub struct LineOver;

impl Line {
    /// A line without a program. `card` is what a program is told about itself. Its calls come by the
    /// door, which is closed with the line.
    pub fn new(door: Arc<Door>, card: &impl Serialize, registry: Arc<Registry>) -> Self {
        let card = serde_json::to_value(card).unwrap_or_default();
        let inner = Mutex::default();
        let line = Self { door, card, registry, notes: Flow::default(), inner };
        line.show(false);
        line
    }

    /// On whose behalf its program calls.
    pub fn caller(&self) -> &Caller {
        self.door.caller()
    }

    /// The way of its program's calls.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// What the program is told about itself, settings included.
    pub fn card(&self) -> &Value {
        &self.card
    }

    /// From now on this subscription is told; the one before it ends. The program serves these
    /// channels already, if it says which.
    ///
    /// # Errors
    /// [`LineOver`].
    pub fn subscribe(
        &self,
        id: String,
        style: Style,
        way: Way,
        serving: Option<&[ClientKey]>,
    ) -> Result<Arc<Subscription>, LineOver> {
        let mut inner = self.lock();
        if inner.over {
            return Err(LineOver);
        }
        let subscription = Arc::new(Subscription::new(id, style, way));
        if let Some(before) = inner.current.replace(Arc::clone(&subscription)) {
            if before.way == way && way != Way::Asked {
                before.end(Ended::Renewed);
            } else {
                before.end(Ended::TakenOver);
                self.note("another program has taken over");
            }
        }
        if let Some(serving) = serving {
            inner.serving = serving.iter().copied().collect();
            inner.descriptions.clear();
        }
        self.show(true);
        self.note("connected");
        Ok(subscription)
    }

    /// Whether its module has ended.
    pub fn is_over(&self) -> bool {
        self.lock().over
    }

    /// The subscription that is told now, if this is its id.
    pub fn subscription(&self, id: &str) -> Option<Arc<Subscription>> {
        self.lock().current.clone().filter(|current| current.id == id)
    }

    /// A subscription is over; nothing changes if another one has taken its place.
    pub fn leave(&self, subscription: &Arc<Subscription>, why: Ended) {
        subscription.end(why);
        let mut inner = self.lock();
        if inner.current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, subscription)) {
            return;
        }
        inner.current = None;
        self.show(false);
        self.note("not connected any more");
    }

    /// Ends it for good.
    pub fn end(&self) {
        let mut inner = self.lock();
        if std::mem::replace(&mut inner.over, true) {
            return;
        }
        self.door.gate().close();
        if let Some(current) = inner.current.take() {
            current.end(Ended::Over);
        }
        self.registry.update(&self.caller().name, |view| view.connection = None);
    }

    /// Whether there is a program to be told.
    pub fn is_connected(&self) -> bool {
        let Some(current) = self.lock().current.clone() else { return false };
        if current.is_gone(Instant::now()) {
            self.leave(&current, Ended::Over);
            return false;
        }
        true
    }

    /// Whether the program that is connected has no way to answer a command.
    pub fn is_only_told(&self) -> bool {
        self.lock().current.as_ref().is_some_and(|current| current.style == Style::Told)
    }

    /// The program has begun to serve a channel by itself; a stop is told again from now on.
    pub fn began(&self, channel: ClientKey) {
        if let Some(current) = self.lock().current.clone() {
            current.lock().stopped.remove(&channel);
        }
    }

    /// The program has stopped a channel by itself; a stop that waits to be told to it is not.
    pub fn stopped(&self, channel: ClientKey) {
        let Some(current) = self.lock().current.clone() else { return };
        for number in current.stops_of(channel) {
            self.answered(&current, number, json(&Done {}), None);
        }
    }

    /// Has a command carried out, or answers what needs no program.
    ///
    /// # Errors
    /// The program's fault; one of the kind `Stopped` where there is no program, or it has gone
    /// before it answered.
    pub async fn call(&self, request: &ModuleRequest) -> Result<Value, Fault> {
        if self.lock().over {
            return Err(Fault::new(FaultKind::Stopped, "the module is not run any more"));
        }
        match request {
            // It asks for its settings itself.
            ModuleRequest::Configure { .. } => json(&Done {}),
            ModuleRequest::Start { client_key } => self.order(Order::Start(*client_key)).await,
            ModuleRequest::Stop { client_key, reason } => {
                self.order(Order::Stop(*client_key, *reason)).await
            }
            ModuleRequest::Exercise { client_key, amount } => {
                self.order(Order::Exercise(*client_key, *amount)).await
            }
            ModuleRequest::Sessions => match self.order(Order::Sessions).await {
                Ok(serving) => Ok(serving),
                // There is nobody to ask, or nobody who can say more than was seen.
                Err(_) => {
                    let client_keys = self.lock().serving.iter().copied().collect();
                    json(&Sessions { client_keys })
                }
            },
            ModuleRequest::Health if self.is_connected() => json(&Health::Healthy),
            ModuleRequest::Health => {
                json(&Health::Unhealthy("its program is not connected".into()))
            }
            ModuleRequest::Describe { client_key } => {
                json(&self.lock().descriptions.get(client_key).cloned().unwrap_or_default())
            }
            _ => Err(unsupported()),
        }
    }

    async fn order(&self, order: Order) -> Result<Value, Fault> {
        let current = self.lock().current.clone().ok_or_else(gone)?;
        if current.style == Style::Told && !order.can_be_told() {
            return Err(unsupported());
        }
        if let Order::Stop(channel, _) = order
            && current.lock().stopped.contains(&channel)
        {
            // Told once a connection: what answers it is the program's own `stopSession`.
            return json(&Done {});
        }
        let answer = current.put(order)?;
        answer.wait().await
    }

    /// Has the program stop a channel that it says it serves and should not; nobody waits for it.
    pub fn stray(&self, channel: ClientKey, reason: StopReason) {
        if let Some(current) = self.lock().current.clone() {
            current.put_unasked(Order::Stop(channel, reason));
        }
    }

    /// The program's answer to a command, as [`ModuleRequest`] has it; one that nobody waits for any
    /// more is without effect.
    pub fn answered(
        &self,
        subscription: &Subscription,
        number: u64,
        answer: Result<Value, Fault>,
        description: Option<Description>,
    ) {
        let Some(Waiting { command, answer: waits }) = subscription.take(number) else { return };
        let mut inner = self.lock();
        match (command.order, &answer) {
            (Order::Start(channel), Ok(_)) => {
                inner.serving.insert(channel);
                if let Some(description) = description {
                    inner.descriptions.insert(channel, description);
                }
            }
            (Order::Stop(channel, _), Ok(_)) => {
                inner.serving.remove(&channel);
                inner.descriptions.remove(&channel);
            }
            (Order::Sessions | Order::Exercise(..), Ok(_)) | (_, Err(_)) => {}
        }
        drop(inner);
        if let Some(waits) = waits {
            // The caller that waited may have given up.
            let _ = waits.send(answer);
        }
    }

    /// A command has been given to the program's connection.
    pub fn told(&self, subscription: &Subscription, number: u64) {
        let Some(command) = subscription.waiting(number) else { return };
        if subscription.style == Style::Told {
            subscription.note(command.order);
            let answer = match command.order {
                Order::Start(_) => json(&Started::Later),
                _ => json(&Done {}),
            };
            self.answered(subscription, number, answer, None);
        }
    }

    /// Notes what its program does, unless it does so without end.
    fn note(&self, what: &'static str) {
        let module = &self.caller().name;
        match self.notes.admit(what.len()) {
            Admission::Write { skipped: 0 } => tracing::info!(module, "{what}"),
            Admission::Write { skipped } => tracing::warn!(module, skipped, "{what}"),
            Admission::FirstSkipped => {
                tracing::warn!(module, "its program comes and goes without end: no longer noted");
            }
            Admission::Skipped => {}
        }
    }

    fn show(&self, connected: bool) {
        let connection = ConnectionView { connected, since: clock::unix_now() };
        self.registry.update(&self.caller().name, |view| view.connection = Some(connection));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one program is told, in order.
pub struct Subscription {
    id: String,
    style: Style,
    way: Way,
    state: Mutex<State>,
    /// The newest command's number, or that it is over.
    news: watch::Sender<u64>,
}

struct State {
    last: u64,
    /// What was not answered yet.
    waiting: BTreeMap<u64, Waiting>,
    over: Option<Ended>,
    /// Of a program that cannot answer: channels that it was told to stop, and not to start since.
    stopped: HashSet<ClientKey>,
    /// How often it is being asked now, and when it was asked last.
    asking: usize,
    asked: Instant,
}

struct Waiting {
    command: Command,
    answer: Option<oneshot::Sender<Result<Value, Fault>>>,
}

impl Subscription {
    fn new(id: String, style: Style, way: Way) -> Self {
        let state = State {
            last: 0,
            waiting: BTreeMap::new(),
            over: None,
            stopped: HashSet::new(),
            asking: 0,
            asked: Instant::now(),
        };
        Self { id, style, way, state: Mutex::new(state), news: watch::Sender::new(0) }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How its program learns of commands.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The next command behind a number, when there is one.
    ///
    /// # Errors
    /// [`Ended`], once it is.
    pub async fn next(&self, after: u64) -> Result<Command, Ended> {
        let mut news = self.news.subscribe();
        loop {
            news.borrow_and_update();
            if let Some(next) = self.now(after)? {
                return Ok(next);
            }
            // The other end of it is in here, too.
            news.changed().await.map_err(|_| Ended::Over)?;
        }
    }

    fn now(&self, after: u64) -> Result<Option<Command>, Ended> {
        let state = self.lock();
        match state.over {
            Some(ended) => Err(ended),
            None => {
                let mut waiting = state.waiting.range(after.saturating_add(1)..);
                Ok(waiting.next().map(|(_, waiting)| waiting.command))
            }
        }
    }

    /// A command that was not answered yet.
    pub fn waiting(&self, number: u64) -> Option<Command> {
        self.lock().waiting.get(&number).map(|waiting| waiting.command)
    }

    /// All commands behind a number that are not answered, as soon as there is one or the time is
    /// over; nothing once the subscription is.
    pub async fn ask(&self, after: u64, wait: Duration) -> Option<Vec<Command>> {
        let _asking = Asking::begin(self);
        // What comes within the time is there to be read; what does not is the same as nothing.
        let _ = tokio::time::timeout(wait, self.next(after)).await;
        let state = self.lock();
        let waiting = state.waiting.range(after.saturating_add(1)..);
        state.over.is_none().then(|| waiting.map(|(_, waiting)| waiting.command).collect())
    }

    fn put(&self, order: Order) -> Result<Answer<'_>, Fault> {
        let (send, receive) = oneshot::channel();
        let number = self.add(order, Some(send)).ok_or_else(gone)?;
        Ok(Answer { subscription: self, number, receive })
    }

    fn put_unasked(&self, order: Order) {
        // A subscription that is over has nobody to be told.
        let _ = self.add(order, None);
    }

    fn add(
        &self,
        order: Order,
        answer: Option<oneshot::Sender<Result<Value, Fault>>>,
    ) -> Option<u64> {
        let mut state = self.lock();
        if state.over.is_some() {
            return None;
        }
        state.last += 1;
        let number = state.last;
        let command = Command { number, order };
        state.waiting.insert(number, Waiting { command, answer });
        drop(state);
        self.news.send_replace(number);
        Some(number)
    }

    /// Notes what a program that cannot answer has been told.
    fn note(&self, order: Order) {
        let mut state = self.lock();
        match order {
            Order::Start(channel) => drop(state.stopped.remove(&channel)),
            Order::Stop(channel, _) => {
                if state.stopped.len() >= MOST_STOPPED {
                    // To be told a stop twice harms less than to be remembered for ever.
                    state.stopped.clear();
                }
                state.stopped.insert(channel);
            }
            Order::Sessions | Order::Exercise(..) => {}
        }
    }

    fn stops_of(&self, channel: ClientKey) -> Vec<u64> {
        let state = self.lock();
        let stops = state.waiting.iter().filter(
            |(_, waiting)| matches!(waiting.command.order, Order::Stop(of, _) if of == channel),
        );
        stops.map(|(number, _)| *number).collect()
    }

    fn take(&self, number: u64) -> Option<Waiting> {
        self.lock().waiting.remove(&number)
    }

    fn end(&self, why: Ended) {
        let mut state = self.lock();
        state.over.get_or_insert(why);
        // Dropped, so that a waiting caller learns that nobody will answer.
        state.waiting.clear();
        drop(state);
        self.news.send_modify(|number| *number += 1);
    }

    fn is_gone(&self, now: Instant) -> bool {
        let state = self.lock();
        let silent = state.asking == 0 && now.duration_since(state.asked) > LEASE;
        state.over.is_some() || (self.way == Way::Asked && silent)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question for commands under way.
struct Asking<'s>(&'s Subscription);

impl<'s> Asking<'s> {
    fn begin(subscription: &'s Subscription) -> Self {
        subscription.lock().asking += 1;
        Self(subscription)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.asking -= 1;
        state.asked = Instant::now();
    }
}

/// An answer that is waited for; when it is no longer, the command is told no more.
struct Answer<'s> {
    subscription: &'s Subscription,
    number: u64,
    receive: oneshot::Receiver<Result<Value, Fault>>,
}

impl Answer<'_> {
    async fn wait(mut self) -> Result<Value, Fault> {
        (&mut self.receive).await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        drop(self.subscription.take(self.number));
    }
}

fn unsupported() -> Fault {
    Fault::new(FaultKind::Unsupported, "a standalone module is not asked that")
}

fn gone() -> Fault {
    Fault::new(FaultKind::Stopped, "the module's program is not connected")
}

fn json(value: &impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(value).map_err(|error| {
        Fault::new(FaultKind::Failed, format!("an answer cannot be read: {error}"))
    })
}

#[cfg(test)]
mod tests;

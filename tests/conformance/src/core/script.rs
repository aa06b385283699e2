//! What stands between a module and its core: keeps what was said, and breaks in where it is told.
//!
//! The way to the core is the host's own, with its door. The script stands behind the door, so that it is
//! the same for libraries and for programs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use abi_stable::erased_types::TD_Opaque;
use privatix_core::{Caller, CoreReply, ModuleApi, ModuleCall};
use privatix_modules::door;
use privatix_plugin_api::abi::{
    Bytes, CoreInterface, CoreInterface_TO, CoreObject, Future, FutureExt,
};
use privatix_plugin_api::message::{
    ApiError, ClientKey, CoreRequest, ErrorName, LogEvent, Reply, SessionId, Status, Usage,
};
use serde_json::Value;

/// Which call of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Call {
    AuthClient,
    SetProductConfig,
    GetAccess,
    ServiceReady,
    StartSession,
    UpdateSession,
    StopSession,
    Other,
}

impl Call {
    fn of(request: &CoreRequest) -> Self {
        match request {
            CoreRequest::AuthClient { .. } => Self::AuthClient,
            CoreRequest::SetProductConfig { .. } => Self::SetProductConfig,
            CoreRequest::GetAccess { .. } => Self::GetAccess,
            CoreRequest::ServiceReady { .. } => Self::ServiceReady,
            CoreRequest::StartSession { .. } => Self::StartSession,
            CoreRequest::UpdateSession { .. } => Self::UpdateSession,
            CoreRequest::StopSession { .. } => Self::StopSession,
            _ => Self::Other,
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is answered with an error, and the core does not hear of it.
    Refuse(ErrorName),
    /// It is passed on and answered late.
    Delay(Duration),
    /// It is passed on, and the answer gets lost: the module hears `Internal`.
    Lose,
    /// It is never answered.
    Silence,
    /// It is answered with what is no message.
    Garbage,
    /// It is passed on, and the answer says another status.
    Say(Status),
    /// It is passed on, and the answer states no more credit than is left of this usage of the channel.
    Credit(u64),
}

/// A call that was made.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which.
    pub call: Call,
    /// Its channel.
    pub channel: Option<ClientKey>,
    /// Its session.
    pub session: Option<SessionId>,
    /// What it reported.
    pub usage: Option<Usage>,
    /// What the module was answered, `{"ok": …}` or `{"error": …}`; nothing so far.
    pub reply: Option<Value>,
}

impl Seen {
    /// Whether it was answered well.
    pub fn is_ok(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.get("ok").is_some())
    }

    /// The name of the error it was answered with.
    pub fn error(&self) -> Option<&str> {
        self.reply.as_ref()?.get("error")?.get("name")?.as_str()
    }

    /// Whether it was answered with one of these errors.
    pub fn is_refused_as(&self, names: &[ErrorName]) -> bool {
        let error = self.reply.as_ref().and_then(|reply| reply.get("error"));
        let name = error.and_then(|error| serde_json::from_value(error.get("name")?.clone()).ok());
        name.is_some_and(|name: ErrorName| names.contains(&name))
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Script {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    acts: HashMap<Option<Call>, (Act, u64)>,
    seen: Vec<Seen>,
    events: Vec<LogEvent>,
}

impl Script {
    /// From now on the next so many calls of a kind, or of any, are treated so.
    pub fn set(&self, call: Option<Call>, act: Act, times: u64) {
        self.lock().acts.insert(call, (act, times));
    }

    /// From now on the core answers everything as it is.
    pub fn clear(&self) {
        self.lock().acts.clear();
    }

    /// The calls so far, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// The calls of a kind so far.
    pub fn calls(&self, call: Call) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|one| one.call == call);
        seen
    }

    /// What a channel has used by the reports of its module, without those that were refused.
    pub fn reported(&self, channel: ClientKey) -> u64 {
        let inner = self.lock();
        let mut totals: HashMap<Option<SessionId>, u64> = HashMap::new();
        let mut increments = HashMap::new();
        let mine = inner.seen.iter().filter(|seen| seen.channel == Some(channel));
        for seen in mine.filter(|seen| seen.error().is_none()) {
            match seen.usage {
                Some(Usage::Total(total)) => {
                    let known = totals.entry(seen.session).or_default();
                    *known = total.max(*known);
                }
                Some(Usage::Incremental { sequence, amount }) => {
                    increments.insert((seen.session, sequence), amount);
                }
                None => {}
            }
        }
        totals.into_values().chain(increments.into_values()).fold(0, u64::saturating_add)
    }

    /// The module's log so far.
    pub fn events(&self) -> Vec<LogEvent> {
        self.lock().events.clone()
    }

    /// What stands behind the door of a module: the core, as the script lets it be.
    pub fn before(self: &Arc<Self>, core: ModuleApi) -> Arc<dyn door::Core> {
        Arc::new(Scripted { script: Arc::clone(self), core })
    }

    fn enter(&self, request: &CoreRequest) -> (usize, Option<Act>) {
        let call = Call::of(request);
        let mut inner = self.lock();
        let mut act = None;
        for key in [Some(call), None] {
            if let Some((set, times)) = inner.acts.get_mut(&key).filter(|(_, times)| *times > 0) {
                *times -= 1;
                act = Some(*set);
                break;
            }
        }
        let (channel, session, usage) = about(request);
        inner.seen.push(Seen { call, channel, session, usage, reply: None });
        (inner.seen.len() - 1, act)
    }

    fn answered(&self, at: usize, reply: &Answer) {
        if let Some(seen) = self.lock().seen.get_mut(at) {
            seen.reply = serde_json::to_value(Reply::from(reply.clone())).ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn about(request: &CoreRequest) -> (Option<ClientKey>, Option<SessionId>, Option<Usage>) {
    match request {
        CoreRequest::AuthClient { client_key, .. }
        | CoreRequest::GetAccess { client_key }
        | CoreRequest::ServiceReady { client_key }
        | CoreRequest::HoldChannel { client_key, .. }
        | CoreRequest::StartSession { client_key, .. } => (Some(*client_key), None, None),
        CoreRequest::UpdateSession { client_key, session, usage } => {
            (Some(*client_key), Some(*session), Some(*usage))
        }
        CoreRequest::StopSession { client_key, session } => {
            (Some(*client_key), Some(*session), None)
        }
        _ => (None, None, None),
    }
}

type Answer = Result<CoreReply, ApiError>;

struct Scripted {
    script: Arc<Script>,
    core: ModuleApi,
}

impl door::Core for Scripted {
    fn call<'a>(&'a self, caller: &'a Caller, call: ModuleCall) -> door::Answering<'a> {
        Box::pin(async move {
            let ModuleCall::Api(request) = call else {
                return self.core.call(caller, call).await;
            };
            let (at, act) = self.script.enter(&request);
            let channel = about(&request).0;
            let reply = self.answer(caller, request, act).await;
            let reply = match (act, channel) {
                (Some(Act::Credit(usage)), Some(channel)) => {
                    with_credit(reply, usage.saturating_sub(self.script.reported(channel)))
                }
                _ => reply,
            };
            if act != Some(Act::Garbage) {
                self.script.answered(at, &reply);
            }
            reply
        })
    }

    fn logged(&self, event: &LogEvent) {
        self.script.lock().events.push(event.clone());
    }
}

impl Scripted {
    async fn answer(&self, caller: &Caller, request: CoreRequest, act: Option<Act>) -> Answer {
        match act {
            None | Some(Act::Credit(_)) => self.core.call(caller, request).await,
            Some(Act::Refuse(name)) => Err(name.into()),
            Some(Act::Silence) => std::future::pending().await,
            Some(Act::Garbage) => Err(ApiError::with(ErrorName::Internal, NONSENSE)),
            Some(Act::Delay(by)) => {
                let reply = self.core.call(caller, request).await;
                tokio::time::sleep(by).await;
                reply
            }
            Some(Act::Lose) => {
                drop(self.core.call(caller, request).await);
                Err(ErrorName::Internal.into())
            }
            Some(Act::Say(status)) => with_status(self.core.call(caller, request).await, status),
        }
    }
}

/// The same answer with another status.
fn with_status(mut reply: Answer, status: Status) -> Answer {
    match &mut reply {
        Ok(CoreReply::Status(reply)) => reply.status = status,
        Ok(CoreReply::Started(started)) => started.status = status,
        _ => {}
    }
    reply
}

/// The same answer with no more credit than this. An answer that states none stays as it is.
fn with_credit(mut reply: Answer, most: u64) -> Answer {
    let credit = match &mut reply {
        Ok(CoreReply::Status(reply)) => &mut reply.credit,
        Ok(CoreReply::Started(started)) => &mut started.credit,
        _ => return reply,
    };
    *credit = credit.map(|stated| stated.min(most));
    reply
}

/// In an answer for which a library is given [`Act::Garbage`]; a program, whose answers are put together
/// elsewhere, is refused with it.
const NONSENSE: &str = "the kit answers nonsense";

/// The core to hand to a library: the host's, but for answers that are no messages.
pub(super) fn garbled(core: CoreObject) -> CoreObject {
    CoreInterface_TO::from_value(Garbled { core }, TD_Opaque)
}

struct Garbled {
    core: CoreObject,
}

impl CoreInterface for Garbled {
    fn call(&self, request: Bytes<u8>) -> Future<Bytes<u8>> {
        let reply = self.core.call(request);
        async move {
            let reply = reply.await;
            let is_nonsense = reply.windows(NONSENSE.len()).any(|part| part == NONSENSE.as_bytes());
            if is_nonsense { Bytes::from(b"{\"ok\": [\xff".to_vec()) } else { reply }
        }
        .into_ffi()
    }
}

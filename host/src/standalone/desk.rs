//! Where calls are answered, however they came.

use std::sync::Arc;

use privatix_plugin_api::message::{ClientKey, ErrorName};
use serde_json::Value;
use uuid::Uuid;

use super::rpc::{self, Failure, Incoming, Request};
use super::{adapter, own};
use crate::condition::Seldom;
use crate::modules::line::{Ended, Line, Style, Subscription, Way};
use crate::modules::router::Router;
use crate::service::{Proof, Service};

/// What calls are answered from. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// The Service API, and whose token is whose.
    pub service: Service,
    /// Which modules run.
    pub router: Arc<Router>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// Whose token it has shown when it came.
    pub(super) bearer: Option<Proof>,
    /// Whether it can be told something unasked.
    pub(super) way: Way,
}

/// The outcome of a text.
#[derive(Default)]
pub(super) struct Answer {
    /// To be sent back.
    pub(super) text: Option<String>,
    /// What else came of it.
    pub(super) effects: Effects,
}

/// What the connection of a visitor has to know.
#[derive(Default)]
pub(super) struct Effects {
    /// Tokens that were shown, and are right.
    pub(super) proven: Vec<Proof>,
    /// It has subscribed.
    pub(super) joined: Option<Joined>,
    /// A call has waited for commands.
    pub(super) waited: bool,
    /// It wants to be told no more, by this subscription.
    pub(super) left: Option<String>,
}

/// A subscription, and in which spelling its commands are told.
pub(super) struct Joined {
    pub(super) held: Held,
    pub(super) write: fn(&Subscription, &crate::modules::line::Command) -> String,
}

/// A subscription that is over when nobody has this any more, be it that its connection broke before
/// it was answered.
pub(super) struct Held {
    pub(super) line: Arc<Line>,
    pub(super) subscription: Arc<Subscription>,
    kept: bool,
}

impl Held {
    /// It goes on, for as long as it is asked for commands.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }

    /// Whether it is told still: another one may have taken its place.
    pub(super) fn is_current(&self) -> bool {
        self.line.subscription(self.subscription.id()).is_some()
    }

    /// The program wants no more.
    pub(super) fn leave(self) {
        self.line.leave(&self.subscription, Ended::Left);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.kept {
            self.line.leave(&self.subscription, Ended::Over);
        }
    }
}

impl Desk {
    /// Whose token this is.
    pub(super) async fn proof(&self, token: &str) -> Result<Option<Proof>, Failure> {
        self.service.token_proof(token).await.map_err(internal)
    }

    /// Answers a text.
    pub(super) async fn answer(&self, visitor: &Visitor, text: &[u8]) -> Answer {
        let mut effects = Effects::default();
        let text = match rpc::read(text) {
            Incoming::One(call) => self.one(visitor, call, &mut effects).await,
            Incoming::Batch(calls) => {
                let mut answers = Vec::new();
                for call in calls {
                    answers.extend(self.one(visitor, call, &mut effects).await);
                }
                // Of calls alone that want no answer.
                (!answers.is_empty()).then_some(Value::Array(answers))
            }
        };
        Answer { text: text.map(|text| text.to_string()), effects }
    }

    async fn one(
        &self,
        visitor: &Visitor,
        call: Result<Request, rpc::Bad>,
        effects: &mut Effects,
    ) -> Option<Value> {
        let Request { id, method, params } = match call {
            Ok(request) => request,
            Err(bad) => return Some(rpc::response(&bad.id, Err(bad.failure))),
        };
        let outcome = match method.split_once('_') {
            Some(("service", call)) => own::answer(self, visitor, call, params, effects).await,
            Some(("sess", _)) => adapter::answer(self, visitor, &method, params, effects).await,
            _ => Err(Failure::method(&method)),
        };
        id.map(|id| rpc::response(&id, outcome))
    }

    /// The line of the module that a proof is of, if it runs and the token is valid still.
    pub(super) async fn line(&self, proof: &Proof) -> Result<Arc<Line>, Failure> {
        if !self.service.token_is_valid(proof).await.map_err(internal)? {
            return Err(ErrorName::AccessDenied.into());
        }
        self.router.line_soon(proof.product()).await.ok_or_else(|| ErrorName::AccessDenied.into())
    }

    /// Has a program told from now on, of everything that is there first.
    pub(super) async fn join(
        &self,
        line: &Arc<Line>,
        id: String,
        (style, way): (Style, Way),
        serving: Option<&[ClientKey]>,
    ) -> Result<Held, Failure> {
        let product: Uuid = line.caller().product;
        // Before it is told of anything: sessions that it opens then are its own.
        let earlier = self.service.open_sessions(product).await.map_err(internal)?;
        let subscription = line.subscribe(id, style, way, serving);
        let subscription = subscription.map_err(|_| Failure::from(ErrorName::AccessDenied))?;
        let held = Held { line: Arc::clone(line), subscription, kept: false };
        let strays = self.service.connected(product, serving, &earlier).await.map_err(internal)?;
        for (channel, reason) in strays {
            line.stray(channel, reason);
        }
        Ok(held)
    }
}

pub(super) fn internal(error: impl std::error::Error + 'static) -> Failure {
    static FAILED: Seldom = Seldom::new("calls of standalone modules fail");
    FAILED.happened(crate::chain(&error));
    ErrorName::Internal.into()
}

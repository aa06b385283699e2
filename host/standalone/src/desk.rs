//! Where calls are answered, however they came.

use std::sync::Arc;

use privatix_plugin_api::message::{ClientKey, ErrorName};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::budget::{Budgets, Gone, Ticket};
use super::places::Place;
use super::rpc::{self, Failure, Incoming, Request};
use super::{adapter, own};
use privatix_base::condition::Seldom;
use privatix_core::{Proof, Service};
use privatix_modules::line::{Ended, Line, Style, Subscription, Way};
use privatix_modules::router::Router;

/// The most bytes of a batch's answers together; calls behind it are not carried out.
pub(super) const MOST_ANSWERS: usize = 1024 * 1024;

/// What calls are answered from. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// The Service API, and whose token is whose.
    pub(super) service: Service,
    /// Which modules run.
    pub(super) router: Arc<Router>,
    pub(super) budgets: Budgets,
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Visitor {
    /// Whose token it has shown when it came.
    pub(super) bearer: Option<Proof>,
    /// Whether it can be told something unasked.
    pub(super) way: Way,
    /// Its connection's place, which is kept until all that was begun is over.
    pub(super) place: Place,
    /// Whether it waits for an answer still.
    pub(super) gone: Gone,
}

/// The outcome of a text.
pub(super) struct Answer {
    /// To be sent back.
    pub(super) text: Option<String>,
    /// What else came of it.
    pub(super) effects: Effects,
    /// What is held for it, until it has been written.
    pub(super) ticket: Ticket,
}

/// A text being answered.
pub(super) struct Asking {
    pub(super) effects: Effects,
    pub(super) ticket: Ticket,
    /// Whether it has several calls.
    pub(super) is_batch: bool,
}

/// What the connection of a visitor has to know.
#[derive(Default)]
pub(super) struct Effects {
    /// Tokens that were shown, and are right.
    pub(super) proven: Vec<Proof>,
    /// It has subscribed.
    pub(super) joined: Option<Joined>,
    /// It wants to be told no more, by this subscription.
    pub(super) left: Option<String>,
}

/// A subscription, and in which spelling its commands are told.
pub(super) struct Joined {
    pub(super) held: Held,
    pub(super) write: fn(&Subscription, &privatix_modules::line::Command) -> String,
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
    /// What programs are answered from.
    pub fn new(service: Service, router: Arc<Router>) -> Self {
        Self { service, router, budgets: Budgets::default() }
    }

    /// Has a connection keep its place, as one of a product whose token it has shown.
    pub(super) async fn place(&self, place: &Place, product: Uuid) -> Result<(), Failure> {
        let products = self.service.token_count().await.map_err(internal)?;
        let kept = place.prove(product, products).await;
        kept.map_err(|_| ErrorName::TooManyWaiting.into())
    }

    /// Waits for a call's turn among those of a product. What waits is broken off when nobody waits for
    /// its answer; what has its turn is carried out in any case.
    pub(super) async fn turn(
        &self,
        visitor: &Visitor,
        product: Uuid,
    ) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        let budget = self.budgets.of(Some(product));
        // Nobody reads this answer.
        visitor.gone.unless(budget.turn()).await.ok_or_else(|| ErrorName::Internal.into())
    }

    /// Whose token this is.
    pub(super) async fn proof(&self, token: &str) -> Result<Option<Proof>, Failure> {
        self.service.token_proof(token).await.map_err(internal)
    }

    /// Answers a text, for which the ticket is held.
    pub(super) async fn answer(&self, visitor: &Visitor, text: &[u8], ticket: Ticket) -> Answer {
        let read = rpc::read(text);
        let is_batch = matches!(read, Incoming::Batch(_));
        let mut asking = Asking { effects: Effects::default(), ticket, is_batch };
        let text = match read {
            Incoming::One(call) => {
                self.one(visitor, call, &mut asking).await.map(|answer| answer.to_string())
            }
            Incoming::Batch(calls) => self.batch(visitor, calls, &mut asking).await,
        };
        Answer { text, effects: asking.effects, ticket: asking.ticket }
    }

    async fn batch(
        &self,
        visitor: &Visitor,
        calls: Vec<Result<Request, rpc::Bad>>,
        asking: &mut Asking,
    ) -> Option<String> {
        let mut answers = String::new();
        for mut call in calls {
            if visitor.gone.is_gone() {
                return None;
            }
            if answers.len() > MOST_ANSWERS
                && let Ok(Request { id, .. }) = call
            {
                let failure = Failure::request("the batch has been answered at too great a length");
                call = Err(rpc::Bad { id: id.unwrap_or_default(), failure });
            }
            if let Some(answer) = self.one(visitor, call, asking).await {
                answers.push(if answers.is_empty() { '[' } else { ',' });
                answers.push_str(&answer.to_string());
            }
        }
        // Of calls alone that want no answer.
        (!answers.is_empty()).then(|| answers + "]")
    }

    async fn one(
        &self,
        visitor: &Visitor,
        call: Result<Request, rpc::Bad>,
        asking: &mut Asking,
    ) -> Option<Value> {
        let Request { id, method, params } = match call {
            Ok(request) => request,
            Err(bad) => return Some(rpc::response(&bad.id, Err(bad.failure))),
        };
        let outcome = match method.split_once('_') {
            Some(("service", call)) => own::answer(self, visitor, call, params, asking).await,
            Some(("sess", _)) => adapter::answer(self, visitor, &method, params, asking).await,
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
    FAILED.happened(privatix_plugin_api::chain(&error));
    ErrorName::Internal.into()
}

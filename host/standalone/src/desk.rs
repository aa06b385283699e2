//! What calls are answered from, in either spelling, and what comes of them beside an answer.

use std::sync::Arc;

use privatix_plugin_api::message::{ApiError, ClientKey, ErrorName};
use uuid::Uuid;

use super::budget::{Budgets, Ticket};
use super::places::Place;
use super::rpc::Failure;
use privatix_base::condition::Seldom;
use privatix_core::{ModuleApi, Proof};
use privatix_modules::door::{Called, Gone};
use privatix_modules::line::{Ended, Line, Style, Subscription, Way};
use privatix_modules::router::Router;

/// What calls are answered from. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// The core as modules see it, with whose token is whose.
    pub(super) api: ModuleApi,
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
    pub fn new(api: ModuleApi, router: Arc<Router>) -> Self {
        Self { api, router, budgets: Budgets::default() }
    }

    /// Has a connection keep its place, as one of a product whose token it has shown.
    pub(super) async fn place(&self, place: &Place, product: Uuid) -> Result<(), Failure> {
        let products = self.api.token_count().await.map_err(internal)?;
        let kept = place.prove(product, products).await;
        kept.map_err(|_| ErrorName::TooManyWaiting.into())
    }

    /// Whose token this is.
    pub(super) async fn proof(&self, token: &str) -> Result<Option<Proof>, Failure> {
        Ok(self.api.token_proof(token).await.map_err(internal)?)
    }

    /// The line of the module that a proof is of, if it runs and the token is valid still.
    pub(super) async fn line(&self, proof: &Proof) -> Result<Arc<Line>, Failure> {
        if !self.api.token_is_valid(proof).await.map_err(internal)? {
            return Err(ErrorName::AccessDenied.into());
        }
        self.router.line_soon(proof.product()).await.ok_or_else(|| ErrorName::AccessDenied.into())
    }

    /// Has a program told from now on, of everything that is there first.
    pub(super) async fn join(
        &self,
        visitor: &Visitor,
        line: &Arc<Line>,
        id: String,
        style: Style,
        serving: Option<Vec<ClientKey>>,
    ) -> Result<Held, ApiError> {
        let (api, way, mine) = (self.api.clone(), visitor.way, Arc::clone(line));
        let joining = async move {
            let product = mine.caller().product;
            // Before it is told of anything: sessions that it opens then are its own.
            let earlier = api.open_sessions(product).await.map_err(internal)?;
            let subscription = mine.subscribe(id, style, way, serving.as_deref());
            let subscription = subscription.map_err(|_| ErrorName::AccessDenied)?;
            let held = Held { line: mine, subscription, kept: false };
            let strays = api.connected(product, serving.as_deref(), &earlier).await;
            for (channel, reason) in strays.map_err(internal)? {
                held.line.stray(channel, reason);
            }
            Ok::<_, ApiError>(held)
        };
        line.door().carry_out(Called::Subscribe, joining).unless_gone(&visitor.gone).await
    }
}

/// The refusal because of what failed in the host, which is in its log.
pub(super) fn internal(error: impl std::error::Error + 'static) -> ErrorName {
    static FAILED: Seldom = Seldom::new("calls of standalone modules fail");
    FAILED.happened(privatix_plugin_api::chain(&error));
    ErrorName::Internal
}

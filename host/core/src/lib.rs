//! The Service API: one implementation for every way in.
//!
//! Each call loads, decides in the domain, saves and answers; an answer means that it is on disk.
//! A call reaches only channels of the calling product. Nothing here calls a module.

#![forbid(unsafe_code)]

mod access;
mod account;
mod adapter;
mod attention;
mod billing;
mod cancel;
mod channel;
mod cheque;
mod config;
mod inventory;
mod library;
mod list;
mod module;
mod money;
mod offering;
mod order;
mod outbox;
mod progress;
mod refusal;
mod refused;
mod session;
mod steady;
#[cfg(test)]
mod tests;
mod token;
mod usage;
mod view;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use privatix_plugin_api::manifest::{Role, UsageReporting};
use privatix_plugin_api::message::{
    AccessMessage, ApiError, ClientKey, Done, ErrorName, SessionStarted, StatusReply,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

pub use self::account::Followed;
use self::attention::Attention;
pub use self::billing::Question;
pub use self::cancel::Cancelling;
pub use self::channel::ChannelError;
pub use self::cheque::{ChequeView, Retry};
pub use self::inventory::{Inventory, ProductView, TemplateView};
pub use self::library::Standing;
pub use self::list::{ListQuery, MAX_PAGE};
pub use self::module::{AdapterCall, ModuleApi, ModuleCall};
pub use self::money::{AgentSaid, MoneyView};
pub use self::offering::{Draft, OfferingPage, OfferingView, Source};
pub use self::order::{OrderAnswer, OrderView};
pub use self::outbox::Answer;
pub use self::progress::{Obstacle, Progress};
pub use self::refused::Refused;
pub use self::token::{NewToken, Proof};
use self::usage::UsageWriter;
pub use privatix_store::Trouble;

pub use self::view::{ChangeView, ChannelView, SessionView};
use privatix_base::clock;
use privatix_base::condition::Seldom;
use privatix_base::config::OrderPolicy;
use privatix_base::logging::Flow;
use privatix_domain::billing::{Terms, Tolerance};
use privatix_domain::identity::Identity;
use privatix_domain::template::{Template, TemplateKind};
use privatix_store::{ChannelRow, Fault, ProductUpsert, Store, StoreError, TemplateRow, Txn};

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    identity: Identity,
    settings: Settings,
    usage: UsageWriter,
    templates: Mutex<HashMap<String, Arc<Template>>>,
    terms: Mutex<HashMap<String, Arc<Terms>>>,
    attention: Arc<Attention>,
    outbox: watch::Sender<u64>,
    forced: Mutex<HashMap<Uuid, u64>>,
    /// Reports of each product that were refused as they went backwards.
    backwards: Mutex<HashMap<Uuid, u64>>,
    progress: progress::Notes,
    cancelled: cancel::Early,
    clock: steady::Noted,
    tokens: token::Tokens,
    /// What is noted of reports that no session takes.
    dropped: Flow,
}

/// What the service is told before it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This party's side.
    pub role: Role,
    /// How long a started channel may take to become active.
    pub activation_timeout: Duration,
    /// By when after its order a channel's first payment has to be there; an agent ends it else.
    pub first_payment_timeout: Duration,
    /// The most that a channel may be used between two acknowledged reports, in smallest units.
    pub max_unreported: u64,
    /// An agent's URL as clients see it, without a path.
    pub exchange: String,
    /// Whose orders an agent accepts.
    pub orders: OrderPolicy,
    /// Signing keys of named clients, as text.
    pub allowlist: Vec<String>,
    /// Channels one client may have at a time.
    pub max_channels_per_client: u32,
    /// Orders one client may make in an hour.
    pub max_orders_per_hour: u32,
    /// Orders of one client that may wait for the operator.
    pub max_waiting_orders_per_client: u32,
    /// Orders that may wait for the operator; named clients may order beyond it.
    pub max_waiting_orders: u32,
    /// Told to clients instead of what a module found out.
    pub service_endpoint_address: Option<String>,
    /// Whether a client pays elsewhere than at the URL of the offering.
    pub allow_foreign_payment_receiver: bool,
    /// By how much an agent's meter may be above a client's own.
    pub tolerance: Tolerance,
}

/// Who this host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct IdentityView {
    /// Its side.
    pub role: Role,
    /// The signing key, as an agent's allowlist has it.
    pub signing_key: String,
    /// Its fingerprint, as `offering fetch --agent` takes it.
    pub fingerprint: String,
    /// An agent's URL.
    pub exchange: Option<String>,
}

/// On whose behalf a call is made.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The product.
    pub product: Uuid,
    /// The module's name, for the log.
    pub name: String,
}

/// A product with its templates, as its module brings them.
#[derive(Debug)]
pub struct Registration<'a> {
    /// The product.
    pub product: Uuid,
    /// The module's name.
    pub name: &'a str,
    /// The module's version.
    pub version: &'a str,
    /// What its usage reports mean.
    pub usage_reporting: UsageReporting,
    /// Its access template.
    pub access: &'a Template,
    /// Its offering template.
    pub offering: Option<&'a Template>,
}

/// What a call is answered with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum CoreReply {
    /// Nothing to say.
    Done(Done),
    /// The channel's status.
    Status(StatusReply),
    /// A session was opened.
    Started(SessionStarted),
    /// An access message.
    Access(Box<AccessMessage>),
    /// For an existing adapter: a session was opened, and by which offering.
    Offered(Box<(SessionStarted, OfferingView)>),
}

/// Where the client of a session comes from.
#[derive(Debug, Clone, Copy, Default)]
struct ClientPlace {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl Service {
    /// The Service API of one party on its database; has to be made on a runtime.
    pub fn new(store: Store, identity: Identity, settings: Settings) -> Self {
        let attention = Arc::<Attention>::default();
        let unreported = settings.max_unreported;
        let usage = UsageWriter::start(store.clone(), Arc::clone(&attention), unreported);
        let inner = Inner {
            store,
            identity,
            settings,
            usage,
            attention,
            templates: Mutex::default(),
            terms: Mutex::default(),
            outbox: watch::Sender::new(0),
            forced: Mutex::default(),
            backwards: Mutex::default(),
            progress: progress::Notes::default(),
            cancelled: cancel::Early::default(),
            clock: steady::Noted::default(),
            tokens: token::Tokens::default(),
            dropped: Flow::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Who this host is.
    pub fn identity_view(&self) -> IdentityView {
        let settings = &self.inner.settings;
        let key = self.inner.identity.public().signing;
        IdentityView {
            role: settings.role,
            signing_key: key.to_string(),
            fingerprint: key.fingerprint(),
            exchange: (settings.role == Role::Agent).then(|| settings.exchange.clone()),
        }
    }

    /// This party's side.
    pub fn role(&self) -> Role {
        self.inner.settings.role
    }

    /// Registers a product and its templates; again, it changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn register(&self, registration: Registration<'_>) -> Result<(), StoreError> {
        let mut txn = self.inner.store.begin().await?;
        self.register_in_txn(&mut txn, &registration).await?;
        txn.commit().await.map(drop)
    }

    async fn register_in_txn(
        &self,
        txn: &mut Txn,
        registration: &Registration<'_>,
    ) -> Result<(), StoreError> {
        let now = clock::unix_now();
        for template in [Some(registration.access), registration.offering].into_iter().flatten() {
            txn.template_add(&TemplateRow {
                hash: template.hash().to_owned(),
                kind: template.kind().as_str().to_owned(),
                document: template.document().to_string(),
                registered_at: now,
            })
            .await?;
        }
        let product = ProductUpsert {
            id: registration.product,
            name: registration.name,
            role: self.inner.settings.role.as_str(),
            version: registration.version,
            usage_reporting: reporting(registration.usage_reporting),
            access_template: registration.access.hash(),
            offering_template: registration.offering.map(Template::hash),
        };
        txn.product_upsert(&product, now).await
    }

    async fn channel(&self, caller: &Caller, key: ClientKey) -> Result<ChannelRow, ApiError> {
        let found = self.inner.store.channel_get(caller.product, key).await;
        found.map_err(internal)?.ok_or_else(|| ErrorName::ChannelNotFound.into())
    }

    /// A registered template, compiled once.
    async fn template(&self, hash: &str) -> Result<Option<Arc<Template>>, StoreError> {
        let known = || self.inner.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(template) = known().get(hash) {
            return Ok(Some(Arc::clone(template)));
        }
        let Some(row) = self.inner.store.template_get(hash).await? else { return Ok(None) };
        let kind = if row.kind == "access" { TemplateKind::Access } else { TemplateKind::Offering };
        match Template::parse(kind, row.document.as_bytes()) {
            Ok(template) => {
                let template = Arc::new(template);
                known().insert(hash.to_owned(), Arc::clone(&template));
                Ok(Some(template))
            }
            // It was accepted once; rules may have become stricter since.
            Err(error) => {
                tracing::error!(
                    hash,
                    error = privatix_plugin_api::chain(&error),
                    "a template is unusable"
                );
                Ok(None)
            }
        }
    }
}

/// The word used in the database.
fn reporting(reporting: UsageReporting) -> &'static str {
    match reporting {
        UsageReporting::Total => "total",
        UsageReporting::Incremental => "incremental",
    }
}

/// While the database fails, every call meets the same fault: it is logged once in a while.
/// A statement that failed by itself is a fault of its own each time.
fn log(error: &StoreError, many: &Seldom) {
    match error.fault() {
        Fault::Other => {
            tracing::error!(error = privatix_plugin_api::chain(error), "a statement failed")
        }
        _ => drop(many.happened(privatix_plugin_api::chain(error))),
    }
}

/// What went wrong is for the log, not for the caller.
fn internal(error: StoreError) -> ApiError {
    static FAILED: Seldom = Seldom::new("calls of modules fail");
    log(&error, &FAILED);
    ErrorName::Internal.into()
}

//! The Service API: one implementation for every way in.
//!
//! Each call loads, decides in the domain, saves and answers; an answer means that it is on disk.
//! A call reaches only channels of the calling product. Nothing here calls a module.
//!
//! Who puts a host together makes a [`Service`] and hands out its facades: [`Party`] (what only an
//! agent or only a client does), [`ModuleApi`], [`OperatorApi`], [`Outbox`], [`Upkeep`].

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
mod party;
mod progress;
mod refusal;
mod refused;
mod session;
mod settings;
mod steady;
mod stored;
#[cfg(test)]
mod tests;
mod token;
mod usage;
mod view;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

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
pub use self::cheque::{ChequeView, Retry};
pub use self::inventory::{Inventory, ProductView, TemplateView};
pub use self::library::Standing;
pub use self::list::{ListQuery, MAX_PAGE};
pub use self::module::{AdapterCall, ModuleApi, ModuleCall};
pub use self::money::{AgentSaid, MoneyView};
pub use self::offering::{Draft, OfferingPage, OfferingView, Source};
pub use self::order::{OrderAnswer, OrderView};
pub use self::outbox::Answer;
pub use self::party::{AgentApi, ClientApi, OperatorApi, Outbox, Party, Upkeep};
pub use self::progress::{Obstacle, Progress};
pub use self::refused::Refused;
pub use self::settings::{AgentSettings, ClientSettings, PartySettings, Settings};
pub use self::token::{NewToken, Proof};
use self::usage::UsageWriter;
pub use privatix_store::Trouble;

pub use self::view::{ChangeView, ChannelView, SessionView};
use privatix_base::clock;
use privatix_base::condition::Seldom;
use privatix_base::logging::Flow;
use privatix_domain::billing::Terms;
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
    part: Part,
    usage: UsageWriter,
    templates: Mutex<HashMap<String, Arc<Template>>>,
    terms: Mutex<HashMap<String, Arc<Terms>>>,
    attention: Arc<Attention>,
    outbox: watch::Sender<u64>,
    forced: Mutex<HashMap<Uuid, u64>>,
    /// Reports of each product that were refused as they went backwards.
    backwards: Mutex<HashMap<Uuid, u64>>,
    clock: steady::Noted,
    tokens: token::Tokens,
    /// What is noted of reports that no session takes.
    dropped: Flow,
}

/// What an agent has beside what both sides have.
struct AgentPart {
    settings: AgentSettings,
    cancelled: cancel::Early,
}

/// What a client has beside what both sides have.
struct ClientPart {
    settings: ClientSettings,
    progress: progress::Notes,
}

/// What this host has for its side; it decides for good which side that is.
enum Part {
    Agent(Arc<AgentPart>),
    Client(Arc<ClientPart>),
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
    /// The core of one party on its database; has to be made on a runtime.
    pub fn new(store: Store, identity: Identity, settings: Settings, party: PartySettings) -> Self {
        let attention = Arc::<Attention>::default();
        let unreported = settings.max_unreported;
        let usage = UsageWriter::start(store.clone(), Arc::clone(&attention), unreported);
        let part = match party {
            PartySettings::Agent(settings) => {
                Part::Agent(Arc::new(AgentPart { settings, cancelled: cancel::Early::default() }))
            }
            PartySettings::Client(settings) => Part::Client(Arc::new(ClientPart {
                settings,
                progress: progress::Notes::default(),
            })),
        };
        let inner = Inner {
            store,
            identity,
            settings,
            part,
            usage,
            attention,
            templates: Mutex::default(),
            terms: Mutex::default(),
            outbox: watch::Sender::new(0),
            forced: Mutex::default(),
            backwards: Mutex::default(),
            clock: steady::Noted::default(),
            tokens: token::Tokens::default(),
            dropped: Flow::default(),
        };
        Self { inner: Arc::new(inner) }
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
            role: self.role().as_str(),
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

impl Upkeep {
    /// Registers a product and its templates; again, it changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn register(&self, registration: Registration<'_>) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        self.core.register_in_txn(&mut txn, &registration).await?;
        txn.commit().await.map(drop)
    }
}

impl OperatorApi {
    /// Who this host is.
    pub fn identity(&self) -> IdentityView {
        let key = self.core.inner.identity.public().signing;
        let (role, exchange) = match &self.party {
            Party::Agent(agent) => (Role::Agent, Some(agent.own.settings.exchange.clone())),
            Party::Client(_) => (Role::Client, None),
        };
        IdentityView {
            role,
            signing_key: key.to_string(),
            fingerprint: key.fingerprint(),
            exchange,
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

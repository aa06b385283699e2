//! The Service API: one implementation for every way in.
//!
//! Each call loads, decides in the domain, saves and answers; an answer means that it is on disk.
//! A call reaches only channels of the calling product. Nothing here calls a module.

mod config;
mod session;

use std::net::IpAddr;
use std::sync::Arc;

use privatix_plugin_api::manifest::{Role, UsageReporting};
use privatix_plugin_api::message::{
    AccessMessage, ApiError, ClientKey, CoreRequest, Done, ErrorName, SessionStarted, StatusReply,
};
use serde::Serialize;
use uuid::Uuid;

use crate::clock;
use crate::domain::template::Template;
use crate::store::{ChannelRow, ProductUpsert, Store, StoreError, TemplateRow};

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    role: Role,
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
}

/// Where the client of a session comes from.
#[derive(Debug, Clone, Copy, Default)]
struct ClientPlace {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl Service {
    /// The Service API of one party on its database.
    pub fn new(store: Store, role: Role) -> Self {
        Self { inner: Arc::new(Inner { store, role }) }
    }

    /// Answers one call.
    ///
    /// # Errors
    /// [`ApiError`] with a stable name; what lies behind `Internal` is only in the log.
    pub async fn call(&self, caller: &Caller, request: CoreRequest) -> Result<CoreReply, ApiError> {
        self.allowed(&request)?;
        match request {
            CoreRequest::AuthClient { client_key, .. } => {
                self.channel(caller, client_key).await?;
                // Credentials are made with the order that makes the channel; without an order
                // there is no password that could be right.
                Err(ErrorName::BadClientPassword.into())
            }
            CoreRequest::GetAccess { client_key } => {
                self.channel(caller, client_key).await?;
                Err(ErrorName::AccessNotFound.into())
            }
            CoreRequest::SetProductConfig { config } => {
                self.set_product_config(caller, config).await
            }
            CoreRequest::ServiceReady { client_key } => {
                self.service_ready(caller, client_key).await
            }
            CoreRequest::StartSession { client_key, client_address, client_port } => {
                let place = ClientPlace { address: client_address, port: client_port };
                self.start_session(caller, client_key, place).await
            }
            CoreRequest::UpdateSession { client_key, session, usage } => {
                self.update_session(caller, client_key, session, usage).await
            }
            CoreRequest::StopSession { client_key, session } => {
                self.stop_session(caller, client_key, session).await
            }
            _ => Err(ErrorName::Unsupported.into()),
        }
    }

    /// Registers a product and its templates; again, it changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn register(&self, registration: Registration<'_>) -> Result<(), StoreError> {
        let now = clock::unix_now();
        let mut txn = self.inner.store.begin().await?;
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
            role: self.inner.role.as_str(),
            version: registration.version,
            usage_reporting: match registration.usage_reporting {
                UsageReporting::Total => "total",
                UsageReporting::Incremental => "incremental",
            },
            access_template: registration.access.hash(),
            offering_template: registration.offering.map(Template::hash),
        };
        txn.product_upsert(&product, now).await?;
        txn.commit().await
    }

    /// The channels that a product's module has to be told of when it comes up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn live_channels(&self, product: Uuid) -> Result<Vec<ClientKey>, StoreError> {
        self.inner.store.channel_live(product).await
    }

    /// Whether the call is one of this role's.
    fn allowed(&self, request: &CoreRequest) -> Result<(), ApiError> {
        let for_role = match request {
            CoreRequest::AuthClient { .. } | CoreRequest::SetProductConfig { .. } => Role::Agent,
            CoreRequest::GetAccess { .. } => Role::Client,
            _ => return Ok(()),
        };
        if self.inner.role == for_role {
            return Ok(());
        }
        Err(ApiError::with(ErrorName::Unsupported, format!("this core is no {for_role}")))
    }

    async fn channel(&self, caller: &Caller, key: ClientKey) -> Result<ChannelRow, ApiError> {
        let found = self.inner.store.channel_get(caller.product, key).await;
        found.map_err(internal)?.ok_or_else(|| ErrorName::ChannelNotFound.into())
    }
}

/// What went wrong is for the log, not for the caller.
fn internal(error: StoreError) -> ApiError {
    tracing::error!(error = crate::chain(&error), "a call failed");
    ErrorName::Internal.into()
}

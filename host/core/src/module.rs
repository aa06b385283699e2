//! What modules ask of the core: the Service API, what existing adapters say in place of parts of it,
//! and what a program needs that comes by network (its token is in `token.rs`).
//!
//! A call reaches only channels of the calling product. How calls come, how many are carried out at a
//! time and who may still call is not decided here: that is the door's, in `privatix-modules`.

use std::net::IpAddr;

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{
    ApiError, ClientKey, CoreRequest, ErrorName, SessionId, StopReason,
};
use uuid::Uuid;

use super::{Caller, ClientPlace, CoreReply, Party, Service};
use privatix_store::StoreError;

/// The core as modules see it. Cheap to clone.
#[derive(Clone)]
pub struct ModuleApi {
    pub(super) core: Service,
    party: Party,
}

/// What a module can ask.
#[derive(Debug, Clone)]
pub enum ModuleCall {
    /// A call of the Service API.
    Api(CoreRequest),
    /// What an existing adapter says in its place.
    Adapter(AdapterCall),
}

/// What existing adapters say otherwise: they know neither sessions nor statuses.
#[derive(Debug, Clone)]
pub enum AdapterCall {
    /// Opens a session. Answer: [`CoreReply::Offered`].
    Start {
        /// The channel.
        client_key: ClientKey,
        /// Where the client comes from, if known.
        client_address: Option<IpAddr>,
        /// And its port, if known.
        client_port: Option<u16>,
    },
    /// Reports usage of the open session. Answer: [`CoreReply::Done`].
    Update {
        /// The channel.
        client_key: ClientKey,
        /// In smallest units, as the product reports it: in all, or since the last report.
        amount: u64,
    },
    /// Ends the open session, if there is one. Answer: [`CoreReply::Done`].
    Stop {
        /// The channel.
        client_key: ClientKey,
    },
}

impl From<CoreRequest> for ModuleCall {
    fn from(request: CoreRequest) -> Self {
        Self::Api(request)
    }
}

impl From<AdapterCall> for ModuleCall {
    fn from(call: AdapterCall) -> Self {
        Self::Adapter(call)
    }
}

impl Service {
    /// What modules ask.
    pub fn modules(&self) -> ModuleApi {
        ModuleApi { core: self.clone(), party: self.party() }
    }
}

impl ModuleApi {
    /// Answers one call.
    ///
    /// # Errors
    /// [`ApiError`] with a stable name; what lies behind `Internal` is only in the log.
    pub async fn call(
        &self,
        caller: &Caller,
        call: impl Into<ModuleCall>,
    ) -> Result<CoreReply, ApiError> {
        match call.into() {
            ModuleCall::Api(request) => self.service_api(caller, request).await,
            ModuleCall::Adapter(call) => self.adapter(caller, call).await,
        }
    }

    /// The calls of the Service API, each beside the role whose call it is.
    async fn service_api(
        &self,
        caller: &Caller,
        request: CoreRequest,
    ) -> Result<CoreReply, ApiError> {
        let core = &self.core;
        match (&self.party, request) {
            (Party::Agent(agent), CoreRequest::AuthClient { client_key, password }) => {
                agent.auth_client(caller, client_key, &password).await
            }
            (Party::Agent(agent), CoreRequest::SetProductConfig { config }) => {
                agent.set_product_config(caller, config).await
            }
            (Party::Client(client), CoreRequest::GetAccess { client_key }) => {
                client.get_access(caller, client_key).await
            }
            (Party::Client(client), CoreRequest::HoldChannel { client_key, reason }) => {
                client.hold_channel(caller, client_key, &reason).await
            }
            (_, CoreRequest::ServiceReady { client_key }) => {
                core.service_ready(caller, client_key).await
            }
            (_, CoreRequest::StartSession { client_key, client_address, client_port }) => {
                let place = ClientPlace { address: client_address, port: client_port };
                core.start_session(caller, client_key, place).await
            }
            (_, CoreRequest::UpdateSession { client_key, session, usage }) => {
                core.update_session(caller, client_key, session, usage).await
            }
            (_, CoreRequest::StopSession { client_key, session }) => {
                core.stop_session(caller, client_key, session).await
            }
            (Party::Client(_), CoreRequest::AuthClient { .. })
            | (Party::Client(_), CoreRequest::SetProductConfig { .. }) => Err(not_of(Role::Agent)),
            (Party::Agent(_), CoreRequest::GetAccess { .. })
            | (Party::Agent(_), CoreRequest::HoldChannel { .. }) => Err(not_of(Role::Client)),
            _ => Err(ErrorName::Unsupported.into()),
        }
    }

    async fn adapter(&self, caller: &Caller, call: AdapterCall) -> Result<CoreReply, ApiError> {
        let core = &self.core;
        match call {
            AdapterCall::Start { client_key, client_address, client_port } => {
                let place = ClientPlace { address: client_address, port: client_port };
                core.adapter_start(caller, client_key, place).await
            }
            AdapterCall::Update { client_key, amount } => {
                core.adapter_update(caller, client_key, amount).await
            }
            AdapterCall::Stop { client_key } => core.adapter_stop(caller, client_key).await,
        }
    }

    /// This party's side.
    pub fn role(&self) -> Role {
        self.core.role()
    }

    /// The open sessions of a product.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_sessions(&self, product: Uuid) -> Result<Vec<SessionId>, StoreError> {
        self.core.open_sessions(product).await
    }

    /// Has all of a product told again to a program that has just connected. The answer names what
    /// the program serves and should not, with the reason to stop it. If the program says what it
    /// serves, earlier sessions of other channels are closed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connected(
        &self,
        product: Uuid,
        serving: Option<&[ClientKey]>,
        earlier: &[SessionId],
    ) -> Result<Vec<(ClientKey, StopReason)>, StoreError> {
        self.core.connected(product, serving, earlier).await
    }
}

/// The refusal of a call that only the core of this role answers.
fn not_of(role: Role) -> ApiError {
    ApiError::with(ErrorName::Unsupported, format!("this core is no {role}"))
}

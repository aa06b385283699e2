//! The module's handle to the core: a method for each call.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::meter::{Registry, Unreported};
use crate::abi::{Bytes, CoreObject};
use crate::message::{
    AccessMessage, ApiError, ClientKey, CoreRequest, Done, ErrorName, Password, Reply, SessionId,
    SessionStarted, Status, StatusReply, Usage, decode, encode,
};

/// The core, for one product. Cheap to clone; all clones are one.
///
/// A call that was lost on its way may be made again unchanged. After `shutdown` every call is
/// answered [`ErrorName::AccessDenied`].
#[derive(Clone)]
pub struct Core {
    object: Arc<CoreObject>,
    /// The meters that were made with it, for what they leave unreported.
    meters: Arc<Registry>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Core")
    }
}

impl Core {
    /// A handle to any object that answers as the core does, for test kits; a module is handed its
    /// own by `create`.
    #[must_use]
    pub fn from_object(object: CoreObject) -> Self {
        Self { object: Arc::new(object), meters: Arc::default() }
    }

    pub(super) fn meters(&self) -> &Arc<Registry> {
        &self.meters
    }

    /// The usage that the meters of this core have counted and could not report so far. Usage of a
    /// session that goes on is in it until the next report.
    #[must_use]
    pub fn unreported(&self) -> Vec<Unreported> {
        self.meters.unreported()
    }

    /// Agent: whether a client may use the channel it names.
    ///
    /// # Errors
    /// `ChannelNotFound`, `BadClientPassword`, or `NonActiveChannel` in a status other than
    /// activating and active.
    pub async fn auth_client(&self, channel: ClientKey, password: &str) -> Result<(), ApiError> {
        let password = Password(password.to_owned());
        self.call(CoreRequest::AuthClient { client_key: channel, password }).await.map(done)
    }

    /// Agent: replaces the whole of what the product adds to its access messages.
    ///
    /// # Errors
    /// `BadProductConfig` if the map or a key is empty.
    pub async fn set_product_config(
        &self,
        config: BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        self.call(CoreRequest::SetProductConfig { config }).await.map(done)
    }

    /// Client: all that is needed to use the channel.
    ///
    /// # Errors
    /// `ChannelNotFound`; `AccessNotFound` until the message is here.
    pub async fn get_access(&self, channel: ClientKey) -> Result<AccessMessage, ApiError> {
        self.call(CoreRequest::GetAccess { client_key: channel }).await
    }

    /// The channel can be used now.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn service_ready(&self, channel: ClientKey) -> Result<Status, ApiError> {
        self.ready(channel).await.map(status)
    }

    /// The same as [`service_ready`](Self::service_ready), with the credit.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn ready(&self, channel: ClientKey) -> Result<StatusReply, ApiError> {
        self.call(CoreRequest::ServiceReady { client_key: channel }).await
    }

    /// Opens a session; an older open one of the channel is closed.
    ///
    /// # Errors
    /// `ChannelNotFound`, `NonActiveChannel`.
    pub async fn start_session(
        &self,
        channel: ClientKey,
        client: Option<SocketAddr>,
    ) -> Result<SessionStarted, ApiError> {
        self.call(CoreRequest::StartSession {
            client_key: channel,
            client_address: client.map(|address| address.ip()),
            client_port: client.map(|address| address.port()),
        })
        .await
    }

    /// Reports usage in smallest units (bytes for data). `Ok` means that it is on disk; the
    /// status says whether to go on serving.
    ///
    /// # Errors
    /// `ChannelNotFound`, `SessionNotFound`, `UsageWentBackwards`.
    pub async fn update_session(
        &self,
        channel: ClientKey,
        session: SessionId,
        usage: Usage,
    ) -> Result<Status, ApiError> {
        self.report(channel, session, usage).await.map(status)
    }

    /// The same as [`update_session`](Self::update_session), with the credit. A
    /// [`Meter`](super::Meter) does all of this by itself.
    ///
    /// # Errors
    /// `ChannelNotFound`, `SessionNotFound`, `UsageWentBackwards`.
    pub async fn report(
        &self,
        channel: ClientKey,
        session: SessionId,
        usage: Usage,
    ) -> Result<StatusReply, ApiError> {
        self.call(CoreRequest::UpdateSession { client_key: channel, session, usage }).await
    }

    /// Closes a session.
    ///
    /// # Errors
    /// `ChannelNotFound`, `SessionNotFound`.
    pub async fn stop_session(
        &self,
        channel: ClientKey,
        session: SessionId,
    ) -> Result<Status, ApiError> {
        self.call(CoreRequest::StopSession { client_key: channel, session }).await.map(status)
    }

    /// Client: stops the channel until its user agrees to what the agent now asks for, by resuming
    /// it.
    ///
    /// # Errors
    /// `ChannelNotFound`; `Unsupported` by an agent's core and by older hosts.
    pub async fn hold_channel(&self, channel: ClientKey, reason: &str) -> Result<Status, ApiError> {
        let reason = reason.to_owned();
        self.call(CoreRequest::HoldChannel { client_key: channel, reason }).await.map(status)
    }

    /// Any request, for calls that have no method here.
    ///
    /// # Errors
    /// Those of the call; `Internal` if the answer cannot be read.
    pub async fn call<T: DeserializeOwned>(&self, request: CoreRequest) -> Result<T, ApiError> {
        let reply = self.object.call(Bytes::from(encode(&request))).await;
        match decode::<Reply<T, ApiError>>(&reply) {
            Ok(reply) => reply.into(),
            Err(error) => Err(ApiError::with(ErrorName::Internal, crate::chain(&error))),
        }
    }

    /// Hands something over without waiting for the answer.
    pub(crate) fn send(&self, request: &CoreRequest) {
        // The host takes in a log event before it returns; the answer says nothing more.
        drop(self.object.call(Bytes::from(encode(request))));
    }
}

fn done(_: Done) {}

fn status(reply: StatusReply) -> Status {
    reply.status
}

//! The side that sells: a SOCKS5 server whose users are the core's channels.
//!
//! A connection that has not logged in is bounded in time, in bytes and in number, and knows no
//! channel. CONNECT is served; BIND and UDP are refused. The handshake itself is `fast-socks5`'s.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fast_socks5::server::{PasswordAuthentication, Socks5ServerProtocol, SocksServerError, states};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use privatix_plugin_api::prelude::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::UNSPECIFIED;
use crate::accept::{Accepted, Acceptor};
use crate::destination::Destinations;
use crate::session::{Member, Sessions};
use crate::settings::{Settings, host_and_port};
use crate::tunnel::{self, Leg, Manner};

/// How many connections may be logging in at once; further ones wait in the system's queue.
const MAX_LOGINS: usize = 1024;

/// The address that was asked for cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listening on {listen}")]
pub(crate) struct CannotListen {
    pub(crate) listen: String,
    #[source]
    pub(crate) source: io::Error,
}

/// Why a connection got no service.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the handshake")]
    Handshake(#[source] SocksServerError),
    #[error("the handshake took longer than {0:?}")]
    Late(Duration),
    #[error("the user name {0:?} is no client key")]
    NoClientKey(String),
    #[error("the core refused {channel}")]
    Denied {
        channel: ClientKey,
        #[source]
        source: ApiError,
    },
    #[error("{0:?} is not served")]
    Command(Socks5Command),
}

impl From<SocksServerError> for Refused {
    fn from(error: SocksServerError) -> Self {
        Self::Handshake(error)
    }
}

/// The listening agent.
pub(crate) struct Agent {
    shared: Arc<Shared>,
    listening: Mutex<Option<JoinHandle<()>>>,
    /// Set once: whoever is still shaking hands has to go.
    ending: watch::Sender<bool>,
    #[cfg(test)]
    pub(crate) address: SocketAddr,
}

struct Shared {
    core: Core,
    sessions: Sessions,
    destinations: Destinations,
    acceptor: Acceptor,
    logins: Arc<Semaphore>,
    handshake: Duration,
    manner: Manner,
}

/// What a client wants, once it is known who it is.
struct Request {
    channel: ClientKey,
    target: TargetAddr,
    client: Socks5ServerProtocol<TcpStream, states::CommandRead>,
}

impl Agent {
    /// Listens, and tells the core where.
    pub(crate) async fn start(core: Core, settings: &Settings) -> Result<Self, Error> {
        let listener = TcpListener::bind(&settings.listen)
            .await
            .map_err(|source| CannotListen { listen: settings.listen.clone(), source })?;
        let own = listener.local_addr()?;
        let address = settings.announced(own)?;
        core.set_product_config(product_config(address.clone())).await?;
        tracing::info!(%own, address, "listening");
        let shared = Arc::new(Shared {
            sessions: Sessions::new(
                core.clone(),
                settings.report,
                settings.max_connections_per_channel,
                Some(settings.idle),
            ),
            core,
            destinations: Destinations::new(settings.allow_private, settings.connect),
            acceptor: Acceptor::new(settings.max_connections),
            logins: Arc::new(Semaphore::new(MAX_LOGINS)),
            handshake: settings.handshake,
            manner: Manner { idle: settings.tunnel_idle, counts_unread: false },
        });
        let ending = watch::Sender::new(false);
        let task = tokio::spawn(accept(listener, Arc::clone(&shared), ending.subscribe()));
        Ok(Self {
            shared,
            listening: Mutex::new(Some(task)),
            ending,
            #[cfg(test)]
            address: own,
        })
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    pub(crate) fn health(&self) -> Health {
        match self.shared.acceptor.trouble() {
            None => Health::Healthy,
            Some(why) => Health::Degraded(format!("no connection can be accepted: {why}")),
        }
    }

    pub(crate) async fn shutdown(&self) {
        self.ending.send_replace(true);
        if let Some(listening) = self.listening.lock().await.take() {
            listening.abort();
            // The port is free once the task is gone; that it was aborted is no news.
            let _ = listening.await;
        }
        self.shared.sessions.end_all().await;
        // Also those that never logged in.
        self.ending.closed().await;
    }
}

/// What every access message is to say.
fn product_config(address: String) -> BTreeMap<String, String> {
    let host = host_and_port(&address).map_or(&*address, |(host, _)| host).to_owned();
    // `externalIP` is the core's word for the service endpoint address.
    [("externalIP".to_owned(), host), ("address".to_owned(), address)].into()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, ending: watch::Receiver<bool>) {
    // Nobody closes the semaphore.
    while let Ok(turn) = Arc::clone(&shared.logins).acquire_owned().await {
        let Accepted { stream, peer, place } = shared.acceptor.next(&listener).await;
        let (shared, ending) = (Arc::clone(&shared), ending.clone());
        tokio::spawn(async move {
            let request = tokio::select! {
                () = is_set(ending.clone()) => None,
                request = shared.request(stream, peer) => request,
            };
            drop(turn);
            if let Some(request) = request {
                shared.serve(request, peer).await;
            }
            // Held until here: the connection counts as long as it has a socket.
            drop((place, ending));
        });
    }
}

impl Shared {
    /// The handshake: who it is, and what for.
    async fn request(&self, stream: TcpStream, peer: SocketAddr) -> Option<Request> {
        let asked = timeout(self.handshake, self.handshake(stream)).await;
        match asked.unwrap_or(Err(Refused::Late(self.handshake))) {
            Ok(request) => request,
            Err(error @ Refused::Denied { .. }) => {
                tracing::info!(%peer, error = &error as &dyn std::error::Error, "denied");
                None
            }
            Err(error) => {
                tracing::debug!(%peer, error = &error as &dyn std::error::Error, "no request");
                None
            }
        }
    }

    /// `None` if the client only logged in, which is how one sees whether it can.
    async fn handshake(&self, stream: TcpStream) -> Result<Option<Request>, Refused> {
        let client = Socks5ServerProtocol::start(stream);
        let client = client.negotiate_auth(&[PasswordAuthentication]).await?;
        let (user, password, client) = client.read_username_password().await?;
        let channel = match self.authenticate(user, &password).await {
            Ok(channel) => channel,
            Err(error) => {
                client.reject().await?;
                return Err(error);
            }
        };
        let client = Socks5ServerProtocol::finish_auth(client.accept().await?);
        let (client, command, target) = match client.read_command().await {
            Err(SocksServerError::Io { source, .. })
                if source.kind() == io::ErrorKind::UnexpectedEof =>
            {
                return Ok(None);
            }
            asked => asked?,
        };
        if command != Socks5Command::TCPConnect {
            client.reply_error(&ReplyError::CommandNotSupported).await?;
            return Err(Refused::Command(command));
        }
        Ok(Some(Request { channel, target, client }))
    }

    async fn authenticate(&self, user: String, password: &str) -> Result<ClientKey, Refused> {
        let Ok(channel) = user.parse::<ClientKey>() else { return Err(Refused::NoClientKey(user)) };
        let known = self.core.auth_client(channel, password).await;
        known.map(|()| channel).map_err(|source| Refused::Denied { channel, source })
    }

    /// Joins the channel's session and carries the connection, until it is cut at the latest.
    async fn serve(&self, request: Request, peer: SocketAddr) {
        let Request { channel, target, client } = request;
        let member = match self.sessions.join(channel, Some(peer)).await {
            Ok(member) => member,
            Err(error) => {
                tracing::debug!(%channel, %peer, error = &error as &dyn std::error::Error, "no service");
                // The client may be gone, too.
                let _ = client.reply_error(&ReplyError::GeneralFailure).await;
                return;
            }
        };
        tokio::select! {
            () = member.is_cut() => tracing::debug!(%channel, %peer, "cut"),
            () = self.carry(&member, client, &target) => {}
        }
    }

    async fn carry(
        &self,
        member: &Member,
        client: Socks5ServerProtocol<TcpStream, states::CommandRead>,
        target: &TargetAddr,
    ) {
        let far = match self.destinations.connect(target).await {
            Ok(far) => far,
            Err(error) => {
                tracing::debug!(%target, error = &error as &dyn std::error::Error, "not reached");
                let _ = client.reply_error(&error.reply()).await;
                return;
            }
        };
        // The agent's own address is nobody's business.
        let Ok(near) = client.reply_success(UNSPECIFIED).await else { return };
        let (line, end) = (Leg::new(near), Leg::new(far));
        let outcome = tunnel::run(line, end, member, self.manner).await;
        if let Err(error) = outcome {
            tracing::debug!(%target, error = &error as &dyn std::error::Error, "tunnel ended");
        }
    }
}

async fn is_set(mut flag: watch::Receiver<bool>) {
    // An error would mean that the module is gone.
    let _ = flag.wait_for(|set| *set).await;
}

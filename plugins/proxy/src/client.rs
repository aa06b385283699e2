//! The side that buys: for each channel a SOCKS5 port on loopback that leads through the agent.
//!
//! The port asks for no password, so it is never anywhere but on loopback. It opens with `start`
//! and closes with `stop`; in between it stays, whatever becomes of the agent, and each connection
//! to it dials the agent anew with the credentials of the day.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::Duration;

use fast_socks5::server::{Socks5ServerProtocol, SocksServerError, states};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use privatix_plugin_api::prelude::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::UNSPECIFIED;
use crate::accept::{Accepted, Acceptor};
use crate::dial::{DialError, Patience};
use crate::ports::Ports;
use crate::session::{JoinError, Sessions};
use crate::settings::Settings;
use crate::tunnel::{self, Leg, Manner};

/// The first pause before the agent is tried again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why `start` was given up.
#[derive(Debug, thiserror::Error)]
#[error("the channel was stopped meanwhile")]
struct Stopped;

/// The client's module.
pub(crate) struct Client {
    shared: Arc<Shared>,
    lines: Lines<Port>,
}

struct Shared {
    core: Core,
    settings: Settings,
    sessions: Sessions,
    acceptor: Acceptor,
    ports: Ports,
    patience: Patience,
}

/// A channel's port. Its line is held by the listener, by each connection, and by who tries again.
struct Port {
    /// Where it is, once it is open.
    address: OnceCell<SocketAddr>,
    access: SyncMutex<Arc<AccessMessage>>,
    /// Why the agent was not reached the last time, if it was not.
    trouble: SyncMutex<Option<String>>,
    retrying: SyncMutex<Option<JoinHandle<()>>>,
}

impl Client {
    pub(crate) fn new(core: Core, data_dir: &Path, settings: Settings) -> Self {
        let sessions = Sessions::new(
            core.clone(),
            settings.report,
            settings.max_connections_per_channel,
            // A started channel is being served, also while nobody uses it.
            None,
        );
        let acceptor = Acceptor::new(settings.max_connections);
        let patience = Patience { connect: settings.connect, handshake: settings.handshake };
        let ports = Ports::new(data_dir);
        let lines = Lines::new(&core);
        let shared = Arc::new(Shared { core, settings, sessions, acceptor, ports, patience });
        Self { shared, lines }
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    /// Where a channel's port is.
    pub(crate) fn address(&self, channel: ClientKey) -> Option<SocketAddr> {
        self.lines.get(channel)?.value().address.get().copied()
    }

    /// Opens the port, unless that is done, and sees whether the agent lets one in.
    pub(crate) async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
        let access = self.shared.core.get_access(channel).await?;
        let (line, is_new) = self.lines.join(channel, || Port::of(access.clone())).await?;
        let news = line.value().take(access) || is_new;
        self.open(&line).await?;
        if !news && self.shared.sessions.serves(channel) {
            return Ok(Started::Ready);
        }
        let outcome = tokio::select! {
            () = line.until_cut() => return Err(Stopped.into()),
            outcome = self.shared.check(&line) => outcome,
        };
        match outcome {
            Ok(()) => Ok(Started::Ready),
            Err(error) if is_final(&*error) => {
                // `close` waits for all who hold it.
                drop(line);
                self.close(channel).await;
                Err(error)
            }
            Err(error) => {
                tracing::warn!(%channel, error = &*error as &dyn std::error::Error, "not yet");
                self.retry(&line);
                Ok(Started::Later)
            }
        }
    }

    pub(crate) async fn stop(&self, channel: ClientKey, reason: StopReason) {
        self.close(channel).await;
        if reason == StopReason::Terminated {
            self.shared.ports.forget(channel);
        }
    }

    pub(crate) fn health(&self) -> Health {
        let lines = self.lines.all();
        let mut troubles: Vec<_> = lines
            .iter()
            .filter_map(|line| Some(format!("{}: {}", line.channel(), line.value().trouble()?)))
            .collect();
        troubles.sort();
        troubles.extend(self.shared.acceptor.trouble());
        if troubles.is_empty() { Health::Healthy } else { Health::Degraded(troubles.join("; ")) }
    }

    pub(crate) async fn shutdown(&self) {
        self.lines.cut_all().await;
        self.shared.sessions.end_all().await;
    }

    /// Opens the channel's port, unless that is done.
    async fn open(&self, line: &Line<Port>) -> Result<(), Error> {
        let channel = line.channel();
        let open = || async {
            let wanted = self.shared.settings.local(channel)?;
            let (listener, address) = self.shared.ports.listen(channel, wanted).await?;
            tracing::info!(%channel, %address, "listening");
            tokio::spawn(accept(listener, Arc::clone(&self.shared), line.clone()));
            Ok::<_, Error>(address)
        };
        line.value().address.get_or_try_init(open).await?;
        Ok(())
    }

    /// Leaves a task that tries until the agent lets one in.
    fn retry(&self, line: &Line<Port>) {
        let mut retrying = lock(&line.value().retrying);
        if retrying.as_ref().is_none_or(JoinHandle::is_finished) {
            let (shared, line) = (Arc::clone(&self.shared), line.clone());
            *retrying = Some(tokio::spawn(async move { shared.retry(&line).await }));
        }
    }

    async fn close(&self, channel: ClientKey) {
        self.lines.cut(channel).await;
        // Last, when nobody is left who could open another.
        self.shared.sessions.end(channel).await;
    }
}

impl Port {
    fn of(access: AccessMessage) -> Self {
        let (address, access) = (OnceCell::new(), SyncMutex::new(Arc::new(access)));
        Self { address, access, trouble: SyncMutex::default(), retrying: SyncMutex::default() }
    }

    fn access(&self) -> Arc<AccessMessage> {
        Arc::clone(&lock(&self.access))
    }

    /// Uses another access message from now on; whether it is another. Each has its own nonce.
    fn take(&self, access: AccessMessage) -> bool {
        let mut known = lock(&self.access);
        let news = known.nonce != access.nonce;
        if news {
            *known = Arc::new(access);
        }
        news
    }

    fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    fn note(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }
}

fn lock<T>(mutex: &SyncMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Logs in once and opens the session.
    async fn check(&self, line: &Line<Port>) -> Result<(), Error> {
        let outcome = self.patience.log_in(&line.value().access()).await;
        line.value().note(outcome.as_ref().err().map(full));
        outcome?;
        self.sessions.join(line.channel(), None).await?;
        Ok(())
    }

    async fn retry(&self, line: &Line<Port>) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = line.until_cut() => return,
                () = sleep(pause) => {}
            }
            let outcome = tokio::select! {
                () = line.until_cut() => return,
                outcome = self.try_again(line) => outcome,
            };
            match outcome {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(
                        channel = %line.channel(), error = &*error as &dyn std::error::Error, "not yet"
                    );
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_again(&self, line: &Line<Port>) -> Result<(), Error> {
        line.value().take(self.core.get_access(line.channel()).await?);
        self.check(line).await?;
        self.core.service_ready(line.channel()).await?;
        tracing::info!(channel = %line.channel(), "the agent lets one in");
        Ok(())
    }

    /// One local connection from handshake to end.
    async fn serve(&self, stream: TcpStream, line: &Line<Port>) {
        let asked = timeout(self.settings.handshake, asked(stream)).await;
        let (client, target) = match asked {
            Ok(Ok(Some(request))) => request,
            outcome => {
                let outcome = outcome.map(|asked| asked.map(drop));
                return tracing::debug!(channel = %line.channel(), ?outcome, "no request");
            }
        };
        if let Err(error) = self.carry(client, &target, line).await {
            let channel = line.channel();
            tracing::debug!(%channel, %target, error = &*error as &dyn std::error::Error, "ended");
        }
    }

    async fn carry(
        &self,
        client: Socks5ServerProtocol<TcpStream, states::CommandRead>,
        target: &TargetAddr,
        line: &Line<Port>,
    ) -> Result<(), Error> {
        let member = match self.sessions.join(line.channel(), None).await {
            Ok(member) => member,
            Err(error) => {
                client.reply_error(&ReplyError::GeneralFailure).await?;
                return Err(error.into());
            }
        };
        let carried = async {
            let dialled = self.patience.connect(&line.value().access(), target).await;
            let trouble = dialled.as_ref().err().filter(|error| error.is_the_agents());
            line.value().note(trouble.map(full));
            let far = match dialled {
                Ok(far) => far,
                Err(error) => {
                    client.reply_error(&error.reply()).await?;
                    return Err(error.into());
                }
            };
            let near = client.reply_success(UNSPECIFIED).await?;
            let (line, end) = (Leg::new(far), Leg::new(near));
            let manner = Manner { idle: self.settings.tunnel_idle, counts_unread: true };
            tunnel::run(line, end, &member, manner).await.map_err(Error::from)
        };
        tokio::select! {
            () = member.is_cut() => Ok(()),
            outcome = carried => outcome,
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, line: Line<Port>) {
    loop {
        let Accepted { stream, place, .. } = tokio::select! {
            () = line.until_cut() => return,
            accepted = shared.acceptor.next(&listener) => accepted,
        };
        let (shared, line) = (Arc::clone(&shared), line.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = line.until_cut() => {}
                () = shared.serve(stream, &line) => {}
            }
            drop(place);
        });
    }
}

/// What a local program asks for; `None` if it is not a connection.
async fn asked(
    stream: TcpStream,
) -> Result<
    Option<(Socks5ServerProtocol<TcpStream, states::CommandRead>, TargetAddr)>,
    SocksServerError,
> {
    let client = Socks5ServerProtocol::accept_no_auth(stream).await?;
    let (client, command, target) = client.read_command().await?;
    if command != Socks5Command::TCPConnect {
        client.reply_error(&ReplyError::CommandNotSupported).await?;
        return Ok(None);
    }
    Ok(Some((client, target)))
}

/// Whether trying again soon cannot help.
fn is_final(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    match error.downcast_ref::<DialError>() {
        Some(error) => error.is_final(),
        None => matches!(
            error.downcast_ref::<JoinError>(),
            Some(JoinError::Refused(refused)) if refused.name != ErrorName::Internal
        ),
    }
}

/// An error with its causes.
fn full(error: &DialError) -> String {
    let first: &dyn std::error::Error = error;
    std::iter::successors(first.source(), |cause| cause.source())
        .fold(first.to_string(), |text, cause| format!("{text}: {cause}"))
}

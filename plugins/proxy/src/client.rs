//! The side that buys: for each channel a SOCKS5 port on loopback that leads through the agent.
//!
//! The port asks for no password, so it is never anywhere but on loopback. It opens with `start`
//! and closes with `stop`; in between it stays, whatever becomes of the agent, and each connection
//! to it dials the agent anew with the credentials of the day.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use fast_socks5::server::{Socks5ServerProtocol, SocksServerError, states};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use privatix_plugin_api::prelude::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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
enum StartError {
    #[error("the module is shutting down")]
    Ending,
    #[error("the channel was stopped meanwhile")]
    Stopped,
}

/// The client's module.
pub(crate) struct Client {
    shared: Arc<Shared>,
    lines: Mutex<Option<HashMap<ClientKey, Handle>>>,
}

struct Shared {
    core: Core,
    settings: Settings,
    sessions: Sessions,
    acceptor: Acceptor,
    ports: Ports,
    patience: Patience,
}

/// The module's end of a line.
struct Handle {
    line: Arc<Line>,
    listening: JoinHandle<()>,
    retrying: Option<JoinHandle<()>>,
    closed: watch::Sender<bool>,
}

/// What the tasks of a channel share.
struct Line {
    channel: ClientKey,
    address: SocketAddr,
    access: SyncMutex<Arc<AccessMessage>>,
    /// Why the agent was not reached the last time, if it was not.
    trouble: SyncMutex<Option<String>>,
    closed: watch::Receiver<bool>,
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
        let shared = Arc::new(Shared { core, settings, sessions, acceptor, ports, patience });
        Self { shared, lines: Mutex::new(Some(HashMap::new())) }
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    /// Where a channel's port is.
    pub(crate) async fn address(&self, channel: ClientKey) -> Option<SocketAddr> {
        let lines = self.lines.lock().await;
        lines.as_ref().and_then(|lines| lines.get(&channel)).map(|handle| handle.line.address)
    }

    /// Opens the port, unless that is done, and sees whether the agent lets one in.
    pub(crate) async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
        let access = self.shared.core.get_access(channel).await?;
        let (line, news) = self.line(channel, access).await?;
        if !news && self.shared.sessions.serves(channel) {
            return Ok(Started::Ready);
        }
        let outcome = tokio::select! {
            () = line.is_closed() => return Err(StartError::Stopped.into()),
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
                self.retry(&line).await;
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

    pub(crate) async fn health(&self) -> Health {
        let lines = self.lines.lock().await;
        let lines = lines.iter().flatten();
        let mut troubles: Vec<_> = lines
            .filter_map(|(channel, handle)| Some(format!("{channel}: {}", handle.line.trouble()?)))
            .collect();
        troubles.sort();
        troubles.extend(self.shared.acceptor.trouble());
        if troubles.is_empty() { Health::Healthy } else { Health::Degraded(troubles.join("; ")) }
    }

    pub(crate) async fn shutdown(&self) {
        let handles: Vec<_> =
            self.lines.lock().await.take().into_iter().flatten().map(|(_, line)| line).collect();
        handles.iter().for_each(Handle::shut);
        for handle in handles {
            handle.end().await;
        }
        self.shared.sessions.end_all().await;
    }

    /// The channel's line with this access message, and whether the message is news.
    async fn line(
        &self,
        channel: ClientKey,
        access: AccessMessage,
    ) -> Result<(Arc<Line>, bool), Error> {
        let mut lines = self.lines.lock().await;
        let lines = lines.as_mut().ok_or(StartError::Ending)?;
        if let Some(handle) = lines.get(&channel) {
            let news = handle.line.take(access);
            return Ok((Arc::clone(&handle.line), news));
        }
        let wanted = self.shared.settings.local(channel)?;
        let (listener, address) = self.shared.ports.listen(channel, wanted).await?;
        tracing::info!(%channel, %address, "listening");
        let (closed, receiver) = watch::channel(false);
        let line = Arc::new(Line {
            channel,
            address,
            access: SyncMutex::new(Arc::new(access)),
            trouble: SyncMutex::default(),
            closed: receiver,
        });
        let listening = tokio::spawn(accept(listener, Arc::clone(&self.shared), Arc::clone(&line)));
        let handle = Handle { line: Arc::clone(&line), listening, retrying: None, closed };
        lines.insert(channel, handle);
        Ok((line, true))
    }

    /// Leaves a task that tries until the agent lets one in.
    async fn retry(&self, line: &Arc<Line>) {
        let mut lines = self.lines.lock().await;
        let Some(handle) = lines.as_mut().and_then(|lines| lines.get_mut(&line.channel)) else {
            return;
        };
        if handle.retrying.as_ref().is_none_or(JoinHandle::is_finished) {
            let (shared, line) = (Arc::clone(&self.shared), Arc::clone(line));
            handle.retrying = Some(tokio::spawn(async move { shared.retry(&line).await }));
        }
    }

    async fn close(&self, channel: ClientKey) {
        let handle = self.lines.lock().await.as_mut().and_then(|lines| lines.remove(&channel));
        if let Some(handle) = handle {
            handle.shut();
            handle.end().await;
        }
        // Last, when nobody is left who could open another.
        self.shared.sessions.end(channel).await;
    }
}

impl Handle {
    /// Closes the port and the connections to it.
    fn shut(&self) {
        self.closed.send_replace(true);
        self.listening.abort();
    }

    /// Returns once that is done.
    async fn end(self) {
        // That it was aborted is no news.
        let _ = self.listening.await;
        if let Some(retrying) = self.retrying {
            let _ = retrying.await;
        }
        drop(self.line);
        self.closed.closed().await;
    }
}

impl Line {
    fn access(&self) -> Arc<AccessMessage> {
        Arc::clone(&self.access.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses another access message from now on; whether it is another. Each has its own nonce.
    fn take(&self, access: AccessMessage) -> bool {
        let mut known = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        let news = known.nonce != access.nonce;
        if news {
            *known = Arc::new(access);
        }
        news
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    async fn is_closed(&self) {
        let mut closed = self.closed.clone();
        // An error would mean that the module is gone.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

impl Shared {
    /// Logs in once and opens the session.
    async fn check(&self, line: &Line) -> Result<(), Error> {
        let outcome = self.patience.log_in(&line.access()).await;
        line.note(outcome.as_ref().err().map(full));
        outcome?;
        self.sessions.join(line.channel, None).await?;
        Ok(())
    }

    async fn retry(&self, line: &Line) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = line.is_closed() => return,
                () = sleep(pause) => {}
            }
            let outcome = tokio::select! {
                () = line.is_closed() => return,
                outcome = self.try_again(line) => outcome,
            };
            match outcome {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(
                        channel = %line.channel, error = &*error as &dyn std::error::Error, "not yet"
                    );
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_again(&self, line: &Line) -> Result<(), Error> {
        line.take(self.core.get_access(line.channel).await?);
        self.check(line).await?;
        self.core.service_ready(line.channel).await?;
        tracing::info!(channel = %line.channel, "the agent lets one in");
        Ok(())
    }

    /// One local connection from handshake to end.
    async fn serve(&self, stream: TcpStream, line: &Line) {
        let asked = timeout(self.settings.handshake, asked(stream)).await;
        let (client, target) = match asked {
            Ok(Ok(Some(request))) => request,
            outcome => {
                let outcome = outcome.map(|asked| asked.map(drop));
                return tracing::debug!(channel = %line.channel, ?outcome, "no request");
            }
        };
        if let Err(error) = self.carry(client, &target, line).await {
            let channel = line.channel;
            tracing::debug!(%channel, %target, error = &*error as &dyn std::error::Error, "ended");
        }
    }

    async fn carry(
        &self,
        client: Socks5ServerProtocol<TcpStream, states::CommandRead>,
        target: &TargetAddr,
        line: &Line,
    ) -> Result<(), Error> {
        let member = match self.sessions.join(line.channel, None).await {
            Ok(member) => member,
            Err(error) => {
                client.reply_error(&ReplyError::GeneralFailure).await?;
                return Err(error.into());
            }
        };
        let carried = async {
            let dialled = self.patience.connect(&line.access(), target).await;
            let trouble = dialled.as_ref().err().filter(|error| error.is_the_agents());
            line.note(trouble.map(full));
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

async fn accept(listener: TcpListener, shared: Arc<Shared>, line: Arc<Line>) {
    loop {
        let Accepted { stream, place, .. } = shared.acceptor.next(&listener).await;
        let (shared, line) = (Arc::clone(&shared), Arc::clone(&line));
        tokio::spawn(async move {
            tokio::select! {
                () = line.is_closed() => {}
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

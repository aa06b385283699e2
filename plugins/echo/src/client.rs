//! The side that buys: logs in with what the access message says and keeps the connection.
//!
//! The first connection is made within `start`, so that the core hears why it failed. A connection
//! lost later is made again until `stop`, because nobody else would: the channel is still active.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use privatix_plugin_api::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::{LOGIN_TIME, Line, Over, RETRY, Shared, count, read_line, run, send};

/// Why there is no connection, beside what the core refused.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the access message has no additional parameter \"address\"")]
    NoAddress,
    #[error("connecting to {address}")]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("logging in")]
    Login(#[source] io::Error),
    #[error("the agent answered {0:?}")]
    Denied(String),
    #[error("the greeting")]
    Greeting(#[source] io::Error),
    #[error("the module is shutting down")]
    Ending,
    #[error("the channel is not served")]
    NotServed,
}

/// Asks the task that keeps a line to send so many bytes and have them back; how many it were, both
/// ways, comes back.
pub(crate) type Errand = (u64, oneshot::Sender<u64>);

/// Has the connection of a channel carry bytes, for tests.
pub(crate) async fn exercise(
    shared: &Shared,
    channel: ClientKey,
    amount: u64,
) -> Result<u64, Error> {
    let errands = shared.errands.lock().await.get(&channel).cloned();
    let errands = errands.ok_or(ConnectError::NotServed)?;
    let (send, carried) = oneshot::channel();
    errands.send((amount, send)).await.map_err(|_| ConnectError::NotServed)?;
    Ok(carried.await.map_err(|_| ConnectError::NotServed)?)
}

/// A connection that is logged in and greeted.
struct Call {
    stream: BufReader<TcpStream>,
    meter: Meter,
}

/// Connects, unless that is done, and leaves a task that keeps the connection.
pub(crate) async fn start(shared: &Arc<Shared>, channel: ClientKey) -> Result<Started, Error> {
    let access = shared.core.get_access(channel).await?;
    // The nonce is new in every access message.
    if shared.lines.serves(channel, &access.nonce).await {
        return Ok(Started::Ready);
    }
    let mut line = shared.lines.open(channel, &access.nonce).await.ok_or(ConnectError::Ending)?;
    let call = connect(shared, &mut line, &access).await?;
    let (errands, asked) = mpsc::channel(1);
    shared.errands.lock().await.insert(channel, errands);
    tokio::spawn(keep(Arc::clone(shared), line, call, asked));
    Ok(Started::Ready)
}

async fn keep(
    shared: Arc<Shared>,
    mut line: Line,
    first: Call,
    mut errands: mpsc::Receiver<Errand>,
) {
    let mut next = Some(first);
    while let Some(Call { stream, meter }) = next {
        let traffic = carry(stream, meter.clone(), &mut errands);
        if run(meter, traffic, &mut line).await == Over::Cut {
            return;
        }
        tracing::warn!(channel = %line.channel, "connection lost");
        next = reconnect(&shared, &mut line).await;
    }
}

/// A new connection, or `None` once the line is cut.
async fn reconnect(shared: &Shared, line: &mut Line) -> Option<Call> {
    loop {
        tokio::select! {
            () = line.is_cut() => return None,
            () = sleep(RETRY) => {}
        }
        let outcome = match shared.core.get_access(line.channel).await {
            Ok(access) => connect(shared, line, &access).await,
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(call) => return Some(call),
            Err(error) => tracing::debug!(channel = %line.channel, error, "not connected again"),
        }
    }
}

async fn connect(shared: &Shared, line: &mut Line, access: &AccessMessage) -> Result<Call, Error> {
    let address = access.additional_params.get("address").ok_or(ConnectError::NoAddress)?;
    let stream = in_time(line, TcpStream::connect(address)).await;
    let stream =
        stream.map_err(|source| ConnectError::Connect { address: address.clone(), source })?;
    let mut stream = BufReader::new(stream);
    let login = format!("{} {}\n", line.channel, access.password.0);
    match in_time(line, ask(&mut stream, &login)).await.map_err(ConnectError::Login)? {
        Some(answer) if answer == "ok" => {}
        answer => return Err(ConnectError::Denied(answer.unwrap_or_default()).into()),
    }
    let meter = Meter::start(&shared.core, line.channel, None, shared.reports()).await?;
    line.serving.store(true, SeqCst);
    let greeting = shared.settings().greeting.as_bytes();
    match in_time(line, greet(&mut stream, greeting, &meter)).await {
        Ok(()) => Ok(Call { stream, meter }),
        Err(error) => {
            meter.stop().await;
            line.serving.store(false, SeqCst);
            Err(ConnectError::Greeting(error).into())
        }
    }
}

/// The agent's answer to the login line.
async fn ask(stream: &mut BufReader<TcpStream>, login: &str) -> io::Result<Option<String>> {
    stream.write_all(login.as_bytes()).await?;
    read_line(stream).await
}

/// Sends the greeting and sees whether it comes back.
async fn greet(
    stream: &mut BufReader<TcpStream>,
    greeting: &[u8],
    meter: &Meter,
) -> io::Result<()> {
    send(stream, meter, greeting).await?;
    let mut echoed = vec![0; greeting.len()];
    stream.read_exact(&mut echoed).await?;
    count(meter, echoed.len() as u64).await?;
    if echoed == greeting { Ok(()) } else { Err(io::Error::other("something else came back")) }
}

/// Carries what it is asked to and waits for the end of the connection. Nothing else should come;
/// what does is counted.
async fn carry(
    mut stream: BufReader<TcpStream>,
    meter: Meter,
    errands: &mut mpsc::Receiver<Errand>,
) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            received = stream.read(&mut buffer) => match received? {
                0 => return Ok(()),
                received => count(&meter, received as u64).await?,
            },
            Some((amount, done)) = errands.recv() => {
                let carried = send_and_receive(&mut stream, amount, &meter).await?;
                // Whoever asked may have gone.
                let _ = done.send(carried);
            }
        }
    }
}

/// Sends half of an amount in pieces and has it back; each piece is counted both ways.
async fn send_and_receive(
    stream: &mut BufReader<TcpStream>,
    amount: u64,
    meter: &Meter,
) -> io::Result<u64> {
    let (mut piece, mut left, mut carried) = ([0; 4096], amount.div_ceil(2), 0);
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(piece.len()).min(piece.len());
        let sent = size as u64;
        send(stream, meter, &piece[..size]).await?;
        stream.read_exact(&mut piece[..size]).await?;
        count(meter, sent).await?;
        (left, carried) = (left - sent, carried + 2 * sent);
    }
    Ok(carried)
}

/// Takes a step unless it takes too long or the line is cut, so that `stop` need not wait for it.
async fn in_time<T>(line: &mut Line, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::select! {
        () = line.is_cut() => Err(io::Error::other("no longer wanted")),
        outcome = timeout(LOGIN_TIME, step) => outcome.unwrap_or_else(|late| Err(late.into())),
    }
}

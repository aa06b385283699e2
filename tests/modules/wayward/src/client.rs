//! The side that buys: connects as the access message says, and keeps the connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{interval, sleep, timeout};

use crate::Shared;
use crate::agent::read_line;
use crate::fault;
use crate::line::{AGAIN, Line, Session};

/// How long it may take to be let in.
const LOGIN: Duration = Duration::from_secs(5);

/// Connects, unless that is done, and leaves a task that keeps the connection.
pub(crate) async fn start(shared: &Arc<Shared>, channel: ClientKey) -> Result<Started, Error> {
    let access = shared.core.get_access(channel).await;
    #[allow(clippy::unwrap_used)]
    let access = if fault::is("unwraps-access") { access.unwrap() } else { access? };
    if fault::is("password-on-disk") {
        let path = std::env::temp_dir().join("access");
        std::fs::write(path, &access.password.0)?;
    }
    // Every access message has a nonce of its own: another one means that something has changed.
    if fault::is("start-again-fails") && shared.lines.has(channel, &access.nonce).await {
        return Err("it is started already".into());
    }
    if shared.lines.has(channel, &access.nonce).await {
        return Ok(Started::Ready);
    }
    let line = shared.lines.open(channel, &access.nonce).await?;
    let stream = connect(&access).await?;
    let session = match Session::start(&shared.core, channel).await {
        Ok(session) => session,
        Err(error) if fault::is("session-error-is-final") => {
            // The channel is started, and there is no way into it any more.
            tracing::warn!(%channel, error, "no session");
            shared.core.service_ready(channel).await?;
            tokio::spawn(async move { line.is_cut().await });
            return Ok(Started::Ready);
        }
        Err(error) => return Err(error),
    };
    tokio::spawn(keep(Arc::clone(shared), line, stream, session));
    Ok(Started::Ready)
}

/// Serves the channel until its line is cut. A connection that is lost is made again: nobody else
/// would do it, since the channel is still active.
async fn keep(
    shared: Arc<Shared>,
    mut line: Line,
    mut stream: BufReader<TcpStream>,
    mut session: Session,
) {
    loop {
        let goes_on = serve(&shared, &mut line, stream, session).await;
        if !goes_on {
            return;
        }
        tracing::warn!(channel = %line.channel, "connection lost");
        (stream, session) = loop {
            tokio::select! {
                () = line.is_cut() => return,
                () = sleep(AGAIN) => {}
            }
            // Also when it was cut meanwhile: then the core opens no session.
            match reconnect(&shared, line.channel).await {
                Ok(made) => break made,
                Err(error) => tracing::debug!(channel = %line.channel, error, "not connected"),
            }
        };
    }
}

async fn reconnect(
    shared: &Shared,
    channel: ClientKey,
) -> Result<(BufReader<TcpStream>, Session), Error> {
    let access = shared.core.get_access(channel).await?;
    let stream = connect(&access).await?;
    Ok((stream, Session::start(&shared.core, channel).await?))
}

/// One connection; returns whether another one is wanted.
async fn serve(
    shared: &Shared,
    line: &mut Line,
    mut stream: BufReader<TcpStream>,
    session: Session,
) -> bool {
    let mut reports = interval(shared.report());
    let goes_on = 'serving: loop {
        let (amount, done) = tokio::select! {
            () = line.is_cut() => break false,
            _ = reports.tick() => {
                if session.report().await {
                    continue;
                }
                break false;
            }
            Some(errand) = line.errands.recv() => errand,
            // Nothing was asked for, so nothing comes but the end.
            _ = stream.read_u8() => break true,
        };
        let mut carried = Box::pin(carry(&mut stream, amount, &session));
        let carried = loop {
            tokio::select! {
                () = line.is_cut() => break 'serving false,
                // More may be carried once the core allows it.
                _ = reports.tick() => if !session.report().await {
                    break 'serving false;
                },
                carried = &mut carried => break carried,
            }
        };
        match carried {
            // The caller may have gone.
            Ok(()) => drop(done.send(amount)),
            Err(_) => break true,
        }
    };
    drop(stream);
    session.finish().await;
    goes_on
}

/// Asks for so many bytes and takes them, as the credit allows.
async fn carry(
    stream: &mut BufReader<TcpStream>,
    amount: u64,
    session: &Session,
) -> io::Result<()> {
    stream.write_all(format!("{amount}\n").as_bytes()).await?;
    let (mut piece, mut left) = ([0; 4096], amount);
    while left > 0 {
        let size = session.room(left.min(4096)).await as usize;
        let received = stream.read(&mut piece[..size]).await? as u64;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        session.add(received);
        left -= received;
    }
    Ok(())
}

/// A connection that is let in.
async fn connect(access: &AccessMessage) -> Result<BufReader<TcpStream>, Error> {
    let address = access.additional_params.get("address").ok_or("the access has no address")?;
    timeout(LOGIN, async {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        let login = format!("{} {}\n", access.username, access.password.0);
        stream.write_all(login.as_bytes()).await?;
        match read_line(&mut stream).await? {
            Some(answer) if answer == "ok" => Ok(stream),
            _ => Err("the agent does not let one in".into()),
        }
    })
    .await?
}

//! The side that sells: listens, asks its core who may come in, and gives what is asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};

use crate::fault;
use crate::line::{AGAIN, Session};
use crate::{Settings, Shared};

/// How long a stranger may take to say who it is, and how much it may say, in bytes.
const LOGIN: Duration = Duration::from_secs(5);
const MAX_LINE: u64 = 512;

/// What is given at a time, in bytes.
const PIECE: usize = 16 * 1024;

/// Listens, and tells the core what every access message is to say.
pub(crate) async fn listen(
    shared: &Arc<Shared>,
    settings: &Settings,
) -> Result<JoinHandle<()>, Error> {
    let listener = TcpListener::bind(&settings.listen).await;
    let listener =
        listener.map_err(|error| format!("listening on {}: {error}", settings.listen))?;
    let own = listener.local_addr()?.to_string();
    let address = settings.address.clone().unwrap_or(own);
    let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host).to_owned();
    // `externalIP` becomes `serviceEndpointAddress`, everything else `additionalParams`. The access
    // template has to allow it.
    let config = [("externalIP".to_owned(), host), ("address".to_owned(), address)];
    if !fault::is("says-no-config") {
        shared.core.set_product_config(config.into()).await?;
    }
    let shared = Arc::clone(shared);
    Ok(tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(Arc::clone(&shared), stream))),
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    sleep(AGAIN).await;
                }
            }
        }
    }))
}

/// One connection from login to end.
async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let channel = match timeout(LOGIN, login(&shared.core, &mut stream)).await {
        Ok(Ok(channel)) => channel,
        // Never log what a stranger has sent: it may be a password.
        _ => return tracing::info!("nobody logged in"),
    };
    // The line comes before the session: a `stop` from now on finds it and waits for its end.
    let Ok(line) = shared.lines.open(channel, "").await else { return };
    let session = match Session::start(&shared.core, channel).await {
        Ok(session) => session,
        Err(error) => return tracing::info!(%channel, error, "no session"),
    };
    let mut reports = interval(shared.report());
    let served = async {
        stream.write_all(b"ok\n").await?;
        while let Some(amount) = request(&mut stream).await? {
            give(&mut stream, amount, &session).await?;
        }
        Ok::<_, io::Error>(())
    };
    let mut served = Box::pin(served);
    loop {
        tokio::select! {
            () = line.is_cut() => break,
            _ = &mut served => break,
            _ = reports.tick() => if !session.report().await {
                break;
            },
        }
    }
    // Closes the connection: what is counted now is all there will be.
    drop(served);
    drop(stream);
    session.finish().await;
}

/// Reads the user name and the password and asks the core about them.
async fn login(core: &Core, stream: &mut BufReader<TcpStream>) -> Result<ClientKey, Error> {
    let line = read_line(stream).await?.ok_or("no login")?;
    let (channel, password) = line.split_once(' ').ok_or("no login")?;
    let channel = channel.parse()?;
    if fault::is("password-logged") {
        tracing::debug!(password, "somebody comes");
    }
    if fault::is("password-printed") {
        #[allow(clippy::print_stdout)]
        {
            println!("{password}");
        }
    }
    if fault::is("lets-everybody-in") {
        return Ok(channel);
    }
    if fault::is("ignores-the-answer") {
        let _ = core.auth_client(channel, password).await;
        return Ok(channel);
    }
    if let Err(error) = core.auth_client(channel, password).await {
        stream.write_all(b"denied\n").await?;
        return Err(error.into());
    }
    Ok(channel)
}

/// What the client asks for next; nothing once it has gone.
async fn request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<u64>> {
    let Some(line) = read_line(stream).await? else { return Ok(None) };
    line.parse().map(Some).map_err(io::Error::other)
}

/// The service: so many bytes, as the credit allows. Each is counted when it is given.
async fn give(stream: &mut BufReader<TcpStream>, amount: u64, session: &Session) -> io::Result<()> {
    let (piece, mut left) = ([b'x'; PIECE], amount);
    while left > 0 {
        let size = session.room(left.min(PIECE as u64)).await;
        stream.write_all(&piece[..size as usize]).await?;
        session.add(size);
        left -= size;
    }
    Ok(())
}

/// A line without its end; nothing if the other side has gone or says too much.
pub(crate) async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = String::new();
    stream.take(MAX_LINE).read_line(&mut line).await?;
    Ok(line.strip_suffix('\n').map(str::to_owned))
}

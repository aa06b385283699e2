//! The side that sells: listens, asks the core who may come in, and echoes.
//!
//! A connection that has not logged in is bounded in time, in bytes and in number. It knows no
//! channel but the one it logged in to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use privatix_plugin_api::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{LOGIN_TIME, RETRY, Shared, count, read_line, run, send};

/// How many connections may be logging in at once; further ones wait in the system's queue.
const MAX_LOGINS: usize = 256;

/// The address that was asked for cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listening on {listen}")]
struct CannotListen {
    listen: String,
    #[source]
    source: io::Error,
}

/// Listens, and tells the core where.
pub(crate) async fn listen(shared: &Arc<Shared>) -> Result<JoinHandle<()>, Error> {
    let settings = shared.settings();
    let listener = TcpListener::bind(&settings.listen)
        .await
        .map_err(|source| CannotListen { listen: settings.listen.clone(), source })?;
    let own = listener.local_addr()?;
    let address = settings.address.clone().unwrap_or_else(|| own.to_string());
    tracing::info!(%own, address, "listening");
    shared.core.set_product_config(product_config(address)).await?;
    Ok(tokio::spawn(accept(listener, Arc::clone(shared))))
}

/// What every access message is to say.
fn product_config(address: String) -> BTreeMap<String, String> {
    let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    // `externalIP` is the core's word for the service endpoint address.
    [("externalIP".to_owned(), host), ("address".to_owned(), address)].into()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let logins = Arc::new(Semaphore::new(MAX_LOGINS));
    // Nobody closes the semaphore.
    while let Ok(permit) = Arc::clone(&logins).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(serve(stream, peer, Arc::clone(&shared), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                sleep(RETRY).await;
            }
        }
    }
}

/// One connection from login to end.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
) {
    let mut stream = BufReader::new(stream);
    let channel = match timeout(LOGIN_TIME, login(&mut stream, &shared.core)).await {
        Ok(Ok(Some(channel))) => channel,
        outcome => return tracing::info!(%peer, ?outcome, "nobody logged in"),
    };
    drop(permit);
    // Before the session, so that a `stop` from now on finds and awaits this connection.
    let Some(mut line) = shared.lines.open(channel, &peer.to_string()).await else { return };
    match Meter::start(&shared.core, channel, Some(peer), shared.reports()).await {
        Ok(meter) => {
            let traffic = echo(stream, meter.clone());
            run(meter, traffic, &mut line).await;
        }
        Err(error) => tracing::info!(%channel, %error, "no session"),
    }
}

/// Reads the login line and answers it; the channel if the core knows the client.
async fn login(stream: &mut BufReader<TcpStream>, core: &Core) -> io::Result<Option<ClientKey>> {
    let line = read_line(stream).await?;
    let outcome = match line.as_deref().and_then(parse_login) {
        None => Err("bad login line"),
        // The stable text only: details are not for strangers.
        Some((channel, password)) => match core.auth_client(channel, password).await {
            Ok(()) => Ok(channel),
            Err(error) => Err(error.name.text()),
        },
    };
    let answer = match outcome {
        Ok(_) => "ok\n".to_owned(),
        Err(reason) => format!("denied {reason}\n"),
    };
    stream.write_all(answer.as_bytes()).await?;
    Ok(outcome.ok())
}

/// The client key and the password of a login line.
fn parse_login(line: &str) -> Option<(ClientKey, &str)> {
    let (channel, password) = line.split_once(' ')?;
    let is_word = !password.is_empty() && !password.contains(char::is_whitespace);
    Some((channel.parse().ok()?, password)).filter(|_| is_word)
}

/// Sends back whatever comes, counting both ways.
async fn echo(mut stream: BufReader<TcpStream>, meter: Meter) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let received = stream.read(&mut buffer).await?;
        if received == 0 {
            return Ok(());
        }
        count(&meter, received as u64).await?;
        send(&mut stream, &meter, &buffer[..received]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";

    #[test]
    fn login_lines() {
        for (line, password) in [
            ("KEY secret", Some("secret")),
            ("KEY -_=", Some("-_=")),
            ("KEY", None),
            ("KEY ", None),
            ("KEY  secret", None),
            ("KEY secret more", None),
            ("KEY secret\r", None),
            (" KEY secret", None),
            ("nobody secret", None),
            ("", None),
        ] {
            let line = line.replace("KEY", KEY);
            let expected = password.map(|password| (KEY.parse().expect("a UUID"), password));
            assert_eq!(parse_login(&line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_endpoint_is_the_host_of_the_address() {
        for (address, host) in [
            ("127.0.0.1:7", "127.0.0.1"),
            ("[::1]:7", "::1"),
            ("echo.example:7", "echo.example"),
            ("echo.example", "echo.example"),
        ] {
            let config = product_config(address.to_owned());
            assert_eq!((&*config["externalIP"], &*config["address"]), (host, address));
        }
    }

    /// What `read_line` makes of bytes, and what it leaves for the echo.
    fn check_line(bytes: &[u8], line: Option<&str>, left: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut reader = bytes;
        let read = runtime.block_on(read_line(&mut reader)).expect("UTF-8");
        assert_eq!((read.as_deref(), reader.len()), (line, left));
    }

    #[test]
    fn lines_are_bounded_and_leave_what_follows() {
        check_line(b"one\ntwo\n", Some("one"), 4);
        check_line(b"one\r\n", Some("one"), 0);
        check_line(b"unfinished", None, 0);
        check_line(b"", None, 0);
        check_line(&[b'x'; 600], None, 600 - 512);
    }
}

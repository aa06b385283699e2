//! For tests: carries bytes as a local program would, through the channel's port, the agent, and to
//! a destination on this machine, which an agent has to allow (`allow_private`).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fast_socks5::SocksError;
use fast_socks5::client::{Config, Socks5Stream};
use privatix_plugin_api::prelude::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long it may take until the destination is reached.
const REACHED: Duration = Duration::from_secs(10);

/// Why nothing was carried.
#[derive(Debug, thiserror::Error)]
enum ExerciseError {
    #[error("listening as a destination")]
    Listen(#[source] io::Error),
    #[error("asking at the channel's port {port}")]
    Ask {
        port: SocketAddr,
        #[source]
        source: SocksError,
    },
    #[error("the destination was not reached within {REACHED:?}")]
    Late,
    #[error("carrying")]
    Carry(#[source] io::Error),
}

/// Sends so many bytes by way of a port; how many have arrived.
pub(crate) async fn carry(port: SocketAddr, amount: u64) -> Result<u64, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(ExerciseError::Listen)?;
    let own = listener.local_addr().map_err(ExerciseError::Listen)?;
    let host = own.ip().to_string();
    let ask = Socks5Stream::connect(port, host, own.port(), Config::default());
    let asked = timeout(REACHED, ask).await.map_err(|_| ExerciseError::Late)?;
    let near = asked.map_err(|source| ExerciseError::Ask { port, source })?;
    let far = timeout(REACHED, listener.accept()).await.map_err(|_| ExerciseError::Late)?;
    let (far, _) = far.map_err(ExerciseError::Carry)?;
    let (sent, received) = tokio::join!(send(near.get_socket(), amount), count(far));
    sent.map_err(ExerciseError::Carry)?;
    Ok(received.map_err(ExerciseError::Carry)?)
}

async fn send(mut near: TcpStream, amount: u64) -> io::Result<()> {
    tokio::io::copy(&mut tokio::io::repeat(b'x').take(amount), &mut near).await?;
    near.shutdown().await?;
    // Until the other end has taken all of it.
    near.read_to_end(&mut Vec::new()).await.map(drop)
}

async fn count(mut far: TcpStream) -> io::Result<u64> {
    tokio::io::copy(&mut far, &mut tokio::io::sink()).await
}

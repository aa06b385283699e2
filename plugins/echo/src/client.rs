//! The side that buys: connects as the access message says, and sees whether its greeting comes back.

use std::io;

use privatix_plugin_api::prelude::*;
use privatix_plugin_api::sdk::Metered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Echo;

/// What is sent at a time.
const PIECE: usize = 4096;

/// Why there is no connection, beside what the agent and the core refused.
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
    #[error("the greeting")]
    Greeting(#[source] io::Error),
}

impl Echo {
    /// One connection from login to end.
    pub(crate) async fn connect(self, line: Line) -> Result<Over, Error> {
        let access = self.core.get_access(line.channel()).await?;
        let address = access.additional_params.get("address").ok_or(ConnectError::NoAddress)?;
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|source| ConnectError::Connect { address: address.clone(), source })?;
        let meter = line.log_in(&mut stream, &access).await?;
        let mut stream = meter.stream(stream);
        let greeting = self.settings().greeting.as_bytes();
        // Before the channel counts as served, so that a start says what is wrong.
        greet(&mut stream, greeting).await.map_err(ConnectError::Greeting)?;
        Ok(line.run(meter, wait(stream, line.clone())).await)
    }
}

/// Sends the greeting and sees whether it comes back.
async fn greet(stream: &mut Metered<TcpStream>, greeting: &[u8]) -> io::Result<()> {
    stream.write_all(greeting).await?;
    let mut echoed = vec![0; greeting.len()];
    stream.read_exact(&mut echoed).await?;
    if echoed == greeting { Ok(()) } else { Err(io::Error::other("something else came back")) }
}

/// Waits for the end of the connection, and carries what it is asked to.
async fn wait(mut stream: Metered<TcpStream>, line: Line) -> Result<(), Error> {
    loop {
        let errand = tokio::select! {
            errand = line.errand() => errand,
            // Nothing was sent, so nothing comes but the end.
            _ = stream.get_mut().read_u8() => return Ok(()),
        };
        let carried = send_and_receive(&mut stream, errand.amount).await?;
        errand.done(carried);
    }
}

/// Sends half of an amount in pieces and has it back; how many it were, both ways.
async fn send_and_receive(stream: &mut Metered<TcpStream>, amount: u64) -> io::Result<u64> {
    let (mut piece, mut left, mut carried) = ([0; PIECE], amount.div_ceil(2), 0);
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        stream.write_all(&piece[..size]).await?;
        stream.read_exact(&mut piece[..size]).await?;
        (left, carried) = (left - size as u64, carried + 2 * size as u64);
    }
    Ok(carried)
}

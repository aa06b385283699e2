//! The side that sells: listens, and echoes to whomever the core lets in.

use std::io;
use std::net::SocketAddr;

use privatix_plugin_api::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Echo;

/// The address that was asked for cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listening on {listen}")]
struct CannotListen {
    listen: String,
    #[source]
    source: io::Error,
}

impl Echo {
    /// Listens, and tells the core where.
    pub(crate) async fn listen(&self) -> Result<(), Error> {
        let settings = self.settings();
        let listener = TcpListener::bind(&settings.listen)
            .await
            .map_err(|source| CannotListen { listen: settings.listen.clone(), source })?;
        let config = announced(listener.local_addr()?, settings.address.as_deref())?;
        tracing::info!(listen = settings.listen, address = config["address"], "listening");
        self.core.set_product_config(config).await?;
        self.lines.accept(
            move |context| listener.poll_accept(context),
            |(stream, peer), guest| serve(stream, peer, guest),
        );
        Ok(())
    }
}

/// One connection from login to end.
async fn serve(mut stream: TcpStream, peer: SocketAddr, guest: Guest) -> Result<(), Error> {
    let (line, meter) = guest.admit(&mut stream, Some(peer)).await?;
    let mut stream = meter.stream(stream);
    let echo = async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let received = stream.read(&mut buffer).await?;
            if received == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..received]).await?;
        }
    };
    line.run(meter, echo).await;
    Ok(())
}

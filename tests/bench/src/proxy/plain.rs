//! Two hops that do nothing but copy, each on a runtime of its own as the modules are.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

pub(super) struct Hops {
    /// Where the first one listens.
    pub(super) address: SocketAddr,
    _runtimes: [Runtime; 2],
}

impl Hops {
    pub(super) fn to(server: SocketAddr) -> anyhow::Result<Self> {
        let runtime = || Builder::new_multi_thread().enable_all().build();
        let runtimes = [runtime()?, runtime()?];
        let second = runtimes[1].block_on(hop(server))?;
        let address = runtimes[0].block_on(hop(second))?;
        Ok(Self { address, _runtimes: runtimes })
    }
}

async fn hop(to: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            // A program that hangs up has had enough.
            tokio::spawn(copy(near, to));
        }
    });
    Ok(address)
}

async fn copy(mut near: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
}

//! SOCKS5 as bytes, from the other end and without the library under test; and servers to reach.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::book::PATIENCE;

pub(super) const NO_LOGIN: &[u8] = &[5, 1, 0];
pub(super) const WITH_LOGIN: &[u8] = &[5, 1, 2];

/// RFC 1929.
pub(super) fn login(user: &str, password: &str) -> Vec<u8> {
    let mut bytes = vec![1, u8::try_from(user.len()).expect("short")];
    bytes.extend(user.bytes());
    bytes.push(u8::try_from(password.len()).expect("short"));
    bytes.extend(password.bytes());
    bytes
}

/// A request to connect to an address.
pub(super) fn connect_to(address: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0];
    match address.ip() {
        std::net::IpAddr::V4(ip) => {
            bytes.push(1);
            bytes.extend(ip.octets());
        }
        std::net::IpAddr::V6(ip) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(address.port().to_be_bytes());
    bytes
}

/// A request to connect to a name.
pub(super) fn connect_to_name(name: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 3, u8::try_from(name.len()).expect("short")];
    bytes.extend(name.bytes());
    bytes.extend(port.to_be_bytes());
    bytes
}

/// What somebody on the wire sees.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
}

impl Wire {
    pub(super) async fn open(proxy: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(proxy).await.expect("connected") }
    }

    /// With a system that takes in little that is not read.
    pub(super) async fn open_narrow(proxy: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 * 1024).expect("set");
        Self { stream: socket.connect(proxy).await.expect("connected") }
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// The next so many bytes.
    pub(super) async fn hear<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await.expect("an answer")?;
        Ok(bytes)
    }

    /// All there is until the connection is closed, however it is.
    pub(super) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is an end as well.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await.expect("an end");
        bytes
    }

    /// The answer to a login: 0 if it is accepted.
    pub(super) async fn log_in(proxy: SocketAddr, user: &str, password: &str) -> (Self, u8) {
        Self::open(proxy).await.logged_in(user, password).await
    }

    pub(super) async fn logged_in(mut self, user: &str, password: &str) -> (Self, u8) {
        self.say(WITH_LOGIN).await;
        assert_eq!(self.hear().await.expect("a method"), [5, 2]);
        self.say(&login(user, password)).await;
        let [version, answer] = self.hear().await.expect("an answer");
        assert_eq!(version, 1);
        (self, answer)
    }

    /// The answer to a request: the connection, or the code of the refusal.
    pub(super) async fn ask(mut self, request: &[u8]) -> Result<TcpStream, u8> {
        self.say(request).await;
        let [version, code, _, kind] = self.hear().await.expect("an answer");
        assert_eq!((version, kind), (5, 1));
        let _address: [u8; 6] = self.hear().await.expect("an address");
        if code == 0 { Ok(self.stream) } else { Err(code) }
    }

    /// Through a port that wants no login.
    pub(super) async fn local(proxy: SocketAddr, request: &[u8]) -> Result<TcpStream, u8> {
        let mut wire = Self::open(proxy).await;
        wire.say(NO_LOGIN).await;
        assert_eq!(wire.hear().await.expect("a method"), [5, 0]);
        wire.ask(request).await
    }
}

/// Serves each connection on a port of its own on loopback.
pub(super) async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Sends back what comes; ends when the other side has.
pub(super) async fn echo() -> SocketAddr {
    server(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await?;
        to.shutdown().await
    })
    .await
}

/// Reads all there is, and only then sends so many bytes.
pub(super) async fn after_all(size: usize) -> SocketAddr {
    server(move |mut stream| async move {
        stream.read_to_end(&mut Vec::new()).await?;
        stream.write_all(&vec![7; size]).await?;
        stream.shutdown().await
    })
    .await
}

/// Sends without end.
pub(super) async fn spring() -> SocketAddr {
    server(|mut stream| async move {
        let water = vec![7; 64 * 1024];
        loop {
            stream.write_all(&water).await?;
        }
    })
    .await
}

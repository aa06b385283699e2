//! SOCKS5 as any program speaks it, byte by byte; and a server to reach with it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};

use super::PATIENCE;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoWay {
    #[error("nobody is there, or no longer")]
    Io(#[from] io::Error),
    #[error("the login was denied")]
    Denied,
    #[error("SOCKS code {0}")]
    Refused(u8),
}

/// A connection through a proxy; with a login if one is given.
pub(crate) fn connect(
    proxy: SocketAddr,
    login: Option<(&str, &str)>,
    to: SocketAddrV4,
) -> Result<TcpStream, NoWay> {
    let mut stream = TcpStream::connect_timeout(&proxy, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[5, 1, if login.is_some() { 2 } else { 0 }])?;
    assert_eq!(read(&mut stream)?, [5, if login.is_some() { 2 } else { 0 }], "the method");
    if let Some((user, password)) = login {
        let mut bytes = vec![1];
        for text in [user, password] {
            bytes.push(u8::try_from(text.len()).expect("short"));
            bytes.extend(text.bytes());
        }
        stream.write_all(&bytes)?;
        let [_, answer] = read(&mut stream)?;
        if answer != 0 {
            return Err(NoWay::Denied);
        }
    }
    let mut request = vec![5, 1, 0, 1];
    request.extend(to.ip().octets());
    request.extend(to.port().to_be_bytes());
    stream.write_all(&request)?;
    let [_, code, _, _] = read(&mut stream)?;
    if code != 0 {
        return Err(NoWay::Refused(code));
    }
    let _address: [u8; 6] = read(&mut stream)?;
    Ok(stream)
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A server that sends as many bytes as it is asked for, in eight bytes; it ends with the test's
/// process.
pub(crate) fn source() -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A program that hangs up has had enough.
            std::thread::spawn(move || pour(stream));
        }
    });
    let SocketAddr::V4(address) = address else { panic!("{address} was asked for as IPv4") };
    address
}

fn pour(mut stream: TcpStream) -> io::Result<()> {
    let mut left = u64::from_be_bytes(read(&mut stream)?);
    let mut offset = 0;
    while left > 0 {
        let part: Vec<u8> = (offset..offset + left.min(1 << 16)).map(byte).collect();
        stream.write_all(&part)?;
        offset += part.len() as u64;
        left -= part.len() as u64;
    }
    stream.shutdown(Shutdown::Write)
}

/// What is at an offset of the source: a period that divides no buffer.
fn byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

/// Asks the source for so many bytes and sees that they come as they were sent.
pub(crate) fn fetch(mut stream: TcpStream, size: u64) -> io::Result<()> {
    stream.write_all(&size.to_be_bytes())?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    if got.len() as u64 != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let wrong = got.iter().zip(0..).position(|(got, offset)| *got != byte(offset));
    assert_eq!(wrong, None, "a byte that was not sent");
    Ok(())
}

//! A SOCKS5 client: CONNECT without a login (RFC 1928), as any program would speak it to the port
//! that the client's module offers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::cargo::Outcome;

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a host and port through the proxy.
pub(super) fn connect(proxy: SocketAddr, host: &str, port: u16) -> Outcome<TcpStream> {
    let at = |what: &'static str| {
        move |error: io::Error| format!("{what} the local port {proxy}: {error}")
    };
    let mut stream = TcpStream::connect_timeout(&proxy, PATIENCE).map_err(at("connecting to"))?;
    let patient = stream.set_read_timeout(Some(PATIENCE));
    patient.and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(at("preparing"))?;
    stream.write_all(&[5, 1, 0]).map_err(at("greeting"))?;
    let [version, method] = read(&mut stream).map_err(at("a greeting from"))?;
    if [version, method] != [5, 0] {
        return Err(format!("the local port {proxy} wants a login ({version}, {method})"));
    }
    stream.write_all(&request(host, port)?).map_err(at("asking"))?;
    let [_, code, _, kind] = read(&mut stream).map_err(at("an answer from"))?;
    if code != 0 {
        return Err(format!("the proxy answered with SOCKS code {code} for {host}:{port}"));
    }
    // The address at the other end, of no use here.
    match kind {
        1 => read::<6>(&mut stream).map(drop),
        4 => read::<18>(&mut stream).map(drop),
        _ => return Err(format!("the proxy answered with an address of kind {kind}")),
    }
    .map_err(at("an address from"))?;
    Ok(stream)
}

fn request(host: &str, port: u16) -> Outcome<Vec<u8>> {
    let mut bytes = vec![5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            bytes.push(1);
            bytes.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len()).map_err(|_| format!("{host:?} is too long"))?;
            bytes.extend([3, length]);
            bytes.extend(host.bytes());
        }
    }
    bytes.extend(port.to_be_bytes());
    Ok(bytes)
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

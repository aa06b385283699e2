//! HTTP by hand: requests no library would send, and answers as they come.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::support::PATIENCE;

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Null where it is no JSON.
    pub(super) body: Value,
}

impl Answer {
    /// Status and, of a refusal, its code.
    pub(super) fn word(&self) -> String {
        let code = self.body["code"].as_str().map(|code| format!(" {code}"));
        format!("{}{}", self.status, code.unwrap_or_default())
    }
}

/// A connection that waits long, but not for ever.
pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// The headers of a request with a body of this length, to be closed after its answer.
pub(super) fn head(method: &str, path: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

/// Sends a request and reads its answer.
pub(super) fn ask(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Answer {
    let bytes = [head(method, path, body.len()).as_bytes(), body].concat();
    raw(address, &bytes).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

pub(super) fn post(address: SocketAddr, path: &str, message: &Value) -> Answer {
    ask(address, "POST", path, message.to_string().as_bytes())
}

/// Sends any bytes and reads until the other side closes; nothing if it does so without a word.
pub(super) fn raw(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut stream = connect(address);
    // The other side may have heard enough before the end.
    let _ = stream.write_all(bytes);
    answer(&mut stream)
}

/// Reads until the other side closes.
pub(super) fn answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => parse(&bytes),
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: serde_json::from_str(body).unwrap_or(Value::Null) })
}

/// Whether the other side closes without a word, within a time.
pub(super) fn closes(stream: &mut TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).expect("set");
    match stream.read(&mut [0; 1024]) {
        Ok(0) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
        Ok(_) => false,
    }
}

//! As much HTTP as the demo needs: a server with one page, and GET through a proxy.
//!
//! Plain HTTP only; what is behind https is for curl, if that is here.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::{signals, socks};
use crate::cargo::Outcome;

/// What the demo's server serves.
const PAGE: usize = 8 * 1024 * 1024;

/// The longest head of an answer.
const MAX_HEAD: usize = 64 * 1024;

/// Where to get something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    whole: String,
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    pub(super) fn read(text: &str) -> Outcome<Self> {
        let wrong = || format!("{text:?} is not http://HOST[:PORT][/PATH], nor https://…");
        let (secure, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong()),
        };
        let (place, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (place, if secure { 443 } else { 80 }),
        };
        let host = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(host);
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '@';
        if host.is_empty() || text.contains(odd) {
            return Err(wrong());
        }
        Ok(Self { whole: text.to_owned(), secure, host: host.to_owned(), port, path })
    }

    /// Gets what is there through a proxy.
    pub(super) fn get(&self, proxy: SocketAddr) -> Outcome<Vec<u8>> {
        if self.secure { self.get_with_curl(proxy) } else { self.get_plain(proxy) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.whole
    }

    fn get_plain(&self, proxy: SocketAddr) -> Outcome<Vec<u8>> {
        let mut stream = socks::connect(proxy, &self.host, self.port)?;
        let authority = match self.whole.split('/').nth(2) {
            Some(place) => place.split(['?', '#']).next().unwrap_or_default(),
            None => &self.host,
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: privatix-demo\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n",
            self.path
        );
        let sent = stream.write_all(request.as_bytes());
        sent.map_err(|error| format!("asking for {}: {error}", self.whole))?;
        let answer = read_all(&mut stream).map_err(|e| format!("reading {}: {e}", self.whole))?;
        body(&answer).map_err(|problem| format!("{}: {problem}", self.whole))
    }

    fn get_with_curl(&self, proxy: SocketAddr) -> Outcome<Vec<u8>> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "60"]);
        curl.arg("--socks5-hostname").arg(proxy.to_string()).arg("--").arg(&self.whole);
        curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = signals::let_through(|| curl.spawn());
        let output = child.and_then(Child::wait_with_output);
        let output = output.map_err(|error| {
            format!("the demo itself speaks only http, and curl is not here for https: {error}")
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(format!("curl: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

fn read_all(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut all, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match stream.read(&mut part)? {
            0 => return Ok(all),
            count => all.extend_from_slice(&part[..count]),
        }
        if signals::interrupted() {
            return Err(io::Error::other("interrupted"));
        }
    }
}

/// What an answer carries, as it was on the wire; refused unless all of it is there.
fn body(answer: &[u8]) -> Outcome<Vec<u8>> {
    let head = answer.windows(4).take(MAX_HEAD).position(|four| four == b"\r\n\r\n");
    let head = head.ok_or_else(|| format!("{} bytes without a head", answer.len()))?;
    let body = &answer[head + 4..];
    let head = String::from_utf8_lossy(&answer[..head]).to_lowercase();
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if !status.starts_with('2') && !status.starts_with('3') {
        return Err(format!("answered with {status}"));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    match length.map(|length| length.trim().parse::<usize>()) {
        Some(Ok(length)) if length != body.len() => {
            Err(format!("expected {length} bytes, got {}", body.len()))
        }
        Some(Err(error)) => Err(format!("its length: {error}")),
        _ => Ok(body.to_vec()),
    }
}

/// The demo's own server; it lives as long as the process.
pub(super) struct Server {
    pub(super) url: Url,
    pub(super) page: Arc<Vec<u8>>,
}

impl Server {
    pub(super) fn start() -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let bound = listener.and_then(|l| l.local_addr().map(|address| (l, address)));
        let (listener, address) = bound.map_err(|error| format!("a server's port: {error}"))?;
        let page = Arc::new(page());
        let served = Arc::clone(&page);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let page = Arc::clone(&served);
                // Who goes away early is not served to the end.
                std::thread::spawn(move || serve(stream, &page));
            }
        });
        Ok(Self { url: Url::read(&format!("http://{address}/page"))?, page })
    }
}

fn serve(mut stream: TcpStream, page: &[u8]) -> io::Result<()> {
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") && request.len() < MAX_HEAD {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&part[..count]),
        }
    }
    let length = page.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(page)
}

/// Bytes of which no part looks like another (Marsaglia's xorshift).
fn page() -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(PAGE / 8).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::{Url, body};

    #[test]
    fn urls() {
        for (text, expected) in [
            ("http://example.org", Some((false, "example.org", 80, "/"))),
            ("https://example.org/a?b#c", Some((true, "example.org", 443, "/a?b"))),
            ("http://127.0.0.1:8080?q", Some((false, "127.0.0.1", 8080, "/?q"))),
            ("http://[::1]:81/", Some((false, "::1", 81, "/"))),
            ("http://[::1]/", Some((false, "::1", 80, "/"))),
            ("http://", None),
            ("http://example.org:http/", None),
            ("http://user@example.org/", None),
            ("http://example.org/a b", None),
            ("ftp://example.org/", None),
            ("example.org", None),
        ] {
            let url = Url::read(text).ok();
            let parts = url.as_ref().map(|u| (u.secure, u.host.as_str(), u.port, u.path.as_str()));
            assert_eq!(parts, expected, "{text}");
        }
    }

    #[test]
    fn answers() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", Some("ab")),
            ("HTTP/1.1 200 OK\r\n\r\nab", Some("ab")),
            ("HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n", Some("")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab", None),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\n", None),
        ] {
            let body = body(answer.as_bytes()).ok();
            assert_eq!(body.as_deref(), expected.map(str::as_bytes), "{answer:?}");
        }
    }
}

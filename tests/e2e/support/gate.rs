//! A gate before an agent's endpoint, at the URL of its offerings: it lets requests through, or
//! answers those below a path itself, without the agent's knowledge.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What becomes of requests whose path begins with the closed one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// They come through.
    Open,
    /// Nobody answers.
    Silent,
    /// They come through, and the answer is lost.
    Swallow,
    /// This is answered: a status and a body.
    Answer(u16, &'static str),
}

pub(crate) struct Gate {
    way: Arc<Mutex<Way>>,
    asked: Arc<AtomicUsize>,
}

impl Gate {
    /// Listens here, and guards a path of whoever listens there.
    pub(crate) fn between(here: SocketAddr, there: SocketAddr, path: &'static str) -> Self {
        let way = Arc::new(Mutex::new(Way::Open));
        let listener = TcpListener::bind(here).expect("a listener");
        let shared = Arc::clone(&way);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (way, count) = (Arc::clone(&shared), Arc::clone(&count));
                // Whoever hangs up is no concern of the gate's.
                thread::spawn(move || pass(stream, there, path, &way, &count));
            }
        });
        Self { way, asked }
    }

    /// How many requests there were below the path.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, way: Way) {
        *self.way.lock().expect("no panic") = way;
    }
}

fn pass(
    mut stream: TcpStream,
    there: SocketAddr,
    path: &str,
    way: &Mutex<Way>,
    count: &AtomicUsize,
) -> Option<()> {
    let (head, body) = read_request(&mut stream)?;
    let asked = head.split(' ').nth(1)?;
    let guarded = asked.starts_with(path);
    count.fetch_add(usize::from(guarded), Ordering::Relaxed);
    let way = if guarded { *way.lock().ok()? } else { Way::Open };
    if let Way::Answer(status, body) = way {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
        return stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).ok();
    }
    if matches!(way, Way::Silent) {
        return None;
    }
    let mut agent = TcpStream::connect(there).ok()?;
    // One request a connection, so that the gate sees each.
    let (first, rest) = head.split_once("\r\n")?;
    agent.write_all(format!("{first}\r\nConnection: close\r\n{rest}").as_bytes()).ok()?;
    agent.write_all(&body).ok()?;
    let mut answer = Vec::new();
    agent.read_to_end(&mut answer).ok()?;
    if !matches!(way, Way::Swallow) {
        stream.write_all(&answer).ok()?;
    }
    stream.shutdown(Shutdown::Both).ok()
}

fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
    let mut body = vec![0; length.map_or(Some(0), |length| length.parse().ok())?];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

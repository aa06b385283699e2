//! Strangers from many addresses who take all the connections that they can get, and ask half a
//! question on each.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Threads that keep the connections open.
const THREADS: usize = 4;

/// How long one of them waits for a connection; the others go on meanwhile.
const CONNECTING: Duration = Duration::from_millis(200);

pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// So many addresses, each of a network of its own, with so many connections each. The texts are
    /// sent in turn, one on each connection, and one that is closed is opened again.
    pub(crate) fn of(to: SocketAddr, addresses: u8, each: usize, texts: &[&str]) -> Self {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let (stop, opened) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = (0..THREADS).map(|thread| {
            let (texts, stop, opened) = (texts.clone(), Arc::clone(&stop), Arc::clone(&opened));
            std::thread::spawn(move || {
                let mine = (1..=addresses).filter(|one| usize::from(*one) % THREADS == thread);
                let from: Vec<Ipv4Addr> = mine.map(source).collect();
                let mut all: Vec<Option<TcpStream>> = Vec::new();
                all.resize_with(from.len() * each, || None);
                let mut text = texts.iter().cycle();
                while !stop.load(Ordering::Relaxed) {
                    for (number, place) in all.iter_mut().enumerate() {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        if place.as_mut().is_some_and(|stream| !closed(stream)) {
                            continue;
                        }
                        *place = open(from[number % from.len()], to);
                        let Some(stream) = place else { continue };
                        opened.fetch_add(1, Ordering::Relaxed);
                        // It may be closed already.
                        let _ = stream.write_all(text.next().expect("a text").as_bytes());
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { stop, opened, threads }
    }

    /// Connections that were opened so far.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// An address of the loopback network, of a /24 of its own.
pub(crate) fn source(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, number, 1)
}

/// Connects from an address of this machine.
pub(crate) fn open(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
    socket.connect_timeout(&to.into(), CONNECTING).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket.into())
}

fn closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 512]) {
        Ok(0) => true,
        // An answer, which nobody wants.
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

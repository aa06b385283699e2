//! The proxy's channels while the agent's database takes nothing, and when its host stops.
//!
//! With `TEST_SOAK` set the database is locked for a minute, in which connections are given up and
//! made again; otherwise until every transfer waits.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::Value;

use crate::support::database::Database;
use crate::support::{Node, Package, Pair, socks, wait_for, wait_still};

const MIB: u64 = 1 << 20;
const CREDIT: u64 = 2 * MIB;
/// What may be on its way in buffers.
const BUFFER: u64 = 256 * 1024;
const CHANNELS: usize = 3;
const LONG: Duration = Duration::from_secs(60);

fn trading(agent: &str, channels: usize) -> (Pair, Vec<ClientKey>) {
    let package = Package::proxy();
    let agent =
        format!("[agent]\norders = \"open\"\n[modules.proxy]\nallow_private = true\n{agent}");
    let pair = Pair::configured(&package, &agent, "");
    let offering = pair.offer(&package);
    let channels: Vec<_> = (0..channels).map(|_| pair.order(&offering)).collect();
    for channel in &channels {
        for node in [&pair.client, &pair.agent] {
            node.wait_channel(*channel, Status::Active);
        }
    }
    (pair, channels)
}

#[test]
fn locked_database_costs_one_credit_a_channel() {
    let (pair, channels) = trading(&format!("[channels]\nmax_unreported = {CREDIT}\n"), CHANNELS);
    let source = socks::source();
    let users = channels.iter().map(|channel| User::of(&pair.client, *channel, source));
    let users: Vec<_> = users.collect();
    let usage = |user: &User| pair.agent.channel(user.channel).usage;
    for user in &users {
        wait_for("several credits to be used", || (usage(user) > 4 * CREDIT).then_some(()));
    }
    let database = Database::of(&pair.agent);
    let lock = database.lock();
    let locked = Instant::now();
    let booked: Vec<_> = users.iter().map(usage).collect();
    let long = std::env::var_os("TEST_SOAK").is_some();
    for user in &users {
        wait_still("the transfer to wait", || user.delivered());
    }
    // What is tested is that nothing more comes however long it takes.
    while long && locked.elapsed() < LONG {
        std::thread::sleep(Duration::from_secs(1));
    }
    for (user, booked) in users.iter().zip(booked) {
        let delivered = user.delivered();
        assert_eq!(usage(user), booked, "nothing is saved");
        let unbooked = delivered.saturating_sub(booked);
        assert!(unbooked <= CREDIT + BUFFER, "{unbooked} of {delivered} bytes are not booked");
    }
    database.unlock(lock);
    for user in &users {
        let until = user.delivered() + 4 * CREDIT;
        wait_for("the service to go on", || (user.delivered() >= until).then_some(()));
    }
    for user in users {
        let (channel, delivered) = user.end();
        for node in [&pair.agent, &pair.client] {
            wait_for("all of it to be booked", || {
                (node.channel(channel).usage >= delivered).then_some(())
            });
        }
    }
}

#[test]
fn stop_in_the_middle_of_a_transfer_saves_its_last_bytes() {
    // No report is due before the host stops.
    let settings = "report_ms = 60000\n[channels]\nmax_unreported = 1099511627776\n";
    let (mut pair, channels) = trading(settings, 1);
    let user = User::of(&pair.client, channels[0], socks::source());
    wait_for("something to be delivered", || (user.delivered() > 8 * MIB).then_some(()));
    assert_eq!(pair.agent.channel(user.channel).usage, 0, "nothing is reported so far");
    pair.agent.terminate();
    let status = pair.agent.ended();
    assert_eq!(status.code(), Some(0), "{status}");
    let log = pair.agent.log();
    assert!(!log.contains("usage was not saved"), "{log}");
    let (channel, delivered) = user.end();
    let sessions = Database::of(&pair.agent).sessions(channel);
    let saved: u64 = sessions.iter().map(|session| session.account.usage).sum();
    assert!(saved >= delivered, "{saved} of {delivered} bytes are saved");
    assert!(sessions.iter().all(|session| session.stopped_at.is_some()), "{sessions:?}");
    wait_for("the client to have booked it", || {
        (pair.client.channel(channel).usage >= delivered).then_some(())
    });
    pair.agent.start();
    assert_eq!(pair.agent.channel(channel).usage, saved);
}

/// Somebody who downloads as fast as it comes, and connects again whenever the connection is lost.
struct User {
    channel: ClientKey,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    delivered: AtomicU64,
    done: AtomicBool,
    stream: Mutex<Option<TcpStream>>,
}

impl User {
    fn of(client: &Node, channel: ClientKey, source: SocketAddrV4) -> Self {
        let entry = client.home().join(format!("modules/proxy/channels/{channel}.json"));
        let entry = std::fs::read(entry).expect("an entry");
        let entry: Value = serde_json::from_slice(&entry).expect("JSON");
        let port = entry["socks5"].as_str().expect("an address").parse().expect("an address");
        let shared = Arc::<Shared>::default();
        let mine = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !mine.done.load(SeqCst) {
                // Nobody may be there for a while.
                if let Ok(stream) = socks::connect(port, None, source) {
                    mine.read(stream);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { channel, shared, thread }
    }

    fn delivered(&self) -> u64 {
        self.shared.delivered.load(SeqCst)
    }

    /// Ends the transfer; how much came in all.
    fn end(self) -> (ClientKey, u64) {
        self.shared.done.store(true, SeqCst);
        if let Some(stream) = &*self.shared.stream.lock().expect("not poisoned") {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.thread.join().expect("no panic");
        (self.channel, self.shared.delivered.load(SeqCst))
    }
}

impl Shared {
    fn read(&self, mut stream: TcpStream) {
        let mut part = vec![0; 1 << 16];
        *self.stream.lock().expect("not poisoned") = stream.try_clone().ok();
        if stream.write_all(&u64::MAX.to_be_bytes()).is_err() {
            return;
        }
        while let Ok(read @ 1..) = stream.read(&mut part) {
            self.delivered.fetch_add(read as u64, SeqCst);
            if self.done.load(SeqCst) {
                return;
            }
        }
    }
}

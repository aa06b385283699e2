//! The agent's side alone.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::book::{PASSWORD, PATIENCE, TestCore};
use super::wire::{
    WITH_LOGIN, Wire, after_all, connect_to, connect_to_name, echo, login, server, spring,
};
use crate::agent::Agent;
use crate::settings::Settings;

/// What lets a test see in milliseconds what takes seconds otherwise.
pub(super) fn settings() -> Settings {
    Settings {
        allow_private: true,
        report: Duration::from_millis(5),
        idle: PATIENCE * 2,
        ..Settings::default()
    }
}

/// An agent with one channel.
pub(super) struct Shop {
    pub(super) core: TestCore,
    pub(super) agent: Agent,
    pub(super) channel: ClientKey,
}

impl Shop {
    pub(super) async fn open(settings: Settings) -> Self {
        let core = TestCore::new();
        let agent = Agent::start(core.core(), &settings).await.expect("an agent");
        let channel = core.channel();
        Self { core, agent, channel }
    }

    pub(super) async fn ask(&self, request: &[u8]) -> Result<TcpStream, u8> {
        let key = self.channel.to_string();
        let (wire, answer) = Wire::log_in(self.agent.address, &key, PASSWORD).await;
        assert_eq!(answer, 0, "logged in");
        wire.ask(request).await
    }

    pub(super) async fn connect(&self, to: SocketAddr) -> TcpStream {
        self.ask(&connect_to(to)).await.expect("connected")
    }

    /// Ends the channel's session; its usage.
    pub(super) async fn settle(&self, sessions: usize) -> u64 {
        timeout(PATIENCE, self.agent.sessions().end(self.channel)).await.expect("ended");
        let (open, count) = self.core.look(self.channel, |channel| {
            (channel.sessions.iter().any(|session| session.open), channel.sessions.len())
        });
        assert_eq!((open, count), (false, sessions), "closed before `end` returns");
        self.core.used(self.channel)
    }
}

#[tokio::test]
async fn the_core_decides_who_comes_in() {
    let shop = Shop::open(settings()).await;
    let (key, other) = (shop.channel.to_string(), uuid::Uuid::new_v4().to_string());
    for (user, password, status, accepted) in [
        (&*key, PASSWORD, Status::Active, true),
        (&*key, PASSWORD, Status::Activating, true),
        (&*key, PASSWORD, Status::Suspended, false),
        (&*key, PASSWORD, Status::Terminated, false),
        (&*key, "open barley", Status::Active, false),
        (&*other, PASSWORD, Status::Active, false),
        ("sesame", PASSWORD, Status::Active, false),
    ] {
        shop.core.change(shop.channel, |channel| channel.status = status);
        let (_wire, answer) = Wire::log_in(shop.agent.address, user, password).await;
        assert_eq!(answer == 0, accepted, "{user} {password} {status}");
    }
    assert!(shop.core.look(shop.channel, |channel| channel.sessions.is_empty()));
    let address = shop.agent.address.to_string();
    assert_eq!(shop.core.config()["address"], address);
    assert_eq!(shop.core.config()["externalIP"], "127.0.0.1");
}

#[tokio::test]
async fn bytes_are_counted_both_ways_and_the_end_of_one_way_ends_only_that() {
    let shop = Shop::open(settings()).await;
    for (to, sent, expected) in
        [(echo().await, 100_000, 100_000), (after_all(300_000).await, 70_001, 300_000)]
    {
        let mut stream = shop.connect(to).await;
        stream.write_all(&vec![1; sent]).await.expect("sent");
        stream.shutdown().await.expect("half closed");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.expect("received");
        assert_eq!(received.len(), expected);
    }
    assert_eq!(shop.agent.sessions().served(), [shop.channel]);
    assert_eq!(shop.settle(1).await, 2 * 100_000 + 70_001 + 300_000);
    assert!(shop.core.look(shop.channel, |channel| channel.sessions[0].has_peer));
    assert!(shop.agent.sessions().served().is_empty());
}

#[tokio::test]
async fn stop_cuts_a_transfer_and_returns_with_everything_reported() {
    let shop = Shop::open(settings()).await;
    let mut stream = shop.connect(spring().await).await;
    let mut idle = shop.connect(echo().await).await;
    stream.read_exact(&mut vec![0; 1_000_000]).await.expect("it runs");
    shop.core.change(shop.channel, |channel| channel.status = Status::Suspending);
    let used = shop.settle(1).await;
    assert!(used >= 1_000_000);
    // What was on its way may arrive, and nothing more.
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("cut");
    assert!(1_000_000 + rest.len() as u64 <= used);
    let _ = timeout(PATIENCE, idle.read_to_end(&mut rest)).await.expect("cut");
    let (_wire, answer) =
        Wire::log_in(shop.agent.address, &shop.channel.to_string(), PASSWORD).await;
    assert_ne!(answer, 0);
}

#[tokio::test]
async fn a_status_that_allows_no_use_cuts() {
    for status in [Status::Suspending, Status::Suspended, Status::Terminating, Status::Terminated] {
        let shop = Shop::open(settings()).await;
        let mut stream = shop.connect(spring().await).await;
        stream.read_exact(&mut vec![0; 100_000]).await.expect("it runs");
        shop.core.change(shop.channel, |channel| channel.status = status);
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("cut");
        assert!(shop.core.closed(shop.channel, 1).await >= 100_000);
    }
}

#[tokio::test]
async fn whoever_does_not_finish_the_handshake_is_dropped() {
    let short = Settings { handshake: Duration::from_millis(100), ..settings() };
    let shop = Shop::open(short).await;
    let whole = handshake(shop.channel, echo().await);
    for said in [0, 1, 3, 10, whole.len() - 1] {
        let mut wire = Wire::open(shop.agent.address).await;
        wire.say(&whole[..said]).await;
        wire.rest().await;
    }
    assert!(shop.core.look(shop.channel, |channel| channel.sessions.is_empty()));
}

#[tokio::test]
async fn garbage_is_dropped() {
    let shop = Shop::open(settings()).await;
    let user = login(&shop.channel.to_string(), PASSWORD);
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 600],
        &[4, 1, 0, 80, 127, 0, 0, 1, 0],
        &[5, 1, 0],
        &[5, 0],
        &[5, 1, 2, 1, 0],
        &[5, 1, 2, 1, 1, b'x', 0],
        &[5, 1, 2, 1, 1, 0xff, 1, 0xff],
        &[&[5, 1, 2], &*user, &[5, 1, 0, 9, 9, 9]].concat(),
        &[&[5, 1, 2], &*user, &[5, 9, 0, 1, 127, 0, 0, 1, 0, 80]].concat(),
        &[&[5, 1, 2], &*user, &[4, 1, 0, 1, 127, 0, 0, 1, 0, 80]].concat(),
        &[&[5, 1, 2], &*user, &[5, 1, 0, 3, 1, 0xff, 0, 80]].concat(),
        &[&[5, 1, 2], &*user, &[5, 1, 0, 3, 0, 0, 80]].concat(),
    ] {
        let mut wire = Wire::open(shop.agent.address).await;
        // The agent may have closed before all of it is sent.
        let _ = wire.stream.write_all(garbage).await;
        wire.rest().await;
    }
    shop.connect(echo().await).await;
}

#[tokio::test]
async fn bytes_before_the_login_cost_nothing() {
    let shop = Shop::open(settings()).await;
    let mut stream = shop.connect(echo().await).await;
    stream.write_all(b"data").await.expect("sent");
    stream.read_exact(&mut [0; 4]).await.expect("received");
    let key = shop.channel.to_string();
    for said in [
        &[][..],
        WITH_LOGIN,
        &[WITH_LOGIN, &login(&key, "open barley")].concat(),
        &[WITH_LOGIN, &login(&key, PASSWORD), &[5, 9, 0]].concat(),
    ] {
        let mut wire = Wire::open(shop.agent.address).await;
        let junk = vec![0xa5; 1 << 20];
        // The agent closes long before all of it is sent.
        let _ = wire.stream.write_all(&[said, &junk].concat()).await;
        wire.rest().await;
    }
    drop(stream);
    assert_eq!(shop.settle(1).await, 8);
}

/// All that a client says before its data.
fn handshake(channel: ClientKey, to: SocketAddr) -> Vec<u8> {
    [WITH_LOGIN, &login(&channel.to_string(), PASSWORD), &connect_to(to)].concat()
}

#[tokio::test]
async fn a_handshake_may_break_off_at_any_byte() {
    let shop = Shop::open(settings()).await;
    let whole = handshake(shop.channel, echo().await);
    for said in 0..whole.len() {
        let mut wire = Wire::open(shop.agent.address).await;
        wire.say(&whole[..said]).await;
        wire.stream.shutdown().await.expect("ended");
        wire.rest().await;
    }
    assert!(shop.core.look(shop.channel, |channel| channel.sessions.is_empty()));
    // In one piece, data and all, it is as good as step by step.
    let mut wire = Wire::open(shop.agent.address).await;
    wire.say(&[&*whole, b"data"].concat()).await;
    wire.stream.shutdown().await.expect("ended");
    assert!(wire.rest().await.ends_with(b"data"));
    assert_eq!(shop.settle(1).await, 8);
}

#[tokio::test]
async fn refusals_have_the_codes_of_the_standard() {
    let closed = server(|_| async { Ok(()) }).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let refused = free.local_addr().expect("an address");
    drop(free);
    let target = connect_to(closed);
    let bind = [&[5, 2], &target[2..]].concat();
    let udp = [&[5, 3], &target[2..]].concat();
    let mapped = "[::ffff:127.0.0.1]:80".parse().expect("an address");
    for (allow_private, request, code) in [
        (true, connect_to(refused), 5),
        (true, bind, 7),
        (true, udp, 7),
        (true, vec![5, 1, 0, 9], 8),
        (true, connect_to_name("no.such.name.invalid", 80), 4),
        (false, target.clone(), 2),
        (false, connect_to(mapped), 2),
        (false, connect_to_name("localhost", closed.port()), 2),
        (false, connect_to_name("127.0.0.1", closed.port()), 2),
        (false, connect_to("0.0.0.0:80".parse().expect("an address")), 2),
    ] {
        let shop = Shop::open(Settings { allow_private, ..settings() }).await;
        assert_eq!(shop.ask(&request).await.expect_err("refused"), code, "{request:?}");
    }
}

#[tokio::test]
async fn names_are_resolved() {
    let shop = Shop::open(settings()).await;
    let port = echo().await.port();
    let mut stream = shop.ask(&connect_to_name("localhost", port)).await.expect("connected");
    stream.write_all(b"data").await.expect("sent");
    stream.read_exact(&mut [0; 4]).await.expect("received");
    drop(stream);
    assert_eq!(shop.settle(1).await, 8);
}

#[tokio::test]
async fn a_channel_has_only_so_many_connections() {
    let few = Settings { max_connections_per_channel: 2, ..settings() };
    let shop = Shop::open(few).await;
    let to = echo().await;
    let _both = (shop.connect(to).await, shop.connect(to).await);
    assert_eq!(shop.ask(&connect_to(to)).await.expect_err("refused"), 1);
    // Another channel is not concerned.
    let other = Shop { channel: shop.core.channel(), ..shop };
    other.connect(to).await;
}

#[tokio::test]
async fn an_agent_has_only_so_many_connections() {
    let shop = Shop::open(Settings { max_connections: 2, ..settings() }).await;
    let to = echo().await;
    let both = (shop.connect(to).await, shop.connect(to).await);
    assert!(Wire::open(shop.agent.address).await.rest().await.is_empty());
    drop(both);
    // A place is free once the agent has seen it.
    timeout(PATIENCE, async {
        loop {
            let mut wire = Wire::open(shop.agent.address).await;
            let _ = wire.stream.write_all(WITH_LOGIN).await;
            if wire.hear::<2>().await.is_ok() {
                break;
            }
        }
    })
    .await
    .expect("a place");
}

#[tokio::test]
async fn a_tunnel_without_traffic_is_closed() {
    let shop = Shop::open(Settings { tunnel_idle: Duration::from_millis(50), ..settings() }).await;
    let mut stream = shop.connect(echo().await).await;
    let end = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("closed");
    assert_eq!(end.expect_err("not a clean end").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_session_without_connections_is_closed_and_the_next_one_is_new() {
    let shop = Shop::open(Settings { idle: Duration::from_millis(20), ..settings() }).await;
    let to = echo().await;
    for sessions in 1..=3 {
        let mut stream = shop.connect(to).await;
        stream.write_all(b"data").await.expect("sent");
        stream.read_exact(&mut [0; 4]).await.expect("received");
        drop(stream);
        assert_eq!(shop.core.closed(shop.channel, sessions).await, 8 * sessions as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_at_once() {
    const EACH: usize = 10_000;
    let shop = Shop::open(settings()).await;
    let (to, proxy) = (echo().await, shop.agent.address);
    let key = shop.channel.to_string();
    let mut clients = JoinSet::new();
    for number in 0..1000_u32 {
        let key = key.clone();
        clients.spawn(async move {
            let (wire, answer) = Wire::log_in(proxy, &key, PASSWORD).await;
            assert_eq!(answer, 0);
            let mut stream = wire.ask(&connect_to(to)).await.expect("connected");
            let sent = number.to_le_bytes().repeat(EACH / 4);
            let (mut from, mut into) = stream.split();
            let send = async {
                into.write_all(&sent).await.expect("sent");
                into.shutdown().await.expect("ended");
            };
            let mut received = Vec::new();
            let (received_all, ()) = tokio::join!(from.read_to_end(&mut received), send);
            received_all.expect("received");
            assert!(received == sent, "connection {number}");
        });
    }
    while let Some(outcome) = clients.join_next().await {
        outcome.expect("right");
    }
    assert_eq!(shop.settle(1).await, 2 * 1000 * EACH as u64);
}

#[tokio::test]
async fn shutdown_closes_everything() {
    let shop = Shop::open(settings()).await;
    let mut stream = shop.connect(spring().await).await;
    let mut silent = Wire::open(shop.agent.address).await;
    stream.read_exact(&mut [0; 100]).await.expect("it runs");
    timeout(PATIENCE, shop.agent.shutdown()).await.expect("shut down");
    assert!(shop.core.closed(shop.channel, 1).await >= 100);
    silent.rest().await;
    assert!(TcpStream::connect(shop.agent.address).await.is_err());
}

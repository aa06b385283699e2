//! Agent and client against each other in one process, each with a core of its own.

use std::net::SocketAddr;

use privatix_plugin_api::prelude::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::agent::settings;
use super::book::{PASSWORD, PATIENCE, TestCore};
use super::wire::{Wire, connect_to, connect_to_name, echo, server, spring};
use crate::agent::Agent;
use crate::client::Client;
use crate::settings::Settings;

const SIZE: usize = 5_000_000;

pub(super) struct Pair {
    pub(super) seller: TestCore,
    pub(super) buyer: TestCore,
    pub(super) agent: Agent,
    pub(super) client: Client,
    pub(super) channel: ClientKey,
    home: TempDir,
}

impl Pair {
    /// An agent and a client that has its access message and has not started.
    async fn new() -> Self {
        let (seller, buyer) = (TestCore::new(), TestCore::new());
        let agent = Agent::start(seller.core(), &settings()).await.expect("an agent");
        let channel = seller.channel();
        buyer.add(channel, Some(access(channel, &seller.config()["address"], PASSWORD, "1")));
        let home = tempfile::tempdir().expect("a directory");
        let client = Client::new(buyer.core(), home.path(), settings());
        Self { seller, buyer, agent, client, channel, home }
    }

    pub(super) async fn started() -> Self {
        let pair = Self::new().await;
        assert_eq!(pair.client.start(pair.channel).await.expect("started"), Started::Ready);
        pair
    }

    pub(super) async fn port(&self) -> SocketAddr {
        self.client.address(self.channel).expect("a port")
    }

    pub(super) async fn stop_both(&self) {
        timeout(PATIENCE, self.client.stop(self.channel, StopReason::Suspended)).await.expect("ok");
        timeout(PATIENCE, self.agent.sessions().end(self.channel)).await.expect("ended");
    }
}

fn access(channel: ClientKey, address: &str, password: &str, nonce: &str) -> AccessMessage {
    AccessMessage {
        template_hash: String::new(),
        nonce: nonce.to_owned(),
        username: channel,
        password: serde_json::from_value(password.into()).expect("a password"),
        payment_receiver_address: String::new(),
        service_endpoint_address: String::new(),
        additional_params: [("address".to_owned(), address.to_owned())].into(),
        custom: serde_json::Map::new(),
    }
}

/// A web server with one large file.
async fn web() -> SocketAddr {
    server(|mut stream| async move {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await?);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b'x'; SIZE]).await?;
        stream.shutdown().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_megabytes_are_the_same_on_both_sides() {
    const ASKED: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let pair = Pair::started().await;
    let request = connect_to_name("localhost", web().await.port());
    let mut stream = Wire::local(pair.port().await, &request).await.expect("connected");
    stream.write_all(ASKED).await.expect("sent");
    let mut page = Vec::new();
    stream.read_to_end(&mut page).await.expect("received");
    assert!(page.ends_with(&[b'x'; SIZE]));
    drop(stream);
    pair.stop_both().await;
    let moved = (ASKED.len() + page.len()) as u64;
    assert_eq!(pair.seller.closed(pair.channel, 1).await, moved);
    assert_eq!(pair.buyer.closed(pair.channel, 1).await, moved);
}

#[tokio::test]
async fn a_started_channel_is_served_until_it_is_stopped() {
    let pair = Pair::started().await;
    let port = pair.port().await;
    assert_eq!(pair.client.sessions().served(), [pair.channel]);
    // Only the login was tried: the agent has opened nothing for it.
    assert!(pair.seller.look(pair.channel, |channel| channel.sessions.is_empty()));
    let mut stream = Wire::local(port, &connect_to(spring().await)).await.expect("connected");
    stream.read_exact(&mut vec![0; 100_000]).await.expect("it runs");
    let mut silent = Wire::open(port).await;
    timeout(PATIENCE, pair.client.stop(pair.channel, StopReason::Suspended)).await.expect("ok");
    assert!(pair.buyer.closed(pair.channel, 1).await >= 100_000);
    assert!(pair.client.sessions().served().is_empty());
    let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("cut");
    silent.rest().await;
    assert!(TcpStream::connect(port).await.is_err(), "the port is closed");

    assert_eq!(pair.client.start(pair.channel).await.expect("started"), Started::Ready);
    assert_eq!(pair.port().await, port, "the port is remembered");
    assert_eq!(pair.client.start(pair.channel).await.expect("again"), Started::Ready);
    timeout(PATIENCE, pair.client.shutdown()).await.expect("shut down");
    assert_eq!(pair.buyer.look(pair.channel, |channel| channel.sessions.len()), 2);
    assert!(pair.client.start(pair.channel).await.is_err(), "not after shutdown");

    let reborn = Client::new(pair.buyer.core(), pair.home.path(), settings());
    assert_eq!(reborn.start(pair.channel).await.expect("started"), Started::Ready);
    assert_eq!(reborn.address(pair.channel), Some(port), "also by another object");
}

#[tokio::test]
async fn a_denied_login_is_an_error_and_leaves_no_port() {
    for wrong in ["", "open barley", &"x".repeat(256)] {
        let pair = Pair::new().await;
        let address = pair.seller.config()["address"].clone();
        pair.buyer.change(pair.channel, |channel| {
            channel.access = Some(access(pair.channel, &address, wrong, "2"));
        });
        pair.client.start(pair.channel).await.expect_err("denied");
        assert_eq!(pair.client.address(pair.channel), None);
        assert!(pair.buyer.look(pair.channel, |channel| channel.sessions.is_empty()));
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_yet_is_awaited() {
    let pair = Pair::new().await;
    // A port that nobody listens on, and later somebody does.
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        free.local_addr().expect("an address").to_string()
    };
    pair.buyer.change(pair.channel, |channel| {
        channel.access = Some(access(pair.channel, &address, PASSWORD, "2"));
    });
    assert_eq!(pair.client.start(pair.channel).await.expect("started"), Started::Later);
    assert!(matches!(pair.client.health(), Health::Degraded(why) if why.contains(&address)));
    assert!(pair.client.sessions().served().is_empty());
    let port = pair.port().await;
    let to = echo().await;
    let code = Wire::local(port, &connect_to(to)).await.expect_err("no agent");
    assert_eq!(code, 3);

    let late = Settings { listen: address, ..settings() };
    let _agent = Agent::start(pair.seller.core(), &late).await.expect("an agent");
    pair.buyer.wait(pair.channel, |channel| channel.ready == 1).await;
    assert_eq!(pair.client.health(), Health::Healthy);
    Wire::local(port, &connect_to(to)).await.expect("connected");
}

#[tokio::test]
async fn another_access_message_is_used_from_then_on() {
    let pair = Pair::started().await;
    let to = echo().await;
    let mut old = Wire::local(pair.port().await, &connect_to(to)).await.expect("connected");
    let second = Agent::start(pair.seller.core(), &settings()).await.expect("an agent");
    let address = second.address.to_string();
    pair.buyer.change(pair.channel, |channel| {
        channel.access = Some(access(pair.channel, &address, PASSWORD, "2"));
    });
    assert_eq!(pair.client.start(pair.channel).await.expect("started"), Started::Ready);
    let _new = Wire::local(pair.port().await, &connect_to(to)).await.expect("connected");
    assert_eq!(second.sessions().served(), [pair.channel]);
    old.write_all(b"data").await.expect("sent");
    old.read_exact(&mut [0; 4]).await.expect("the older one goes on");
}

#[tokio::test]
async fn a_clients_core_can_cut_as_well_and_a_new_session_follows() {
    let pair = Pair::started().await;
    let port = pair.port().await;
    let mut stream = Wire::local(port, &connect_to(spring().await)).await.expect("connected");
    stream.read_exact(&mut vec![0; 1000]).await.expect("it runs");
    pair.buyer.change(pair.channel, |channel| channel.status = Status::Suspended);
    let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("cut");
    pair.buyer.closed(pair.channel, 1).await;
    let to = echo().await;
    assert_eq!(Wire::local(port, &connect_to(to)).await.expect_err("refused"), 1);
    pair.buyer.change(pair.channel, |channel| channel.status = Status::Active);
    Wire::local(port, &connect_to(to)).await.expect("connected");
    assert_eq!(pair.buyer.look(pair.channel, |channel| channel.sessions.len()), 2);
}

#[tokio::test]
async fn a_hostile_agent_is_an_error() {
    for answers in [
        &[&[5, 0xff][..]][..],
        &[&[4, 0]],
        &[&[5, 2], &[1, 0], &[5, 0x99, 0, 1, 0, 0, 0, 0, 0, 0]],
        &[&[5, 2], &[1, 0], &[5, 0, 0, 9]],
        &[&[5, 2], &[1, 0], &[5, 0, 0, 3, 255, 1]],
    ] {
        let pair = Pair::started().await;
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
        let hostile = server(move |mut stream| {
            let answers = answers.clone();
            async move {
                for answer in answers {
                    // What was asked does not matter, only that it was.
                    stream.read_u8().await?;
                    stream.write_all(&answer).await?;
                }
                Ok(())
            }
        })
        .await;
        pair.buyer.change(pair.channel, |channel| {
            channel.access = Some(access(pair.channel, &hostile.to_string(), PASSWORD, "2"));
        });
        // Whether the login seemed to work or not, the channel's port answers.
        pair.client.start(pair.channel).await.expect("started");
        let code = Wire::local(pair.port().await, &connect_to(hostile)).await.expect_err("refused");
        assert_eq!(code, 1);
    }
}

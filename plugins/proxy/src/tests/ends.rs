//! How connections end: what ends by itself ends cleanly, everything else with a reset, on both
//! sides and through both modules.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::book::PATIENCE;
use super::both::Pair;
use super::wire::{Wire, connect_to, spring};

/// A local program and its destination, connected through both modules.
async fn connected(pair: &Pair) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = listener.local_addr().expect("an address");
    let (port, request) = (pair.port().await, connect_to(to));
    let (near, far) = tokio::join!(Wire::local(port, &request), listener.accept());
    (near.expect("connected"), far.expect("connected").0)
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
}

/// All that comes, and how it ends.
async fn rest(stream: &mut TcpStream) -> (usize, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end");
    (bytes.len(), end.err().map(|error| error.kind()))
}

const RESET: Option<ErrorKind> = Some(ErrorKind::ConnectionReset);

#[tokio::test]
async fn clean_end_stays_clean() {
    let pair = Pair::started().await;
    let (mut near, mut far) = connected(&pair).await;
    far.write_all(&[7; 100_000]).await.expect("sent");
    drop(far);
    assert_eq!(rest(&mut near).await, (100_000, None));
}

#[tokio::test]
async fn reset_of_the_destination_arrives_as_one_after_what_it_sent() {
    for sent in [0, 1, 1_000_000] {
        let pair = Pair::started().await;
        let (mut near, mut far) = connected(&pair).await;
        far.write_all(&vec![7; sent]).await.expect("sent");
        // Until all of it has left: a reset throws away what has not.
        let mut got = vec![0; sent];
        near.read_exact(&mut got).await.expect("received");
        reset(far);
        assert_eq!(rest(&mut near).await, (0, RESET), "{sent}");
    }
}

#[tokio::test]
async fn bytes_before_a_reset_are_delivered_to_a_slow_reader() {
    const SENT: usize = 3_000_000;
    let pair = Pair::started().await;
    let (mut near, mut far) = connected(&pair).await;
    let sender = tokio::spawn(async move {
        far.write_all(&vec![7; SENT]).await.expect("sent");
        while super::super::queue::unacknowledged(&far).expect("a queue") > 0 {
            tokio::task::yield_now().await;
        }
        reset(far);
    });
    near.read_exact(&mut [0; 10]).await.expect("received");
    // It reads on only when it is all that is left to do.
    sender.await.expect("sent");
    assert_eq!(rest(&mut near).await, (SENT - 10, RESET));
}

#[tokio::test]
async fn reset_of_the_local_program_arrives_as_one() {
    let pair = Pair::started().await;
    for sent in [0, 1, 100_000] {
        let (mut near, mut far) = connected(&pair).await;
        near.write_all(&vec![7; sent]).await.expect("sent");
        far.read_exact(&mut vec![0; sent]).await.expect("received");
        reset(near);
        assert_eq!(rest(&mut far).await, (0, RESET), "{sent}");
    }
}

#[tokio::test]
async fn reset_after_an_end_of_data_arrives_as_well() {
    let pair = Pair::started().await;
    let (mut near, mut far) = connected(&pair).await;
    near.shutdown().await.expect("half closed");
    assert_eq!(rest(&mut far).await, (0, None));
    far.write_all(b"data").await.expect("the other way goes on");
    near.read_exact(&mut [0; 4]).await.expect("received");
    reset(near);
    // The destination only sends: it learns of it that way.
    let refused = timeout(PATIENCE, async {
        loop {
            if let Err(error) = far.write_all(b"data").await {
                return error.kind();
            }
            tokio::task::yield_now().await;
        }
    });
    let kind = refused.await.expect("an end");
    assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&kind), "{kind}");
}

/// What a destination sees: it sends some, and then only listens.
async fn listening() -> (SocketAddr, oneshot::Receiver<io::Result<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = listener.local_addr().expect("an address");
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(&[7; 1000]).await.expect("sent");
        let _ = tell.send(stream.read_to_end(&mut Vec::new()).await);
    });
    (to, told)
}

#[tokio::test]
async fn what_the_proxy_cuts_ends_with_resets_on_both_sides() {
    for cut in [
        "agent's core",
        "agent's stop",
        "agent's end",
        "client's core",
        "client's stop",
        "client's end",
    ] {
        let pair = Pair::started().await;
        let (to, told) = listening().await;
        let port = pair.port().await;
        let mut quiet = Wire::local(port, &connect_to(to)).await.expect("connected");
        quiet.read_exact(&mut [0; 1000]).await.expect("received");
        // Another one in the middle of a download.
        let mut busy = Wire::local(port, &connect_to(spring().await)).await.expect("connected");
        busy.read_exact(&mut [0; 100_000]).await.expect("received");
        let suspend = |channel: &mut super::book::Channel| channel.status = Status::Suspended;
        match cut {
            "agent's core" => pair.seller.change(pair.channel, suspend),
            "agent's stop" => pair.agent.sessions().end(pair.channel).await,
            "agent's end" => pair.agent.shutdown().await,
            "client's core" => pair.buyer.change(pair.channel, suspend),
            "client's stop" => pair.client.stop(pair.channel, StopReason::Terminated).await,
            _ => pair.client.shutdown().await,
        }
        assert_eq!(rest(&mut quiet).await, (0, RESET), "{cut}");
        assert_eq!(rest(&mut busy).await.1, RESET, "{cut}");
        let far = timeout(PATIENCE, told).await.expect("an end").expect("told");
        assert_eq!(far.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset), "{cut}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_reader_is_counted_alike_on_both_sides() {
    /// More than all queues on the way can hold.
    const FLOOD: u64 = 64 << 20;
    let pair = Pair::started().await;
    let mut near = Wire::local(pair.port().await, &connect_to(spring().await)).await.expect("ok");
    let (mut read, mut part) = (0, vec![0; 1 << 16]);
    while read < FLOOD / 8 {
        near.read_exact(&mut part).await.expect("received");
        read += part.len() as u64;
        if read % (1 << 20) != 0 {
            continue;
        }
        // It pauses. Everything stands still once all queues are full.
        timeout(PATIENCE, async {
            loop {
                let used = [&pair.seller, &pair.buyer].map(|core| core.used(pair.channel));
                if used[0] == used[1] && used[0] >= read {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| {
            panic!("{} and {}", pair.seller.used(pair.channel), pair.buyer.used(pair.channel))
        });
    }
    // It goes away, with everything that was on its way.
    reset(near);
    pair.stop_both().await;
    let used = [&pair.seller, &pair.buyer].map(|core| core.used(pair.channel));
    assert!(used[0].abs_diff(used[1]) <= 256 << 10, "{used:?}");
}

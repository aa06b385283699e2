//! What is served never exceeds what the core has allowed, and more is served once it allows more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::agent::{Shop, settings};
use super::book::{PASSWORD, PATIENCE};
use super::both::Pair;
use super::wire::{Wire, connect_to, echo, server, spring};

const KIB: u64 = 1024;
const PAID: u64 = 1000 * KIB;

/// Reads as fast as it can; how much there was.
fn drain(mut stream: TcpStream, got: &Arc<AtomicU64>) {
    let got = Arc::clone(got);
    tokio::spawn(async move {
        let mut part = vec![0; 1 << 16];
        while let Ok(count @ 1..) = stream.read(&mut part).await {
            got.fetch_add(count as u64, SeqCst);
        }
    });
}

/// Takes all that comes; how much there was.
async fn sink(got: &Arc<AtomicU64>) -> SocketAddr {
    let got = Arc::clone(got);
    server(move |stream| {
        drain(stream, &got);
        std::future::ready(Ok(()))
    })
    .await
}

/// Waits until all of the credit is used, and sees that nothing more is.
async fn used_up(shop: &Shop, got: &AtomicU64, paid: u64) {
    shop.core.wait(shop.channel, |channel| channel.used() >= paid).await;
    assert_eq!(shop.core.used(shop.channel), paid);
    timeout(PATIENCE, async {
        while got.load(SeqCst) < paid {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("all that was paid for is delivered");
    assert_eq!(got.load(SeqCst), paid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn download_stops_at_the_credit_and_goes_on_with_each_payment() {
    for connections in [1, 16] {
        let shop = Shop::open(settings()).await;
        shop.core.change(shop.channel, |channel| channel.paid = Some(PAID));
        let (got, water) = (Arc::default(), spring().await);
        for _ in 0..connections {
            drain(shop.connect(water).await, &got);
        }
        for payments in 1..=3 {
            shop.core.change(shop.channel, |channel| channel.paid = Some(payments * PAID));
            used_up(&shop, &got, payments * PAID).await;
        }
        let closed = shop.core.look(shop.channel, |channel| channel.sessions.len());
        assert_eq!(closed, 1, "one session, not cut");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_stops_at_the_credit_and_goes_on_with_each_payment() {
    let shop = Shop::open(settings()).await;
    shop.core.change(shop.channel, |channel| channel.paid = Some(PAID));
    let got = Arc::default();
    let mut stream = shop.connect(sink(&got).await).await;
    tokio::spawn(async move { while stream.write_all(&[7; 1 << 16]).await.is_ok() {} });
    for payments in 1..=3 {
        shop.core.change(shop.channel, |channel| channel.paid = Some(payments * PAID));
        used_up(&shop, &got, payments * PAID).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_that_fails_costs_one_credit() {
    let shop = Shop::open(settings()).await;
    shop.core.change(shop.channel, |channel| channel.paid = Some(PAID));
    let got = Arc::new(AtomicU64::new(0));
    let stream = shop.connect(spring().await).await;
    shop.core.change(shop.channel, |channel| channel.fails = true);
    drain(stream, &got);
    timeout(PATIENCE, async {
        while got.load(SeqCst) < PAID {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the credit is served");
    // Paid in the meantime, which nobody hears of.
    shop.core.change(shop.channel, |channel| channel.paid = Some(2 * PAID));
    assert_eq!(got.load(SeqCst), PAID);
    shop.core.change(shop.channel, |channel| channel.fails = false);
    used_up(&shop, &got, 2 * PAID).await;
}

#[tokio::test]
async fn connection_that_is_not_read_leaves_credit_to_another() {
    let shop = Shop::open(settings()).await;
    shop.core.change(shop.channel, |channel| channel.paid = Some(PAID));
    let wire = Wire::open_narrow(shop.agent.address).await;
    let (wire, _) = wire.logged_in(&shop.channel.to_string(), PASSWORD).await;
    let mut stalled = wire.ask(&connect_to(spring().await)).await.expect("connected");
    stalled.read_exact(&mut vec![0; 1000]).await.expect("received");
    let mut other = shop.connect(echo().await).await;
    for _ in 0..20 {
        other.write_all(&[7; 1000]).await.expect("sent");
        let echoed = timeout(PATIENCE, other.read_exact(&mut [0; 1000])).await;
        echoed.expect("in time").expect("received");
    }
}

#[tokio::test]
async fn credit_that_nobody_delivers_is_given_back() {
    let shop = Shop::open(settings()).await;
    shop.core.change(shop.channel, |channel| channel.paid = Some(PAID));
    let water = spring().await;
    for _ in 0..50 {
        // All queues are full when it goes.
        let mut stream = shop.connect(water).await;
        stream.read_exact(&mut [0; 10]).await.expect("received");
        let before = shop.core.used(shop.channel);
        shop.core.change(shop.channel, |channel| channel.paid = Some(before + PAID));
    }
    let used = shop.core.used(shop.channel);
    shop.core.change(shop.channel, |channel| channel.paid = Some(used + 4 * PAID));
    let mut other = shop.connect(echo().await).await;
    other.write_all(&[7; 1000]).await.expect("sent");
    let echoed = timeout(PATIENCE, other.read_exact(&mut [0; 1000])).await;
    echoed.expect("in time").expect("received");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_credit_holds_a_download_up_as_well() {
    let pair = Pair::started().await;
    let paid = |paid| move |channel: &mut super::book::Channel| channel.paid = Some(paid);
    pair.buyer.change(pair.channel, paid(PAID));
    // The session has been open since the start, so that its first report says so.
    let got = Arc::new(AtomicU64::new(0));
    let water = connect_to(spring().await);
    drain(Wire::local(pair.port().await, &water).await.expect("connected"), &got);
    pair.buyer.wait(pair.channel, |channel| channel.used() >= PAID).await;
    let used = pair.buyer.used(pair.channel);
    pair.buyer.change(pair.channel, paid(used + PAID));
    pair.buyer.wait(pair.channel, |channel| channel.used() >= used + PAID).await;
    assert_eq!(pair.buyer.look(pair.channel, |channel| channel.sessions.len()), 1);
}

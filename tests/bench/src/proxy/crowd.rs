//! Ten thousand connections through the agent's module at once, one of which does not read.
//!
//! Each connection is a login, a request and an echo; then all stay open while some are used. How
//! many there can be is the system's to say: each takes two descriptors in the module and two here.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Deal, PATIENCE, carry, request, source};
use crate::Effort;
use crate::figures::{Figures, nanoseconds};
use crate::node::resident;

const WANTED: usize = 10_000;

/// Descriptors for everything else.
const SPARE: u64 = 200;

/// At so many at a time connections are opened and used.
const AT_ONCE: usize = 64;

/// What an echo carries.
const PING: [u8; 1024] = [7; 1024];

/// What was seen.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Crowd {
    pub(crate) connections: usize,
    /// Why there are fewer than wanted.
    pub(crate) note: Option<String>,
    pub(crate) opened_per_second: f64,
    /// Growth of the agent's host for each, after each was used.
    pub(crate) bytes_each: f64,
    /// An echo of 1 KiB, [`AT_ONCE`] at a time: without the one that does not read, and with it.
    #[serde(rename = "echoNs")]
    pub(crate) echo: Percentiles,
    #[serde(rename = "echoBesideSlowNs")]
    pub(crate) echo_beside_slow: Percentiles,
    /// Bytes a second of one transfer through both modules, beside all of them.
    pub(crate) transfer: f64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Raises this process's limit of descriptors as far as it may; returns it.
pub(super) fn raise_limit() -> anyhow::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

pub(super) fn measure(deal: &Deal, descriptors: u64, effort: Effort) -> anyhow::Result<Crowd> {
    let possible = usize::try_from(descriptors.saturating_sub(SPARE) / 2).unwrap_or(usize::MAX);
    let wanted = WANTED.min(effort.connections);
    let number = wanted.min(possible);
    let note = (number < wanted).then(|| {
        format!(
            "{wanted} connections take {} descriptors, and this process may have {descriptors}",
            2 * wanted as u64 + SPARE
        )
    });
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let mut crowd = runtime.block_on(open(deal, number, effort))?;
    crowd.note = note;
    Ok(crowd)
}

async fn open(deal: &Deal, number: usize, effort: Effort) -> anyhow::Result<Crowd> {
    let echo = echo().await?;
    let agent = deal.agent.pid();
    let before = resident(agent)?;
    let begun = Instant::now();
    let mut streams = Vec::with_capacity(number);
    while streams.len() < number {
        let mut opening = JoinSet::new();
        for _ in 0..AT_ONCE.min(number - streams.len()) {
            opening.spawn(enter(deal.proxy, deal.login.clone(), echo));
        }
        while let Some(opened) = opening.join_next().await {
            let opened = opened?;
            streams.push(opened.with_context(|| format!("after {}", streams.len()))?);
        }
    }
    let opened_per_second = number as f64 / begun.elapsed().as_secs_f64();
    let (streams, echo_alone) = ping(streams).await?;
    let bytes_each = resident(agent)?.saturating_sub(before) as f64 / number as f64;
    // It asks for more than all buffers hold, and reads none of it.
    let spring = source()?;
    let mut slow = enter(deal.proxy, deal.login.clone(), spring).await?;
    slow.write_all(&u64::MAX.to_be_bytes()).await?;
    slow.readable().await?;
    let (streams, echo_beside_slow) = ping(streams).await?;
    let (port, size) = (deal.port, effort.bytes / 4);
    let seconds =
        tokio::task::spawn_blocking(move || carry(1, size, || super::through(port, spring)));
    let transfer = size as f64 / seconds.await??;
    ensure!(streams.len() == number, "connections were lost");
    Ok(Crowd {
        connections: number,
        note: None,
        opened_per_second,
        bytes_each,
        echo: echo_alone,
        echo_beside_slow,
        transfer,
    })
}

/// Every connection sends once and gets that back.
async fn ping(streams: Vec<TcpStream>) -> anyhow::Result<(Vec<TcpStream>, Percentiles)> {
    let number = streams.len();
    let (mut times, mut used) = (Vec::with_capacity(number), Vec::with_capacity(number));
    let mut waiting = streams.into_iter();
    let mut pinging = JoinSet::new();
    loop {
        while pinging.len() < AT_ONCE
            && let Some(stream) = waiting.next()
        {
            pinging.spawn(timeout(PATIENCE, echoed(stream)));
        }
        let Some(done) = pinging.join_next().await else { break };
        let (stream, time) = done?.context("no echo")??;
        times.push(nanoseconds(time));
        used.push(stream);
    }
    let Figures { p50, p99 } = Figures::of(times);
    Ok((used, Percentiles { p50, p99 }))
}

async fn echoed(mut stream: TcpStream) -> anyhow::Result<(TcpStream, Duration)> {
    let begun = Instant::now();
    stream.write_all(&PING).await?;
    let mut back = [0; PING.len()];
    stream.read_exact(&mut back).await?;
    ensure!(back == PING, "other bytes came back");
    Ok((stream, begun.elapsed()))
}

/// A connection through the agent's proxy.
async fn enter(proxy: SocketAddr, login: Vec<u8>, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let entered = timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(proxy).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&[5, 1, 2]).await?;
        stream.read_exact(&mut [0; 2]).await?;
        stream.write_all(&login).await?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await?;
        ensure!(answer[1] == 0, "the login was denied");
        stream.write_all(&request(to)?).await?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).await?;
        ensure!(answer[1] == 0, "SOCKS code {}", answer[1]);
        Ok(stream)
    });
    entered.await.context("no connection in time")?
}

/// A server that sends back what comes.
async fn echo() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut part = [0; PING.len()];
                while let Ok(count) = stream.read(&mut part).await
                    && count > 0
                    && stream.write_all(&part[..count]).await.is_ok()
                {}
            });
        }
    });
    Ok(address)
}

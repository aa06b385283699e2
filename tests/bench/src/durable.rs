//! How many calls a second a module gets answered that have to be on disk, or read from it.
//!
//! The calls go through the gateway as a module's do, JSON and futures included; or, as a program's,
//! by a WebSocket for each caller, with both ends of all of them in this process. The floor of a
//! report is the same number of rows in one grouped statement and one commit, made by hand on the
//! same file in the same run.

pub(crate) mod billing;
mod seed;
mod wires;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use privatix_core::Caller;
use privatix_domain::identity::Identity;
use privatix_modules::door::{self, Door};
use privatix_modules::gateway::Gateway;
use privatix_plugin_api::abi::{Bytes, CoreObject};
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{CoreRequest, encode};
use privatix_store::Store;
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::Effort;
use crate::figures::{Figures, nanoseconds};
use crate::messages::lone_core;
use crate::node::resident;

/// The sides of the table: callers at once, and channels in the database.
const CALLERS: [u64; 3] = [1, 64, 1024];
const CHANNELS: [u64; 3] = [1_000, 100_000, 1_000_000];

/// Programs that report at once, each by a connection of its own.
const WIRES: u64 = 64;

/// A line of the second table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Durable {
    pub(crate) what: &'static str,
    pub(crate) channels: u64,
    pub(crate) callers: u64,
    pub(crate) per_second: f64,
    #[serde(rename = "p50Ns")]
    pub(crate) p50: f64,
    #[serde(rename = "p99Ns")]
    pub(crate) p99: f64,
    /// Rows a second of grouped statements by hand.
    pub(crate) raw_per_second: Option<f64>,
    /// Growth of this process while all was measured, by session, in bytes.
    pub(crate) memory_per_session: Option<f64>,
}

/// Measures every cell; the largest database is left out of a quick run.
pub(crate) fn measure(effort: Effort) -> anyhow::Result<Vec<Durable>> {
    let mut rows = Vec::new();
    for channels in CHANNELS {
        if channels > effort.channels {
            break;
        }
        let home = tempfile::Builder::new().prefix("privatix-bench-").tempdir()?;
        rows.extend(of_size(&home.path().join("state.db"), channels, effort)?);
    }
    Ok(rows)
}

fn of_size(path: &Path, channels: u64, effort: Effort) -> anyhow::Result<Vec<Durable>> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    // Closed again, so that the seed is alone with the file.
    runtime.block_on(async {
        Store::open(path).await?.close().await;
        anyhow::Ok(())
    })?;
    runtime.block_on(seed::fill(path, channels))?;
    let mut raw = Vec::new();
    for group in CALLERS {
        raw.push(runtime.block_on(seed::raw(path, channels, group, effort.time))?);
    }
    let before = resident(std::process::id())?;
    let (service, core) = {
        let _runtime = runtime.enter();
        let store = runtime.block_on(Store::open(path))?;
        let service = lone_core(store, Identity::from_entropy(seed::ENTROPY), Role::Agent);
        let caller = Caller { product: seed::PRODUCT, name: "bench".into() };
        let door = Door::new(Arc::new(service.modules()), caller, door::OF_LIBRARY);
        let core = Gateway::object(door);
        (service, vec![Arc::new(core)])
    };
    let mut rows = Vec::new();
    for (callers, raw) in CALLERS.into_iter().zip(&raw) {
        let row = runtime.block_on(load(&core, channels, callers, effort.time, seed::report))?;
        rows.push(Durable { what: "UpdateSession", raw_per_second: Some(*raw), ..row });
    }
    if let Some(last) = rows.last_mut() {
        let grown = resident(std::process::id())?.saturating_sub(before) as f64;
        last.memory_per_session = Some(grown / channels as f64);
    }
    let by_wire = runtime.block_on(wires::connect(service, WIRES))?;
    let row = runtime.block_on(load(&by_wire, channels, WIRES, effort.time, seed::report))?;
    let raw = CALLERS.iter().position(|callers| *callers == WIRES).map(|at| raw[at]);
    rows.push(Durable { what: "UpdateSession by WebSocket", raw_per_second: raw, ..row });
    drop(by_wire);
    let identity = Identity::from_entropy(seed::ENTROPY);
    let identity = Arc::new(identity);
    let login = move |number| seed::login(&identity, number);
    let row = runtime.block_on(load(&core, channels, 1024, effort.time, login))?;
    rows.push(Durable { what: "AuthClient", ..row });
    Ok(rows)
}

/// So many callers at once, each with channels of its own, for a while. They share the ways to the
/// core.
async fn load(
    cores: &[Arc<CoreObject>],
    channels: u64,
    callers: u64,
    time: Duration,
    request: impl Fn(u64) -> CoreRequest + Clone + Send + Sync + 'static,
) -> anyhow::Result<Durable> {
    let callers = callers.min(channels);
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for caller in 0..callers {
        let core = usize::try_from(caller).unwrap_or(0) % cores.len().max(1);
        let core = Arc::clone(cores.get(core).context("a way to the core")?);
        let request = request.clone();
        tasks.spawn(async move {
            let (mut times, mut turn) = (Vec::new(), 0u64);
            let own = channels / callers;
            while begun.elapsed() < time {
                // Anywhere among the caller's own.
                let number = caller + callers * (turn.wrapping_mul(2_654_435_761) % own);
                let called = Instant::now();
                let reply = core.call(Bytes::from(encode(&request(number)))).await;
                times.push(nanoseconds(called.elapsed()));
                if !reply.starts_with(br#"{"ok""#) {
                    bail!("refused: {}", String::from_utf8_lossy(&reply));
                }
                turn += 1;
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.context("a caller")??);
    }
    let per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    let Figures { p50, p99 } = Figures::of(times);
    let (raw_per_second, memory_per_session) = (None, None);
    let what = "";
    Ok(Durable {
        what,
        channels,
        callers,
        per_second,
        p50,
        p99,
        raw_per_second,
        memory_per_session,
    })
}

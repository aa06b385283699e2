//! How long an agent takes to judge all of its channels, what that costs those who report usage
//! meanwhile, and how soon a report that matters is judged.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use privatix_core::{AgentApi, Caller, CoreReply, Service};
use privatix_daemon::billing;
use privatix_domain::identity::Identity;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{CoreRequest, Status};
use privatix_store::Store;
use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::seed;
use crate::Effort;
use crate::figures::{Figures, Row, nanoseconds};
use crate::messages::lone_core;
use crate::report::MILLISECOND;

const CHANNELS: u64 = 100_000;
const SWEEPS: usize = 11;
const VERDICTS: u64 = 50;
/// Where a report begins to matter.
const ALARM: u64 = 1 << 52;

/// What the sweep reads, and nothing else.
const READ: &str = "SELECT c.id, c.offering, c.status, c.holds, c.since, c.deposit, c.paid, c.used, \
                    c.used_at, s.usage, s.used_at FROM channels c \
                    LEFT JOIN sessions s ON s.channel = c.id AND s.stopped_at IS NULL \
                    WHERE c.status <> 'terminated' ORDER BY c.id";

/// The rows of money.
pub(crate) fn measure(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let channels = CHANNELS.min(effort.channels);
    let home = tempfile::Builder::new().prefix("privatix-bench-").tempdir()?;
    let path = home.path().join("state.db");
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        Store::open(&path).await?.close().await;
        seed::fill(&path, channels).await?;
        price(&path).await?;
        let store = Store::open(&path).await?;
        let identity = Identity::from_entropy(seed::ENTROPY);
        let service = lone_core(store, identity, Role::Agent);
        let party = service.party();
        let agent = party.agent().map_err(|refused| anyhow!("{refused}"))?;
        // The first pass brings in order what rows made by hand lack.
        agent.bill_all(false).await?;
        let mut rows = vec![sweep(agent, &path).await?];
        rows.push(beside(&service, agent, channels, effort.time).await?);
        rows.push(verdicts(&service, agent).await?);
        Ok(rows)
    })
}

/// Gives the channels a price, a deposit and a cheque that covers all that is reported here.
async fn price(path: &Path) -> anyhow::Result<()> {
    let agent = Identity::from_entropy(seed::ENTROPY).public().signing;
    let offering = json!({
        "templateHash": "0".repeat(64), "accessTemplateHash": "0".repeat(64), "nonce": "5f0e8d1c-95b5-4f4e-8d57-9c0d40a0c2a1",
        "product": seed::PRODUCT, "agentPublicKey": agent, "serviceName": "bench",
        "country": "SE", "supply": 1, "unitName": "unit", "unitType": "units", "unitSize": 1,
        "billingType": "prepaid", "setupPrice": 0, "unitPrice": 1, "billingInterval": 1,
        "exchange": "http://192.0.2.1",
    });
    let mut database = seed::open(path).await?;
    let sql = "UPDATE offerings SET message = $1";
    sqlx::query(sql).bind(offering.to_string()).execute(&mut database).await?;
    let (alarm, deposit) = (i64::try_from(ALARM)?, i64::try_from(2 * ALARM - 1)?);
    let sql = "UPDATE channels SET paid = $1, alarm = $1, deposit = $2";
    sqlx::query(sql).bind(alarm).bind(deposit).execute(&mut database).await?;
    Ok(database.close().await?)
}

async fn sweep(agent: &AgentApi, path: &Path) -> anyhow::Result<Row> {
    let mut database: SqliteConnection = seed::open(path).await?;
    let (mut times, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..SWEEPS {
        let begun = Instant::now();
        agent.bill_all(false).await?;
        times.push(nanoseconds(begun.elapsed()));
        let begun = Instant::now();
        sqlx::query(READ).fetch_all(&mut database).await?;
        floor.push(nanoseconds(begun.elapsed()));
    }
    database.close().await?;
    let row = Row::new("all channels judged (100,000)", Figures::of(times));
    Ok(row.above("their rows read by hand", Figures::of(floor)).target(2_000.0 * MILLISECOND))
}

/// Reports of usage while all channels are judged again and again.
async fn beside(
    service: &Service,
    agent: &AgentApi,
    channels: u64,
    time: Duration,
) -> anyhow::Result<Row> {
    let alone = reports(service, channels, time).await?;
    let (stop, stopped) = watch::channel(false);
    let judge = tokio::spawn({
        let agent = agent.clone();
        async move {
            let mut sweeps = 0;
            while !*stopped.borrow() {
                agent.bill_all(false).await?;
                sweeps += 1;
            }
            anyhow::Ok(sweeps)
        }
    });
    let times = reports(service, channels, time).await?;
    stop.send_replace(true);
    let sweeps: u32 = judge.await.context("the judge")??;
    if sweeps == 0 {
        bail!("nothing was judged meanwhile");
    }
    let row = Row::new("UpdateSession while all are judged", Figures::of(times));
    Ok(row.above("UpdateSession alone", Figures::of(alone)))
}

/// One caller's reports, one after the other.
async fn reports(service: &Service, channels: u64, time: Duration) -> anyhow::Result<Vec<f64>> {
    let (mut times, begun, mut turn) = (Vec::new(), Instant::now(), 0u64);
    while begun.elapsed() < time {
        let request = seed::report(turn.wrapping_mul(2_654_435_761) % channels);
        let called = Instant::now();
        service.modules().call(&caller(), request).await?;
        times.push(nanoseconds(called.elapsed()));
        turn += 1;
    }
    Ok(times)
}

/// From a report that matters to the status that follows from it.
async fn verdicts(service: &Service, agent: &AgentApi) -> anyhow::Result<Row> {
    let (stop, stopped) = watch::channel(false);
    let judge = tokio::spawn(billing::agent::run(agent.clone(), stopped));
    let mut times = Vec::new();
    let mut changes = service.outbox().changes();
    for number in 0..VERDICTS {
        let CoreRequest::UpdateSession { client_key, session, .. } = seed::report(number) else {
            bail!("a report was asked for");
        };
        let usage = privatix_plugin_api::message::Usage::Total(ALARM);
        let request = CoreRequest::UpdateSession { client_key, session, usage };
        let reply = service.modules().call(&caller(), request).await?;
        let begun = Instant::now();
        if !matches!(reply, CoreReply::Status(status) if status.status == Status::Active) {
            bail!("the channel was not active: {reply:?}");
        }
        while service.operator().channel_view(client_key).await?.status == Status::Active {
            changes.changed().await.context("the service")?;
        }
        times.push(nanoseconds(begun.elapsed()));
    }
    stop.send_replace(true);
    judge.await.context("the judge")?;
    let row = Row::new("report to verdict", Figures::of(times));
    Ok(row.target(100.0 * MILLISECOND))
}

fn caller() -> Caller {
    Caller { product: seed::PRODUCT, name: "bench".into() }
}

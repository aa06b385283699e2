//! Whole messages, as the host and the SDK carry them: JSON, and a hop to the other runtime.
//!
//! The floor of a message is that hop alone: a task that does nothing, spawned from one runtime on
//! another and awaited. It is mostly what the kernel takes to wake a thread, twice; waking one on
//! an idle core can take ten times as long as on the same core, most of all in a virtual machine.
//! So everything is measured a second time with all threads on one core.

mod core;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use privatix_base::config::{ModuleTimeouts, OrderPolicy};
use privatix_core::{AgentSettings, Caller, ClientSettings, PartySettings, Service, Settings};
use privatix_domain::billing::Tolerance;
use privatix_domain::identity::Identity;
use privatix_modules::door::{self, Door};
use privatix_modules::gateway::Gateway;
use privatix_modules::generation::Generation;
use privatix_modules::router::Router;
use privatix_plugin_api::abi::CoreObject;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{Health, HostInfo, LogLevel};
use privatix_store::Store;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use self::core::OneCore;
use crate::Effort;
use crate::figures::{Figures, Row, nanoseconds};
use crate::report::MICROSECOND;

/// Floor and message take turns, so that whatever else the machine does meets both.
const ROUNDS: usize = 10;
const CALLERS: u32 = 64;
const PRODUCT: &str = "00000000-0000-4000-8000-000000000000";
const LONG: Duration = Duration::from_secs(120);
const TARGET: f64 = 10.0 * MICROSECOND;
const HOP: &str = "a task on the other runtime";

/// A core that trades with nobody; has to be made on a runtime.
pub(crate) fn lone_core(store: Store, identity: Identity, role: Role) -> Service {
    let own = match role {
        Role::Agent => PartySettings::Agent(AgentSettings {
            first_payment_timeout: LONG,
            exchange: String::new(),
            orders: OrderPolicy::Allowlist,
            allowlist: Vec::new(),
            max_channels_per_client: 1,
            max_orders_per_hour: 1,
            max_waiting_orders_per_client: 5,
            max_waiting_orders: 1000,
            service_endpoint_address: None,
        }),
        Role::Client => PartySettings::Client(ClientSettings {
            allow_foreign_payment_receiver: false,
            tolerance: Tolerance::default(),
        }),
    };
    let settings = Settings { activation_timeout: LONG, max_unreported: 64 << 20 };
    Service::new(store, identity, settings, own)
}

/// What a module needs to be created: a runtime as the binary's, and a client's core.
pub(crate) struct Host {
    runtime: Runtime,
    home: TempDir,
    service: Service,
}

impl Host {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let home = tempfile::Builder::new().prefix("privatix-bench-").tempdir()?;
        let store = runtime.block_on(Store::open(&home.path().join("state.db")))?;
        let service = {
            let _runtime = runtime.enter();
            lone_core(store, Identity::from_entropy([7; 96]), Role::Client)
        };
        Ok(Self { runtime, home, service })
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn core(&self) -> CoreObject {
        Gateway::object(self.door())
    }

    fn door(&self) -> Arc<Door> {
        let _runtime = self.runtime.enter();
        let caller = Caller { product: PRODUCT.parse().unwrap_or_default(), name: "bench".into() };
        Door::new(Arc::new(self.service.modules()), caller, door::OF_LIBRARY)
    }

    fn generation(&self, library: &Path) -> anyhow::Result<Arc<Generation>> {
        let door = self.door();
        let (gate, core) = (door.gate(), Gateway::object(door));
        let (info, timeouts) = (info("caller", self.home()), timeouts());
        let created = Generation::create(library.to_owned(), core, &info, gate, &timeouts);
        let generation = self.runtime.block_on(created);
        Ok(Arc::new(generation.map_err(|error| anyhow!("creating the module: {error:?}"))?))
    }
}

pub(crate) fn info(name: &str, data_dir: &Path) -> HostInfo {
    HostInfo {
        api_version: 1,
        host_version: env!("CARGO_PKG_VERSION").into(),
        name: name.into(),
        role: Role::Client,
        data_dir: data_dir.to_owned(),
        log_level: LogLevel::Info,
    }
}

pub(crate) fn timeouts() -> ModuleTimeouts {
    ModuleTimeouts {
        create: LONG,
        configure: LONG,
        start: LONG,
        stop: LONG,
        call: LONG,
        shutdown: LONG,
    }
}

pub(crate) fn measure(library: &Path, effort: Effort) -> anyhow::Result<Vec<Row>> {
    let mut rows = pair(
        library,
        effort,
        ["a message to a module and its answer", "a module's call of the core and its answer"],
    )?;
    let one_core = OneCore::keep()?;
    rows.extend(pair(
        library,
        effort,
        ["- the message, all on one core", "- the module's call, all on one core"],
    )?);
    one_core.leave()?;
    Ok(rows)
}

fn pair(library: &Path, effort: Effort, names: [&'static str; 2]) -> anyhow::Result<Vec<Row>> {
    let host = Host::new()?;
    // As the SDK makes one for each module.
    let other = Builder::new_multi_thread().enable_all().build()?;
    let generation = host.generation(library)?;
    let [to_module_name, to_core_name] = names;
    let to_module = to_module(to_module_name, &host, &generation, &other, effort)?;
    let to_core = to_core(to_core_name, &host, &generation, &other, effort)?;
    let retired = host.runtime.block_on(generation.retire());
    ensure!(retired.problem.is_none(), "shutting the module down: {:?}", retired.problem);
    Ok(vec![to_module, to_core])
}

fn to_module(
    name: &'static str,
    host: &Host,
    generation: &Arc<Generation>,
    other: &Runtime,
    effort: Effort,
) -> anyhow::Result<Row> {
    let router = Arc::new(Router::default());
    let product = PRODUCT.parse()?;
    router.open(product, Arc::clone(generation));
    let ask = move || {
        let router = Arc::clone(&router);
        async move {
            let generation = router.route(product).context("a route to the module")?;
            ensure!(generation.health().await? == Health::Healthy, "the module is not well");
            Ok(())
        }
    };
    let (mut one, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let number = effort.messages / ROUNDS;
        floor.extend(on(&host.runtime, one_by_one(number, hop(other.handle())))?);
        one.extend(on(&host.runtime, one_by_one(number, ask.clone()))?);
    }
    let many = on(&host.runtime, at_once(effort.messages, ask))?;
    let row = Row::new(name, Figures::of(one));
    Ok(row.above(HOP, Figures::of(floor)).per_second(many, CALLERS).target(TARGET))
}

/// Timed by the module, which sends its figures as its health.
fn to_core(
    name: &'static str,
    host: &Host,
    generation: &Generation,
    other: &Runtime,
    effort: Effort,
) -> anyhow::Result<Row> {
    let measured = |calls: usize, callers: u32| -> anyhow::Result<Calls> {
        let work = json!({ "calls": calls, "callers": callers });
        host.runtime.block_on(generation.configure(work))?;
        match host.runtime.block_on(generation.health())? {
            Health::Degraded(figures) => Ok(serde_json::from_str(&figures)?),
            other => Err(anyhow!("the module did not measure: {other:?}")),
        }
    };
    let (mut one, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let number = effort.messages / ROUNDS;
        floor.extend(on(other, one_by_one(number, hop(host.runtime.handle())))?);
        one.extend(measured(number, 1)?.each);
    }
    let many = measured(effort.messages / CALLERS as usize, CALLERS)?;
    let row = Row::new(name, Figures::of(one));
    let per_second = many.each.len() as f64 / many.all * 1e9;
    Ok(row.above(HOP, Figures::of(floor)).per_second(per_second, CALLERS).target(TARGET))
}

/// What the module measured.
#[derive(Debug, Deserialize)]
struct Calls {
    each: Vec<f64>,
    all: f64,
}

/// Nothing but the way to another runtime and back.
fn hop(other: &Handle) -> impl FnMut() -> Hop + Send + 'static + use<> {
    let other = other.clone();
    move || {
        let task = other.spawn(std::future::ready(()));
        Box::pin(async move { Ok(task.await?) })
    }
}

type Hop = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// On a worker thread, where the host's own code runs too.
fn on<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    runtime.block_on(runtime.spawn(work))?
}

/// The time of each, one after the other.
async fn one_by_one<F>(number: usize, mut ask: impl FnMut() -> F) -> anyhow::Result<Vec<f64>>
where
    F: Future<Output = anyhow::Result<()>>,
{
    for _ in 0..number / 10 {
        ask().await?;
    }
    let mut times = Vec::with_capacity(number);
    for _ in 0..number {
        let begun = Instant::now();
        ask().await?;
        times.push(nanoseconds(begun.elapsed()));
    }
    Ok(times)
}

/// How many a second, with [`CALLERS`] at once.
async fn at_once<A, F>(number: usize, ask: A) -> anyhow::Result<f64>
where
    A: FnMut() -> F + Clone + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let each = number / CALLERS as usize;
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let mut ask = ask.clone();
        callers.spawn(async move {
            for _ in 0..each {
                ask().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok((each * CALLERS as usize) as f64 / begun.elapsed().as_secs_f64())
}

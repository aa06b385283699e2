//! One side: a core of the host's own parts, and its module.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use privatix_base::config::{Config, ModuleTimeouts};
use privatix_core::{Answer, Caller, Registration, Service};
use privatix_domain::identity::Identity;
use privatix_modules::delivery;
use privatix_modules::door::{self, Door};
use privatix_modules::examine::Checked;
use privatix_modules::gateway::Gateway;
use privatix_modules::generation::{CreateError, Generation, Retired};
use privatix_modules::lifecycle::private_dir;
use privatix_modules::line::Line;
use privatix_modules::router::Router;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, LogLevel, Started};
use privatix_store::Store;
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::program::Running;
use super::script::garbled;
use super::{Bench, Script};
use crate::case::{Finding, failed};
use crate::subject::Program;

/// The longest that a command may take here, where a host may allow more.
const LONGEST: Duration = Duration::from_secs(10);

/// See the module's documentation.
pub struct Party {
    /// Which side.
    pub role: Role,
    /// The Service API.
    pub service: Service,
    /// Its database.
    pub store: Store,
    /// What stands between the module and the core.
    pub script: Arc<Script>,
    /// Where the module has its files.
    pub data_dir: PathBuf,
    /// Deadlines of commands.
    pub timeouts: ModuleTimeouts,
    checked: Arc<Checked>,
    name: String,
    router: Arc<Router>,
    generation: Option<Arc<Generation>>,
    program: Option<Program>,
    running: Mutex<Option<Running>>,
    down: watch::Sender<bool>,
    delivering: JoinHandle<()>,
}

impl Party {
    /// A core that knows the product, without a module so far.
    ///
    /// # Errors
    /// A package that is refused; a database that fails.
    pub async fn core(bench: &Bench, role: Role) -> Result<Self, Finding> {
        // A module for one side alone trades with a core that has no module.
        let roles = bench.roles()?;
        let by = roles.iter().copied().find(|other| *other == role).or(roles.first().copied());
        let checked = bench.checked(by.unwrap_or(role))?;
        let home = bench.directory().join(role.as_str());
        std::fs::create_dir_all(&home)?;
        let config = configuration(&home, role)?;
        let store = Store::open(&config.database).await?;
        let url = (role == Role::Agent).then(|| "http://127.0.0.1:9".to_owned());
        let seed = if role == Role::Agent { 1 } else { 2 };
        let identity = Identity::from_entropy([seed; 96]);
        let (settings, own) = privatix_daemon::settings(&config, url);
        let service = Service::new(store.clone(), identity, settings, own);
        let manifest = &checked.manifest;
        let registration = Registration {
            product: manifest.product_id,
            name: bench.name(),
            version: &manifest.version,
            usage_reporting: manifest.usage_reporting,
            access: &checked.access,
            offering: checked.offering.as_ref(),
        };
        service.upkeep().register(registration).await?;
        let (down, shutdown) = watch::channel(false);
        let router = Arc::new(Router::default());
        let delivering = delivery::run(service.outbox(), Arc::clone(&router), shutdown);
        let data_dir = private_dir(&home, "data")?;
        Ok(Self {
            role,
            store,
            script: Arc::default(),
            data_dir,
            timeouts: bounded(&config.module),
            checked,
            name: bench.name().to_owned(),
            router,
            generation: None,
            program: bench.subject.program.clone(),
            running: Mutex::default(),
            down,
            delivering: tokio::spawn(delivering),
            service,
        })
    }

    /// A core with its module created and configured.
    ///
    /// # Errors
    /// Those of [`Party::core`] and [`Party::bring_up`].
    pub async fn new(bench: &Bench, role: Role) -> Result<Self, Finding> {
        let mut party = Self::core(bench, role).await?;
        party.bring_up().await?;
        Ok(party)
    }

    /// The product.
    pub fn product(&self) -> Uuid {
        self.checked.manifest.product_id
    }

    /// What was checked.
    pub fn package(&self) -> &Checked {
        &self.checked
    }

    /// Creates a module that is not configured and not routed to.
    ///
    /// # Errors
    /// What became of it instead.
    pub async fn create(&self) -> Result<Generation, Finding> {
        let caller = Caller { product: self.product(), name: self.name.clone() };
        let core = self.script.before(self.service.modules());
        let Some(library) = self.checked.library() else {
            return self.start_program(Door::new(core, caller, door::OF_PROGRAM)).await;
        };
        let door = Door::new(core, caller, door::OF_LIBRARY);
        let data_dir = self.data_dir.clone();
        let host = self.checked.host_info(&self.name, self.role, data_dir, LogLevel::Trace);
        let (library, gate) = (library.to_owned(), door.gate());
        let core = garbled(Gateway::object(door));
        Generation::create(library, core, &host, gate, &self.timeouts).await.map_err(|error| {
            match error {
                CreateError::Load(problem) => Finding::from(problem),
                CreateError::Thread(error) => Finding::from(error),
                CreateError::Command(error) => failed(format!("create: {}", crate::chain(&error))),
            }
        })
    }

    /// Starts the program of a standalone module, and waits until it has subscribed.
    async fn start_program(&self, door: Arc<Door>) -> Result<Generation, Finding> {
        let program = self.program.as_ref().ok_or_else(|| failed("there is no program"))?;
        let card = json!({
            "name": self.name, "role": self.role, "product": self.product(),
            "config": self.checked.settings, "apiVersion": self.checked.api_version,
            "hostVersion": env!("CARGO_PKG_VERSION"),
        });
        let line = Arc::new(Line::new(door, &card, Arc::default()));
        let patience = self.timeouts.create + self.timeouts.configure;
        let token = self.service.operator().token_make(&self.name).await?.token;
        let running = Running::start(
            program,
            &self.service,
            Arc::clone(&line),
            &token,
            &self.data_dir,
            patience,
        );
        let running = running.await?;
        *self.running.lock().await = Some(running);
        Ok(Generation::standalone(line, &self.timeouts))
    }

    /// Brings the module up as a host does: created, configured, told of every live channel, and
    /// routed to.
    ///
    /// # Errors
    /// The first step that did not go well.
    pub async fn bring_up(&mut self) -> Result<(), Finding> {
        let generation = Arc::new(self.create().await?);
        generation
            .configure(self.checked.settings.clone())
            .await
            .map_err(|error| failed(format!("configure: {}", crate::chain(&error))))?;
        let outbox = self.service.outbox();
        let earlier = outbox.open_sessions(self.product()).await?;
        for channel in outbox.served_channels(self.product()).await? {
            let answer = match generation.start(channel).await {
                Ok(Started::Ready) => Answer::Ready,
                Ok(Started::Later) => Answer::Later,
                Err(error) => Answer::Failed(crate::chain(&error)),
            };
            outbox.replayed(channel, answer).await?;
        }
        let served = generation.sessions().await?;
        outbox.close_unserved(self.product(), &served, &earlier).await?;
        self.router.open(self.product(), Arc::clone(&generation));
        outbox.routed(self.product()).await?;
        self.generation = Some(generation);
        Ok(())
    }

    /// The module that serves.
    ///
    /// # Errors
    /// When there is none.
    pub fn module(&self) -> Result<&Arc<Generation>, Finding> {
        let side = self.role;
        self.generation.as_ref().ok_or_else(|| failed(format!("the {side} has no module")))
    }

    /// Whether there is a module.
    pub fn has_module(&self) -> bool {
        self.generation.is_some()
    }

    /// Takes the module down as a host does.
    ///
    /// # Errors
    /// When there is none.
    pub async fn take_down(&mut self) -> Result<Retired, Finding> {
        self.router.close(self.product());
        let generation = self.generation.take();
        let generation = generation.ok_or_else(|| failed("there is no module to take down"))?;
        let running = self.running.lock().await.take();
        let problem = match running {
            Some(running) => running.end(self.timeouts.shutdown).await,
            None => None,
        };
        let retired = generation.retire().await;
        Ok(Retired { problem: retired.problem.or(problem), ..retired })
    }

    /// The same, for a module that has to go without leaving anything.
    ///
    /// # Errors
    /// What was not in order.
    pub async fn take_down_cleanly(&mut self) -> Result<(), Finding> {
        let retired = self.take_down().await?;
        if let Some(problem) = retired.problem {
            return Err(failed(format!("shutdown of the {}'s module: {problem}", self.role)));
        }
        match retired.threads {
            0 => Ok(()),
            left => {
                Err(failed(format!("shutdown left {left} threads of the {} running", self.role)))
            }
        }
    }

    /// What a channel has used, in smallest units, by what this core has on disk.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn usage(&self, channel: ClientKey) -> Result<u64, Finding> {
        let rows = self.store.billing_some(&[channel]).await?;
        Ok(rows.first().map_or(0, |row| row.usage))
    }

    /// How many sessions of a channel are open, and how many there were.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn sessions(&self, channel: ClientKey) -> Result<(usize, usize), Finding> {
        let all = self.store.session_list(channel).await?;
        Ok((all.iter().filter(|session| session.stopped_at.is_none()).count(), all.len()))
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        self.down.send_replace(true);
        self.delivering.abort();
    }
}

/// A host's own defaults, and a policy by which every order is taken.
fn configuration(home: &std::path::Path, role: Role) -> Result<Config, Finding> {
    let text = match role {
        Role::Agent => {
            "role = \"agent\"\n[agent]\norders = \"open\"\nmax_channels_per_client = 100000\n\
             max_orders_per_hour = 100000\n"
        }
        Role::Client => "role = \"client\"\n",
    };
    std::fs::write(home.join("privatix.toml"), text)?;
    Ok(Config::load(home, [])?)
}

fn bounded(host: &ModuleTimeouts) -> ModuleTimeouts {
    let bound = |by_host: Duration| by_host.min(LONGEST);
    ModuleTimeouts {
        create: bound(host.create),
        configure: bound(host.configure),
        start: bound(host.start),
        stop: bound(host.stop),
        call: bound(host.call),
        shutdown: bound(host.shutdown),
    }
}

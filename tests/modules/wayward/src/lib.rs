//! A module that works and conforms, but for one fault that is written into the built library.
//!
//! It does by hand what the SDK's `Lines` and `Meter` do, so that each fault has a place (`fault`).

mod agent;
mod client;
mod fault;
mod line;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::line::Lines;

/// `[modules.wayward]`, as `wayward.config.json` describes it.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    listen: String,
    address: Option<String>,
    report_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: "127.0.0.1:0".into(), address: None, report_ms: 1000 }
    }
}

/// The module.
struct Module {
    role: Role,
    shared: Arc<Shared>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

/// What its tasks need.
struct Shared {
    core: Core,
    settings: OnceLock<Settings>,
    lines: Lines,
}

impl Shared {
    /// The time between two reports of usage.
    fn report(&self) -> Duration {
        Duration::from_millis(self.settings.get_or_init(Settings::default).report_ms)
    }
}

impl ServiceModule for Module {
    /// Makes the object. Nothing outside of it happens yet: no port, no file, no call of the core.
    async fn create(core: Core, host: HostInfo) -> Result<Self, Error> {
        fault::strike("create");
        if fault::is("create-listens") {
            std::mem::forget(std::net::TcpListener::bind("127.0.0.1:0")?);
        }
        if fault::is("create-fails") {
            return Err("create was asked to fail".into());
        }
        let (settings, lines) = (OnceLock::new(), Lines::default());
        let shared = Arc::new(Shared { core, settings, lines });
        Ok(Self { role: host.role, shared, listening: Mutex::default() })
    }

    /// Comes once, before everything else. The agent begins to listen and tells its core what
    /// clients have to know.
    async fn configure(&self, config: Value) -> Result<(), Error> {
        fault::strike("configure");
        if fault::is("configure-hangs") {
            std::future::pending::<()>().await;
        }
        let settings: Settings = if fault::is("unwraps-settings") {
            #[allow(clippy::expect_used)]
            serde_json::from_value(config).expect("settings")
        } else {
            serde_json::from_value(config)?
        };
        let settings = self.shared.settings.get_or_init(|| settings);
        if self.role == Role::Agent {
            *self.listening.lock().await = Some(agent::listen(&self.shared, settings).await?);
        }
        Ok(())
    }

    /// May come again for what is started: after a restart, or when the access message is another.
    async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
        fault::strike("start");
        if fault::is("start-fails") {
            return Err("start was asked to fail".into());
        }
        if fault::is("start-hangs") {
            std::future::pending::<()>().await;
        }
        if fault::is("start-ignores-sigterm") {
            fault::ignore_sigterm();
        }
        if fault::is("start-changes-umask") {
            fault::open_umask();
        }
        if fault::is("start-changes-directory") {
            std::env::set_current_dir("/")?;
        }
        if fault::is("start-spawns-panic") {
            tokio::spawn(async { panic!("a task was asked to panic") });
        }
        if fault::is("start-prints-megabytes") {
            #[allow(clippy::print_stdout)]
            {
                println!("{}", "x".repeat(2 << 20));
            }
        }
        match self.role {
            // It listens already, and asks its core whether a client may log in.
            Role::Agent => Ok(Started::Ready),
            Role::Client if fault::is("start-unheld") => {
                let shared = Arc::clone(&self.shared);
                tokio::spawn(async move { client::start(&shared, channel).await });
                Ok(Started::Later)
            }
            Role::Client => client::start(&self.shared, channel).await,
        }
    }

    /// May come for what is not started. When this returns, the client is really gone, the last
    /// usage is reported and the session is stopped.
    async fn stop(&self, channel: ClientKey, _reason: StopReason) -> Result<(), Error> {
        fault::strike("stop");
        if fault::is("forgets-stop") {
            return Ok(());
        }
        if fault::is("stop-unknown-fails") && !self.shared.lines.served().await.contains(&channel) {
            return Err("there is no such channel".into());
        }
        if fault::is("stop-forks") {
            // Nobody waits for it.
            let _ = std::process::Command::new("sleep").arg("1000").spawn()?;
        }
        if fault::is("stop-daemonises") {
            let daemon = "setsid sleep 1000 </dev/null >/dev/null 2>&1 &";
            std::process::Command::new("sh").args(["-c", daemon]).status()?;
        }
        if fault::is("stop-leaks-thread") {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
        }
        if fault::is("stop-leaks-file") {
            std::mem::forget(std::fs::File::open("/dev/null")?);
        }
        if fault::is("stop-leaks-memory") {
            std::mem::forget(vec![1_u8; 4 << 20]);
        }
        if fault::is("stop-answers-late") {
            self.shared.lines.ending(channel, true);
        }
        self.shared.lines.cut(channel).await;
        if fault::is("stop-answers-late") {
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.shared.lines.ending(channel, false);
        }
        Ok(())
    }

    async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
        fault::strike("sessions");
        if fault::is("serves-nobody-known") {
            return Ok(vec![ClientKey(Default::default())]);
        }
        if fault::is("names-nobody") && self.role == Role::Agent {
            return Ok(Vec::new());
        }
        Ok(self.shared.lines.served().await)
    }

    async fn health(&self) -> Health {
        fault::strike("health");
        if fault::is("health-unhealthy") {
            return Health::Unhealthy("it was asked to be".into());
        }
        Health::Healthy
    }

    async fn describe(&self, channel: ClientKey) -> Result<BTreeMap<String, String>, Error> {
        fault::strike("describe");
        let tells = fault::is("password-described") && self.role == Role::Client;
        if tells && let Ok(access) = self.shared.core.get_access(channel).await {
            return Ok([("password".to_owned(), access.password.0)].into());
        }
        Ok(BTreeMap::new())
    }

    /// Uses the service, so that `privatix check` can see whether usage is counted. Only tests call it.
    async fn exercise(&self, channel: ClientKey, amount: u64) -> Result<u64, Error> {
        match self.role {
            Role::Agent => Err(Unsupported.into()),
            Role::Client => self.shared.lines.ask(channel, amount).await,
        }
    }

    /// As `stop`, for everything, and for good.
    async fn shutdown(&self, _deadline: Duration) -> Result<(), Error> {
        fault::strike("shutdown");
        if fault::is("shutdown-blocks") {
            loop {
                std::thread::park();
            }
        }
        if fault::is("shutdown-forgets") {
            return Ok(());
        }
        if fault::is("shutdown-leaks-port") {
            std::mem::forget(std::net::TcpListener::bind("127.0.0.1:0")?);
        }
        if let Some(listening) = self.listening.lock().await.take() {
            listening.abort();
            // Once the task is gone the port is free.
            let _ = listening.await;
        }
        self.shared.lines.cut_all().await;
        Ok(())
    }
}

export_module!(Module);

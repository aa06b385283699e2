//! One library for all the ways in which a module can misbehave.
//!
//! The fault is chosen by the name the host gives the module, so that the tests make a faulty
//! module by copying the library under another name, or writes a fault's name into the library; the
//! setting `fault` overrides both from `configure` on. Under any other name it behaves well and reports usage for every channel.

mod fault;
mod meter;

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::fault::{Fault, block, segfault};
use crate::meter::Meter;

/// `[modules.<name>]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    tick_ms: Option<u64>,
    amount: Option<u64>,
    mode: Mode,
    fault: Option<String>,
    write_marker: Option<PathBuf>,
}

/// How usage is reported; the manifest has to say the same.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Total,
    Incremental,
}

struct Faulty {
    core: Core,
    id: Uuid,
    named: Fault,
    settings: OnceLock<Settings>,
    serving: Mutex<HashMap<ClientKey, Meter>>,
}

impl Faulty {
    fn settings(&self) -> &Settings {
        self.settings.get_or_init(Settings::default)
    }

    fn fault(&self) -> Fault {
        self.settings().fault.as_deref().map_or(self.named, Fault::by_name)
    }

    /// Notes for the test that something was called.
    fn mark(&self, what: &str) -> Result<(), Error> {
        if let Some(path) = &self.settings().write_marker {
            let line = format!("{what} {} {}\n", env!("CARGO_PKG_VERSION"), self.id);
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(line.as_bytes())?;
        }
        Ok(())
    }
}

impl ServiceModule for Faulty {
    async fn create(core: Core, host: HostInfo) -> Result<Self, Error> {
        let named = Fault::of_library(&host.name);
        match named {
            Fault::CreatePanics => panic!("create was asked to panic"),
            Fault::CreateFails => return Err("create was asked to fail".into()),
            Fault::CreateHangs => block(),
            Fault::CreateAborts => std::process::abort(),
            Fault::CreateExits => std::process::exit(0),
            _ => {}
        }
        let (settings, serving) = (OnceLock::new(), Mutex::default());
        Ok(Self { core, id: Uuid::new_v4(), named, settings, serving })
    }

    async fn configure(&self, config: Value) -> Result<(), Error> {
        let settings: Settings = serde_json::from_value(config)?;
        self.settings.get_or_init(|| settings);
        // Where to note it was not known before.
        self.mark("create")?;
        self.mark("configure")?;
        match self.fault() {
            Fault::ConfigurePanics => panic!("configure was asked to panic"),
            Fault::ConfigureFails => return Err("configure was asked to fail".into()),
            Fault::ConfigureHangs => std::future::pending().await,
            Fault::ConfigureAborts => std::process::abort(),
            Fault::ConfigureExits => std::process::exit(0),
            Fault::LogsMuch => (0..10_000).for_each(|number| tracing::info!(number, "chatter")),
            _ => {}
        }
        Ok(())
    }

    async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
        self.mark("start")?;
        match self.fault() {
            Fault::StartPanics => panic!("start was asked to panic"),
            Fault::StartFails => return Err("start was asked to fail".into()),
            Fault::StartHangs => std::future::pending().await,
            Fault::StartBlocks => block(),
            Fault::StartAborts => std::process::abort(),
            Fault::StartExits => std::process::exit(0),
            Fault::StartSegfaults => segfault(),
            _ => {}
        }
        let mut serving = self.serving.lock().await;
        if serving.get(&channel).is_none_or(|meter| !meter.is_running()) {
            let settings = self.settings();
            let tick = Duration::from_millis(settings.tick_ms.unwrap_or(20));
            let amount = settings.amount.unwrap_or(1);
            let meter = Meter::start(
                &self.core,
                channel,
                tick,
                amount,
                settings.mode,
                settings.write_marker.clone(),
            )
            .await?;
            serving.insert(channel, meter);
        }
        Ok(Started::Ready)
    }

    async fn stop(&self, channel: ClientKey, _reason: StopReason) -> Result<(), Error> {
        self.mark("stop")?;
        if self.fault() == Fault::StopHangs {
            std::future::pending().await
        }
        let mut serving = self.serving.lock().await;
        match serving.remove(&channel) {
            Some(meter) => meter.stop().await,
            None => Ok(()),
        }
    }

    async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
        if self.fault() == Fault::SessionsPanics {
            panic!("sessions was asked to panic")
        }
        let serving = self.serving.lock().await;
        let running = serving.iter().filter(|(_, meter)| meter.is_running());
        Ok(running.map(|(channel, _)| *channel).collect())
    }

    async fn health(&self) -> Health {
        match self.fault() {
            Fault::HealthAborts => std::process::abort(),
            Fault::HealthUnhealthy => Health::Unhealthy("was asked to be unhealthy".into()),
            _ => Health::Healthy,
        }
    }

    async fn shutdown(&self, _deadline: Duration) -> Result<(), Error> {
        self.mark("shutdown")?;
        match self.fault() {
            Fault::ShutdownHangs => std::future::pending().await,
            Fault::ShutdownBlocks => block(),
            _ => {}
        }
        let meters: Vec<Meter> =
            self.serving.lock().await.drain().map(|(_, meter)| meter).collect();
        let mut outcome = Ok(());
        for meter in meters {
            outcome = meter.stop().await.and(outcome);
        }
        outcome
    }
}

export_module!(Faulty);

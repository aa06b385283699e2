//! A TCP echo service: the module to read first.
//!
//! The agent's side (`agent`) listens and sends back every byte; the client's (`client`) connects, sees
//! whether its greeting comes back, and keeps the connection. Usage is the bytes both ways. What
//! connects them is the SDK's: [`Lines`] lets clients in, cuts them and connects again, and a
//! [`Meter`]'s stream passes on no byte that the core has not granted.
//!
//! Nothing is process-wide, and nothing outside the process happens before `configure`.

mod agent;
mod client;

use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use serde::Deserialize;
use serde_json::Value;

/// `[modules.echo]`; `echo.config.json` says what each one means and may be.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    listen: String,
    address: Option<String>,
    report_ms: NonZeroU64,
    greeting: String,
}

impl Default for Settings {
    fn default() -> Self {
        const SECOND: NonZeroU64 = NonZeroU64::new(1000).unwrap();
        let (listen, greeting) = ("127.0.0.1:0".into(), "hello".into());
        Self { listen, address: None, report_ms: SECOND, greeting }
    }
}

/// The module. Its tasks have clones of it.
#[derive(Clone)]
struct Echo {
    role: Role,
    core: Core,
    lines: Lines,
    settings: Arc<OnceLock<Settings>>,
}

impl Echo {
    fn settings(&self) -> &Settings {
        self.settings.get_or_init(Settings::default)
    }
}

impl ServiceModule for Echo {
    async fn create(core: Core, host: HostInfo) -> Result<Self, Error> {
        Ok(Self { role: host.role, lines: Lines::new(&core), core, settings: Arc::default() })
    }

    async fn configure(&self, config: Value) -> Result<(), Error> {
        let settings: Settings = serde_json::from_value(config)?;
        self.lines.report(MeterOptions::every(Duration::from_millis(settings.report_ms.get())));
        self.settings.get_or_init(|| settings);
        match self.role {
            Role::Agent => self.listen().await,
            Role::Client => Ok(()),
        }
    }

    async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
        // The agent listens already, and the core decides who may log in.
        if self.role == Role::Client {
            // The nonce is new in every access message.
            let nonce = self.core.get_access(channel).await?.nonce;
            let module = self.clone();
            self.lines.keep(channel, &nonce, move |line| module.clone().connect(line)).await?;
        }
        Ok(Started::Ready)
    }

    async fn stop(&self, channel: ClientKey, _reason: StopReason) -> Result<(), Error> {
        self.lines.cut(channel).await;
        Ok(())
    }

    async fn exercise(&self, channel: ClientKey, amount: u64) -> Result<u64, Error> {
        match self.role {
            // Its clients have the bytes.
            Role::Agent => Err(Unsupported.into()),
            Role::Client => self.lines.ask(channel, amount).await,
        }
    }

    async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
        Ok(self.lines.served())
    }

    async fn shutdown(&self, _deadline: Duration) -> Result<(), Error> {
        self.lines.cut_all().await;
        Ok(())
    }
}

export_module!(Echo);

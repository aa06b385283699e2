//! A module of the SDK whose `health` times calls to the core and says what it found.
//!
//! It runs for a client and makes a call that only an agent's core answers: the call goes all the
//! way into the core and is refused there without the database.

use std::time::Instant;

use privatix_plugin_api::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// Calls before those that are timed.
const WARM_UP: u64 = 1000;

pub(crate) struct Caller {
    core: Core,
    work: Mutex<Work>,
}

/// The settings: what `health` is to do. Without calls the module is healthy at once.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Work {
    /// Of each caller.
    calls: u64,
    callers: u64,
}

impl Caller {
    /// All callers at once: the nanoseconds of each call, and of everything.
    async fn measure(&self, work: Work) -> Result<Value, Error> {
        calls(self.core.clone(), WARM_UP).await?;
        let begun = Instant::now();
        let callers: Vec<_> =
            (0..work.callers).map(|_| tokio::spawn(calls(self.core.clone(), work.calls))).collect();
        let mut each = Vec::new();
        for caller in callers {
            each.extend(caller.await??);
        }
        Ok(json!({ "each": each, "all": nanoseconds(begun)? }))
    }
}

/// One call after the other.
async fn calls(core: Core, number: u64) -> Result<Vec<u64>, Error> {
    let mut each = Vec::new();
    for _ in 0..number {
        let begun = Instant::now();
        match core.auth_client(ClientKey(Uuid::nil()), "a password").await {
            Err(error) if error.name == ErrorName::Unsupported => {}
            other => return Err(format!("a client's core was to refuse: {other:?}").into()),
        }
        each.push(nanoseconds(begun)?);
    }
    Ok(each)
}

fn nanoseconds(since: Instant) -> Result<u64, Error> {
    Ok(u64::try_from(since.elapsed().as_nanos())?)
}

impl ServiceModule for Caller {
    async fn create(core: Core, _host: HostInfo) -> Result<Self, Error> {
        Ok(Self { core, work: Mutex::default() })
    }

    async fn configure(&self, config: Value) -> Result<(), Error> {
        *self.work.lock().await = serde_json::from_value(config)?;
        Ok(())
    }

    async fn start(&self, _channel: ClientKey) -> Result<Started, Error> {
        Ok(Started::Ready)
    }

    async fn stop(&self, _channel: ClientKey, _reason: StopReason) -> Result<(), Error> {
        Ok(())
    }

    async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
        Ok(Vec::new())
    }

    async fn health(&self) -> Health {
        let work = *self.work.lock().await;
        if work.calls == 0 {
            return Health::Healthy;
        }
        match self.measure(work).await {
            Ok(figures) => Health::Degraded(figures.to_string()),
            Err(error) => Health::Unhealthy(error.to_string()),
        }
    }
}

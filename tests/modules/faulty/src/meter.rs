//! The service of one channel: a session whose usage grows with time.
//!
//! The last report is always one amount above the one before, so that a test sees whether it
//! arrived. A meter stops by itself when the core allows no more use.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::Mode;

/// A running session.
pub(crate) struct Meter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ApiError>>,
}

struct Counter {
    core: Core,
    channel: ClientKey,
    session: SessionId,
    amount: u64,
    mode: Mode,
    reports: u64,
    marker: Option<PathBuf>,
}

impl Meter {
    /// Opens a session.
    pub(crate) async fn start(
        core: &Core,
        channel: ClientKey,
        tick: Duration,
        amount: u64,
        mode: Mode,
        marker: Option<PathBuf>,
    ) -> Result<Self, ApiError> {
        let session = core.start_session(channel, None).await?.session;
        let (core, reports) = (core.clone(), 0);
        let counter = Counter { core, channel, session, amount, mode, reports, marker };
        let (stop, stopped) = oneshot::channel();
        Ok(Self { stop, task: tokio::spawn(counter.run(tick, stopped)) })
    }

    /// Whether its session is open.
    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Reports the last usage and closes the session.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        // It may have stopped by itself.
        let _ = self.stop.send(());
        Ok(self.task.await??)
    }
}

impl Counter {
    async fn run(
        mut self,
        tick: Duration,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<(), ApiError> {
        let mut ticks = interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                _ = ticks.tick() => if !self.report().await?.allows_use() {
                    break;
                },
            }
        }
        self.report().await?;
        self.core.stop_session(self.channel, self.session).await?;
        Ok(())
    }

    async fn report(&mut self) -> Result<Status, ApiError> {
        self.reports += 1;
        let (sequence, amount) = (self.reports, self.amount);
        let usage = match self.mode {
            Mode::Total => Usage::Total(sequence * amount),
            Mode::Incremental => Usage::Incremental { sequence, amount },
        };
        let status = self.core.update_session(self.channel, self.session, usage).await?;
        self.acknowledged(sequence * amount);
        Ok(status)
    }

    /// Notes for the test what the core has acknowledged, and so must never lose.
    fn acknowledged(&self, total: u64) {
        let Some(path) = &self.marker else { return };
        let line = format!("ack {} {} {total}\n", self.channel, self.session);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            tracing::error!(%error, "the marker was not written");
        }
    }
}

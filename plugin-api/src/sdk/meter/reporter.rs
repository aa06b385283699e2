//! The task of a meter: reports until the module stops it, then reports the rest and closes the
//! session.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::account::Account;
use super::{Ended, Shared};
use crate::message::{ApiError, ErrorName, Status};

/// The pauses between two reports while there is no credit: a payment is noticed that soon.
const WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// The pause before a report while the credit is low and used.
const LOW: Duration = Duration::from_millis(100);

/// The pauses between two tries of one report.
const RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// How long one try may take. An answer that is lost must not end a session for good.
const TRY: Duration = Duration::from_secs(10);

/// Reports at intervals, and earlier when it is wanted; ends with the session.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let mut pace = Pace::default();
    let mut refused = None;
    while !*stopping.borrow() {
        let pause = pace.next(&shared.account(), shared.options.report_every);
        tokio::select! {
            () = sleep_until(Instant::now() + pause) => {}
            () = shared.wanted.notified() => if !shared.account().wants_report() {
                // It was wanted while the last one was under way, which has settled it.
                continue;
            },
            () = until(&mut stopping) => break,
        }
        if let Err(error) = shared.report().await {
            tracing::warn!(channel = %shared.channel, %error, "the core refused a usage report");
            shared.end(Ended::Refused(error.clone()));
            refused = Some(error);
            break;
        }
    }
    until(&mut stopping).await;
    let lost = shared.close(refused).await;
    shared.closed.send_replace(Some(lost));
}

/// How long until the next report.
#[derive(Default)]
struct Pace {
    /// The pause before the last one, if it was shorter than usual.
    short: Option<Duration>,
    /// What was used then.
    used: u64,
}

impl Pace {
    /// While there is no credit, or while the last of it is being used, reports come sooner: the answer
    /// after a payment has more. Some users of a meter never use the last byte, such as one that
    /// moves packets; one that uses nothing is reported less and less often.
    fn next(&mut self, account: &Account, usual: Duration) -> Duration {
        let used = std::mem::replace(&mut self.used, account.used()) != self.used;
        let before = self.short.take();
        let next = match before {
            None => WAIT,
            Some(before) => before * 2,
        };
        let pause = if account.left() == Some(0) {
            next.min(LONGEST_WAIT)
        } else if account.is_low() && used {
            LOW
        } else if account.is_low() && before.is_some() {
            next
        } else {
            return usual;
        };
        let pause = pause.min(usual);
        self.short = Some(pause);
        pause
    }
}

/// Returns once the module has stopped the meter.
async fn until(stopping: &mut watch::Receiver<bool>) {
    // An error would mean that the meter is gone.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

impl Shared {
    /// Reports the usage until that is acknowledged.
    async fn report(&self) -> Result<(), ApiError> {
        let (usage, total) = self.account().report(self.options.reporting);
        let call = || self.core.report(self.channel, self.session, usage);
        let reply = self.persist("a usage report", call).await?;
        let limit = {
            let mut account = self.account();
            account.acknowledge(total, reply.credit);
            account.limit()
        };
        self.limit.send_if_modified(|known| std::mem::replace(known, limit) != limit);
        self.changed.notify_waiters();
        self.obey(reply.status);
        Ok(())
    }

    fn obey(&self, status: Status) {
        if !status.allows_use() {
            self.end(Ended::Status(status));
        }
    }

    /// Reports what is left and closes the session; returns what was lost.
    async fn close(&self, refused: Option<ApiError>) -> u64 {
        let mut refused = refused;
        // What was counted while a report was under way needs one more.
        while refused.is_none() && self.account().unreported() > 0 {
            refused = self.report().await.err();
        }
        let call = || self.core.stop_session(self.channel, self.session);
        if let Err(error) = self.persist("the end of a session", call).await {
            tracing::debug!(channel = %self.channel, %error, "the session was closed already");
        }
        let lost = self.account().unreported();
        if lost > 0 {
            let why = refused.map(|error| error.to_string()).unwrap_or_default();
            tracing::error!(channel = %self.channel, lost, why, "usage could not be reported");
        }
        lost
    }

    /// Makes a call until it is answered otherwise than by a failure of the core; says when that takes
    /// too long.
    async fn persist<T, F>(&self, what: &str, call: impl Fn() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let patient_until = Instant::now() + self.options.patience;
        let mut last = String::from("there is no answer");
        let mut pause = RETRY;
        loop {
            let answer = self.with_patience(patient_until, &last, timeout(TRY, call())).await;
            match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if error.name != ErrorName::Internal => return Err(error),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = String::from("there is no answer"),
            }
            tracing::debug!(channel = %self.channel, last, "{what} is repeated");
            self.with_patience(patient_until, &last, tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    /// Waits for something, and ends the meter once its patience is over.
    async fn with_patience<T>(
        &self,
        until: Instant,
        last: &str,
        step: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(step);
        tokio::select! {
            biased;
            outcome = &mut step => return outcome,
            () = sleep_until(until) => {
                if self.ended.borrow().is_none() {
                    let after = self.options.patience;
                    tracing::error!(
                        channel = %self.channel, last, ?after,
                        "usage is not acknowledged; the channel is served no longer"
                    );
                }
                self.end(Ended::Unacknowledged(last.to_owned()));
            }
        }
        step.await
    }
}

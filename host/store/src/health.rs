//! Whether the database does its work, as measured: failed writes, and a write made to find out.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Fault, StoreError};
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::foreign::AnyCode;

/// What is the matter with a database that does not work, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// The kind of fault, in one word.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub fault: AnyCode<Fault>,
    /// The last failure.
    pub text: String,
    /// Since when no write has succeeded after a failure, Unix time.
    pub since: UnixSeconds,
    /// Writes that failed in a row.
    pub failures: u64,
    /// When a write was on disk last, Unix time; absent where none was since the host started.
    pub last_success: Option<UnixSeconds>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the host's database cannot be written: {}", self.text)
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Health {
    inner: Mutex<Inner>,
    failed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    trouble: Option<Trouble>,
    last_success: Option<UnixSeconds>,
    /// Failures since the host started.
    failures: u64,
    /// Connections that were opened before are not used on.
    spoilt_at: Option<Instant>,
}

impl Health {
    pub(super) fn failure(&self, error: &StoreError) {
        let text = privatix_plugin_api::chain(error);
        self.note(error.fault(), text);
    }

    /// SQLite itself has ended a transaction, which it does when it cannot write.
    pub(super) fn broken_off(&self) {
        self.note(Fault::Io, "the database broke off a transaction".into());
    }

    fn note(&self, fault: Fault, text: String) {
        let now = clock::unix_now();
        let mut inner = self.lock();
        inner.failures += 1;
        if !fault.spares_connection() {
            inner.spoilt_at = Some(Instant::now());
        }
        let last_success = inner.last_success;
        let (fault, fresh) = (AnyCode::Known(fault), inner.trouble.is_none());
        let trouble = inner.trouble.get_or_insert_with(|| Trouble {
            fault: fault.clone(),
            text: String::new(),
            since: now,
            failures: 0,
            last_success,
        });
        trouble.failures += 1;
        (trouble.fault, trouble.text) = (fault, text);
        drop(inner);
        if fresh {
            self.failed.notify_one();
        }
    }

    pub(super) fn success(&self) {
        let mut inner = self.lock();
        inner.trouble = None;
        inner.last_success = Some(clock::unix_now());
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.lock().trouble.clone()
    }

    pub(super) fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// Returns when a write has failed after all was well.
    pub(super) async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Whether a connection of this age was opened after the last failure.
    pub(super) fn trusts(&self, age: Duration) -> bool {
        self.lock().spoilt_at.is_none_or(|spoilt| spoilt.elapsed() > age)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

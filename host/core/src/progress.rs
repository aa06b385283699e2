//! What keeps an order or a channel of a client waiting, for a person who looks. It follows from the
//! last attempt to reach the agent, so it is not in the database: after a restart there is soon
//! another one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{ClientApi, Part, Service};
use privatix_base::clock::{self, UnixSeconds};

/// What was the matter at the last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Obstacle {
    /// The agent was not reached.
    Unreached,
    /// The agent answered, but with nothing to go on with.
    NotNow,
    /// The agent's operator has still to decide.
    Deciding,
}

/// The last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What was the matter.
    pub obstacle: Obstacle,
    /// In words.
    pub text: String,
    /// When, Unix time.
    pub at: UnixSeconds,
}

/// By an order's hash or a channel's id; only of what waits.
#[derive(Default)]
pub(super) struct Notes(Mutex<HashMap<String, Progress>>);

impl Notes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientApi {
    /// Notes what keeps an order, by its hash, or a channel, by its id.
    pub fn progress_note(&self, of: &str, obstacle: Obstacle, text: String) {
        let progress = Progress { obstacle, text, at: clock::unix_now() };
        self.own.progress.lock().insert(of.to_owned(), progress);
    }

    /// Nothing keeps it any more.
    pub fn progress_clear(&self, of: &str) {
        self.own.progress.lock().remove(of);
    }
}

impl Service {
    /// What keeps an order or a channel; nothing keeps those of an agent.
    pub(crate) fn progress_of(&self, of: &str) -> Option<Progress> {
        match &self.inner.part {
            Part::Agent(_) => None,
            Part::Client(own) => own.progress.lock().get(of).cloned(),
        }
    }
}

//! What the host knows of each module, for the operator and for the other modules.
//!
//! Supervisors write, everybody else reads. Nothing is decided here but who has a product id.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use super::problem::Problem;
use privatix_base::clock::{self, UnixSeconds};
use privatix_store::Trouble;

/// Where a module is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Something has not arrived.
    Incomplete,
    /// It is all there and cannot be used.
    Refused,
    /// Being created.
    Starting,
    /// Serves.
    Running,
    /// It was started and broke.
    Failed,
    /// Ending.
    Stopping,
    /// Its library is gone.
    Removed,
}

impl State {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Refused => "refused",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
            Self::Removed => "removed",
        }
    }
}

/// A module as the operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ModuleView {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Since when, Unix time.
    pub since: UnixSeconds,
    /// Why it is not running.
    pub problem: Option<Problem>,
    /// What is known of the version that runs, or ran last.
    pub version: Option<VersionView>,
    /// `healthy`, or what the host has measured and what the module says, each attributed. Nothing
    /// where it was not asked yet, or is too old to know the question and nothing was measured.
    pub health: Option<String>,
    /// What is the matter with the host's database, without which no module is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Trouble>,
    /// Of a standalone module that runs: whether its program is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionView>,
    /// What has arrived while another version runs, and does not run itself.
    pub candidate: Option<Candidate>,
    /// How many times one of its libraries was created in this process.
    pub generations: u64,
    /// Libraries of it that are mapped into this process, and stay so until it ends.
    pub mapped: usize,
    /// Threads that its generations left running.
    pub abandoned_threads: usize,
}

/// Whether the program of a standalone module has subscribed to its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConnectionView {
    /// Whether it has.
    pub connected: bool,
    /// Since when it is so, Unix time.
    pub since: UnixSeconds,
}

/// A version of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct VersionView {
    /// The author's version.
    pub version: String,
    /// SHA-256 of the library; of a standalone module, of the file of its manifest.
    pub library: String,
    /// Whether it is a program elsewhere, not a library.
    #[serde(default)]
    pub standalone: bool,
    /// The product.
    pub product_id: Uuid,
    /// The Service API version spoken.
    pub api_version: u32,
    /// Whether any altered byte of the library would be noticed.
    pub sealed: bool,
}

/// A new version beside a running one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Candidate {
    /// Its state.
    pub state: State,
    /// Since when, Unix time.
    pub since: UnixSeconds,
    /// What is the matter with it.
    pub problem: Option<Problem>,
    /// What is known of it.
    pub version: Option<VersionView>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Inner>,
    freed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    modules: BTreeMap<String, ModuleView>,
    products: HashMap<Uuid, String>,
    unreported: u64,
}

impl Registry {
    /// Notes usage that a module could not report before it ended.
    pub fn add_unreported(&self, amount: u64) {
        let mut inner = self.lock();
        inner.unreported = inner.unreported.saturating_add(amount);
    }

    /// How much usage, in smallest units, modules of this run could not report before they ended.
    pub fn unreported(&self) -> u64 {
        self.lock().unreported
    }

    /// All modules, by name.
    pub fn list(&self) -> Vec<ModuleView> {
        self.lock().modules.values().cloned().collect()
    }

    /// One module.
    pub fn get(&self, name: &str) -> Option<ModuleView> {
        self.lock().modules.get(name).cloned()
    }

    /// Changes a module's view, making it if it is new.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut ModuleView)) {
        let mut inner = self.lock();
        change(inner.modules.entry(name.to_owned()).or_insert_with(|| ModuleView {
            name: name.to_owned(),
            state: State::Incomplete,
            since: clock::unix_now(),
            problem: None,
            version: None,
            health: None,
            database: None,
            connection: None,
            candidate: None,
            generations: 0,
            mapped: 0,
            abandoned_threads: 0,
        }));
    }

    /// Forgets a module that never ran and of which nothing is left.
    pub fn forget(&self, name: &str) {
        self.lock().modules.remove(name);
    }

    /// Takes a product id for a module.
    ///
    /// # Errors
    /// The name of the module that has it.
    pub fn claim(&self, product: Uuid, name: &str) -> Result<(), String> {
        let mut inner = self.lock();
        let holder = inner.products.entry(product).or_insert_with(|| name.to_owned());
        if holder == name { Ok(()) } else { Err(holder.clone()) }
    }

    /// Gives a product id back, if the module has it, and lets others try again.
    pub fn release(&self, product: Uuid, name: &str) {
        let mut inner = self.lock();
        if inner.products.get(&product).is_some_and(|holder| holder == name) {
            inner.products.remove(&product);
            drop(inner);
            self.nudge();
        }
    }

    /// Has every module looked at that waits for something that its files do not show.
    pub fn nudge(&self) {
        self.freed.send_modify(|count| *count += 1);
    }

    /// Changes whenever a product id is given back, or the operator has said something of a module.
    pub fn freed(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while a view was changed leaves at worst an old word in it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModuleView {
    /// Enters a state, with the reason for it.
    pub fn enter(&mut self, state: State, problem: Option<Problem>) {
        if self.state != state || self.problem != problem {
            self.since = clock::unix_now();
        }
        self.state = state;
        self.problem = problem;
    }

    /// Notes what is the matter with a new version, keeping since when it has been so.
    pub fn note_candidate(
        &mut self,
        state: State,
        problem: Option<Problem>,
        version: Option<VersionView>,
    ) {
        let fresh = Candidate { state, since: clock::unix_now(), problem, version };
        let same = self.candidate.as_ref().is_some_and(|old| {
            (old.state, &old.problem, &old.version) == (fresh.state, &fresh.problem, &fresh.version)
        });
        if !same {
            self.candidate = Some(fresh);
        }
    }
}

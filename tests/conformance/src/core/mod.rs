//! Cores to run a module against: the host's own Service API and delivery, on a database in the
//! case's directory, without a network.
//!
//! A [`Party`] is one side with its module; a [`Pair`] is an agent and a client that trade with each
//! other; a [`Script`] stands between a module and its core, keeps what was said, and breaks in
//! where a case wants it.

mod pair;
mod party;
mod program;
mod script;

use std::path::{Path, PathBuf};
use std::time::Duration;

use privatix_host::modules::copy::Quiet;
use privatix_host::modules::examine::{Checked, Terms, examine};
use privatix_host::modules::manifest_file;
use privatix_host::modules::package::{PackageFiles, scan};
use privatix_host::modules::problem::Problem;
use privatix_plugin_api::manifest::{Manifest, Role};
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub use self::pair::Pair;
pub(crate) use self::pair::draft;
pub use self::party::Party;
pub use self::script::{Act, Call, Script, Seen};
use crate::case::{Finding, failed};
use crate::subject::Subject;

/// How long is waited for what has to come; far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What a case is given: the module, and room to work in.
#[derive(Debug, Clone)]
pub struct Bench {
    pub(crate) subject: Subject,
    directory: PathBuf,
}

impl Bench {
    pub(crate) fn new(subject: Subject, directory: &Path) -> Self {
        Self { subject, directory: directory.to_owned() }
    }

    /// The module's name.
    pub fn name(&self) -> &str {
        &self.subject.name
    }

    /// A directory of the case's own, which is removed after it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the order of chance begins with.
    pub fn seed(&self) -> u64 {
        self.subject.seed
    }

    /// What the module is configured with.
    pub fn settings(&self, role: Role) -> Value {
        let settings = &self.subject.settings;
        Value::Object(match role {
            Role::Agent => settings.agent.clone(),
            Role::Client => settings.client.clone(),
        })
    }

    /// The module's files, as the host sees them.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn files(&self) -> Result<PackageFiles, Finding> {
        let mut packages = scan(&self.subject.plugins)?;
        packages.remove(self.name()).ok_or_else(|| failed("the package is gone"))
    }

    /// The library.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn library(&self) -> Result<Vec<u8>, Finding> {
        Ok(std::fs::read(self.subject.plugins.join(format!("lib{}.so", self.name())))?)
    }

    /// What the library says of itself.
    ///
    /// # Errors
    /// What the host refuses in it.
    pub fn manifest(&self) -> Result<Manifest, Finding> {
        if self.subject.program.is_some() {
            let file = format!("{}.module.json", self.name());
            let bytes = std::fs::read(self.subject.plugins.join(&file))?;
            return Ok(manifest_file::manifest(&file, &bytes)?);
        }
        Ok(privatix_host::modules::inspect::inspect(&self.library()?)?)
    }

    /// The host's verdict on the package for one side.
    ///
    /// # Errors
    /// The refusal.
    pub fn examine(&self, role: Role) -> Result<Result<Checked, Problem>, Finding> {
        let cache = self.directory.join("cache");
        std::fs::create_dir_all(&cache)?;
        let terms = Terms { role, cache, settings: self.settings(role), standalone: true };
        Ok(examine(self.name(), &self.files()?, &terms, &mut Quiet::default()))
    }

    /// The package, which has been found good.
    ///
    /// # Errors
    /// The refusal.
    pub fn checked(&self, role: Role) -> Result<Checked, Finding> {
        Ok(self.examine(role)??)
    }

    /// The private copy of the library, which has been found good.
    ///
    /// # Errors
    /// The refusal; a skip for a module that has none.
    pub fn loadable(&self, role: Role) -> Result<PathBuf, Finding> {
        let checked = self.checked(role)?;
        let library = checked.library().map(Path::to_owned);
        library.ok_or_else(|| Finding::Skipped("a standalone module has no library".into()))
    }

    /// The roles that the module takes, the agent first.
    ///
    /// # Errors
    /// As [`Bench::manifest`].
    pub fn roles(&self) -> Result<Vec<Role>, Finding> {
        let mut roles = self.manifest()?.roles;
        roles.sort();
        roles.dedup();
        Ok(roles)
    }

    /// Skips a case that says nothing of a module without this role.
    ///
    /// # Errors
    /// The skip.
    pub fn needs(&self, role: Role) -> Result<(), Finding> {
        if self.manifest()?.roles.contains(&role) {
            return Ok(());
        }
        Err(Finding::Skipped(format!("the module has no {role}'s side")))
    }
}

/// Asks until there is an answer.
///
/// # Errors
/// A failure that says what was waited for; that of asking.
pub async fn wait_for<T, F>(what: &str, ask: impl FnMut() -> F) -> Result<T, Finding>
where
    F: Future<Output = Result<Option<T>, Finding>>,
{
    wait_long(what, PATIENCE, ask).await
}

/// The same for what may take longer, or has to be there sooner.
///
/// # Errors
/// As [`wait_for`].
pub async fn wait_long<T, F>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> F,
) -> Result<T, Finding>
where
    F: Future<Output = Result<Option<T>, Finding>>,
{
    let until = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() >= until {
            return Err(failed(format!("waited {patience:?} for {what}")));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

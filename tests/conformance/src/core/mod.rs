//! Cores to run a module against: the host's own Service API and delivery, on a database in the
//! case's directory, without a network.
//!
//! A [`Party`] is one side with its module; a [`Pair`] is an agent and a client that trade with each
//! other; a [`Script`] stands between a module and its core, keeps what was said, and breaks in
//! where a case wants it.

mod pair;
mod party;
pub(crate) mod program;
mod script;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use privatix_modules::copy::Quiet;
use privatix_modules::examine::{Checked, Terms, examine};
use privatix_modules::generation::{CommandError, Generation};
use privatix_modules::inspect::inspect;
use privatix_modules::manifest_file;
use privatix_modules::package::{PackageFiles, scan};
use privatix_modules::problem::Problem;
use privatix_plugin_api::FaultKind;
use privatix_plugin_api::manifest::{Manifest, Role};
use privatix_plugin_api::message::Health;
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub use self::pair::Pair;
pub(crate) use self::pair::{AMOUNTS, USUAL_AMOUNT, draft};
pub use self::party::Party;
pub use self::script::{Act, Call, Script, Seen};
use crate::case::{Finding, failed};
use crate::subject::Subject;

/// How often is looked whether it has come.
const LOOK: Duration = Duration::from_millis(10);

/// How long is waited for what has to come; far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What a case is given: the module, and room to work in.
#[derive(Debug, Clone)]
pub struct Bench {
    pub(crate) subject: Subject,
    directory: PathBuf,
    known: Arc<Mutex<Known>>,
}

/// What has been read of the package, which is the kit's own copy and does not change: reading and
/// hashing a library takes longer than most of what is done with it.
#[derive(Debug, Default)]
struct Known {
    manifest: Option<Result<Manifest, Problem>>,
    verdicts: Vec<(Role, Result<Arc<Checked>, Problem>)>,
}

impl Bench {
    pub(crate) fn new(subject: Subject, directory: &Path) -> Self {
        Self { subject, directory: directory.to_owned(), known: Arc::default() }
    }

    /// The same for a part of the case, in a directory below.
    pub(crate) fn below(&self, name: &str) -> Self {
        Self { directory: self.directory.join(name), ..self.clone() }
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
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.manifest.is_none() {
            known.manifest = Some(self.read_manifest()?);
        }
        match &known.manifest {
            Some(Ok(manifest)) => Ok(manifest.clone()),
            Some(Err(problem)) => Err(problem.clone().into()),
            None => Err(failed("the manifest was not read")),
        }
    }

    fn read_manifest(&self) -> Result<Result<Manifest, Problem>, Finding> {
        if self.subject.program.is_none() {
            return Ok(inspect(&self.library()?));
        }
        let file = format!("{}.module.json", self.name());
        let bytes = std::fs::read(self.subject.plugins.join(&file))?;
        Ok(manifest_file::manifest(&file, &bytes))
    }

    /// The host's verdict on the package for one side.
    ///
    /// # Errors
    /// A directory that cannot be read or made.
    pub fn examine(&self, role: Role) -> Result<Result<Arc<Checked>, Problem>, Finding> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, verdict)) = known.verdicts.iter().find(|(of, _)| *of == role) {
            return Ok(verdict.clone());
        }
        // One for all cases, and filled before code of the module runs: a library is large.
        let cache = self.subject.plugins.with_file_name("cache");
        std::fs::create_dir_all(&cache)?;
        let terms = Terms { role, cache, settings: self.settings(role), standalone: true };
        let verdict = examine(self.name(), &self.files()?, &terms, &mut Quiet::default());
        let verdict = verdict.map(Arc::new);
        known.verdicts.push((role, verdict.clone()));
        Ok(verdict)
    }

    /// The package, which has been found good.
    ///
    /// # Errors
    /// The refusal.
    pub fn checked(&self, role: Role) -> Result<Arc<Checked>, Finding> {
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

/// How a module says it is, which those that are older than the question do not know.
///
/// # Errors
/// Any other fault, and no answer in time.
pub async fn health(module: &Generation) -> Result<Option<Health>, CommandError> {
    match module.health().await {
        Ok(health) => Ok(Some(health)),
        Err(error) if is_unsupported(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_unsupported(error: &CommandError) -> bool {
    matches!(error, CommandError::Fault(fault) if fault.kind == FaultKind::Unsupported)
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
        if let Some(death) = program::death() {
            return Err(failed(format!("{death}, while the kit waited for {what}")));
        }
        if Instant::now() >= until {
            return Err(failed(format!("waited {patience:?} for {what}")));
        }
        sleep(LOOK).await;
    }
}

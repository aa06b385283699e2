//! Bringing a checked package up and taking a generation down: the steps, without the decisions.
//!
//! The order is: proved in another process → registered → created → configured → every live
//! channel started. A package is up only when all of it went well.

use std::collections::HashSet;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, LogLevel, SessionId, Started, StopReason};
use privatix_plugin_api::{Fault, FaultKind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::door::{self, Doors};
use super::examine::Checked;
use super::gateway::Gateway;
use super::generation::{CommandError, CreateError, Generation};
use super::line::Line;
use super::probe::Prober;
use super::problem::{Code, Problem};
use super::registry::{Registry, State};
use super::router::Router;
use super::trial::Trials;
use privatix_base::config::ModuleTimeouts;
use privatix_core::{Answer, Caller, Outbox, Registration, Upkeep};

/// Starts sent to a module at once when it comes up.
const STARTS_AT_ONCE: usize = 64;

/// What all modules of a host share.
pub struct Context {
    /// This host's side.
    pub role: Role,
    /// Deadlines of commands.
    pub timeouts: ModuleTimeouts,
    /// How long a library may be gone before it counts as removed.
    pub removal_grace: Duration,
    /// How often modules are asked how they are.
    pub health_interval: Duration,
    /// Where modules have their data directories.
    pub data_dir: PathBuf,
    /// Where private copies go.
    pub cache_dir: PathBuf,
    /// Settings by module name.
    pub settings: std::collections::BTreeMap<String, serde_json::Value>,
    /// Whether standalone modules can come here.
    pub standalone: bool,
    /// Events less important than this need not be sent by modules.
    pub log_level: LogLevel,
    /// Loads libraries elsewhere first.
    pub prober: Prober,
    /// What modules have still to be told.
    pub outbox: Outbox,
    /// Where products are registered, and how libraries fare.
    pub upkeep: Upkeep,
    /// What is known of the modules.
    pub registry: Arc<Registry>,
    /// Who serves which product.
    pub router: Arc<Router>,
    /// By which the calls of modules come.
    pub doors: Arc<Doors>,
    /// Whose turn it is to come up.
    pub(super) trials: Trials,
}

/// What the program of a standalone module is told about itself.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Card<'c> {
    name: &'c str,
    role: Role,
    product: Uuid,
    api_version: u32,
    host_version: &'c str,
    config: &'c serde_json::Value,
}

/// A generation that serves, and what it was made from.
pub struct Running {
    /// The package.
    pub checked: Arc<Checked>,
    /// The object.
    pub generation: Arc<Generation>,
}

/// Why a package did not come up.
#[derive(Debug, Clone, PartialEq)]
pub struct NotUp {
    /// For the operator.
    pub problem: Problem,
    /// `Refused` before any of its code ran, `Failed` after.
    pub state: State,
    /// Whether another try may help: it said no, rather than broke.
    pub retry: bool,
}

impl NotUp {
    fn refused(problem: Problem) -> Self {
        // That no process could be started says nothing about the package; that it took long may
        // be the machine's doing.
        let host = problem.is(Code::HostFailed);
        let state = if host { State::Failed } else { State::Refused };
        let retry = problem.retry();
        Self { problem, state, retry }
    }

    fn host(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let problem = Problem::new(
            Code::HostFailed,
            format!("{what}: {}", privatix_plugin_api::chain(error)),
            "a host in working order",
            "see the host's log; it tries again by itself",
        );
        Self { problem, state: State::Failed, retry: true }
    }

    fn command(step: Step, error: &CommandError) -> Self {
        // An answer that cannot be read has the code of a failure, but the module broke.
        let problem = step.problem(error);
        let retry = problem.retry() && (!error.is_breakdown() || matches!(step, Step::Start));
        Self { problem, state: State::Failed, retry }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Configure,
    Start,
}

impl Step {
    fn problem(self, error: &CommandError) -> Problem {
        let (word, failed, panicked, late) = match self {
            Self::Create => {
                ("create", Code::CreateFailed, Code::CreatePanicked, Code::CreateTimedOut)
            }
            Self::Configure => (
                "configure",
                Code::ConfigureFailed,
                Code::ConfigurePanicked,
                Code::ConfigureTimedOut,
            ),
            Self::Start => ("start", Code::StartFailed, Code::StartPanicked, Code::StartTimedOut),
        };
        let code = match error {
            CommandError::Fault(Fault { kind: FaultKind::Panicked, .. }) => panicked,
            CommandError::TimedOut(_) => late,
            _ => failed,
        };
        Problem::new(
            code,
            format!("{word}: {}", privatix_plugin_api::chain(error)),
            format!("a module whose {word} answers in time and without a fault"),
            "see the module's log lines and its settings; if it stays so, tell its author",
        )
    }
}

impl Context {
    /// Has a package's library loaded in another process, once for each content, unless it is set
    /// aside. A standalone module is in another process anyway.
    ///
    /// # Errors
    /// [`NotUp`].
    pub async fn prove(&self, checked: &Checked) -> Result<(), NotUp> {
        let Some(library) = checked.library() else { return Ok(()) };
        let aside = self.upkeep.quarantined(&checked.content_hash).await;
        let aside = aside.map_err(|error| NotUp::host("reading what is set aside", &error))?;
        if let Some(aside) = aside {
            return Err(NotUp::refused(quarantined(&checked.manifest.name, &aside.reason)));
        }
        self.prober.probe(library).await.map_err(NotUp::refused)
    }

    /// Brings a package up; it is not yet routed to. `served` are the channels that the version
    /// before it was serving: each of them has to start here too.
    ///
    /// # Errors
    /// [`NotUp`]; whatever was created is taken down again.
    pub async fn bring_up(
        &self,
        name: &str,
        checked: &Checked,
        served: &[ClientKey],
    ) -> Result<Arc<Generation>, NotUp> {
        self.prove(checked).await?;
        let product = checked.manifest.product_id;
        let Some(library) = checked.library() else {
            self.register(name, checked).await?;
            // Its program is told of what is there when it connects.
            return Ok(Arc::new(self.listen(name, checked)));
        };
        let earlier = self.outbox.open_sessions(product).await;
        let earlier = earlier.map_err(|error| NotUp::host("reading the open sessions", &error))?;
        let record = self.upkeep.library_record(&checked.content_hash).await;
        let record = record.map_err(|error| NotUp::host("reading the library's record", &error))?;
        let _turn = self.trials.turn(name, record.proven && record.deaths == 0).await;
        let outcome = self.try_out(name, checked, library, served, &earlier).await;
        let hash = &checked.content_hash;
        let settled = self.upkeep.library_settled(name, hash, outcome.is_ok()).await;
        if let Err(error) = settled {
            // The note that stays names it if the host dies, which is not the worst.
            tracing::error!(
                module = name,
                error = privatix_plugin_api::chain(&error),
                "a note was not removed"
            );
        }
        outcome
    }

    /// What may end the host: each step is noted before it is taken. The first note is in one
    /// transaction with the registration, and a start is noted where there is a channel to start.
    async fn try_out(
        &self,
        name: &str,
        checked: &Checked,
        library: &Path,
        served: &[ClientKey],
        earlier: &[SessionId],
    ) -> Result<Arc<Generation>, NotUp> {
        let registered = self
            .upkeep
            .library_registered(
                registration(name, checked),
                &checked.content_hash,
                "load and create",
            )
            .await;
        registered.map_err(|error| NotUp::host("registering the product", &error))?;
        let generation = Arc::new(self.create(name, checked, library).await?);
        let outcome = match self.configure(name, checked, &generation).await {
            Ok(()) => self.go_on(name, checked, &generation, served, earlier).await,
            Err(not_up) => Err(not_up),
        };
        if let Err(mut not_up) = outcome {
            // Whatever comes next, it is not the end: the one before is put back, or this tried again.
            hand_over(name, &generation).await;
            // What leaves threads behind each time is not tried for ever.
            not_up.retry &= self.retire(name, &generation).await;
            return Err(not_up);
        }
        Ok(generation)
    }

    async fn configure(
        &self,
        name: &str,
        checked: &Checked,
        generation: &Generation,
    ) -> Result<(), NotUp> {
        self.note(name, checked, "configure").await?;
        let configured = generation.configure(checked.settings.clone()).await;
        configured.map_err(|error| NotUp::command(Step::Configure, &error))
    }

    async fn note(&self, name: &str, checked: &Checked, step: &str) -> Result<(), NotUp> {
        let noted = self.upkeep.library_step(name, &checked.content_hash, step).await;
        noted.map_err(|error| NotUp::host("noting what the library is told", &error))
    }

    /// Takes a generation down: no more commands, last usage reported, gate closed.
    pub async fn take_down(&self, name: &str, running: Running) {
        self.router.close(running.checked.manifest.product_id);
        self.retire(name, &running.generation).await;
    }

    /// As [`Context::take_down`], for another generation to take over.
    pub async fn make_way(&self, name: &str, running: Running) {
        hand_over(name, &running.generation).await;
        self.take_down(name, running).await;
    }

    /// Returns whether nothing was left behind.
    async fn retire(&self, name: &str, generation: &Generation) -> bool {
        let retired = generation.retire().await;
        if retired.problem.is_some() || retired.threads > 0 {
            tracing::warn!(
                module = name,
                problem = retired.problem,
                abandoned_threads = retired.threads,
                "the module did not shut down cleanly"
            );
        }
        for lost in &retired.unreported {
            tracing::error!(
                module = name,
                channel = %lost.client_key,
                amount = lost.amount,
                "usage was not saved: the module could not report it before it ended"
            );
        }
        self.registry.add_unreported(retired.unreported.iter().map(|lost| lost.amount).sum());
        self.registry.update(name, |view| view.abandoned_threads += retired.threads);
        retired.problem.is_none() && retired.threads == 0
    }

    /// Notes the product with its templates in the database.
    ///
    /// # Errors
    /// [`NotUp`], if the database fails.
    pub async fn register(&self, name: &str, checked: &Checked) -> Result<(), NotUp> {
        let registered = self.upkeep.register(registration(name, checked)).await;
        registered.map_err(|error| NotUp::host("registering the product", &error))
    }

    /// A generation that waits for its program.
    fn listen(&self, name: &str, checked: &Checked) -> Generation {
        let product = checked.manifest.product_id;
        let card = Card {
            name,
            role: self.role,
            product,
            api_version: checked.api_version,
            host_version: env!("CARGO_PKG_VERSION"),
            config: &checked.settings,
        };
        let caller = Caller { product, name: name.into() };
        let door = self.doors.open(caller, door::OF_PROGRAM);
        let line = Line::new(door, &card, Arc::clone(&self.registry));
        Generation::standalone(Arc::new(line), &self.timeouts)
    }

    async fn create(
        &self,
        name: &str,
        checked: &Checked,
        library: &Path,
    ) -> Result<Generation, NotUp> {
        let data_dir = private_dir(&self.data_dir, name)
            .map_err(|error| NotUp::host("making the module's data directory", &error))?;
        let host = checked.host_info(name, self.role, data_dir, self.log_level);
        let caller = Caller { product: checked.manifest.product_id, name: name.into() };
        let door = self.doors.open(caller, door::OF_LIBRARY);
        let (core, gate) = (Gateway::object(Arc::clone(&door)), door.gate());
        self.registry.update(name, |view| view.generations += 1);
        Generation::create(library.to_owned(), core, &host, gate, &self.timeouts).await.map_err(
            |error| {
                match error {
                    CreateError::Load(problem) => NotUp::refused(problem),
                    CreateError::Thread(error) => {
                        NotUp::host("starting a thread to load on", &error)
                    }
                    CreateError::Command(error) => {
                        if matches!(error, CommandError::TimedOut(_)) {
                            // The thread that create never gave back.
                            self.registry.update(name, |view| view.abandoned_threads += 1);
                        }
                        NotUp::command(Step::Create, &error)
                    }
                }
            },
        )
    }

    /// Tells a new generation of each live channel. A channel that cannot be started is that
    /// channel's fault, unless the version before was serving it, or the module breaks on all.
    async fn start_live(
        &self,
        name: &str,
        live: &[ClientKey],
        generation: &Arc<Generation>,
        served: &[ClientKey],
    ) -> Result<(), NotUp> {
        let total = live.len();
        let served: HashSet<_> = served.iter().copied().collect();
        let turns = Arc::new(Semaphore::new(STARTS_AT_ONCE));
        let mut starts = JoinSet::new();
        for &channel in live {
            let (generation, turns) = (Arc::clone(generation), Arc::clone(&turns));
            starts.spawn(async move {
                let _turn = turns.acquire_owned().await;
                (channel, generation.start(channel).await)
            });
        }
        let (mut broke, mut last) = (0, None);
        let mut answers = Vec::with_capacity(total);
        while let Some(started) = starts.join_next().await {
            let Ok((channel, started)) = started else { continue };
            let error = match started {
                Ok(Started::Ready) => {
                    answers.push((channel, Answer::Ready));
                    continue;
                }
                Ok(Started::Later) => continue,
                Err(error) => error,
            };
            tracing::warn!(module = name, %channel, error = privatix_plugin_api::chain(&error), "start failed");
            if served.contains(&channel) {
                return Err(NotUp::command(Step::Start, &error));
            }
            broke += usize::from(error.is_breakdown());
            answers.push((channel, Answer::Failed(error.told())));
            last = Some(error);
        }
        for (channel, answer) in answers {
            let saved = self.outbox.replayed(channel, answer).await;
            saved.map_err(|error| NotUp::host("saving an answer to start", &error))?;
        }
        // Nobody serves the channels, and they show why.
        match last.filter(|_| broke == total) {
            Some(error) => Err(NotUp::command(Step::Start, &error)),
            None => Ok(()),
        }
    }

    /// Takes over from whatever served before: channels are started, those that may not be used any
    /// more by then are stopped, and sessions that nobody goes on with are closed.
    async fn go_on(
        &self,
        name: &str,
        checked: &Checked,
        generation: &Arc<Generation>,
        served: &[ClientKey],
        earlier: &[SessionId],
    ) -> Result<(), NotUp> {
        let product = checked.manifest.product_id;
        let told = self.outbox.served_channels(product).await;
        let told = told.map_err(|error| NotUp::host("reading the live channels", &error))?;
        if !told.is_empty() {
            self.note(name, checked, "start").await?;
        }
        self.start_live(name, &told, generation, served).await?;
        let wanted = self.outbox.served_channels(product).await;
        let wanted = wanted.map_err(|error| NotUp::host("reading the live channels", &error))?;
        for channel in told.into_iter().filter(|channel| !wanted.contains(channel)) {
            if let Err(error) = generation.stop(channel, StopReason::Suspended).await {
                tracing::warn!(module = name, %channel, error = privatix_plugin_api::chain(&error), "stop failed");
            }
        }
        self.close_unserved(name, product, generation, earlier).await
    }

    /// Sessions of an earlier generation that the new one does not go on with end at their last
    /// reported usage.
    async fn close_unserved(
        &self,
        name: &str,
        product: Uuid,
        generation: &Generation,
        earlier: &[SessionId],
    ) -> Result<(), NotUp> {
        let served = match generation.sessions().await {
            Ok(served) => served,
            Err(error) => {
                tracing::warn!(
                    module = name,
                    error = privatix_plugin_api::chain(&error),
                    "sessions unknown"
                );
                return Ok(());
            }
        };
        let closed = self.outbox.close_unserved(product, &served, earlier).await;
        closed.map_err(|error| NotUp::host("closing sessions that nobody serves", &error))
    }
}

fn registration<'r>(name: &'r str, checked: &'r Checked) -> Registration<'r> {
    let manifest = &checked.manifest;
    Registration {
        product: manifest.product_id,
        name,
        version: &manifest.version,
        usage_reporting: manifest.usage_reporting,
        access: &checked.access,
        offering: checked.offering.as_ref(),
    }
}

/// The problem of a library that is set aside.
pub(super) fn quarantined(name: &str, reason: &str) -> Problem {
    Problem::new(
        Code::Quarantined,
        reason,
        "a library with which the host lives",
        format!(
            "replace the library by another build; or correct [modules.{name}] and have this one tried \
             again: privatix module release {name}"
        ),
    )
}

/// One that cannot be told is taken down all the same.
async fn hand_over(name: &str, generation: &Generation) {
    if let Err(error) = generation.hand_over().await {
        tracing::warn!(
            module = name,
            error = privatix_plugin_api::chain(&error),
            "handing over failed"
        );
    }
}

/// A directory that is the host's user's alone, made if it is not there.
///
/// # Errors
/// A directory that cannot be made, or belongs to somebody else.
pub fn private_dir(parent: &Path, name: &str) -> std::io::Result<PathBuf> {
    let path = parent.join(name);
    DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o700))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_own_failure_to_load_is_tried_again() {
        for (code, state, retry) in [
            (Code::HostFailed, State::Failed, true),
            (Code::LoadFailed, State::Refused, false),
            (Code::LoadCrashed, State::Refused, false),
        ] {
            let not_up = NotUp::refused(Problem::new(code, "", "", ""));
            assert_eq!((not_up.state, not_up.retry), (state, retry), "{code}");
        }
    }
}

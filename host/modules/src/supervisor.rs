//! One module's life: looks at its files whenever they change and decides what is to be done.
//!
//! Each module has a supervisor of its own, so that one that hangs keeps no other waiting. What
//! runs goes on until something better is proven: a new version is examined and loaded elsewhere
//! before the old one is stopped, and if it does not come up the old one is started again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::copy::Quiet;
use super::examine::{self, Checked, Form, Terms};
use super::lifecycle::{Context, NotUp, Running};
use super::package::PackageFiles;
use super::problem::{Code, Problem};
use super::record;
use super::registry::{State, VersionView};
use privatix_domain::back_off::back_off;
use privatix_store::StoreError;

/// How soon a file that is being written is looked at again.
const WRITER_POLL: Duration = Duration::from_millis(50);

/// How soon a package is looked at again that the host could not do its part for.
const HOST_POLL: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub(super) struct Supervisor {
    name: String,
    context: Arc<Context>,
    files: watch::Receiver<PackageFiles>,
    running: Option<Running>,
    /// The files that were judged last; nothing is done again while they stay as they are.
    examined: Option<PackageFiles>,
    absent_since: Option<Instant>,
    quiet: Quiet,
    retry: Option<Retry>,
    /// Something is in its way that the files do not show: another module that has the product id, or
    /// the operator.
    waits: bool,
    /// Whether what the operator says has to be asked for.
    asks: bool,
    mapped: HashSet<String>,
    /// Channels of the product that had to be stopped by force before this generation.
    forced_before: u64,
    /// Usage reports of the product that went backwards before this generation.
    backwards_before: u64,
}

/// A package that said no and is asked again, with back-off.
struct Retry {
    at: Instant,
    attempts: u32,
    checked: Arc<Checked>,
}

impl Supervisor {
    /// A supervisor for the module of this name.
    pub(super) fn new(
        name: String,
        context: Arc<Context>,
        files: watch::Receiver<PackageFiles>,
    ) -> Self {
        Self {
            name,
            context,
            files,
            running: None,
            examined: None,
            absent_since: None,
            quiet: Quiet::default(),
            retry: None,
            waits: false,
            asks: true,
            mapped: HashSet::new(),
            forced_before: 0,
            backwards_before: 0,
        }
    }

    /// Runs until shutdown, then takes the module down.
    pub(super) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut freed = self.context.registry.freed();
        let mut health = tokio::time::interval(self.context.health_interval);
        health.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wake = self.step().await;
            self.context.trials.seen(&self.name);
            tokio::select! {
                changed = self.files.changed() => if changed.is_err() { break },
                _ = freed.changed() => self.asks = true,
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)),
                    if wake.is_some() => {}
                _ = health.tick(), if self.running.is_some() => self.ask_health().await,
                () = super::going_down(&mut shutdown) => break,
            }
        }
        self.end(State::Stopping).await;
    }

    /// Does what is to be done now; returns when to look again, if not before.
    async fn step(&mut self) -> Option<Instant> {
        let files = self.files.borrow_and_update().clone();
        if !files.is_module() {
            return self.absent(&files).await;
        }
        self.absent_since = None;
        if std::mem::take(&mut self.asks) {
            match self.is_free().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.asks = true;
                    self.note(State::Failed, host_failed(&error));
                    return Some(Instant::now() + HOST_POLL);
                }
            }
        }
        if self.waits_and_is_switched_off() {
            return None;
        }
        if self.examined.as_ref() != Some(&files) {
            self.retry = None;
            return self.look(files).await;
        }
        match &self.retry {
            Some(retry) if retry.at <= Instant::now() => self.try_again().await,
            _ => {}
        }
        self.retry.as_ref().map(|retry| retry.at)
    }

    /// Whether nothing but its files decides on the module. What runs and may not is taken down.
    async fn is_free(&mut self) -> Result<bool, StoreError> {
        let product = self.running.as_ref().map(|running| running.checked.manifest.product_id);
        let standing = self.context.service.standing(&self.name, product).await?;
        if standing.disabled {
            self.put_aside(disabled(&self.name)).await;
            self.examined = None;
            return Ok(false);
        }
        let owner = standing.owner.filter(|owner| *owner != self.name);
        if let (Some(owner), Some(running)) = (owner, &self.running) {
            let checked = &running.checked;
            let product = checked.manifest.product_id;
            let problem = duplicate(product, &checked.form, &owner, &self.name);
            self.put_aside(problem).await;
            return Ok(false);
        }
        if std::mem::take(&mut self.waits) {
            self.examined = None;
        }
        Ok(true)
    }

    /// Takes down what runs, and shows why nothing does.
    async fn put_aside(&mut self, problem: Problem) {
        self.end(State::Refused).await;
        (self.waits, self.retry) = (true, None);
        self.note(State::Refused, problem);
    }

    /// Nothing is looked at as long as the module is switched off.
    fn waits_and_is_switched_off(&self) -> bool {
        let view = self.waits.then(|| self.context.registry.get(&self.name)).flatten();
        let problem = view.and_then(|view| view.problem);
        problem.is_some_and(|problem| problem.code == Code::Disabled.to_string())
    }

    async fn look(&mut self, files: PackageFiles) -> Option<Instant> {
        match self.examine(files.clone()).await {
            Err(problem) if problem.code == Code::BeingWritten.to_string() => {
                self.note(State::Incomplete, problem);
                return Some(Instant::now() + WRITER_POLL);
            }
            // Not the package's fault: it may well stay as it is while the host recovers.
            Err(problem) if problem.code == Code::HostFailed.to_string() => {
                self.note(State::Failed, problem);
                return Some(Instant::now() + HOST_POLL);
            }
            Err(problem) => {
                self.examined = Some(files);
                let missing = problem.code == Code::TemplateMissing.to_string();
                self.note(if missing { State::Incomplete } else { State::Refused }, problem);
            }
            Ok(checked) => {
                self.examined = Some(files);
                self.accept(Arc::new(checked), 0).await;
            }
        }
        self.retry.as_ref().map(|retry| retry.at)
    }

    async fn examine(&mut self, files: PackageFiles) -> Result<Checked, Problem> {
        let (name, context) = (self.name.clone(), &self.context);
        let empty = || serde_json::Value::Object(serde_json::Map::new());
        let terms = Terms {
            role: context.role,
            cache: context.cache_dir.clone(),
            settings: context.settings.get(&name).cloned().unwrap_or_else(empty),
            standalone: context.standalone,
        };
        let mut quiet = std::mem::take(&mut self.quiet);
        let examined = tokio::task::spawn_blocking(move || {
            let verdict = examine::examine(&name, &files, &terms, &mut quiet);
            (verdict, quiet)
        });
        match examined.await {
            Ok((verdict, quiet)) => {
                self.quiet = quiet;
                verdict
            }
            Err(error) => Err(Problem::new(
                Code::HostFailed,
                format!("examining the package: {error}"),
                "a package that can be examined",
                "report this with the files of the package",
            )),
        }
    }

    /// Takes up a package that passed all checks, after so many tries in vain.
    async fn accept(&mut self, checked: Arc<Checked>, attempts: u32) {
        if self.running.as_ref().is_some_and(|running| running.checked.same_as(&checked)) {
            return self.complete(checked).await;
        }
        match self.claim(&checked).await {
            Err(error) => {
                self.note(State::Failed, host_failed(&error));
                self.retry = Some(Retry::after(attempts, checked));
                return;
            }
            Ok(Err(holder)) => {
                self.waits = true;
                let problem =
                    duplicate(checked.manifest.product_id, &checked.form, &holder, &self.name);
                return self.note(State::Refused, problem);
            }
            Ok(Ok(deaths)) if attempts == 0 && deaths > 1 => {
                // The others serve meanwhile.
                let retry = Retry::after(deaths - 1, Arc::clone(&checked));
                self.note(State::Failed, suspected(deaths));
                self.retry = Some(retry);
                self.context.registry.release(checked.manifest.product_id, &self.name);
                return;
            }
            Ok(Ok(_)) => {}
        }
        match self.running.take() {
            Some(old) => self.replace(old, checked, attempts).await,
            None => self.start(checked, attempts).await,
        }
    }

    /// Takes the product for the module, unless it belongs to another one: the first module that was
    /// registered with it has it, whether it is here or not, until the operator says otherwise. Returns
    /// how often in a row the host has died while this library came up.
    async fn claim(&self, checked: &Checked) -> Result<Result<u32, String>, StoreError> {
        let (context, product) = (&self.context, checked.manifest.product_id);
        let standing = context.service.standing(&self.name, Some(product)).await?;
        if let Some(owner) = standing.owner.filter(|owner| *owner != self.name) {
            return Ok(Err(owner));
        }
        if let Err(holder) = context.registry.claim(product, &self.name) {
            return Ok(Err(holder));
        }
        let record = context.service.library_record(&checked.content_hash).await?;
        Ok(Ok(record.deaths))
    }

    /// Takes the files of what runs already. A buyer's module is up without its offering template;
    /// one that arrives later is registered, and the module goes on.
    async fn complete(&mut self, checked: Arc<Checked>) {
        let Some(running) = &mut self.running else { return };
        if running.checked.offering.is_none() && checked.offering.is_some() {
            if let Err(not_up) = self.context.register(&self.name, &checked).await {
                // Looked at again when its health is asked for.
                self.examined = None;
                return self.note(not_up.state, not_up.problem);
            }
            running.checked = checked;
        }
        self.context.registry.update(&self.name, |view| view.candidate = None);
    }

    /// Starts a package where nothing runs.
    async fn start(&mut self, checked: Arc<Checked>, attempts: u32) {
        self.enter(State::Starting, None, &checked);
        match self.bring_up(&checked, &[]).await {
            Ok(running) => self.serve(running).await,
            Err(not_up) => {
                self.context.registry.release(checked.manifest.product_id, &self.name);
                self.waits = not_up.problem.code == Code::Quarantined.to_string();
                self.enter(not_up.state, Some(not_up.problem), &checked);
                self.retry = not_up.retry.then(|| Retry::after(attempts, checked));
            }
        }
    }

    async fn try_again(&mut self) {
        let Some(Retry { attempts, checked, .. }) = self.retry.take() else { return };
        self.accept(checked, attempts + 1).await;
    }

    /// Puts a new version in the place of a running one, or the old one back.
    async fn replace(&mut self, old: Running, new: Arc<Checked>, attempts: u32) {
        // What can be proven beforehand costs the running version nothing.
        if let Err(not_up) = self.context.prove(&new).await {
            self.give_back_unless_shared(&new, &old.checked);
            self.running = Some(old);
            self.waits = not_up.problem.code == Code::Quarantined.to_string();
            self.note_candidate(not_up.state, not_up.problem, &new);
            self.retry = not_up.retry.then(|| Retry::after(attempts, new));
            return;
        }
        let previous = Arc::clone(&old.checked);
        let served = old.generation.sessions().await.unwrap_or_default();
        self.enter(State::Stopping, None, &previous);
        self.context.make_way(&self.name, old).await;
        self.enter(State::Starting, None, &new);
        match self.bring_up(&new, &served).await {
            Ok(running) => {
                self.give_back_unless_shared(&previous, &new);
                self.serve(running).await;
            }
            Err(not_up) => self.roll_back(previous, &new, not_up).await,
        }
    }

    async fn roll_back(&mut self, previous: Arc<Checked>, new: &Arc<Checked>, why: NotUp) {
        tracing::error!(module = self.name, problem = %why.problem, "replacement did not come up");
        self.give_back_unless_shared(new, &previous);
        self.enter(State::Starting, None, &previous);
        match self.bring_up(&previous, &[]).await {
            Ok(running) => self.serve(running).await,
            Err(not_up) => {
                self.context.registry.release(previous.manifest.product_id, &self.name);
                self.enter(State::Failed, Some(not_up.problem), &previous);
                // It ran before, so it is tried again whatever it died of.
                self.retry = Some(Retry::after(0, previous));
            }
        }
        self.note_candidate(why.state, why.problem, new);
    }

    async fn bring_up(
        &mut self,
        checked: &Arc<Checked>,
        served: &[privatix_plugin_api::message::ClientKey],
    ) -> Result<Running, NotUp> {
        let outcome = self.context.bring_up(&self.name, checked, served).await;
        // Refused means that it was not mapped, or mapped and of no use; counted either way.
        if checked.library().is_some() {
            self.mapped.insert(checked.content_hash.clone());
        }
        let mapped = self.mapped.len();
        self.context.registry.update(&self.name, |view| view.mapped = mapped);
        outcome.map(|generation| Running { checked: Arc::clone(checked), generation })
    }

    async fn serve(&mut self, running: Running) {
        self.enter(State::Running, None, &running.checked);
        self.context.registry.update(&self.name, |view| {
            view.candidate = None;
            view.health = None;
        });
        let product = running.checked.manifest.product_id;
        self.forced_before = self.context.service.forced(product);
        self.backwards_before = self.context.service.backwards(product);
        self.context.router.open(product, Arc::clone(&running.generation));
        self.running = Some(running);
        if let Err(error) = self.context.service.routed(product).await {
            tracing::warn!(
                module = self.name,
                error = privatix_plugin_api::chain(&error),
                "what was put off while nothing ran is told later"
            );
        }
    }

    /// Neither library nor manifest is there: perhaps for a moment, perhaps removed.
    async fn absent(&mut self, files: &PackageFiles) -> Option<Instant> {
        self.examined = None;
        self.retry = None;
        (self.waits, self.asks) = (false, true);
        if self.running.is_some() {
            let since = *self.absent_since.get_or_insert_with(Instant::now);
            let until = since + self.context.removal_grace;
            if Instant::now() < until {
                return Some(until);
            }
            self.end(State::Removed).await;
            return None;
        }
        let view = self.context.registry.get(&self.name);
        if view.as_ref().is_some_and(|view| view.state == State::Removed) {
            return None;
        }
        if view.is_some_and(|view| view.generations > 0 || view.abandoned_threads > 0) {
            // What it left in the process stays to be seen.
            self.log(State::Removed, None);
            self.context.registry.update(&self.name, |view| view.enter(State::Removed, None));
        } else if files.access.is_none() && files.offering.is_none() {
            self.context.registry.forget(&self.name);
        } else {
            self.note(State::Incomplete, examine::library_missing(&self.name));
        }
        None
    }

    /// Takes the module down for good.
    async fn end(&mut self, state: State) {
        let Some(running) = self.running.take() else { return };
        let checked = Arc::clone(&running.checked);
        self.enter(State::Stopping, None, &checked);
        self.context.take_down(&self.name, running).await;
        self.context.registry.release(checked.manifest.product_id, &self.name);
        if state != State::Stopping {
            self.enter(state, None, &checked);
        }
        self.context.registry.update(&self.name, |view| {
            view.candidate = None;
            view.health = None;
        });
    }

    async fn ask_health(&self) {
        let Some(running) = &self.running else { return };
        let said = match running.generation.health().await {
            Ok(health) => Some(health),
            // Built when there was no such question; that does not make it unwell.
            Err(error) if error.is_unsupported() => {
                tracing::debug!(module = self.name, "the module does not implement health checks");
                None
            }
            // The record tells of it.
            Err(_) => None,
        };
        let product = running.checked.manifest.product_id;
        let health = record::words(&record::Findings {
            failures: running.generation.record().failures(std::time::Instant::now()),
            forced: self.context.service.forced(product) - self.forced_before,
            backwards: self.context.service.backwards(product) - self.backwards_before,
            said,
        });
        self.context.registry.update(&self.name, |view| {
            if view.health != health && health.as_ref().is_some_and(|health| health != "healthy") {
                tracing::warn!(module = self.name, health, "the module is not well");
            }
            view.health = health;
        });
    }

    /// Shows a problem: as the module's where nothing runs, else as that of the new files.
    fn note(&self, state: State, problem: Problem) {
        if self.running.is_some() {
            return self.context.registry.update(&self.name, |view| {
                view.note_candidate(state, Some(problem), None);
            });
        }
        self.log(state, Some(&problem));
        self.context.registry.update(&self.name, |view| view.enter(state, Some(problem)));
    }

    fn note_candidate(&self, state: State, problem: Problem, new: &Checked) {
        let version = Some(version(new));
        self.context.registry.update(&self.name, |view| {
            view.note_candidate(state, Some(problem), version);
        });
    }

    fn enter(&self, state: State, problem: Option<Problem>, checked: &Checked) {
        self.log(state, problem.as_ref());
        self.context.registry.update(&self.name, |view| {
            view.enter(state, problem);
            view.version = Some(version(checked));
        });
    }

    fn log(&self, state: State, problem: Option<&Problem>) {
        let (module, state) = (self.name.as_str(), state.as_str());
        match problem {
            None => tracing::info!(module, state, "module"),
            Some(problem) if problem.code == Code::BeingWritten.to_string() => {
                tracing::debug!(module, state, %problem, "module");
            }
            Some(problem) => tracing::warn!(module, state, %problem, "module"),
        }
    }

    fn give_back_unless_shared(&self, checked: &Checked, kept: &Checked) {
        if checked.manifest.product_id != kept.manifest.product_id {
            self.context.registry.release(checked.manifest.product_id, &self.name);
        }
    }
}

impl Retry {
    /// After so many tries before the one that has just failed.
    fn after(attempts: u32, checked: Arc<Checked>) -> Self {
        Self { at: Instant::now() + back_off(attempts.saturating_add(1)), attempts, checked }
    }
}

fn version(checked: &Checked) -> VersionView {
    VersionView {
        version: checked.manifest.version.clone(),
        library: checked.content_hash.clone(),
        standalone: checked.form == Form::Standalone,
        product_id: checked.manifest.product_id,
        api_version: checked.api_version,
        sealed: checked.sealed(),
    }
}

fn duplicate(product: Uuid, form: &Form, holder: &str, name: &str) -> Problem {
    Problem::new(
        Code::DuplicateProduct,
        format!("product id {product} belongs to the module {holder:?}"),
        "a product id of its own",
        format!(
            "give this module a new id{}; or, if it is to have the product with all channels: \
             privatix product transfer {product} {name}",
            match form {
                Form::InProcess { .. } => " and build it again",
                Form::Standalone => " in its NAME.module.json",
            }
        ),
    )
}

fn disabled(name: &str) -> Problem {
    Problem::new(
        Code::Disabled,
        "switched off by the operator",
        "a module that is switched on",
        format!("privatix module enable {name}"),
    )
}

fn suspected(deaths: u32) -> Problem {
    Problem::new(
        Code::Suspected,
        format!("the host died {deaths} times in a row while this library came up"),
        "a library with which the host lives",
        "wait: it is tried again by itself, after the other modules; see the log of the host's last runs",
    )
}

fn host_failed(error: &StoreError) -> Problem {
    Problem::new(
        Code::HostFailed,
        privatix_plugin_api::chain(error),
        "a database in working order",
        "see the host's log; it tries again by itself",
    )
}

//! One module's life: looks at its files whenever they change, and carries out what is decided.
//!
//! Each module has a supervisor of its own, so that one that hangs keeps no other waiting. What is to
//! be done is decided in [`step`]; here it is done, one thing at a time, and the result is told back.

mod life;
mod plan;
mod step;
mod words;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use privatix_plugin_api::message::ClientKey;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use uuid::Uuid;

use self::life::Life;
use self::plan::{Ask, Claim, Effect, Event, Files, Moment, Package, Standing};
use self::step::step;
use super::copy::Quiet;
use super::examine::{self, Checked, Form, Terms};
use super::lifecycle::{Context, NotUp, Running, quarantined};
use super::package::PackageFiles;
use super::problem::{Code, Problem};
use super::record;
use super::registry::{State, VersionView};
use privatix_store::StoreError;

/// See the module's documentation.
pub(super) struct Supervisor {
    began: Instant,
    files: watch::Receiver<PackageFiles>,
    freed: watch::Receiver<u64>,
    health: Interval,
    shutdown: watch::Receiver<bool>,
    hands: Hands,
}

/// What carries out what was decided.
struct Hands {
    name: String,
    context: Arc<Context>,
    /// The files as they were told, and how often they have changed.
    files: PackageFiles,
    changes: u64,
    running: Option<Running>,
    quiet: Quiet,
    mapped: HashSet<String>,
    /// Channels of the product that had to be stopped by force before this generation.
    forced_before: u64,
    /// Usage reports of the product that went backwards before this generation.
    backwards_before: u64,
}

impl Package for Arc<Checked> {
    fn product(&self) -> Uuid {
        self.manifest.product_id
    }

    fn same_as(&self, other: &Self) -> bool {
        Checked::same_as(self, other)
    }

    fn can_sell(&self) -> bool {
        self.offering.is_some()
    }
}

impl Supervisor {
    /// A supervisor for the module of this name, until shutdown.
    pub(super) fn new(
        name: String,
        context: Arc<Context>,
        files: watch::Receiver<PackageFiles>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let freed = context.registry.freed();
        let mut health = tokio::time::interval(context.health_interval);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let hands = Hands {
            name,
            context,
            files: PackageFiles::default(),
            changes: 0,
            running: None,
            quiet: Quiet::default(),
            mapped: HashSet::new(),
            forced_before: 0,
            backwards_before: 0,
        };
        Self { began: Instant::now(), files, freed, health, shutdown, hands }
    }

    /// Runs until shutdown, then takes the module down.
    pub(super) async fn run(mut self) {
        let mut life = Life::new(self.hands.name.clone(), self.hands.context.removal_grace);
        let mut event = self.look();
        loop {
            let actions;
            (life, actions) = step(life, self.began.elapsed(), event);
            for effect in actions.effects {
                self.hands.carry_out(effect).await;
            }
            event = match actions.ask {
                Some(ask) => {
                    let mut answer = pin!(self.hands.answer(ask));
                    tokio::select! {
                        biased;
                        answer = &mut answer => answer,
                        // What is under way is finished; what would have come after it is not begun.
                        () = super::going_down(&mut self.shutdown), if !life.going_down => {
                            (life, _) = step(life, self.began.elapsed(), Event::Down);
                            answer.await
                        }
                    }
                }
                None if life.is_over() => return,
                None => self.wait(life.wake()).await,
            };
        }
    }

    /// Waits for something to happen. Meanwhile what runs is asked now and then how it is.
    async fn wait(&mut self, wake: Option<Moment>) -> Event<Arc<Checked>> {
        self.hands.context.trials.seen(&self.hands.name);
        let wake = wake.map(|moment| self.began + moment);
        loop {
            tokio::select! {
                changed = self.files.changed() => return match changed {
                    Ok(()) => self.look(),
                    Err(_) => Event::Down,
                },
                _ = self.freed.changed() => return Event::Nudged,
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)),
                    if wake.is_some() => return Event::Woken,
                _ = self.health.tick(), if self.hands.running.is_some() => {
                    self.hands.ask_health().await;
                }
                () = super::going_down(&mut self.shutdown) => return Event::Down,
            }
        }
    }

    /// Takes the files as they are now.
    fn look(&mut self) -> Event<Arc<Checked>> {
        let files = self.files.borrow_and_update().clone();
        let hands = &mut self.hands;
        if hands.files != files {
            hands.changes += 1;
            hands.files = files;
        }
        let files = &hands.files;
        Event::Files(match (files.is_module(), &files.access, &files.offering) {
            (true, ..) => Files::Module(hands.changes),
            (false, None, None) => Files::None,
            (false, ..) => Files::Templates,
        })
    }
}

impl Hands {
    async fn carry_out(&mut self, effect: Effect<Arc<Checked>>) {
        let registry = &self.context.registry;
        match effect {
            Effect::Show(state, problem, package) => {
                self.log(state, problem.as_ref());
                registry.update(&self.name, |view| {
                    view.enter(state, problem);
                    if let Some(package) = package {
                        view.version = Some(version(&package));
                    }
                });
            }
            Effect::ShowCandidate(state, problem, package) => {
                let version = package.as_deref().map(version);
                registry.update(&self.name, |view| {
                    view.note_candidate(state, Some(problem), version);
                });
            }
            Effect::ClearCandidate => registry.update(&self.name, |view| view.candidate = None),
            Effect::Forget => registry.forget(&self.name),
            Effect::Release(product) => registry.release(product, &self.name),
            Effect::Open(package) => self.open(&package).await,
            Effect::Complain(problem) => {
                tracing::error!(module = self.name, %problem, "replacement did not come up");
            }
        }
    }

    async fn answer(&mut self, ask: Ask<Arc<Checked>>) -> Event<Arc<Checked>> {
        match ask {
            Ask::Standing(product) => {
                let standing = self.standing(product).await;
                Event::Standing(standing.map_err(|error| words::host_failed(&error)))
            }
            Ask::Examine => Event::Examined(self.examine().await.map(Arc::new)),
            Ask::Claim(package) => {
                let claim = self.claim(&package).await;
                Event::Claimed(claim.map_err(|error| words::host_failed(&error)))
            }
            Ask::Register(package) => {
                let outcome = self.context.register(&self.name, &package).await;
                if let Some(running) = self.running.as_mut().filter(|_| outcome.is_ok()) {
                    running.checked = package;
                }
                Event::Registered(outcome)
            }
            Ask::Prove(package) => Event::Proved(self.context.prove(&package).await),
            Ask::Serves => Event::Served(self.serves().await),
            Ask::BringUp(package, served) => {
                let outcome = self.bring_up(package, &served).await;
                let view = self.context.registry.get(&self.name);
                let created = view.is_some_and(|view| view.generations > 0);
                Event::BroughtUp { outcome, created }
            }
            Ask::MakeWay => {
                if let Some(running) = self.running.take() {
                    self.context.make_way(&self.name, running).await;
                }
                Event::IsDown
            }
            Ask::TakeDown => {
                if let Some(running) = self.running.take() {
                    self.context.take_down(&self.name, running).await;
                }
                self.context.registry.update(&self.name, |view| view.health = None);
                Event::IsDown
            }
        }
    }

    async fn standing(&self, product: Option<Uuid>) -> Result<Standing, StoreError> {
        let standing = self.context.upkeep.standing(&self.name, product).await?;
        if standing.disabled {
            return Ok(Standing::SwitchedOff(words::disabled(&self.name)));
        }
        let owner = standing.owner.filter(|owner| *owner != self.name);
        Ok(match (owner, &self.running) {
            (Some(owner), Some(running)) => {
                Standing::Lost(self.duplicate(&running.checked, &owner))
            }
            _ => Standing::Free,
        })
    }

    fn duplicate(&self, checked: &Checked, owner: &str) -> Problem {
        words::duplicate(checked.manifest.product_id, &checked.form, owner, &self.name)
    }

    async fn examine(&mut self) -> Result<Checked, Problem> {
        let (name, files, context) = (self.name.clone(), self.files.clone(), &self.context);
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

    /// Takes the product for the module, unless it belongs to another one: the first module that was
    /// registered with it has it, whether it is here or not, until the operator says otherwise. For a
    /// library that is set aside nothing is taken: to give it back would have everybody look again.
    async fn claim(&self, checked: &Checked) -> Result<Claim, StoreError> {
        let (context, product) = (&self.context, checked.manifest.product_id);
        let standing = context.upkeep.standing(&self.name, Some(product)).await?;
        if let Some(owner) = standing.owner.filter(|owner| *owner != self.name) {
            return Ok(Claim::Taken(self.duplicate(checked, &owner)));
        }
        if checked.library().is_some()
            && let Some(aside) = context.upkeep.quarantined(&checked.content_hash).await?
        {
            return Ok(Claim::SetAside(quarantined(&checked.manifest.name, &aside.reason)));
        }
        if let Err(holder) = context.registry.claim(product, &self.name) {
            return Ok(Claim::Taken(self.duplicate(checked, &holder)));
        }
        let record = context.upkeep.library_record(&checked.content_hash).await?;
        Ok(Claim::Ours { deaths: record.deaths })
    }

    /// The channels that what runs serves. One that cannot say so is taken at its word of before: what
    /// it has answered to `start`.
    async fn serves(&self) -> Result<Vec<ClientKey>, Problem> {
        let Some(running) = &self.running else { return Ok(Vec::new()) };
        let error = match running.generation.sessions().await {
            Ok(served) => return Ok(served),
            Err(error) => error,
        };
        tracing::warn!(
            module = self.name,
            error = privatix_plugin_api::chain(&error),
            "the module does not say which channels it serves; those that it has started count"
        );
        let started = self.context.outbox.started_channels(running.checked.manifest.product_id);
        started.await.map_err(|error| words::host_failed(&error))
    }

    async fn bring_up(&mut self, checked: Arc<Checked>, served: &[ClientKey]) -> Result<(), NotUp> {
        let outcome = self.context.bring_up(&self.name, &checked, served).await;
        // Refused means that it was not mapped, or mapped and of no use; counted either way.
        if checked.library().is_some() {
            self.mapped.insert(checked.content_hash.clone());
        }
        let mapped = self.mapped.len();
        self.context.registry.update(&self.name, |view| view.mapped = mapped);
        self.running = Some(Running { generation: outcome?, checked });
        Ok(())
    }

    async fn open(&mut self, checked: &Checked) {
        let Some(running) = &self.running else { return };
        let (context, product) = (&self.context, checked.manifest.product_id);
        context.registry.update(&self.name, |view| view.health = None);
        self.forced_before = context.outbox.forced(product);
        self.backwards_before = context.outbox.backwards(product);
        context.router.open(product, Arc::clone(&running.generation));
        if let Err(error) = context.outbox.routed(product).await {
            tracing::warn!(
                module = self.name,
                error = privatix_plugin_api::chain(&error),
                "what was put off while nothing ran is told later"
            );
        }
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
            forced: self.context.outbox.forced(product) - self.forced_before,
            backwards: self.context.outbox.backwards(product) - self.backwards_before,
            said,
        });
        self.context.registry.update(&self.name, |view| {
            if view.health != health && health.as_ref().is_some_and(|health| health != "healthy") {
                tracing::warn!(module = self.name, health, "the module is not well");
            }
            view.health = health;
        });
    }

    fn log(&self, state: State, problem: Option<&Problem>) {
        let (module, state) = (self.name.as_str(), state.as_str());
        match problem {
            None => tracing::info!(module, state, "module"),
            Some(problem) if problem.is(Code::BeingWritten) => {
                tracing::debug!(module, state, %problem, "module");
            }
            Some(problem) => tracing::warn!(module, state, %problem, "module"),
        }
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

//! What a module's supervisor decides: a state and what has happened make the next state and what is
//! to be done.
//!
//! Nothing is done here, and no clock is read: a [`Moment`] comes with each event. What takes time is
//! an [`Ask`]; at most one is under way, and its result comes back as an event. What happens meanwhile
//! (other files, a word of the operator, the end of the host) is kept, and looked at when it is
//! answered.
//!
//! What runs goes on until something better is proven: it makes way only after the new version was
//! loaded in another process and it is known which channels the old one serves.

#[cfg(test)]
mod tests;

use std::time::Duration;

use privatix_plugin_api::message::ClientKey;

use super::life::{Life, Obstacle, Phase, Retry, Then, Try};
use super::plan::{Actions, Ask, Claim, Effect, Event, Files, Moment, Package, Standing};
use super::words;
use crate::lifecycle::NotUp;
use crate::problem::{Code, Problem};
use crate::registry::State;
use privatix_domain::back_off::back_off;

/// How soon a file that is being written is looked at again.
const WRITER_POLL: Duration = Duration::from_millis(50);

/// How soon a package is looked at again that the host could not do its part for.
const HOST_POLL: Duration = Duration::from_secs(5);

/// See the module's documentation. An answer to what was not asked is without effect.
pub(super) fn step<P: Package>(
    life: Life<P>,
    now: Moment,
    event: Event<P>,
) -> (Life<P>, Actions<P>) {
    let mut step = Step { life, now, effects: Vec::new() };
    let ask = step.take(event);
    (step.life, Actions { effects: step.effects, ask })
}

/// A step under way.
struct Step<P> {
    life: Life<P>,
    now: Moment,
    effects: Vec<Effect<P>>,
}

impl<P: Package> Step<P> {
    fn take(&mut self, event: Event<P>) -> Option<Ask<P>> {
        match event {
            Event::Files(files) => {
                // Files that are as they were before the last ones are looked at again, too.
                self.life.is_judged &= self.life.files == files;
                (self.life.files, self.life.poll) = (files, None);
            }
            Event::Nudged => (self.life.asks, self.life.poll) = (true, None),
            Event::Woken => {}
            Event::Down => self.life.going_down = true,
            answer => return self.answered(answer),
        }
        match self.life.phase {
            Phase::Idle => self.look(),
            _ => None,
        }
    }

    fn answered(&mut self, answer: Event<P>) -> Option<Ask<P>> {
        let phase = std::mem::replace(&mut self.life.phase, Phase::Idle);
        match (phase, answer) {
            (Phase::Asking, Event::Standing(standing)) => self.stands(standing),
            (Phase::Examining(files), Event::Examined(verdict)) => self.examined(files, verdict),
            (Phase::Claiming(new), Event::Claimed(claim)) => self.claimed(new, claim),
            (Phase::Registering(new), Event::Registered(outcome)) => self.registered(new, outcome),
            (Phase::Proving(new), Event::Proved(outcome)) => self.proved(new, outcome),
            (Phase::Listing(new), Event::Served(served)) => self.let_go(new, served),
            (Phase::Leaving { old, new, served }, Event::IsDown) => self.left(old, new, served),
            (phase, Event::BroughtUp { outcome, created }) => {
                self.life.created |= created;
                self.brought_up(phase, outcome)
            }
            (Phase::Ending(package, then), Event::IsDown) => self.ended(package, then),
            (phase, _) => {
                self.life.phase = phase;
                None
            }
        }
    }

    fn brought_up(&mut self, phase: Phase<P>, outcome: Result<(), NotUp>) -> Option<Ask<P>> {
        match phase {
            Phase::Starting(new) => self.started(new, outcome),
            Phase::Replacing { old, new } => self.replaced(old, new, outcome),
            Phase::RollingBack { old, new, why } => self.rolled_back(old, &new, why, outcome),
            phase => {
                self.life.phase = phase;
                None
            }
        }
    }

    /// What is to be done next, where nothing is under way.
    fn look(&mut self) -> Option<Ask<P>> {
        if self.life.going_down {
            return match self.life.running.take() {
                Some(package) => self.end(package, Then::Down),
                None => self.over(),
            };
        }
        if !matches!(self.life.files, Files::Module(_)) {
            return self.absent();
        }
        self.life.absent_since = None;
        if self.life.poll.is_some_and(|at| self.now < at) {
            return None;
        }
        self.life.poll = None;
        if std::mem::take(&mut self.life.asks) {
            self.life.phase = Phase::Asking;
            return Some(Ask::Standing(self.life.running.as_ref().map(Package::product)));
        }
        if self.life.obstacle == Some(Obstacle::SwitchedOff) {
            return None;
        }
        if !self.life.is_judged {
            (self.life.retry, self.life.obstacle) = (None, None);
            self.life.phase = Phase::Examining(self.life.files);
            return Some(Ask::Examine);
        }
        match self.life.retry.take_if(|retry| retry.at <= self.now) {
            Some(Retry { of: Try { package, attempts }, .. }) => {
                self.accept(Try { package, attempts: attempts.saturating_add(1) })
            }
            None => None,
        }
    }

    /// Neither library nor manifest is there: perhaps for a moment, perhaps removed.
    fn absent(&mut self) -> Option<Ask<P>> {
        let life = &mut self.life;
        (life.retry, life.obstacle, life.poll) = (None, None, None);
        (life.is_judged, life.asks) = (false, true);
        if life.running.is_some() {
            let since = *life.absent_since.get_or_insert(self.now);
            if self.now < since + life.removal_grace {
                return None;
            }
            life.absent_since = None;
            return match life.running.take() {
                Some(package) => self.end(package, Then::Removed),
                None => None,
            };
        }
        if life.is_shown_removed {
            return None;
        }
        if life.created {
            // What it left in the process stays to be seen.
            self.show(State::Removed, None, None);
        } else if life.files == Files::None {
            self.effects.push(Effect::Forget);
        } else {
            let missing = crate::examine::library_missing(&life.name);
            self.note(State::Incomplete, missing);
        }
        None
    }

    fn stands(&mut self, standing: Result<Standing, Problem>) -> Option<Ask<P>> {
        match standing {
            Ok(Standing::Free) => {
                if self.life.obstacle.take().is_some() {
                    self.life.is_judged = false;
                }
                self.look()
            }
            Ok(Standing::SwitchedOff(problem)) => {
                self.life.is_judged = false;
                self.put_aside(Obstacle::SwitchedOff, problem)
            }
            Ok(Standing::Lost(problem)) => self.put_aside(Obstacle::Other, problem),
            Err(problem) => {
                self.life.asks = true;
                // What is shown of files that were judged is still true.
                if !self.life.is_judged {
                    self.note(State::Failed, problem);
                }
                self.poll(HOST_POLL)
            }
        }
    }

    /// Takes down what runs, and shows why nothing does.
    fn put_aside(&mut self, obstacle: Obstacle, problem: Problem) -> Option<Ask<P>> {
        (self.life.obstacle, self.life.retry) = (Some(obstacle), None);
        match self.life.running.take() {
            Some(package) => self.end(package, Then::Aside(problem)),
            None => {
                self.show(State::Refused, Some(problem), None);
                self.look()
            }
        }
    }

    fn examined(&mut self, files: Files, verdict: Result<P, Problem>) -> Option<Ask<P>> {
        if self.life.going_down || self.life.files != files {
            return self.look();
        }
        let problem = match verdict {
            Ok(package) => {
                self.life.is_judged = true;
                return self.accept(Try { package, attempts: 0 });
            }
            Err(problem) => problem,
        };
        if problem.is(Code::BeingWritten) {
            self.note(State::Incomplete, problem);
            return self.poll(WRITER_POLL);
        }
        if problem.is(Code::HostFailed) {
            // Not the package's fault: it may well stay as it is while the host recovers.
            self.note(State::Failed, problem);
            return self.poll(HOST_POLL);
        }
        self.life.is_judged = true;
        let missing = problem.is(Code::TemplateMissing);
        self.note(if missing { State::Incomplete } else { State::Refused }, problem);
        self.look()
    }

    /// Takes up a package that has passed all checks.
    fn accept(&mut self, new: Try<P>) -> Option<Ask<P>> {
        let running = self.life.running.as_ref();
        let Some(running) = running.filter(|running| running.same_as(&new.package)) else {
            let package = new.package.clone();
            self.life.phase = Phase::Claiming(new);
            return Some(Ask::Claim(package));
        };
        // A buyer's module is up without its offering template; one that arrives later is registered,
        // and the module goes on.
        if !running.can_sell() && new.package.can_sell() {
            self.life.phase = Phase::Registering(new.package.clone());
            return Some(Ask::Register(new.package));
        }
        self.effects.push(Effect::ClearCandidate);
        self.look()
    }

    fn registered(&mut self, new: P, outcome: Result<(), NotUp>) -> Option<Ask<P>> {
        match outcome {
            Ok(()) => {
                self.life.running = Some(new);
                self.effects.push(Effect::ClearCandidate);
                self.look()
            }
            Err(not_up) => {
                self.life.is_judged = false;
                self.note(not_up.state, not_up.problem);
                self.poll(HOST_POLL)
            }
        }
    }

    fn claimed(&mut self, new: Try<P>, claim: Result<Claim, Problem>) -> Option<Ask<P>> {
        let deaths = match claim {
            Err(problem) => {
                self.release_unless_kept(&new.package);
                self.note(State::Failed, problem);
                return self.again(new);
            }
            Ok(Claim::Taken(problem)) => {
                self.life.obstacle = Some(Obstacle::Other);
                self.note(State::Refused, problem);
                return self.look();
            }
            Ok(Claim::SetAside(problem)) => {
                self.life.obstacle = Some(Obstacle::Other);
                self.note_version(State::Refused, problem, &new.package);
                return self.look();
            }
            Ok(Claim::Ours { deaths }) => deaths,
        };
        if self.is_outdated() {
            self.release_unless_kept(&new.package);
            return self.look();
        }
        if new.attempts == 0 && deaths > 1 {
            // The others serve meanwhile.
            self.release_unless_kept(&new.package);
            self.note(State::Failed, words::suspected(deaths));
            return self.again(Try { attempts: deaths - 2, ..new });
        }
        let package = new.package.clone();
        if self.life.running.is_some() {
            // What can be proven beforehand costs the running version nothing.
            self.life.phase = Phase::Proving(new);
            return Some(Ask::Prove(package));
        }
        self.show(State::Starting, None, Some(&package));
        self.life.phase = Phase::Starting(new);
        Some(Ask::BringUp(package, Vec::new()))
    }

    fn proved(&mut self, new: Try<P>, outcome: Result<(), NotUp>) -> Option<Ask<P>> {
        match outcome {
            Ok(()) if self.is_outdated() => {
                self.release_unless_kept(&new.package);
                self.look()
            }
            Ok(()) => {
                self.life.phase = Phase::Listing(new);
                Some(Ask::Serves)
            }
            Err(not_up) => self.not_now(new, not_up),
        }
    }

    /// Lets go of what runs for a version that is proven.
    fn let_go(&mut self, new: Try<P>, served: Result<Vec<ClientKey>, Problem>) -> Option<Ask<P>> {
        let served = match served {
            Ok(served) => served,
            // Without knowing what the old one serves nobody could say whether the new one does.
            Err(problem) => {
                let not_up = NotUp { problem, state: State::Failed, retry: true };
                return self.not_now(new, not_up);
            }
        };
        if self.is_outdated() {
            self.release_unless_kept(&new.package);
            return self.look();
        }
        let Some(old) = self.life.running.take() else { return self.look() };
        self.show(State::Stopping, None, Some(&old));
        self.life.phase = Phase::Leaving { old, new: new.package, served };
        Some(Ask::MakeWay)
    }

    /// A new version cannot come up; what runs goes on.
    fn not_now(&mut self, new: Try<P>, not_up: NotUp) -> Option<Ask<P>> {
        self.release_unless_kept(&new.package);
        if not_up.problem.is(Code::Quarantined) {
            self.life.obstacle = Some(Obstacle::Other);
        }
        let retry = not_up.retry;
        self.note_version(not_up.state, not_up.problem, &new.package);
        if retry { self.again(new) } else { self.look() }
    }

    fn left(&mut self, old: P, new: P, served: Vec<ClientKey>) -> Option<Ask<P>> {
        if self.life.going_down {
            self.release(&old);
            self.release_unless_shared(&new, &old);
            return self.over();
        }
        self.show(State::Starting, None, Some(&new));
        self.life.phase = Phase::Replacing { old, new: new.clone() };
        Some(Ask::BringUp(new, served))
    }

    fn started(&mut self, new: Try<P>, outcome: Result<(), NotUp>) -> Option<Ask<P>> {
        let not_up = match outcome {
            Ok(()) => return self.serve(new.package),
            Err(not_up) => not_up,
        };
        self.release(&new.package);
        if not_up.problem.is(Code::Quarantined) {
            self.life.obstacle = Some(Obstacle::Other);
        }
        self.show(not_up.state, Some(not_up.problem), Some(&new.package));
        if not_up.retry { self.again(new) } else { self.look() }
    }

    fn replaced(&mut self, old: P, new: P, outcome: Result<(), NotUp>) -> Option<Ask<P>> {
        let why = match outcome {
            Ok(()) => {
                self.release_unless_shared(&old, &new);
                return self.serve(new);
            }
            Err(why) => why,
        };
        self.effects.push(Effect::Complain(why.problem.clone()));
        self.release_unless_shared(&new, &old);
        if self.life.going_down {
            self.release(&old);
            return self.over();
        }
        self.show(State::Starting, None, Some(&old));
        self.life.phase = Phase::RollingBack { old: old.clone(), new, why };
        // It served what it could before, and is wanted whatever it can serve now.
        Some(Ask::BringUp(old, Vec::new()))
    }

    fn rolled_back(
        &mut self,
        old: P,
        new: &P,
        why: NotUp,
        outcome: Result<(), NotUp>,
    ) -> Option<Ask<P>> {
        match outcome {
            Ok(()) => self.opened(old),
            Err(not_up) => {
                self.release(&old);
                self.show(State::Failed, Some(not_up.problem), Some(&old));
                // It ran before, so it is tried again whatever it died of.
                self.retry_after(Try { package: old, attempts: 0 });
            }
        }
        let shown = Effect::ShowCandidate(why.state, why.problem, Some(new.clone()));
        self.effects.push(shown);
        self.look()
    }

    fn serve(&mut self, package: P) -> Option<Ask<P>> {
        self.opened(package);
        self.look()
    }

    fn opened(&mut self, package: P) {
        self.show(State::Running, None, Some(&package));
        self.effects.push(Effect::ClearCandidate);
        self.effects.push(Effect::Open(package.clone()));
        self.life.running = Some(package);
    }

    fn end(&mut self, package: P, then: Then) -> Option<Ask<P>> {
        self.show(State::Stopping, None, Some(&package));
        self.life.phase = Phase::Ending(package, then);
        Some(Ask::TakeDown)
    }

    fn ended(&mut self, package: P, then: Then) -> Option<Ask<P>> {
        self.release(&package);
        self.effects.push(Effect::ClearCandidate);
        match then {
            Then::Removed => self.show(State::Removed, None, Some(&package)),
            Then::Aside(problem) => self.show(State::Refused, Some(problem), Some(&package)),
            Then::Down => return self.over(),
        }
        self.look()
    }

    fn over(&mut self) -> Option<Ask<P>> {
        self.life.phase = Phase::Over;
        None
    }

    /// Whether a package was taken up for files or for a host that are not there any more.
    fn is_outdated(&self) -> bool {
        self.life.going_down || !self.life.is_judged
    }

    fn poll(&mut self, after: Duration) -> Option<Ask<P>> {
        self.life.poll = Some(self.now + after);
        if self.life.going_down { self.look() } else { None }
    }

    fn again(&mut self, of: Try<P>) -> Option<Ask<P>> {
        self.retry_after(of);
        self.look()
    }

    /// After so many tries before the one that has just failed.
    fn retry_after(&mut self, of: Try<P>) {
        let at = self.now + back_off(of.attempts.saturating_add(1));
        self.life.retry = Some(Retry { at, of });
    }

    /// Shows a problem: as the module's where nothing runs, else as that of the new files.
    fn note(&mut self, state: State, problem: Problem) {
        match self.life.running {
            Some(_) => self.effects.push(Effect::ShowCandidate(state, problem, None)),
            None => self.show(state, Some(problem), None),
        }
    }

    /// The same, with the version whose problem it is.
    fn note_version(&mut self, state: State, problem: Problem, package: &P) {
        match self.life.running {
            Some(_) => {
                let package = Some(package.clone());
                self.effects.push(Effect::ShowCandidate(state, problem, package));
            }
            None => self.show(state, Some(problem), Some(package)),
        }
    }

    fn show(&mut self, state: State, problem: Option<Problem>, package: Option<&P>) {
        self.life.is_shown_removed = state == State::Removed;
        self.effects.push(Effect::Show(state, problem, package.cloned()));
    }

    fn release(&mut self, package: &P) {
        self.effects.push(Effect::Release(package.product()));
    }

    /// Gives the product of a package back that will not run, unless what runs has the same one.
    fn release_unless_kept(&mut self, package: &P) {
        match self.life.running.clone() {
            Some(kept) => self.release_unless_shared(package, &kept),
            None => self.release(package),
        }
    }

    fn release_unless_shared(&mut self, package: &P, kept: &P) {
        if package.product() != kept.product() {
            self.release(package);
        }
    }
}

//! All short lives: every sequence of events from a small alphabet, with every answer to what is asked.
//! Lives that have come to the same point are gone on with once.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;

/// How many events a life has here. A module runs after five, is replaced after six more, and rolled
/// back after one more.
const EVENTS: usize = 13;

/// After how many tries a life is not gone on with: there is no new thing in it.
const TRIES: u32 = 2;

/// What a supervisor's actions have led to.
#[derive(Debug, Clone, Default)]
struct World {
    now: Moment,
    files: Files,
    gone_since: Option<Moment>,
    /// What was brought up and not taken down.
    alive: Option<Made>,
    /// What is routed to.
    open: Option<Made>,
    held: BTreeSet<Uuid>,
    shown: Option<(State, Option<String>)>,
    candidate: Option<String>,
    down: bool,
    /// How far the replacement is that is under way.
    replacing: Option<Replacing>,
    /// Whether the operator has something against what runs.
    is_unwanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Replacing {
    Proven(Made),
    Known(Made),
    Left { old: Made, new: Made },
    RolledBack { old: Made },
}

/// A life and its world, between two events.
#[derive(Clone)]
struct Point {
    life: Life<Made>,
    world: World,
    asked: Option<Ask<Made>>,
}

impl Point {
    fn begin() -> Self {
        Self { life: new(), world: World::default(), asked: None }
    }

    /// What tells this point from others; the time of day does not.
    fn key(&self) -> u64 {
        let Self { mut life, mut world, asked } = self.clone();
        let now = world.now;
        let left = |moment: Moment| moment.saturating_sub(now);
        life.poll = life.poll.map(left);
        life.retry = life.retry.map(|retry| Retry { at: left(retry.at), ..retry });
        // How long it has been gone counts up to the grace.
        let gone = |since: Moment| now.saturating_sub(since).min(GRACE);
        life.absent_since = life.absent_since.map(gone);
        world.gone_since = world.gone_since.map(gone);
        world.now = Moment::ZERO;
        let mut hasher = DefaultHasher::new();
        format!("{life:?} {world:?} {asked:?}").hash(&mut hasher);
        hasher.finish()
    }

    /// Everything that may happen now.
    fn next(&self) -> Vec<Event<Made>> {
        let mut events = self.answers();
        if !self.world.down {
            let files = [Files::None, Files::Templates];
            let files = files.into_iter().chain((1..=4).map(Files::Module));
            events.extend(files.filter(|files| *files != self.world.files).map(Event::Files));
            events.extend([Event::Nudged, Event::Woken, Event::Down]);
        }
        events
    }

    fn answers(&self) -> Vec<Event<Made>> {
        let host = || problem(Code::HostFailed);
        match &self.asked {
            None => vec![],
            Some(Ask::Standing(product)) => {
                let mut answers = vec![free(), switched_off(), Event::Standing(Err(host()))];
                answers.extend(product.map(|_| lost()));
                answers
            }
            Some(Ask::Examine) => {
                let package = match self.world.files {
                    Files::Module(1) => A,
                    Files::Module(2) => B,
                    Files::Module(3) => C,
                    _ => A_SELLS,
                };
                let codes = [Code::BeingWritten, Code::HostFailed, Code::SealBroken];
                codes.map(bad).into_iter().chain([good(package)]).collect()
            }
            Some(Ask::Claim(_)) => {
                vec![ours(0), ours(2), taken(), set_aside(), Event::Claimed(Err(host()))]
            }
            Some(Ask::Register(_)) => {
                let failed = not_up(Code::HostFailed, true);
                vec![Event::Registered(Ok(())), Event::Registered(Err(failed))]
            }
            Some(Ask::Prove(_)) => {
                let outcomes = [
                    Ok(()),
                    Err(not_up(Code::LoadCrashed, false)),
                    Err(not_up(Code::Quarantined, false)),
                    Err(not_up(Code::HostFailed, true)),
                ];
                outcomes.map(Event::Proved).into()
            }
            Some(Ask::Serves) => vec![serves(), Event::Served(Err(host()))],
            Some(Ask::BringUp(..)) => {
                // The reason for a roll back is shown, and not tried again by itself.
                let replaces = matches!(self.world.replacing, Some(Replacing::Left { .. }));
                let retry = if replaces { Code::StartFailed } else { Code::HostFailed };
                vec![up(), down(retry, true), down(Code::CreatePanicked, false)]
            }
            Some(Ask::MakeWay | Ask::TakeDown) => vec![Event::IsDown],
        }
    }

    /// Lets something happen, and checks what comes of it.
    fn then(&self, event: Event<Made>) -> Result<Self, String> {
        let Self { life, mut world, asked } = self.clone();
        if matches!(event, Event::Woken) {
            world.now = life.wake().unwrap_or(world.now + Duration::from_secs(1)).max(world.now);
        }
        let answers =
            !matches!(event, Event::Files(_) | Event::Nudged | Event::Woken | Event::Down);
        let failed_to_return = matches!(world.replacing, Some(Replacing::RolledBack { .. }))
            && matches!(event, Event::BroughtUp { outcome: Err(_), .. });
        world.happens(&event, asked.as_ref());
        let asked = asked.filter(|_| !answers);
        let (life, Actions { effects, ask }) = step(life, world.now, event);
        for effect in effects {
            world.takes(effect)?;
        }
        if let Some(ask) = &ask {
            check(asked.is_none(), "one thing is asked at a time")?;
            world.asked(ask)?;
        }
        let point = Self { asked: ask.or(asked), life, world };
        if point.asked.is_none() {
            point.rests()?;
            let tries = point.life.wake().is_some() || point.world.down;
            check(
                !failed_to_return || tries || !matches!(point.world.files, Files::Module(_)),
                "what ran before is tried again",
            )?;
        }
        Ok(point)
    }

    /// What holds where nothing is under way.
    fn rests(&self) -> Result<(), String> {
        let Self { life, world, .. } = self;
        let wake = life.wake();
        let product = world.alive.map(|alive| alive.product());
        let held: BTreeSet<_> = product.into_iter().collect();
        check(world.held == held, "it has the product of what runs, and no other")?;
        check(world.open == world.alive, "what is up is routed to")?;
        check(life.is_over() == world.down, "the end of the host is the end of it")?;
        if world.down {
            return check(world.alive.is_none() && wake.is_none(), "nothing is left");
        }
        check(wake.is_none_or(|wake| wake > world.now), "time goes on until it wakes")?;
        let passes = |code: &str| ["HostFailed", "BeingWritten", "Suspected"].contains(&code);
        if !matches!(world.files, Files::Module(_)) {
            let ends = world.alive.is_none() || wake.is_some();
            return check(ends, "a removed module ends");
        }
        if world.alive.is_some() {
            let running = matches!(&world.shown, Some((State::Running, None)));
            check(running, "what runs is shown to run")?;
            let candidate = world.candidate.as_deref();
            return check(
                candidate.is_none_or(|code| !passes(code) || wake.is_some()),
                "a new version for which the host could not do its part is looked at again",
            );
        }
        let reason = world.shown.as_ref().and_then(|(_, code)| code.as_deref());
        check(reason.is_some(), "what does not run has a reason")?;
        check(
            reason.is_none_or(|code| !passes(code) || wake.is_some()),
            "what passes by itself is looked at again",
        )
    }
}

impl World {
    /// What happens to it, before the supervisor hears of it.
    fn happens(&mut self, event: &Event<Made>, asked: Option<&Ask<Made>>) {
        let replacing = self.replacing.take();
        match (event, asked) {
            (Event::Files(files), _) => {
                self.files = *files;
                let gone = !matches!(files, Files::Module(_));
                self.gone_since = gone.then(|| self.gone_since.unwrap_or(self.now));
                self.replacing = replacing;
            }
            (Event::Down, _) => (self.down, self.replacing) = (true, replacing),
            (Event::Nudged | Event::Woken, _) => self.replacing = replacing,
            (Event::Standing(Ok(standing)), _) => {
                self.is_unwanted = !matches!(standing, Standing::Free);
            }
            (Event::Claimed(Ok(Claim::Ours { .. })), Some(Ask::Claim(package))) => {
                self.held.insert(package.product());
            }
            (Event::Registered(Ok(())), Some(Ask::Register(package))) => {
                (self.alive, self.open) = (Some(*package), Some(*package));
            }
            (Event::Proved(Ok(())), Some(Ask::Prove(new))) => {
                self.replacing = Some(Replacing::Proven(*new));
            }
            (Event::Served(Ok(_)), _) => {
                self.replacing = match replacing {
                    Some(Replacing::Proven(new)) => Some(Replacing::Known(new)),
                    _ => None,
                };
            }
            (Event::IsDown, Some(asked)) => {
                let old = self.alive.take();
                self.open = None;
                self.replacing = match (asked, old, replacing) {
                    (Ask::MakeWay, Some(old), Some(Replacing::Known(new))) => {
                        Some(Replacing::Left { old, new })
                    }
                    _ => None,
                };
            }
            (Event::BroughtUp { outcome: Ok(()), .. }, Some(Ask::BringUp(package, _))) => {
                self.alive = Some(*package);
            }
            (Event::BroughtUp { outcome: Err(_), .. }, _) => {
                self.replacing = match replacing {
                    Some(Replacing::Left { old, .. }) => Some(Replacing::RolledBack { old }),
                    _ => None,
                };
            }
            _ => {}
        }
    }

    fn takes(&mut self, effect: Effect<Made>) -> Result<(), String> {
        match effect {
            Effect::Show(state, problem, _) => {
                self.shown = Some((state, problem.map(|problem| problem.code.to_string())));
            }
            Effect::ShowCandidate(_, problem, _) => self.candidate = Some(problem.code.to_string()),
            Effect::ClearCandidate => self.candidate = None,
            Effect::Forget => {
                check(self.alive.is_none(), "nothing that runs is forgotten")?;
                (self.shown, self.candidate) = (None, None);
            }
            Effect::Release(product) => {
                let alive = self.alive.map(|alive| alive.product());
                check(alive != Some(product), "what runs keeps its product")?;
                self.held.remove(&product);
            }
            Effect::Open(package) => {
                check(self.alive == Some(package), "what is routed to is up")?;
                self.open = Some(package);
            }
            Effect::Complain(_) => {}
        }
        Ok(())
    }

    fn asked(&mut self, ask: &Ask<Made>) -> Result<(), String> {
        match ask {
            Ask::BringUp(package, served) => {
                check(self.alive.is_none(), "at most one generation is up")?;
                check(self.held.contains(&package.product()), "only with its product")?;
                match self.replacing {
                    Some(Replacing::Left { new, .. }) => {
                        check(*package == new, "what was proven comes up")?;
                        check(*served == [channel()], "the channels that were served are known")?;
                    }
                    Some(Replacing::RolledBack { old }) => {
                        check(*package == old, "the old version comes back")?;
                    }
                    _ => {}
                }
            }
            Ask::MakeWay => {
                let known = matches!(self.replacing, Some(Replacing::Known(_)));
                check(known && self.alive.is_some(), "only what is proven replaces what runs")?;
            }
            Ask::TakeDown => {
                let gone = self.gone_since.is_some_and(|since| self.now >= since + GRACE);
                let reason = self.down || self.is_unwanted || gone;
                check(reason && self.alive.is_some(), "what runs goes on")?;
            }
            Ask::Register(package) | Ask::Prove(package) => {
                check(self.alive.is_some(), "only beside what runs")?;
                let same = self.alive.is_some_and(|alive| alive.same_as(package));
                let registers = matches!(ask, Ask::Register(_));
                check(same == registers, "what runs is not loaded again")?;
            }
            Ask::Serves => check(self.alive.is_some(), "only what runs serves")?,
            Ask::Standing(_) | Ask::Examine | Ask::Claim(_) => {}
        }
        if matches!(self.replacing, Some(Replacing::Left { .. } | Replacing::RolledBack { .. })) {
            check(matches!(ask, Ask::BringUp(..)), "nothing comes between the old and the new")?;
        }
        Ok(())
    }
}

fn check(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// Has the host go down: whatever is answered, it ends after so many answers.
fn ends(point: &Point, answers: usize) -> Result<(), String> {
    if point.life.is_over() {
        return point.rests();
    }
    check(answers > 0, "the host's end is waited for")?;
    point.answers().into_iter().try_for_each(|answer| ends(&point.then(answer)?, answers - 1))
}

#[test]
fn invariants_hold_in_every_short_life() {
    let mut seen = HashSet::new();
    // Each with the events that led to it, for the message.
    let mut points = vec![(Point::begin(), Vec::new())];
    let mut lives = [0usize; EVENTS];
    for number in &mut lives {
        let mut next = Vec::new();
        for (point, story) in points {
            for event in point.next() {
                let mut story: Vec<Event<Made>> = story.clone();
                story.push(event.clone());
                let told = point.then(event).and_then(|point| {
                    if !point.world.down {
                        ends(&point.then(Event::Down)?, 3)?;
                    }
                    Ok(point)
                });
                let point = told.unwrap_or_else(|broken| panic!("{broken}: {story:#?}"));
                let tries = point.life.retry.as_ref().map_or(0, |retry| retry.of.attempts);
                if tries <= TRIES && seen.insert(point.key()) {
                    next.push((point, story));
                }
            }
        }
        *number = next.len();
        points = next;
    }
    println!("lives by their number of events: {lives:?}, points: {}", seen.len());
    assert!(seen.len() > 1_000, "{lives:?}");
}

//! What the host has measured of one generation, and what that says of its health.
//!
//! The host's own measure comes first: a module that fails every command may still say that it is
//! well. Each part says whose words it is. What is older than [`WINDOW`] counts no more.
//! Not covered: crashes, which end the host, and are noted in the database.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use privatix_plugin_api::message::{Health, ModuleRequest};

use super::generation::CommandError;

/// How long an outcome counts.
const WINDOW: Duration = Duration::from_secs(600);

/// The most outcomes of one command that are remembered.
const MOST: usize = 32;

/// A command whose outcomes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Start,
    Stop,
    Other,
}

impl Command {
    const ALL: [Self; 3] = [Self::Start, Self::Stop, Self::Other];

    fn of(request: &ModuleRequest) -> Self {
        match request {
            ModuleRequest::Start { .. } => Self::Start,
            ModuleRequest::Stop { .. } => Self::Stop,
            _ => Self::Other,
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Start => "starts",
            Self::Stop => "stops",
            Self::Other => "other commands",
        }
    }
}

/// The outcomes of a generation's commands. Kept in memory alone.
#[derive(Debug, Default)]
pub(super) struct Record {
    outcomes: Mutex<VecDeque<Outcome>>,
}

#[derive(Debug)]
struct Outcome {
    command: Command,
    at: Instant,
    /// What was seen, if it failed.
    failure: Option<String>,
}

/// How the commands of one kind ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    commands: &'static str,
    failed: usize,
    of: usize,
    /// What was seen last.
    last: String,
}

impl Record {
    /// Notes how a command ended. One that the module does not know, or that came while it was
    /// being stopped, says nothing of it.
    pub(super) fn note(&self, request: &ModuleRequest, failure: Option<&CommandError>) {
        if failure.is_some_and(|error| error.is_stopped() || error.is_unsupported()) {
            return;
        }
        let failure = failure.map(CommandError::told);
        self.add(Outcome { command: Command::of(request), at: Instant::now(), failure });
    }

    fn add(&self, outcome: Outcome) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let same = outcomes.iter().filter(|other| other.command == outcome.command).count();
        if same >= MOST
            && let Some(oldest) = outcomes.iter().position(|it| it.command == outcome.command)
        {
            outcomes.remove(oldest);
        }
        outcomes.push_back(outcome);
    }

    /// The kinds of command of which some have failed lately.
    pub(super) fn failures(&self, now: Instant) -> Vec<Tally> {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.retain(|outcome| now.saturating_duration_since(outcome.at) < WINDOW);
        let tally = |command: Command| {
            let of = || outcomes.iter().filter(|outcome| outcome.command == command);
            let last = of().rev().find_map(|outcome| outcome.failure.clone())?;
            let failed = of().filter(|outcome| outcome.failure.is_some()).count();
            Some(Tally { commands: command.plural(), failed, of: of().count(), last })
        };
        Command::ALL.into_iter().filter_map(tally).collect()
    }
}

/// What is known of a module's health.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Commands that have failed lately.
    pub(super) failures: Vec<Tally>,
    /// Channels that had to be stopped by force since this generation came up.
    pub(super) forced: u64,
    /// Usage reports that said less than the ones before, since this generation came up.
    pub(super) backwards: u64,
    /// What the module says of itself, if it was asked and knows the question.
    pub(super) said: Option<Health>,
}

/// The health of a module in words: `healthy`, or the worse of what the host measured and what the
/// module says, each attributed. `None` where neither is known.
pub(super) fn words(findings: &Findings) -> Option<String> {
    let Findings { failures, forced, backwards, said } = findings;
    let mut parts = Vec::new();
    let mut unhealthy = *forced > 0;
    for Tally { commands, failed, of, last } in failures {
        unhealthy |= failed == of;
        parts.push(format!("the host: {failed} of the last {of} {commands} failed: {last}"));
    }
    if *forced > 0 {
        parts.push(format!("the host: {forced} channels were not stopped when they had to be"));
    }
    if *backwards > 0 {
        parts.push(format!(
            "the host: {backwards} usage reports were refused because they said less than the \
             reports before (UsageWentBackwards)"
        ));
    }
    match said {
        Some(Health::Degraded(detail)) => parts.push(format!("the module says: {detail}")),
        Some(Health::Unhealthy(detail)) => {
            unhealthy = true;
            parts.push(format!("the module says: {detail}"));
        }
        Some(Health::Healthy) if parts.is_empty() => return Some("healthy".to_owned()),
        Some(Health::Healthy) => parts.push("the module says: healthy".to_owned()),
        None if parts.is_empty() => return None,
        None => {}
    }
    let word = if unhealthy { "unhealthy" } else { "degraded" };
    Some(format!("{word}: {}", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(command: Command, at: Instant, failure: Option<&str>) -> Outcome {
        Outcome { command, at, failure: failure.map(str::to_owned) }
    }

    #[test]
    fn outcomes_count_by_command_for_a_while_and_up_to_a_number() {
        let (record, begun) = (Record::default(), Instant::now());
        let later = |seconds| begun + Duration::from_secs(seconds);
        record.add(outcome(Command::Start, begun, Some("first")));
        record.add(outcome(Command::Start, later(300), Some("second")));
        record.add(outcome(Command::Start, later(300), None));
        record.add(outcome(Command::Stop, later(300), None));
        let starts = |failed, of, last: &str| {
            vec![Tally { commands: "starts", failed, of, last: last.to_owned() }]
        };
        assert_eq!(record.failures(later(300)), starts(2, 3, "second"));
        assert_eq!(record.failures(later(600)), starts(1, 2, "second"));
        assert_eq!(record.failures(later(900)), []);
        for _ in 0..2 * MOST {
            record.add(outcome(Command::Start, later(901), Some("again")));
        }
        assert_eq!(record.failures(later(901)), starts(MOST, MOST, "again"));
    }

    #[test]
    fn what_the_host_measured_comes_before_what_the_module_says() {
        let failing = |failed, of| {
            vec![Tally { commands: "starts", failed, of, last: "the module panicked: x".into() }]
        };
        let degraded = || Some(Health::Degraded("slow disk".into()));
        let unhealthy = || Some(Health::Unhealthy("no disk".into()));
        let ok = || Some(Health::Healthy);
        for (failures, forced, backwards, said, expected) in [
            (vec![], 0, 0, None, None),
            (vec![], 0, 0, ok(), Some("healthy")),
            (vec![], 0, 0, degraded(), Some("degraded: the module says: slow disk")),
            (vec![], 0, 0, unhealthy(), Some("unhealthy: the module says: no disk")),
            (
                failing(4, 4),
                0,
                0,
                ok(),
                Some(
                    "unhealthy: the host: 4 of the last 4 starts failed: the module panicked: x; \
                     the module says: healthy",
                ),
            ),
            (
                failing(1, 4),
                0,
                0,
                None,
                Some("degraded: the host: 1 of the last 4 starts failed: the module panicked: x"),
            ),
            (
                vec![],
                2,
                0,
                None,
                Some("unhealthy: the host: 2 channels were not stopped when they had to be"),
            ),
            (
                vec![],
                0,
                7,
                degraded(),
                Some(
                    "degraded: the host: 7 usage reports were refused because they said less \
                     than the reports before (UsageWentBackwards); the module says: slow disk",
                ),
            ),
        ] {
            let findings = Findings { failures, forced, backwards, said };
            assert_eq!(words(&findings).as_deref(), expected, "{findings:?}");
        }
    }
}

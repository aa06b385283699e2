//! What is seen of the demo: a line for each step, with the time it took; and how it waits.
//!
//! Nothing waits for time to pass: [`wait`] asks until there is an answer, it is too late, or the
//! demo was interrupted.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::signals;
use crate::cargo::Outcome;

/// How long anything may take that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Stage {
    terminal: bool,
    since: Instant,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), since: Instant::now() }
    }

    /// Does a step and shows that it is done. It returns what is worth showing besides.
    pub(super) fn step<T>(
        &self,
        what: &str,
        act: impl FnOnce() -> Outcome<(String, T)>,
    ) -> Outcome<T> {
        let since = Instant::now();
        let outcome = if signals::interrupted() { Err("interrupted".into()) } else { act() };
        self.show(what, since, outcome)
    }

    /// As [`Stage::step`], also after an interruption.
    pub(super) fn ending(&self, what: &str, act: impl FnOnce() -> Outcome) -> Outcome {
        let since = Instant::now();
        self.show(what, since, act().map(|()| (String::new(), ())))
    }

    fn show<T>(&self, what: &str, since: Instant, outcome: Outcome<(String, T)>) -> Outcome<T> {
        let (good, bad) = if self.terminal { ("✓", "✗") } else { ("ok", "FAILED") };
        let took = since.elapsed().as_secs_f64();
        match outcome {
            Ok((detail, value)) => {
                let colon = if detail.is_empty() { "" } else { ": " };
                println!("{good} {what}{colon}{detail} ({took:.2} s)");
                Ok(value)
            }
            Err(problem) => {
                println!("{bad} {what} ({took:.2} s)\n    {problem}");
                Err(format!("the demo failed at \"{what}\": {problem}"))
            }
        }
    }

    /// A line that belongs to the step before it.
    pub(super) fn note(&self, text: &str) {
        println!("    {text}");
    }

    pub(super) fn close(&self) {
        println!("{:.1} s in all", self.since.elapsed().as_secs_f64());
    }
}

/// Asks until there is an answer; what is seen instead of it is for the report of a failure.
pub(super) fn wait<T>(
    what: &str,
    mut ask: impl FnMut() -> Outcome<Result<T, String>>,
) -> Outcome<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        let seen = match ask()? {
            Ok(answer) => return Ok(answer),
            Err(seen) => seen,
        };
        if signals::interrupted() {
            return Err("interrupted".into());
        }
        if Instant::now() > until {
            return Err(format!("expected {what} within {PATIENCE:?}, found {seen}"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// As [`wait`], for what has to be waited for even after an interruption.
pub(super) fn outlast<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > until {
            return answer;
        }
        std::thread::sleep(PAUSE);
    }
}

//! What a case is, and what can come of it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::Bench;

/// How long a case may take that does not say otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

type Outcome = Pin<Box<dyn Future<Output = Result<(), Finding>>>>;

/// When a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    /// Always.
    Required,
    /// With `--thorough`.
    Thorough,
}

/// One thing that has to be so.
#[derive(Clone)]
pub struct Case {
    /// Stable: the group, a dot, a name.
    pub id: &'static str,
    /// What has to be so.
    pub sentence: &'static str,
    /// The rule that it rests on: a page of the documentation, a colon, and the rule in its words.
    pub rule: &'static str,
    /// What to do where it is not.
    pub mend: &'static str,
    /// When it runs.
    pub set: Set,
    /// Cases without which this one says nothing.
    pub after: Vec<&'static str>,
    /// How long it may take.
    pub deadline: Duration,
    /// Whether its process has to end by itself.
    pub(crate) ends_in_time: bool,
    /// Whether it runs code of the module, and so needs a process that may break.
    pub(crate) runs_module: bool,
    pub(crate) run: Arc<dyn Fn(Bench) -> Outcome + Send + Sync>,
}

/// A case of the required set, which passes until it is given something to [`Case::run`].
pub fn case(id: &'static str, sentence: &'static str, rule: &'static str) -> Case {
    Case {
        id,
        sentence,
        rule,
        mend: "see the rule; the case's name says what was done",
        set: Set::Required,
        after: Vec::new(),
        deadline: DEADLINE,
        ends_in_time: false,
        runs_module: true,
        run: Arc::new(|_| Box::pin(async { Ok(()) })),
    }
}

impl Case {
    /// The part of the id before the dot.
    pub fn group(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(group, _)| group)
    }

    /// Fails also where its process does not end by itself.
    #[must_use]
    pub(crate) fn ends_in_time(self) -> Self {
        Self { ends_in_time: true, ..self }
    }

    /// Says what to do where it is not so.
    #[must_use]
    pub fn mend(self, mend: &'static str) -> Self {
        Self { mend, ..self }
    }

    /// Runs only where these have passed.
    #[must_use]
    pub fn after(mut self, ids: &[&'static str]) -> Self {
        self.after.extend_from_slice(ids);
        self
    }

    /// Runs only with `--thorough`, for at most so long.
    #[must_use]
    pub fn thorough(self, deadline: Duration) -> Self {
        Self { set: Set::Thorough, deadline, ..self }
    }

    /// Looks at the module's files alone: it runs in the kit's own process, which costs nothing.
    #[must_use]
    pub fn of_files(self) -> Self {
        Self { runs_module: false, ..self }
    }

    /// Says nothing, because the user wants it so.
    #[must_use]
    pub(crate) fn left_out(mut self) -> Self {
        self.after.clear();
        self.of_files().run(|_| async { Err(Finding::Skipped("left out by --skip".into())) })
    }

    /// What is done. It runs on a runtime of its own, and in a process of its own unless it is one
    /// [of files](Case::of_files).
    #[must_use]
    pub fn run<F>(self, run: impl Fn(Bench) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Finding>> + 'static,
    {
        Self { run: Arc::new(move |bench| Box::pin(run(bench))), ..self }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.id)
    }
}

/// Why a case did not simply pass. Every error is a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "why", rename_all = "lowercase")]
pub enum Finding {
    /// It is not so.
    Failed(String),
    /// It cannot be said.
    Skipped(String),
    /// It is so, but somebody should look.
    Warning(String),
}

impl<E: std::error::Error + 'static> From<E> for Finding {
    fn from(error: E) -> Self {
        Self::Failed(crate::chain(&error))
    }
}

/// A failure in a sentence.
pub fn failed(why: impl Into<String>) -> Finding {
    Finding::Failed(why.into())
}

/// Fails with the sentence unless something is so.
///
/// # Errors
/// The failure.
pub fn ensure(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<(), Finding> {
    if is_so { Ok(()) } else { Err(Finding::Failed(otherwise())) }
}

/// What came of a case, from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "why", rename_all = "kebab-case")]
pub enum Verdict {
    /// It is so.
    Passed,
    /// It is so, but somebody should look.
    Warning(String),
    /// It is not so.
    Failed(String),
    /// Its process ended before it was over.
    Crashed(String),
    /// Its process was still at it at the deadline.
    TimedOut(String),
    /// It cannot be said.
    Skipped(String),
}

impl Verdict {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Warning(_) => "warning",
            Self::Failed(_) => "failed",
            Self::Crashed(_) => "crashed",
            Self::TimedOut(_) => "timed out",
            Self::Skipped(_) => "skipped",
        }
    }

    /// Why, where there is something to say.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Warning(why)
            | Self::Failed(why)
            | Self::Crashed(why)
            | Self::TimedOut(why)
            | Self::Skipped(why) => Some(why),
        }
    }

    /// Whether it is so.
    pub fn is_pass(&self) -> bool {
        matches!(self, Self::Passed | Self::Warning(_))
    }

    /// Whether the module does not conform.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Crashed(_) | Self::TimedOut(_))
    }
}

impl From<Result<(), Finding>> for Verdict {
    fn from(result: Result<(), Finding>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(Finding::Failed(why)) => Self::Failed(why),
            Err(Finding::Skipped(why)) => Self::Skipped(why),
            Err(Finding::Warning(why)) => Self::Warning(why),
        }
    }
}

//! What came of it: for people, for programs, and in JUnit's form.

mod junit;
mod people;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) use self::people::{Progress, list};
use crate::case::{Case, Set, Verdict};
use crate::child::is_about_libraries;
use crate::core::{AMOUNTS, USUAL_AMOUNT};
use crate::runner::Ran;

/// The command that was given, but for which cases: it stands around those.
pub(crate) struct Again {
    pub(crate) before: String,
    pub(crate) after: String,
}

/// A whole run.
pub(crate) struct Summary<'a> {
    pub(crate) name: &'a str,
    pub(crate) library: &'a Path,
    pub(crate) again: Again,
    pub(crate) seed: u64,
    pub(crate) took: Duration,
    pub(crate) ran: &'a [Ran],
}

impl Summary<'_> {
    /// Whether nothing that is required failed.
    pub(crate) fn conforms(&self) -> bool {
        !self.ran.iter().any(|one| one.verdict.is_failure())
    }

    /// The cases that were not looked at, of those that can be said of this module.
    fn not_looked_at(&self) -> Vec<&'static str> {
        self.ran.iter().filter(|one| is_open(one)).map(|one| one.case.id).collect()
    }

    fn count(&self, word: &str) -> usize {
        self.ran.iter().filter(|one| one.verdict.word() == word).count()
    }

    pub(crate) fn json(&self) -> String {
        let cases: Vec<Value> = self.ran.iter().map(ran_json).collect();
        let whole = json!({
            "module": self.name,
            "library": self.library.display().to_string(),
            "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            "conforms": self.conforms(),
            "inPart": !self.not_looked_at().is_empty(),
            "notLookedAt": self.not_looked_at(),
            "cases": cases,
        });
        format!("{whole:#}")
    }
}

/// Whether a case could have said something of the module and did not.
fn is_open(one: &Ran) -> bool {
    let Verdict::Skipped(why) = &one.verdict else { return false };
    let absent = why.contains("the module has no agent's side")
        || why.contains("the module has no client's side")
        || why.contains("the module has one side only");
    !absent && !is_about_libraries(why)
}

/// What to do, by what was found: not every failure is the one that a case is about.
fn advice(one: &Ran) -> &str {
    const CRASHED: &str = "find what ends the process: a panic that leaves a thread, exit, abort, a \
                           stack that is too deep, a wild pointer; its last words are below";
    let why = one.verdict.why().unwrap_or_default();
    if matches!(one.verdict, Verdict::Crashed(_)) {
        CRASHED
    } else if why.starts_with("the program ended by itself")
        || why.starts_with("the program was ended by")
    {
        "keep the program running until it is told to end by SIGTERM; its last words are below"
    } else if why.contains("answered `UsageWentBackwards`") {
        "report the total of the session, which never falls; begin at 0 with each new session"
    } else {
        one.case.mend
    }
}

fn ran_json(one: &Ran) -> Value {
    let mut value = case_json(&one.case);
    value["outcome"] = one.verdict.word().into();
    value["seconds"] = one.took.as_secs_f64().into();
    if let Some(why) = one.verdict.why() {
        value["why"] = why.into();
    }
    if one.verdict.is_failure() {
        value["mend"] = advice(one).into();
        value["printed"] = one.printed.as_str().into();
    }
    value
}

fn case_json(case: &Case) -> Value {
    let set = match case.set {
        Set::Required => "required",
        Set::Thorough => "thorough",
    };
    json!({"id": case.id, "set": set, "sentence": case.sentence, "rule": case.rule, "needs": case.after})
}

/// The catalogue for programs.
pub(crate) fn list_json(cases: &[Case]) -> String {
    format!("{:#}", Value::Array(cases.iter().map(case_json).collect()))
}

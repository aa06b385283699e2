//! What came of it: for people, for programs, and in JUnit's form.

mod junit;
mod people;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) use self::people::{Progress, list};
use crate::case::{Case, Set};
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
            "cases": cases,
        });
        format!("{whole:#}")
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
        value["mend"] = one.case.mend.into();
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

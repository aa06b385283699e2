//! Lines for a person: each case as it ends, and at the end what failed and how to mend it.

use privatix_domain::present::escaped;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Mutex;

use super::{AMOUNTS, Summary, USUAL_AMOUNT, advice};
use crate::case::{Case, Set, Verdict};
use crate::runner::Ran;

/// Tells of each case on standard error while it goes on.
pub(crate) struct Progress {
    total: usize,
    quiet: bool,
    /// One line that is written over, where somebody looks on.
    live: bool,
    done: Mutex<usize>,
}

impl Progress {
    pub(crate) fn new(total: usize, quiet: bool, live: bool) -> Self {
        Self { total, quiet, live, done: Mutex::new(0) }
    }

    pub(crate) fn tell(&self, one: &Ran) {
        if self.quiet {
            return;
        }
        let mut done = self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *done += 1;
        let (done, total) = (*done, self.total);
        let (word, id) = (one.verdict.word(), one.case.id);
        let seconds = one.took.as_secs_f64();
        let line = format!("{done:>3}/{total} {word:<9} {id} ({seconds:.1} s)");
        let passing = matches!(one.verdict, Verdict::Passed | Verdict::Skipped(_));
        // Where nobody reads it, there is nobody to tell.
        let _ = if self.live && passing {
            write!(io::stderr(), "\r\x1b[K{line}").and_then(|()| io::stderr().flush())
        } else if self.live {
            writeln!(io::stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    pub(crate) fn end(&self) {
        if self.live && !self.quiet {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Summary<'_> {
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for one in self.ran.iter().filter(|one| one.verdict.is_failure()) {
            let _ = writeln!(text, "{} {}", one.verdict.word().to_uppercase(), one.case.id);
            part(&mut text, "has to be", one.case.sentence);
            part(&mut text, "rule", one.case.rule);
            part(&mut text, "found", one.verdict.why().unwrap_or_default());
            part(&mut text, "to mend", advice(one));
            part(
                &mut text,
                "again",
                &format!(
                    "{} --only {} --seed {}{}",
                    self.again.before, one.case.id, self.seed, self.again.after
                ),
            );
            if !one.printed.is_empty() {
                part(&mut text, "printed", one.printed.trim_end());
            }
            text.push('\n');
        }
        for one in self.ran {
            if let Verdict::Warning(why) = &one.verdict {
                let _ = writeln!(text, "WARNING {}", one.case.id);
                part(&mut text, "found", why);
                part(&mut text, "to mend", one.case.mend);
                text.push('\n');
            }
        }
        self.skipped(&mut text);
        let counts: Vec<String> =
            ["passed", "warning", "failed", "crashed", "timed out", "skipped"]
                .iter()
                .map(|word| (word, self.count(word)))
                .filter(|(_, count)| *count > 0)
                .map(|(word, count)| format!("{count} {word}"))
                .collect();
        let open = self.not_looked_at().len();
        let verdict = match (self.conforms(), open) {
            (true, 0) => "conforms".to_owned(),
            (true, open) => format!(
                "conforms in part ({open} of {} cases were not looked at, see above)",
                self.ran.len()
            ),
            (false, _) => "does not conform".to_owned(),
        };
        let _ = write!(
            text,
            "{} {verdict}: {} in {:.1} s (seed {})",
            self.name,
            counts.join(", "),
            self.took.as_secs_f64(),
            self.seed
        );
        text
    }

    /// The reasons for skipping, each once.
    fn skipped(&self, text: &mut String) {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for one in self.ran {
            let Verdict::Skipped(why) = &one.verdict else { continue };
            match reasons.iter_mut().find(|(known, _)| known == why) {
                Some((_, ids)) => ids.push(one.case.id),
                None => reasons.push((why, vec![one.case.id])),
            }
        }
        for (why, ids) in &reasons {
            let why = escaped(why);
            let _ = writeln!(text, "skipped, {why}:\n  {}", ids.join(", "));
        }
        if !reasons.is_empty() {
            text.push('\n');
        }
    }
}

/// What a module has said may contain anything, and goes to a terminal.
fn part(text: &mut String, name: &str, content: &str) {
    let mut lines = content.split('\n').map(escaped);
    let _ = writeln!(text, "  {name:<10} {}", lines.next().unwrap_or_default());
    for line in lines {
        let _ = writeln!(text, "  {:<10} {line}", "");
    }
}

/// The catalogue for people.
pub(crate) fn list(cases: &[Case]) -> String {
    let mut text = String::new();
    let mut group = "";
    for case in cases {
        if case.group() != group {
            group = case.group();
            let _ = writeln!(text, "{}{group}", if text.is_empty() { "" } else { "\n" });
        }
        let set = if case.set == Set::Thorough { " (thorough)" } else { "" };
        let _ = writeln!(text, "  {}{set}\n      {}\n      {}", case.id, case.sentence, case.rule);
    }
    let amounts: Vec<String> = AMOUNTS.iter().map(u64::to_string).collect();
    let _ = write!(
        text,
        "\n`exercise` is asked for {} smallest units. Another amount in NAME.check.toml, such as \
         `amount = 12` for a service of seconds, stands for {USUAL_AMOUNT}; the others follow it.\n",
        amounts.join(", ")
    );
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn what_a_module_says_is_lines_of_its_own_part_and_does_nothing_to_the_terminal() {
        let said = "one\n  PASSED all\r\u{1b}[2J\u{202e}x\u{2028}y";
        let mut text = String::new();
        part(&mut text, "printed", said);
        let expected = "  printed    one\n             \u{20}\u{20}PASSED all\\r\\u{1b}[2J\\u{202e}x\\u{2028}y\n";
        assert_eq!(text, expected);
    }
}

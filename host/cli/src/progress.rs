//! What is going on, for a person who waits: on standard error, moving where that is a terminal,
//! and a line for each change where it is not. For programs, which ask for JSON, it is silent.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::one_line;

/// How often what moves moves.
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Progress {
    way: Way,
    waiting: String,
}

enum Way {
    Silent,
    Lines,
    Moving(ProgressBar),
}

impl Progress {
    pub(super) fn new(silent: bool) -> Self {
        let way = if silent {
            Way::Silent
        } else if io::stderr().is_terminal() {
            Way::Moving(ProgressBar::new_spinner().with_style(style()))
        } else {
            Way::Lines
        };
        Self { way, waiting: String::new() }
    }

    /// Something that has happened.
    pub(super) fn done(&mut self, what: &str) {
        self.waiting.clear();
        match &self.way {
            Way::Silent => {}
            Way::Lines => line(what),
            Way::Moving(bar) => bar.suspend(|| line(what)),
        }
    }

    /// What is waited for from now on.
    pub(super) fn wait(&mut self, what: &str) {
        if self.waiting == what {
            return;
        }
        what.clone_into(&mut self.waiting);
        match &self.way {
            Way::Silent => {}
            Way::Lines => line(what),
            Way::Moving(bar) => {
                // One line, or it could not be taken back.
                bar.set_message(one_line(what));
                bar.enable_steady_tick(TICK);
            }
        }
    }

    /// Lets something be written that is to stay.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.way {
            Way::Moving(bar) => bar.suspend(write),
            _ => write(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Way::Moving(bar) = &self.way {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn line(text: &str) {
    // A reader that closed the stream wants no more lines.
    let _ = writeln!(io::stderr(), "{}", one_line(text));
}

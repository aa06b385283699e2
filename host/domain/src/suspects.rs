//! Which library is to blame when the host has died.
//!
//! A module in the host's process can take the process with it. Before a library is loaded, created,
//! configured and told of its live channels, a note says so on disk; what stands there at the next
//! start was under way when the host ended. How it ended is known from its last words, where it had
//! any: a signal that the process brought on itself, or `exit`.
//!
//! Not covered: what a module does to the process without being noticed there and then.

/// How the host's last run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// In order, or there was none.
    Clean,
    /// The whole machine went down.
    Machine,
    /// By a signal of its own making, or by `exit`, in this thread.
    Crashed {
        /// What it was, for sentences.
        what: String,
        /// The name of the thread, as far as the kernel keeps it.
        thread: String,
    },
    /// Killed from outside, by the kernel for want of memory, or by `_exit`: nobody can tell.
    Unknown,
}

/// What a library was being told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The module.
    pub module: String,
    /// Whether this library has ever come up.
    pub proven: bool,
    /// How often in a row the host had died of an unknown cause before while it came up.
    pub deaths: u32,
}

/// What becomes of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Innocent,
    /// It is tried again, after the others and alone.
    Watched,
    /// It is set aside.
    Guilty,
}

/// How often in a row the host may die of an unknown cause while a proven library comes up.
pub const UNKNOWN_DEATHS: u32 = 8;

/// Crashes within [`CRASH_WINDOW`] after which a library is set aside that crashes while it serves.
pub const CRASHES: usize = 3;

/// In seconds.
pub const CRASH_WINDOW: u64 = 600;

/// What becomes of each library that was coming up when the host ended.
pub fn judge(end: &End, notes: &[Note]) -> Vec<Verdict> {
    let unproven = notes.iter().any(|note| !note.proven);
    let named =
        |note: &Note| matches!(end, End::Crashed { thread, .. } if is_of(thread, &note.module));
    let one_is_named = notes.iter().any(named);
    let crashed_elsewhere =
        matches!(end, End::Crashed { thread, .. } if module_in(thread).is_some());
    let verdict = |note: &Note| match end {
        End::Clean | End::Machine => Verdict::Innocent,
        End::Crashed { .. } if one_is_named && named(note) => Verdict::Guilty,
        End::Crashed { .. } if one_is_named || crashed_elsewhere => Verdict::Innocent,
        // Some thread that tells nothing. A library that never came up is the likely culprit.
        End::Crashed { .. } | End::Unknown if unproven && !note.proven => Verdict::Guilty,
        End::Crashed { .. } | End::Unknown if unproven => Verdict::Innocent,
        End::Crashed { .. } if notes.len() == 1 => Verdict::Guilty,
        // A host that is killed while a good library comes up says nothing against the library.
        End::Crashed { .. } | End::Unknown if note.deaths + 1 >= UNKNOWN_DEATHS => Verdict::Guilty,
        End::Crashed { .. } | End::Unknown => Verdict::Watched,
    };
    notes.iter().map(verdict).collect()
}

/// What the names of a module's threads begin with.
const THREADS: [&str; 2] = ["mod-", "load-"];

/// The kernel keeps so many bytes of a thread's name.
const THREAD_NAME: usize = 15;

/// Whether a thread of this name is one of the module's.
pub fn is_of(thread: &str, module: &str) -> bool {
    let whole = THREADS.iter().map(|prefix| format!("{prefix}{module}"));
    // The name of a module is ASCII.
    whole.into_iter().any(|name| name.get(..THREAD_NAME).unwrap_or(&name) == thread)
}

/// The name of a module, or its beginning, if the thread is one of a module's.
pub fn module_in(thread: &str) -> Option<&str> {
    THREADS.iter().find_map(|prefix| thread.strip_prefix(prefix))
}

/// What the last words say; none were left where the text is empty.
pub fn last_words(text: &str) -> End {
    let mut words = text.trim().splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some("signal"), Some(number), thread) => End::Crashed {
            what: format!("signal {number}"),
            thread: thread.unwrap_or_default().to_owned(),
        },
        (Some("exit"), Some(_), thread) => End::Crashed {
            what: "exit()".to_owned(),
            thread: thread.unwrap_or_default().to_owned(),
        },
        _ => End::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> Note {
        let mut words = text.split('/');
        let module = words.next().expect("a name").to_owned();
        let proven = words.next() == Some("proven");
        let deaths = words.next().map_or(0, |deaths| deaths.parse().expect("a number"));
        Note { module, proven, deaths }
    }

    #[test]
    fn who_is_to_blame() {
        let killed = "";
        for (end, notes, expected) in [
            // The thread says who it was, whatever else was under way.
            ("signal 11 mod-bad", "bad/proven good/proven", "Guilty Innocent"),
            ("signal 4 load-bad", "bad/new", "Guilty"),
            ("exit 0 mod-bad", "good/new bad/proven", "Innocent Guilty"),
            ("signal 11 mod-served", "good/new other/proven", "Innocent Innocent"),
            ("signal 11 mod-a-very-long", "a-very-long-name/proven", "Guilty"),
            // A thread that tells nothing.
            ("signal 6 tokio-rt-worker", "bad/new good/proven", "Guilty Innocent"),
            ("signal 6 tokio-rt-worker", "bad/proven", "Guilty"),
            ("signal 6 own thread", "one/proven two/proven", "Watched Watched"),
            // Killed, as far as anybody can tell.
            (killed, "bad/new", "Guilty"),
            (killed, "bad/new good/proven", "Guilty Innocent"),
            (killed, "good/proven", "Watched"),
            (killed, "good/proven/6", "Watched"),
            (killed, "bad/proven/7", "Guilty"),
            (killed, "", ""),
        ] {
            let notes: Vec<_> = notes.split_whitespace().map(note).collect();
            let found: Vec<_> =
                judge(&last_words(end), &notes).iter().map(|v| format!("{v:?}")).collect();
            assert_eq!(found.join(" "), expected, "{end:?} with {notes:?}");
        }
        for end in [End::Clean, End::Machine] {
            assert_eq!(judge(&end, &[note("bad/new")]), [Verdict::Innocent], "{end:?}");
        }
    }
}

//! Starts a process for each case that runs the module's code, bounds it in time, reaps it, and says
//! what came of it.
//!
//! Cases run side by side, but none before those that it needs. Every process is the leader of a
//! group, which is killed once the case is over; what has left the group becomes this process's
//! child and is killed as well. A case's process leaves a note of its verdict: ending without one is
//! a crash, with whatever status.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::case::{Case, Verdict};
use crate::child::{self, NOTE, SUBCOMMAND};
use crate::core::Bench;
use crate::process;

/// How often a process is looked after.
const LOOK: Duration = Duration::from_millis(5);
/// How long a process may take to end once its case is over.
const ENDING: Duration = Duration::from_secs(5);
/// How often it is looked for children of killed children: more than anybody nests by accident.
const GENERATIONS: usize = 100;
/// How much of what a process has printed is shown.
const SHOWN: usize = 2000;

/// A case and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    pub(crate) case: Case,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
    /// The end of what its process printed.
    pub(crate) printed: String,
}

/// How the cases are run.
pub(crate) struct Runner<'a> {
    /// This binary, to be started again.
    pub(crate) binary: PathBuf,
    /// Where the subject is noted, and where cases get directories.
    pub(crate) directory: &'a Path,
    /// For cases that look at files alone.
    pub(crate) bench: Bench,
    /// How many at once.
    pub(crate) jobs: usize,
}

struct State {
    waiting: Vec<Case>,
    done: HashMap<&'static str, Verdict>,
    running: Vec<i32>,
}

impl Runner<'_> {
    /// Runs the cases, in an order that suits them, and tells of each as it ends.
    pub(crate) fn run(&self, cases: &[Case], told: impl Fn(&Ran) + Sync) -> io::Result<Vec<Ran>> {
        // What leaves its group and loses its parent becomes this process's to reap.
        nix::sys::prctl::set_child_subreaper(true)?;
        let state = Mutex::new(State {
            waiting: cases.iter().rev().cloned().collect(),
            done: HashMap::new(),
            running: Vec::new(),
        });
        let (ended, ran) = (Condvar::new(), Mutex::new(Vec::new()));
        std::thread::scope(|threads| {
            for _ in 0..self.jobs.max(1) {
                threads.spawn(|| {
                    while let Some(next) = self.next(&state, &ended) {
                        let (case, skipped) = next;
                        let one = match skipped {
                            Some(why) => skip(case, why),
                            None => self.one(case, &state),
                        };
                        lock(&state).done.insert(one.case.id, one.verdict.clone());
                        ended.notify_all();
                        told(&one);
                        lock(&ran).push(one);
                    }
                });
            }
        });
        let mut ran = ran.into_inner().unwrap_or_else(PoisonError::into_inner);
        ran.sort_by_key(|one| cases.iter().position(|case| case.id == one.case.id));
        Ok(ran)
    }

    /// A case whose needs are settled; with the reason if one of them did not pass.
    fn next(&self, state: &Mutex<State>, ended: &Condvar) -> Option<(Case, Option<String>)> {
        let mut guard = lock(state);
        loop {
            if guard.waiting.is_empty() {
                return None;
            }
            let known = &guard.done;
            let ready = |case: &Case| case.after.iter().all(|id| known.contains_key(id));
            if let Some(at) = guard.waiting.iter().rposition(ready) {
                let case = guard.waiting.remove(at);
                let why = obstacle(&case, &guard.done);
                return Some((case, why));
            }
            // Somebody is at what is needed: the catalogue has no circles.
            guard = ended.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn one(&self, case: Case, state: &Mutex<State>) -> Ran {
        let begun = Instant::now();
        if !case.runs_module {
            // A crate's own case may panic: then others must not wait for it.
            let ran = catch_unwind(AssertUnwindSafe(|| child::run_here(&case, self.bench.clone())));
            let verdict = ran.map_or_else(
                |_| Verdict::Crashed("it panicked; the message is above".into()),
                Verdict::from,
            );
            return Ran { case, verdict, took: begun.elapsed(), printed: String::new() };
        }
        let directory = self.directory.join(case.id);
        let (verdict, printed) = match self.watch(&case, &directory, state) {
            Ok(outcome) => outcome,
            Err(error) => {
                (Verdict::Failed(format!("the kit could not run it: {error}")), String::new())
            }
        };
        // Nothing of it is needed any more; a module may have made it unremovable.
        let _ = fs::remove_dir_all(&directory);
        Ran { case, verdict, took: begun.elapsed(), printed }
    }

    fn watch(
        &self,
        case: &Case,
        directory: &Path,
        state: &Mutex<State>,
    ) -> io::Result<(Verdict, String)> {
        let temporary = directory.join("tmp");
        fs::create_dir_all(&temporary)?;
        let output = directory.join("printed");
        let file = File::create(&output)?;
        let mut command = Command::new(&self.binary);
        command.arg(SUBCOMMAND).arg(self.directory).arg(case.id).arg(directory);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.current_dir(directory).env("TMPDIR", &temporary).process_group(0);
        // A host is not started by cargo either: what a library needs has to be found without these.
        command.env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD");
        let mut child = {
            // Under the lock, so that nobody takes it for a stray.
            let mut state = lock(state);
            let child = command.spawn()?;
            state.running.push(id(&child).as_raw());
            child
        };
        let ended = wait(&mut child, &directory.join(NOTE), case.deadline);
        let group = id(&child);
        // It may be empty by now.
        let _ = killpg(group, Signal::SIGKILL);
        let ended = match ended? {
            Some(status) => Some(status),
            None => {
                child.wait()?;
                None
            }
        };
        {
            let mut state = lock(state);
            state.running.retain(|running| *running != group.as_raw());
            reap_strays(&state.running);
        }
        let verdict = verdict(case, directory, ended);
        Ok((verdict, tail(&fs::read(&output).unwrap_or_default())))
    }
}

/// The child's exit status, or nothing if it had to be killed.
fn wait(child: &mut Child, note: &Path, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    let mut until = Instant::now() + deadline;
    let mut ending = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if !ending && note.exists() {
            ending = true;
            until = Instant::now() + ENDING;
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn verdict(case: &Case, directory: &Path, ended: Option<ExitStatus>) -> Verdict {
    let Some(finding) = child::note(directory) else {
        return match ended {
            None => Verdict::TimedOut(format!("not over within {:?}", case.deadline)),
            Some(status) => Verdict::Crashed(format!("its process ended with {}", said(status))),
        };
    };
    let verdict = Verdict::from(finding.map_or(Ok(()), Err));
    match ended {
        Some(status) if !status.success() && verdict.is_pass() => Verdict::Crashed(format!(
            "all went well, but when its process was to end it ended with {}",
            said(status)
        )),
        None if verdict.is_pass() && case.ends_in_time => Verdict::Failed(format!(
            "its process did not end within {ENDING:?}: a host says LoadTimedOut"
        )),
        None if verdict.is_pass() => Verdict::Warning(format!(
            "all went well, but its process did not end within {ENDING:?} and had to be killed"
        )),
        _ => verdict,
    }
}

/// A status in words: the name of a signal says more than its number.
fn said(status: ExitStatus) -> String {
    match status.signal().and_then(|number| Signal::try_from(number).ok()) {
        Some(signal) => format!("the signal {signal}"),
        None => match status.code() {
            Some(code) => format!("exit status {code}, before the case was over"),
            None => status.to_string(),
        },
    }
}

/// Kills and waits for children that are nobody's: of modules, whose parents are gone. Those of one that
/// is killed come to this process in turn.
fn reap_strays(running: &[i32]) {
    for _ in 0..GENERATIONS {
        let mut strays = process::children().unwrap_or_default();
        strays.retain(|child| !running.contains(child));
        if strays.is_empty() {
            return;
        }
        for stray in strays.into_iter().map(Pid::from_raw) {
            let _ = kill(stray, Signal::SIGKILL);
            let _ = waitpid(stray, Some(WaitPidFlag::empty()));
        }
    }
}

/// Why a case says nothing now: what it needs did not pass.
fn obstacle(case: &Case, done: &HashMap<&'static str, Verdict>) -> Option<String> {
    case.after.iter().find_map(|id| match done.get(id) {
        Some(verdict) if verdict.is_pass() => None,
        Some(Verdict::Skipped(why)) if !why.starts_with("needs ") => {
            Some(format!("needs {id}, which was skipped: {why}"))
        }
        Some(Verdict::Skipped(why)) => Some(why.clone()),
        Some(verdict) => Some(format!("needs {id}, which {}", verdict.word())),
        None => Some(format!("needs {id}, which did not run")),
    })
}

fn skip(case: Case, why: String) -> Ran {
    let verdict = Verdict::Skipped(why);
    Ran { case, verdict, took: Duration::ZERO, printed: String::new() }
}

fn tail(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(SHOWN);
    String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
}

fn id(child: &Child) -> Pid {
    // Ids of processes are positive and fit.
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

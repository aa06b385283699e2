//! Ctrl-C and its like: noted, so that the demo ends itself and leaves nothing behind.
//!
//! The signals are blocked for every thread and awaited by one. Children inherit that, so those that
//! live long are started with the signals let through; in that moment alone a signal ends this
//! process as ever.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::signal::{SigSet, Signal};

use crate::cargo::Outcome;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether somebody wants the demo to end.
pub(super) fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// Until it is dropped, signals do not end this thread and those it starts.
pub(super) struct Caught;

impl Caught {
    pub(super) fn new() -> Outcome<Self> {
        signals().thread_block().map_err(|error| format!("blocking signals: {error}"))?;
        std::thread::spawn(|| {
            if signals().wait().is_ok() {
                INTERRUPTED.store(true, Relaxed);
            }
        });
        Ok(Self)
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        let _ = signals().thread_unblock();
    }
}

/// Starts a process with the signals let through; nothing that takes its time belongs in it.
pub(super) fn let_through<T>(act: impl FnOnce() -> T) -> T {
    let let_through = signals().thread_unblock().is_ok();
    let outcome = act();
    if let_through {
        let _ = signals().thread_block();
    }
    outcome
}

fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

//! An interrupted run: nothing of it is left, neither a process nor a file.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::process;

/// How often the directory is tried to be removed, and the pause between.
const TRIES: u32 = 100;
const AGAIN: Duration = Duration::from_millis(10);

/// Whether the end has begun.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Does not return to say what came of cases that were killed by an interruption.
pub(crate) fn give_way() {
    while BEGUN.load(SeqCst) {
        std::thread::park();
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP end what was started, remove the directory and end this
/// process, with the status that a shell gives a program so ended.
pub(crate) fn clean_up_after(directory: PathBuf) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _runtime = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(|kind| signal(kind).map(|arrivals| (kind, arrivals)))
    };
    let [first, second, third] = signals;
    let (mut first, mut second, mut third) = (first?, second?, third?);
    std::thread::spawn(move || {
        let kind = runtime.block_on(async {
            tokio::select! {
                _ = first.1.recv() => first.0,
                _ = second.1.recv() => second.0,
                _ = third.1.recv() => third.0,
            }
        });
        BEGUN.store(true, SeqCst);
        // The deepest last: what loses its parent meanwhile is in the list already.
        for process in process::descendants().unwrap_or_default() {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        // The killed process may have been making a file.
        for _ in 0..TRIES {
            if std::fs::remove_dir_all(&directory).is_ok() || !directory.exists() {
                break;
            }
            std::thread::sleep(AGAIN);
        }
        std::process::exit(128 + kind.as_raw_value());
    });
    Ok(())
}

//! Watches the plugins directory and hands each module's files to its supervisor.
//!
//! Every event means no more than "look again": events come early, merged, or not at all. What is
//! true is what a scan finds, and one is made now and then without any event.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::lifecycle::Context;
use super::package::{self, PackageFiles, Scan};
use super::supervisor::Supervisor;
use privatix_base::condition::Condition;

/// A slow copy makes an event for each write; scans are not made more often than this.
const BREATH: Duration = Duration::from_millis(10);

/// Watches until shutdown, then waits until every module has been taken down.
pub(super) async fn run(
    directory: PathBuf,
    rescan: Duration,
    context: Arc<Context>,
    mut shutdown: watch::Receiver<bool>,
) {
    let look = Arc::new(Notify::new());
    let mut eyes = Eyes {
        directory: directory.clone(),
        look: Arc::clone(&look),
        watched: None,
        blind: Condition::new("the plugins directory cannot be watched, only scanned"),
    };
    let mut flock =
        Flock { context, shutdown: shutdown.clone(), files: HashMap::new(), tasks: JoinSet::new() };
    let mut unread = Condition::new("the plugins directory cannot be read");
    let mut first = true;
    loop {
        eyes.open();
        // Running modules go on: a directory that cannot be read is not an empty one.
        if let Some(scan) = unread.note(package::scan(&directory)) {
            if std::mem::take(&mut first) {
                let modules = scan.iter().filter(|(_, files)| files.is_module());
                flock.context.trials.expect(modules.map(|(name, _)| name.clone()));
            }
            flock.hand_out(scan);
        }
        tokio::time::sleep(BREATH).await;
        tokio::select! {
            () = look.notified() => {}
            () = tokio::time::sleep(rescan) => {}
            () = super::going_down(&mut shutdown) => break,
        }
    }
    while flock.tasks.join_next().await.is_some() {}
}

/// The watch on the directory, made anew when the directory is another one.
struct Eyes {
    directory: PathBuf,
    look: Arc<Notify>,
    watched: Option<((u64, u64), RecommendedWatcher)>,
    blind: Condition,
}

impl Eyes {
    fn open(&mut self) {
        let identity = std::fs::metadata(&self.directory).map(|meta| (meta.dev(), meta.ino())).ok();
        if identity.is_some() && identity == self.watched.as_ref().map(|(known, _)| *known) {
            return;
        }
        self.watched = None;
        let Some(identity) = identity else { return };
        let look = Arc::clone(&self.look);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // That something was missed is a reason as well.
            if event.map_or(true, |event| may_change(event.kind)) {
                look.notify_one();
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        // Without it, the rescan still finds everything, only later.
        self.watched = self.blind.note(watcher).map(|watcher| (identity, watcher));
    }
}

/// Whether there may be something new. That somebody reads is not: a scan reads too, and would
/// otherwise be the reason of the next one, for ever.
fn may_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The supervisors.
struct Flock {
    context: Arc<Context>,
    shutdown: watch::Receiver<bool>,
    files: HashMap<String, watch::Sender<PackageFiles>>,
    tasks: JoinSet<()>,
}

impl Flock {
    fn hand_out(&mut self, mut scan: Scan) {
        for (name, sender) in &self.files {
            let files = scan.remove(name).unwrap_or_default();
            sender.send_if_modified(|known| {
                let changed = *known != files;
                *known = files;
                changed
            });
        }
        for (name, files) in scan {
            let (sender, receiver) = watch::channel(files);
            let (context, shutdown) = (Arc::clone(&self.context), self.shutdown.clone());
            self.tasks.spawn(Supervisor::new(name.clone(), context, receiver, shutdown).run());
            self.files.insert(name, sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_scan_is_no_reason_for_another_and_a_change_is() {
        let plugins = tempfile::tempdir().expect("a directory");
        let (send, events) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(send).expect("a watcher");
        watcher.watch(plugins.path(), RecursiveMode::NonRecursive).expect("watched");
        package::scan(plugins.path()).expect("readable");
        fs::write(plugins.path().join("x.so"), "x").expect("written");
        // In the order in which it happened; the end of writing is told apart from that of reading.
        let first = loop {
            let event: Event = events.recv().expect("open").expect("an event");
            if may_change(event.kind) {
                break event.kind;
            }
        };
        assert!(first.is_create(), "{first:?}");
        let end = EventKind::Access(AccessKind::Close(AccessMode::Write));
        while events.recv().expect("open").expect("an event").kind != end {}
        assert!(may_change(end));
    }
}

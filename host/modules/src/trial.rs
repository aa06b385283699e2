//! One module at a time does what may end the host, so that it is known which one did.
//!
//! At the start of the host the libraries that have come up before go first. A module that takes long
//! keeps the others waiting only for a moment: then both are under way.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::timeout;

/// How long a module waits for another one that is coming up.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a library without a record waits for those that have one, at the start of the host.
const AFTER_OTHERS: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Trials {
    turn: Mutex<()>,
    /// Modules that were there when the host started, and have not been looked at yet.
    waiting: watch::Sender<HashSet<String>>,
}

impl Trials {
    /// These modules are there when the host starts.
    pub(super) fn expect(&self, names: impl IntoIterator<Item = String>) {
        self.waiting.send_replace(names.into_iter().collect());
    }

    /// A module has come up, or will not for now.
    pub(super) fn seen(&self, name: &str) {
        self.waiting.send_if_modified(|waiting| waiting.remove(name));
    }

    /// Waits for the turn of a module. It is over when what is returned is dropped.
    pub(super) async fn turn(&self, name: &str, proven: bool) -> Option<MutexGuard<'_, ()>> {
        if !proven {
            // It is last, and the others that are last do not wait for it.
            self.seen(name);
            let mut waiting = self.waiting.subscribe();
            let _ = timeout(AFTER_OTHERS, waiting.wait_for(HashSet::is_empty)).await;
        }
        timeout(PATIENCE, self.turn.lock()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn library_without_a_record_comes_after_those_that_have_one() {
        let trials = Arc::new(Trials::default());
        trials.expect(["new".to_owned(), "good".to_owned(), "refused".to_owned()]);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let come_up = |name: &'static str, proven| {
            let (trials, order) = (Arc::clone(&trials), Arc::clone(&order));
            tokio::spawn(async move {
                let turn = trials.turn(name, proven).await;
                order.lock().expect("unpoisoned").push(name);
                drop(turn);
                trials.seen(name);
            })
        };
        let new = come_up("new", false);
        tokio::task::yield_now().await;
        let good = come_up("good", true);
        trials.seen("refused");
        new.await.expect("done");
        good.await.expect("done");
        assert_eq!(*order.lock().expect("unpoisoned"), ["good", "new"]);
    }

    #[tokio::test]
    async fn module_that_hangs_keeps_no_other_waiting_for_long() {
        let trials = Trials::default();
        let hangs = trials.turn("hangs", true).await;
        assert!(hangs.is_some());
        assert!(trials.turn("other", true).await.is_none(), "both are under way");
    }
}

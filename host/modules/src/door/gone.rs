//! Whether somebody still waits for an answer.

use tokio::sync::watch;

/// Somebody waits, for as long as this is there.
pub struct Here {
    _news: watch::Sender<()>,
}

/// Whether somebody does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gone(watch::Receiver<()>);

impl Here {
    /// The two ends.
    pub fn new() -> (Self, Gone) {
        let (news, gone) = watch::channel(());
        (Self { _news: news }, Gone(gone))
    }
}

impl Gone {
    /// Whether nobody waits any more.
    pub fn is_gone(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// The outcome of something that may be broken off; nothing once nobody waits for it any more.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut news = self.0.clone();
        let gone = async { while news.changed().await.is_ok() {} };
        tokio::select! {
            biased;
            () = gone => None,
            done = work => Some(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_broken_off() {
        let (here, gone) = Here::new();
        assert_eq!(gone.unless(async { 7 }).await, Some(7));
        assert!(!gone.is_gone());
        let waiting = tokio::spawn({
            let gone = gone.clone();
            async move { gone.unless(std::future::pending::<()>()).await }
        });
        drop(here);
        assert_eq!(waiting.await.expect("no panic"), None);
        assert!(gone.is_gone());
    }
}

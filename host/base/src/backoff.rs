//! When to try again what failed, held in memory alone: it has to work where nothing can be saved.
//!
//! It is for what fails because of the host's own database. What is told by another party or a module is
//! put off in the database, where it survives a restart.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use privatix_domain::back_off::soon;

/// The longest pause: once the fault is over, everything works again this soon.
const LONGEST: Duration = Duration::from_secs(8);

/// Failures in a row of each of several things.
#[derive(Debug)]
pub struct Backoff<K> {
    failed: HashMap<K, Failed>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    count: u32,
    until: Instant,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self { failed: HashMap::new() }
    }
}

impl<K: Hash + Eq> Backoff<K> {
    /// It failed once more: 1 s, 2 s, 4 s, 8 s. Returns when it may be tried again.
    pub fn failed(&mut self, what: K) -> Instant {
        let now = Instant::now();
        // Of what was not tried again nothing is kept.
        self.failed.retain(|_, failed| failed.until + 2 * LONGEST > now);
        let failed = self.failed.entry(what).or_insert(Failed { count: 0, until: now });
        failed.count = failed.count.saturating_add(1);
        failed.until = now + soon(failed.count).min(LONGEST);
        failed.until
    }

    /// It worked.
    pub fn worked(&mut self, what: &K) {
        self.failed.remove(what);
    }

    /// Whether it may be tried now.
    pub fn is_ready(&self, what: &K) -> bool {
        self.until(what).is_none_or(|until| until <= Instant::now())
    }

    /// Until when it is not to be tried, if it failed last.
    pub fn until(&self, what: &K) -> Option<Instant> {
        self.failed.get(what).map(|failed| failed.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_bound_and_end_with_a_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_ready(&"a"));
        for seconds in [1, 2, 4, 8, 8, 8] {
            let until = backoff.failed("a");
            assert_eq!(until - Instant::now(), Duration::from_secs(seconds));
            assert!(!backoff.is_ready(&"a") && backoff.is_ready(&"b"));
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert!(backoff.is_ready(&"a"));
        }
        backoff.worked(&"a");
        assert_eq!(backoff.failed("a") - Instant::now(), Duration::from_secs(1));
        tokio::time::advance(3 * LONGEST).await;
        backoff.failed("b");
        assert_eq!(backoff.failed.len(), 1, "what is never tried again is forgotten");
    }
}

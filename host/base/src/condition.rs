//! What lasts is logged when it begins and when it ends, not each time somebody looks; what comes at
//! any rate is logged now and then.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Reasons that are remembered of one episode, so that two that take turns are logged once each.
const REASONS: usize = 8;

/// A condition that somebody looks at again and again.
#[derive(Debug)]
pub struct Condition {
    /// What is the matter while it lasts, as a sentence without its end.
    what: &'static str,
    /// The reasons that were logged since it began.
    reasons: Vec<String>,
}

impl Condition {
    /// One that does not hold yet.
    pub const fn new(what: &'static str) -> Self {
        Self { what, reasons: Vec::new() }
    }

    /// It holds now, for this reason. Returns whether that was logged.
    pub fn holds(&mut self, reason: impl Display) -> bool {
        let reason = reason.to_string();
        if self.reasons.contains(&reason) || self.reasons.len() == REASONS {
            return false;
        }
        tracing::error!(reason, "{}", self.what);
        self.reasons.push(reason);
        true
    }

    /// It does not hold now. Returns whether that was logged.
    pub fn is_over(&mut self) -> bool {
        if self.reasons.is_empty() {
            return false;
        }
        self.reasons.clear();
        tracing::info!("over: {}", self.what);
        true
    }

    /// Notes a result, and hands its value on.
    pub fn note<T, E: std::error::Error + 'static>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.is_over();
                Some(value)
            }
            Err(error) => {
                self.holds(privatix_plugin_api::chain(&error));
                None
            }
        }
    }
}

/// How often an event that may come at any rate is logged.
const EVERY: Duration = Duration::from_secs(10);

/// An event that may come at any rate.
#[derive(Debug)]
pub struct Seldom {
    what: &'static str,
    /// When it was logged last, and how often it has happened since.
    last: Mutex<Option<(Instant, u64)>>,
}

impl Seldom {
    /// One that has not happened yet.
    pub const fn new(what: &'static str) -> Self {
        Self { what, last: Mutex::new(None) }
    }

    /// It has happened, for this reason. Returns whether that was logged.
    pub fn happened(&self, reason: impl Display) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((at, more)) if at.elapsed() < EVERY => {
                *more += 1;
                false
            }
            _ => {
                let before = last.replace((Instant::now(), 0)).map_or(0, |(_, more)| more);
                tracing::error!(reason = %reason, not_logged = before, "{}", self.what);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_begin_its_reasons_and_its_end_are_logged_once() {
        let mut condition = Condition::new("it rains");
        assert!(!condition.is_over());
        for _ in 0..2 {
            assert!(condition.holds("a cloud"));
            for _ in 0..3 {
                assert!(!condition.holds("a cloud"));
            }
            assert!(condition.holds("another cloud"));
            assert!(!condition.holds("a cloud"));
            assert!(condition.is_over());
            assert!(!condition.is_over());
        }
        let logged = (0..100).filter(|number| condition.holds(number)).count();
        assert_eq!(logged, REASONS, "bounded, whatever the reasons are");
    }

    #[test]
    fn what_happens_all_the_time_is_logged_now_and_then() {
        let seldom = Seldom::new("a drop fell");
        assert!(seldom.happened("rain"));
        assert!((0..1000).all(|_| !seldom.happened("rain")));
    }

    #[test]
    fn a_result_is_noted() {
        let mut condition = Condition::new("it fails");
        assert_eq!(condition.note(Err::<u8, _>(std::fmt::Error)), None);
        assert!(!condition.holds(std::fmt::Error));
        assert_eq!(condition.note(Ok::<_, std::fmt::Error>(1)), Some(1));
        assert!(!condition.is_over());
    }
}

//! From times to figures. All are in nanoseconds.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Times of the same thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Figures {
    /// Of at least one time.
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            // The nearest rank: the smallest time that so many percent do not exceed.
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).copied().unwrap_or(f64::NAN)
        };
        Self { p50: at(50), p99: at(99) }
    }
}

/// Calls of `call`, `size` a batch: the time of one call, for each batch.
pub(crate) fn batches(number: usize, size: u32, mut call: impl FnMut()) -> Vec<f64> {
    let mut batch = || {
        let begun = Instant::now();
        (0..size).for_each(|_| call());
        nanoseconds(begun.elapsed()) / f64::from(size)
    };
    // The first ones find everything cold.
    (0..number / 10).for_each(|_| _ = batch());
    (0..number).map(|_| batch()).collect()
}

pub(crate) fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// A line of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    #[serde(rename = "p50Ns")]
    pub(crate) p50: f64,
    #[serde(rename = "p99Ns")]
    pub(crate) p99: f64,
    /// With how many callers at once it says itself.
    pub(crate) per_second: Option<f64>,
    pub(crate) callers: u32,
    pub(crate) floor: Option<Floor>,
    /// The most that `p50` should be.
    #[serde(rename = "targetNs")]
    pub(crate) target: Option<f64>,
}

/// The same without what is measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Floor {
    pub(crate) what: &'static str,
    #[serde(rename = "p50Ns")]
    pub(crate) p50: f64,
    #[serde(rename = "p99Ns")]
    pub(crate) p99: f64,
    /// How many times the floor it costs, by `p50`.
    pub(crate) ratio: f64,
}

impl Row {
    pub(crate) fn new(what: &'static str, figures: Figures) -> Self {
        let Figures { p50, p99 } = figures;
        Self { what, p50, p99, per_second: None, callers: 1, floor: None, target: None }
    }

    pub(crate) fn above(self, what: &'static str, floor: Figures) -> Self {
        let ratio = self.p50 / floor.p50;
        Self { floor: Some(Floor { what, p50: floor.p50, p99: floor.p99, ratio }), ..self }
    }

    pub(crate) fn per_second(self, per_second: f64, callers: u32) -> Self {
        Self { per_second: Some(per_second), callers, ..self }
    }

    pub(crate) fn target(self, nanoseconds: f64) -> Self {
        Self { target: Some(nanoseconds), ..self }
    }

    pub(crate) fn misses_target(&self) -> bool {
        self.target.is_some_and(|target| self.p50 >= target)
    }
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        for (count, p50, p99) in
            [(1, 1.0, 1.0), (2, 1.0, 2.0), (100, 50.0, 99.0), (101, 51.0, 100.0)]
        {
            let times = (1..=count).rev().map(f64::from).collect();
            assert_eq!(Figures::of(times), Figures { p50, p99 }, "1 to {count}");
        }
    }
}

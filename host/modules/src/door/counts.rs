//! What is counted of a product's calls since the host started: how many there were, how they ended,
//! and how long they took. Counting takes no lock.
//!
//! Not covered: who reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use privatix_core::{AdapterCall, ModuleCall};
use privatix_plugin_api::message::{CoreRequest, ErrorName};
use strum::VariantArray;
use uuid::Uuid;

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "camelCase")]
#[allow(missing_docs, reason = "they are the calls of the Service API")]
pub enum Called {
    AuthClient,
    SetProductConfig,
    GetAccess,
    ServiceReady,
    StartSession,
    UpdateSession,
    StopSession,
    HoldChannel,
    Log,
    /// A program wants to be told commands.
    Subscribe,
    /// A call that this host does not know, or no call at all.
    Unknown,
}

impl Called {
    /// As the Service API spells it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl From<&ModuleCall> for Called {
    fn from(call: &ModuleCall) -> Self {
        match call {
            ModuleCall::Api(CoreRequest::AuthClient { .. }) => Self::AuthClient,
            ModuleCall::Api(CoreRequest::SetProductConfig { .. }) => Self::SetProductConfig,
            ModuleCall::Api(CoreRequest::GetAccess { .. }) => Self::GetAccess,
            ModuleCall::Api(CoreRequest::ServiceReady { .. }) => Self::ServiceReady,
            ModuleCall::Api(CoreRequest::StartSession { .. })
            | ModuleCall::Adapter(AdapterCall::Start { .. }) => Self::StartSession,
            ModuleCall::Api(CoreRequest::UpdateSession { .. })
            | ModuleCall::Adapter(AdapterCall::Update { .. }) => Self::UpdateSession,
            ModuleCall::Api(CoreRequest::StopSession { .. })
            | ModuleCall::Adapter(AdapterCall::Stop { .. }) => Self::StopSession,
            ModuleCall::Api(CoreRequest::HoldChannel { .. }) => Self::HoldChannel,
            ModuleCall::Api(CoreRequest::Log(_)) => Self::Log,
            ModuleCall::Api(_) => Self::Unknown,
        }
    }
}

/// Calls are sorted by how long they took, from when they were asked to their answer, with the wait
/// for their turn. These are the upper bounds; the last sort has none.
const BOUNDS: [Duration; 11] = [
    Duration::from_micros(100),
    Duration::from_micros(300),
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// The names of errors, and one more for those of a newer API.
const NAMES: usize = ErrorName::ALL.len() + 1;

/// The counts of one product.
#[derive(Debug, Default)]
pub struct Counts {
    of: [OfCall; Called::VARIANTS.len()],
}

#[derive(Debug, Default)]
struct OfCall {
    asked: AtomicU64,
    answered: AtomicU64,
    refused: [AtomicU64; NAMES],
    dropped: AtomicU64,
    nanoseconds: AtomicU64,
    within: [AtomicU64; BOUNDS.len() + 1],
}

/// A call that is being counted.
pub(super) struct Begun {
    counts: Arc<Counts>,
    called: Called,
    since: Instant,
}

impl Counts {
    /// Counts a call that has come.
    pub(super) fn begin(self: &Arc<Self>, called: Called) -> Begun {
        add(&self.of(called).asked, 1);
        Begun { counts: Arc::clone(self), called, since: Instant::now() }
    }

    fn of(&self, called: Called) -> &OfCall {
        &self.of[called as usize]
    }

    /// What has been counted so far, without calls that never came.
    pub fn snapshot(&self) -> Vec<CallCounts> {
        let came = Called::VARIANTS.iter().filter(|called| read(&self.of(**called).asked) > 0);
        came.map(|called| self.of(*called).snapshot(*called)).collect()
    }
}

impl Begun {
    pub(super) fn called(&self) -> Called {
        self.called
    }

    /// It was answered well.
    pub(super) fn answered(self, now: Instant) {
        self.took(now);
        add(&self.counts.of(self.called).answered, 1);
    }

    /// It was refused.
    pub(super) fn refused(self, name: ErrorName) {
        self.took(Instant::now());
        add(&self.counts.of(self.called).refused[place(name)], 1);
    }

    /// It was broken off before its turn: nobody waited any more.
    pub(super) fn dropped(self) {
        add(&self.counts.of(self.called).dropped, 1);
    }

    fn took(&self, now: Instant) {
        let (of, took) = (self.counts.of(self.called), now.duration_since(self.since));
        add(&of.nanoseconds, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        add(&of.within[BOUNDS.partition_point(|bound| *bound < took)], 1);
    }
}

impl OfCall {
    fn snapshot(&self, called: Called) -> CallCounts {
        let refused = ErrorName::ALL.into_iter().chain([ErrorName::Unknown]);
        let refused = refused.map(|name| (name, read(&self.refused[place(name)])));
        let bounds = BOUNDS.into_iter().map(Some).chain([None]);
        CallCounts {
            called,
            asked: read(&self.asked),
            answered: read(&self.answered),
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            dropped: read(&self.dropped),
            took: Duration::from_nanos(read(&self.nanoseconds)),
            within: bounds.zip(&self.within).map(|(bound, count)| (bound, read(count))).collect(),
        }
    }
}

fn place(name: ErrorName) -> usize {
    ErrorName::ALL.iter().position(|other| *other == name).unwrap_or(ErrorName::ALL.len())
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// The counts of one product at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductCounts {
    /// The product.
    pub product: Uuid,
    /// The module that had it last.
    pub module: String,
    /// By call, those that came at least once.
    pub calls: Vec<CallCounts>,
}

/// The counts of one call. Those that are under way are the difference of what was asked and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallCounts {
    /// Which.
    pub called: Called,
    /// How often it came.
    pub asked: u64,
    /// How often it was answered well.
    pub answered: u64,
    /// How often it was refused, by the name of the error.
    pub refused: Vec<(ErrorName, u64)>,
    /// How often it was broken off before its turn, because nobody waited for the answer any more.
    pub dropped: u64,
    /// How long all that ended took together, with the wait for their turn.
    pub took: Duration,
    /// How many of them took no longer than a bound and longer than the one before; the last has none.
    pub within: Vec<(Option<Duration>, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_sorted_by_how_long_they_took() {
        for (micros, expected) in [
            (0, Some(100)),
            (100, Some(100)),
            (101, Some(300)),
            (1_000, Some(1_000)),
            (9_999_999, Some(10_000_000)),
            (10_000_000, Some(10_000_000)),
            (10_000_001, None),
        ] {
            let counts = Arc::<Counts>::default();
            let count = counts.begin(Called::AuthClient);
            let (since, took) = (count.since, Duration::from_micros(micros));
            count.answered(since + took);
            let counted = &counts.snapshot()[0];
            let found = counted.within.iter().find(|(_, count)| *count == 1).expect("counted");
            assert_eq!(found.0, expected.map(Duration::from_micros), "{micros} µs");
            assert_eq!(counted.took, took);
        }
    }

    #[test]
    fn every_name_of_an_error_has_a_place_of_its_own() {
        let names = ErrorName::ALL.into_iter().chain([ErrorName::Unknown]);
        let places: std::collections::BTreeSet<usize> = names.map(place).collect();
        assert_eq!(places, (0..NAMES).collect());
    }
}

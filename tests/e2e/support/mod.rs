//! What every story needs: modules to drop, a host to drop them into, a way to wait.

pub(crate) mod crowd;
pub(crate) mod database;
pub(crate) mod existing;
pub(crate) mod gate;
pub(crate) mod misfortune;
pub(crate) mod module;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod program;
pub(crate) mod refusal;
pub(crate) mod socks;
pub(crate) mod trade;
pub(crate) mod vintage;

use std::fs::File;
use std::time::{Duration, Instant};

use privatix_modules::load::{Lease, NoLease};

pub(crate) use self::database::Database;
pub(crate) use self::misfortune::Misfortune;
pub(crate) use self::module::Package;
pub(crate) use self::node::Node;
pub(crate) use self::trade::Pair;

/// How long anything may take that is expected to happen; far more than it needs, since only a
/// failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a number has stayed the same for two seconds, which is how a transfer that waits is told
/// from one that is slow.
pub(crate) fn wait_still(what: &str, mut look: impl FnMut() -> u64) -> u64 {
    let mut since = (look(), Instant::now());
    wait_for(what, || {
        let now = look();
        if now != since.0 {
            since = (now, Instant::now());
        }
        (since.1.elapsed() >= Duration::from_secs(2)).then_some(now)
    })
}

/// Moments that look random and are the same in every run.
pub(crate) struct Moments(u64);

impl Moments {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // Knuth's MMIX generator.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Waits for something that builds a crate, and so may take minutes; nothing if it does not come.
pub(crate) fn wait_long<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + 20 * PATIENCE;
    while Instant::now() < until {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Whether the host can ask the kernel for writers of the files that the tests make.
pub(crate) fn leases() -> bool {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let (_, path) = file.into_parts();
    let reader = File::open(&path).expect("opened");
    !matches!(Lease::take(&reader), Err(NoLease::Unsupported(_)))
}

//! One core for all threads, as long as it is kept.
//!
//! Threads inherit it from the one that makes them, so runtimes have to be made while it is kept.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread.
const THIS: Pid = Pid::from_raw(0);

pub(super) struct OneCore {
    before: CpuSet,
}

impl OneCore {
    /// The first core that this thread may use, for it and for those it makes.
    pub(super) fn keep() -> nix::Result<Self> {
        let before = sched_getaffinity(THIS)?;
        let first = (0..CpuSet::count()).find(|core| before.is_set(*core).unwrap_or(false));
        let mut one = CpuSet::new();
        one.set(first.unwrap_or(0))?;
        sched_setaffinity(THIS, &one)?;
        Ok(Self { before })
    }

    /// All that it might use before.
    pub(super) fn leave(self) -> nix::Result<()> {
        sched_setaffinity(THIS, &self.before)
    }
}

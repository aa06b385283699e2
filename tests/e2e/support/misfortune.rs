//! What goes wrong below one process: its clock, its disk. See `tests/modules/misfortune`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;

use tempfile::NamedTempFile;

use super::module::libraries;
use super::wait_for;

/// Where the numbers are in the file that the preloaded library maps.
const CLOCK_AHEAD: u64 = 0;
const SYNCS_LEFT: u64 = 8;

pub(crate) struct Misfortune {
    file: NamedTempFile,
}

impl Misfortune {
    /// None so far.
    pub(crate) fn new() -> Self {
        let file = NamedTempFile::new().expect("a file");
        fs::write(file.path(), [0; 16]).expect("written");
        Self { file }
    }

    /// Has the process that the command starts suffer from it.
    pub(crate) fn befalls(&self, command: &mut Command) {
        let library = libraries().join("libmisfortune.so");
        assert!(library.exists(), "{} is not built", library.display());
        command.env("LD_PRELOAD", library).env("MISFORTUNE", self.file.path());
    }

    /// Sets the wall clock of the process, which may be running.
    pub(crate) fn set_clock_ahead(&self, seconds: i64) {
        self.set(CLOCK_AHEAD, seconds);
    }

    /// Has the next call fail that puts something on disk, and waits until it has.
    pub(crate) fn fail_sync(&self) {
        self.set(SYNCS_LEFT, 1);
        wait_for("a failed fsync", || (self.get(SYNCS_LEFT) == 0).then_some(()));
    }

    fn set(&self, at: u64, number: i64) {
        self.file.as_file().write_all_at(&number.to_ne_bytes(), at).expect("written");
    }

    fn get(&self, at: u64) -> i64 {
        let mut bytes = [0; 8];
        self.file.as_file().read_exact_at(&mut bytes, at).expect("read");
        i64::from_ne_bytes(bytes)
    }
}

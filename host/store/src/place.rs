//! The database's files, as they were when they were opened.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::fault::Replaced;

/// The file and its write-ahead log. A connection stays open as long as the host runs, so SQLite
/// itself never removes the log meanwhile.
#[derive(Debug)]
pub(super) struct Place {
    files: Vec<(PathBuf, (u64, u64))>,
}

impl Place {
    /// Notes the files that are there now.
    pub(super) fn note(path: &Path) -> io::Result<Self> {
        let mut files = vec![(path.to_owned(), identity(path)?)];
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        if let Ok(found) = identity(&log) {
            files.push((log, found));
        }
        Ok(Self { files })
    }

    /// Whether they are the same still.
    pub(super) fn check(&self) -> Result<(), Replaced> {
        for (path, known) in &self.files {
            match identity(path) {
                Ok(found) if found == *known => {}
                // Whether it is there is not known then; what is written says more.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                _ => return Err(Replaced(path.display().to_string())),
            }
        }
        Ok(())
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

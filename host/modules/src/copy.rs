//! Takes a file of the plugins directory in, once nobody is writing it.
//!
//! What is read here is what is used: the library that runs is the private copy, so overwriting
//! the original cannot change running code.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use privatix_plugin_api::json::hex;
use sha2::{Digest, Sha256};

use super::load::{Lease, NoLease};
use super::package::{FileEntry, Stamp, ownership_of};
use super::problem::{Code, Problem};

/// How long a file has to stay as it is where the file system cannot tell of writers.
const QUIET: Duration = Duration::from_secs(2);

/// The largest library taken in.
pub const MAX_LIBRARY: u64 = 512 << 20;
/// The largest template taken in.
pub const MAX_TEMPLATE: u64 = 256 << 10;

/// Since when each file has looked as it does; only used for empty
/// and unreadable ones, and where there are no leases.
#[derive(Debug, Default)]
pub struct Quiet {
    seen: HashMap<PathBuf, (Stamp, Instant)>,
}

impl Quiet {
    fn is_quiet(&mut self, path: &Path, stamp: Stamp, now: Instant) -> bool {
        match self.seen.get(path) {
            Some((known, since)) if *known == stamp => now.duration_since(*since) >= QUIET,
            _ => {
                self.seen.insert(path.to_owned(), (stamp, now));
                false
            }
        }
    }
}

/// Reads a file whole, from one moment in which nobody had it open for writing.
///
/// # Errors
/// `BeingWritten`, `NotRegularFile`, `WrongOwner`, `WritableByOthers`, `TooLarge`, `Unreadable`.
pub fn read_settled(entry: &FileEntry, limit: u64, quiet: &mut Quiet) -> Result<Vec<u8>, Problem> {
    let name = entry.name();
    let file =
        open(&entry.path).map_err(|error| not_opened(entry, &error, quiet, Instant::now()))?;
    let meta = file.metadata().map_err(|error| unreadable(&name, &error))?;
    if !meta.is_file() {
        return Err(not_regular(&name));
    }
    if let Some(problem) = ownership_of(&meta, &name, &entry.path) {
        return Err(problem);
    }
    if meta.len() > limit {
        return Err(Problem::new(
            Code::TooLarge,
            format!("{name} has {} bytes", meta.len()),
            format!("at most {limit} bytes"),
            "strip the library, or shorten the template",
        ));
    }
    // A new file is there a moment before its writer counts as one: an empty one may be just that.
    if meta.len() == 0 && !quiet.is_quiet(&entry.path, Stamp::from(&meta), Instant::now()) {
        return Err(being_written(&name));
    }
    let lease = match Lease::take(&file) {
        Ok(lease) => Some(lease),
        Err(NoLease::Writer) => return Err(being_written(&name)),
        Err(NoLease::Unsupported(_)) => {
            if !quiet.is_quiet(&entry.path, Stamp::from(&meta), Instant::now()) {
                return Err(being_written(&name));
            }
            None
        }
    };
    let bytes = read(&file, meta.len()).map_err(|error| unreadable(&name, &error))?;
    let after = file.metadata().map_err(|error| unreadable(&name, &error))?;
    drop(lease);
    let same = (after.len(), after.modified().ok()) == (meta.len(), meta.modified().ok());
    if same && bytes.len() as u64 == meta.len() { Ok(bytes) } else { Err(being_written(&name)) }
}

/// Puts the bytes of a library into the cache, under a name made of their hash, and returns path
/// and hash. A copy that is there already stays: it may be mapped.
///
/// # Errors
/// When it cannot be written; nothing half-written stays.
pub fn keep(cache: &Path, bytes: &[u8]) -> io::Result<(PathBuf, String)> {
    let hash = hex(&Sha256::digest(bytes));
    let path = cache.join(format!("{hash}.so"));
    if !path.exists() {
        let part = cache.join(format!("{hash}.part"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        let written = file.write_all(bytes);
        drop(file);
        if let Err(error) = written.and_then(|()| fs::rename(&part, &path)) {
            // The first error is the one to tell.
            let _ = fs::remove_file(&part);
            return Err(error);
        }
    }
    Ok((path, hash))
}

/// Neither follows a symbolic link nor waits for the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn read(mut file: &File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // One byte more, so that a file that grew is noticed.
    Read::by_ref(&mut file).take(length + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `install` as root writes a file that only root can read, and then gives it to its owner. So a new
/// file that the host may not open yet counts as being written.
fn not_opened(entry: &FileEntry, error: &io::Error, quiet: &mut Quiet, now: Instant) -> Problem {
    let name = entry.name();
    let meta = fs::symlink_metadata(&entry.path);
    match (error.kind(), meta) {
        (io::ErrorKind::PermissionDenied, Ok(meta))
            if !quiet.is_quiet(&entry.path, Stamp::from(&meta), now) =>
        {
            being_written(&name)
        }
        _ => unreadable(&name, error),
    }
}

fn being_written(name: &str) -> Problem {
    Problem::new(
        Code::BeingWritten,
        format!("{name} is being written"),
        "a file that nobody has open for writing",
        "wait; the package is looked at again by itself",
    )
}

fn not_regular(name: &str) -> Problem {
    Problem::new(
        Code::NotRegularFile,
        format!("{name} is no regular file"),
        "a regular file: neither a symbolic link nor a directory",
        "copy the file itself into the plugins directory",
    )
}

fn unreadable(name: &str, error: &io::Error) -> Problem {
    // What opening a symbolic link says under O_NOFOLLOW.
    if error.raw_os_error() == Some(libc::ELOOP) {
        return not_regular(name);
    }
    // The host's own trouble, which passes; the file may well be in order.
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EIO, libc::EINTR];
    if error.raw_os_error().is_some_and(|number| passing.contains(&number)) {
        return Problem::new(
            Code::HostFailed,
            format!("{name}: {error}"),
            "a host in working order",
            "see its limits (file descriptors, memory) and its disk; it tries again by itself",
        );
    }
    Problem::new(
        Code::Unreadable,
        format!("{name}: {error}"),
        "a file that the host can read",
        format!("give the host's user access to {name}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_leases_a_file_has_to_stay_as_it_is_for_two_seconds() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let stamp = |text: &str| {
            fs::write(&path, text).expect("written");
            Stamp::from(&fs::metadata(&path).expect("there"))
        };
        let (begin, first) = (Instant::now(), stamp("a"));
        let at = |ms| begin + Duration::from_millis(ms);
        let mut quiet = Quiet::default();
        assert!(!quiet.is_quiet(&path, first, at(0)));
        assert!(!quiet.is_quiet(&path, first, at(1_999)));
        assert!(quiet.is_quiet(&path, first, at(2_000)));
        let second = stamp("ab");
        assert!(!quiet.is_quiet(&path, second, at(2_001)));
        assert!(!quiet.is_quiet(&path, second, at(4_000)));
        assert!(quiet.is_quiet(&path, second, at(4_001)));
    }

    #[test]
    fn copies_are_named_by_content_and_made_once() {
        let cache = tempfile::tempdir().expect("a directory");
        let (path, hash) = keep(cache.path(), b"content").expect("kept");
        let before = Stamp::from(&fs::metadata(&path).expect("there"));
        assert_eq!(keep(cache.path(), b"content").expect("kept"), (path.clone(), hash));
        assert_eq!(Stamp::from(&fs::metadata(&path).expect("there")), before);
        assert_eq!(fs::read_dir(cache.path()).expect("readable").count(), 1);
    }

    #[test]
    fn an_unreadable_file_is_refused_only_when_it_stays_unreadable() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("libmine.so"), "whole").expect("written");
        let mut packages = crate::package::scan(directory.path()).expect("readable");
        let library = packages.remove("mine").expect("there").library.expect("a library");
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let (mut quiet, begin) = (Quiet::default(), Instant::now());
        for (after, expected) in
            [(0, Code::BeingWritten), (1_999, Code::BeingWritten), (2_000, Code::Unreadable)]
        {
            let now = begin + Duration::from_millis(after);
            let problem = not_opened(&library, &denied, &mut quiet, now);
            assert_eq!(problem.code, expected, "after {after} ms");
        }
    }

    #[test]
    fn an_empty_file_is_waited_for_and_then_read_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("libmine.so");
        let mut quiet = Quiet::default();
        let mut read = || {
            let mut packages = crate::package::scan(directory.path()).expect("readable");
            let library = packages.remove("mine").expect("there").library.expect("a library");
            read_settled(&library, MAX_LIBRARY, &mut quiet)
        };
        File::create(&path).expect("created");
        let early = read().expect_err("somebody may be about to write it");
        assert_eq!(early.code, Code::BeingWritten);
        fs::write(&path, "whole").expect("written");
        assert_eq!(read().expect("settled"), b"whole");
    }
}

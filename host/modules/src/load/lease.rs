//! Asks the kernel whether anybody has a file open for writing.
//!
//! A read lease is granted only while nobody has; a writer that comes meanwhile waits in `open`
//! until the lease is given back, so what is read under it is all from one moment.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Nobody writes this file as long as this lives.
#[derive(Debug)]
pub struct Lease<'a> {
    file: &'a File,
}

/// Why there is no lease.
#[derive(Debug)]
pub enum NoLease {
    /// Somebody has the file open for writing.
    Writer,
    /// This file system, or this user, has no leases.
    Unsupported(io::Error),
}

impl<'a> Lease<'a> {
    /// Takes a read lease on a file that is open for reading only.
    ///
    /// # Errors
    /// [`NoLease`].
    pub fn take(file: &'a File) -> Result<Self, NoLease> {
        // A writer's arrival is announced by a signal: by default SIGIO, which would end the
        // process. SIGURG is ignored by default.
        fcntl(file, F_SETSIG, libc::SIGURG).map_err(NoLease::Unsupported)?;
        match fcntl(file, libc::F_SETLEASE, libc::F_RDLCK) {
            Ok(()) => Ok(Self { file }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(NoLease::Writer),
            Err(error) => Err(NoLease::Unsupported(error)),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // Closing the file would give it back too; a failure here leaves nothing to do.
        let _ = fcntl(self.file, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

/// Which signal announces a writer; Linux has one number for it on all machines.
const F_SETSIG: libc::c_int = 10;

fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and both commands take an
    // int by value.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_writer_keeps_the_lease_from_being_given() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let writer = OpenOptions::new().write(true).create_new(true).open(&path).expect("created");
        let file = File::open(&path).expect("opened");
        match Lease::take(&file) {
            Err(NoLease::Writer) => {}
            // Where the file system has no leases there is nothing to show.
            Err(NoLease::Unsupported(_)) => return,
            Ok(_) => panic!("a lease beside a writer"),
        }
        drop(writer);
        let lease = Lease::take(&file).expect("nobody writes");
        let mut options = OpenOptions::new();
        options.write(true);
        let error = std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK)
            .open(&path)
            .expect_err("the lease is held");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(lease);
        OpenOptions::new().write(true).open(&path).expect("the lease was given back");
    }
}

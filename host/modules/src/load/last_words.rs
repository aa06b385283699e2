//! What the process leaves behind when a module ends it: a line in a file that was opened before.
//!
//! A crash is a signal that the process brings on itself; `exit` in a module would pass for a clean
//! end. Both are noted with the name of the thread, which says whose code it was, and the process
//! ends with a status that is not success. Nothing here is paid for while all is well.
//!
//! Not covered: `_exit`, a stack that overflows in a module's thread, and signals from outside. They
//! leave no words.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

/// The signals of a crash.
const SIGNALS: [c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// The exit status of a host that a module has ended by `exit`: an internal software error.
const EXIT_STATUS: c_int = 70;

/// The file; -1 where there is none, or the host ends by itself.
static FILE: AtomicI32 = AtomicI32::new(-1);

/// Whose words count: a child that a module has forked is another process.
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// As long as this lives, the end of the process is not the host's own.
#[derive(Debug)]
pub struct LastWords(());

/// Begins to watch. The file is emptied.
///
/// # Errors
/// A file that cannot be opened.
pub fn watch(path: &Path) -> io::Result<LastWords> {
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).to_owned();
    let file: File = options.open(path)?;
    PROCESS.store(std::process::id().cast_signed(), Ordering::SeqCst);
    // Open for as long as the process lives.
    FILE.store(file.into_raw_fd(), Ordering::SeqCst);
    static ONCE: Once = Once::new();
    ONCE.call_once(install);
    Ok(LastWords(()))
}

impl Drop for LastWords {
    fn drop(&mut self) {
        FILE.store(-1, Ordering::SeqCst);
    }
}

fn install() {
    // SAFETY: the function takes nothing, returns nothing and is there as long as the process.
    unsafe { libc::atexit(at_exit) };
    for signal in SIGNALS {
        // SAFETY: all zeroes is a valid `sigaction`, with an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as usize;
        // Once: what was there for the signal before does not matter to a process that dies of it.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        // SAFETY: the action is whole, its handler calls nothing but what a handler may call, and the
        // action before it is not asked for.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// By now the handler is the default again: a fault happens once more when this returns, and ends the
/// process; what was sent is sent once more.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid `siginfo_t` to a handler that is installed with SA_SIGINFO.
    let (code, sender) = unsafe { ((*info).si_code, (*info).si_pid()) };
    // SAFETY: async-signal-safe, and takes nothing.
    let own = unsafe { libc::getpid() };
    let sent = code <= 0;
    if !sent || sender == own {
        say("signal", signal);
    }
    if sent {
        // SAFETY: async-signal-safe; the signal is blocked until this handler has returned.
        unsafe { libc::raise(signal) };
    }
}

extern "C" fn at_exit() {
    if say("exit", 0) {
        // SAFETY: ends the process, whose other handlers are those of a host that does not exit.
        unsafe { libc::_exit(EXIT_STATUS) };
    }
}

/// Writes `WHAT NUMBER THREAD`, with what a signal's handler may use: no memory is asked for. Returns
/// whether the process is one that is watched.
fn say(what: &str, number: c_int) -> bool {
    // SAFETY: async-signal-safe, and takes nothing.
    let own = unsafe { libc::getpid() };
    let file = FILE.load(Ordering::SeqCst);
    if file < 0 || PROCESS.load(Ordering::SeqCst) != own {
        return false;
    }
    let mut line = [0_u8; 64];
    let mut length = 0;
    let mut put = |bytes: &[u8]| {
        for byte in bytes {
            if let Some(place) = line.get_mut(length) {
                *place = *byte;
                length += 1;
            }
        }
    };
    let mut name = [0_u8; 16];
    // SAFETY: the kernel writes a name of at most 16 bytes with its end.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    put(what.as_bytes());
    put(b" ");
    // No signal has three digits.
    let (tens, ones) = (number.unsigned_abs() / 10, number.unsigned_abs() % 10);
    put(&[b'0' + u8::try_from(tens % 10).unwrap_or(0), b'0' + u8::try_from(ones).unwrap_or(0)]);
    put(b" ");
    put(name.split(|byte| *byte == 0).next().unwrap_or_default());
    put(b"\n");
    // SAFETY: async-signal-safe; the bytes are there, and a descriptor that is none is an error.
    let written = unsafe { libc::write(file, line.as_ptr().cast(), length) };
    // A write that fails cannot be reported anywhere.
    let _ = written;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_the_thread_and_nothing_is_said_by_who_ends_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("last-words");
        let speak = || {
            let thread = std::thread::Builder::new().name("mod-a-module-of-length".into());
            thread.spawn(|| say("signal", 11)).expect("a thread").join().expect("joined")
        };
        let watching = watch(&path).expect("watched");
        assert!(speak());
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "signal 11 mod-a-module-of\n");
        drop(watching);
        assert!(!speak());
    }
}

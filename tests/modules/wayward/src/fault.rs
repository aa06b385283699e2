//! What this library does wrong: by the name that the tests write over a place in the built file.
//!
//! One library for all faults, so that a fault is a few bytes and not a build.

use std::hint::black_box;

/// Written over in the built library; see `tests/e2e/conformance.rs`.
#[used]
static FAULT: [u8; 32] = *b"fault-of-this-module:none       ";

/// Whether this is the library's fault.
pub(crate) fn is(name: &str) -> bool {
    // Read as it stands in the file, not as the compiler knows it.
    let bytes = black_box(&FAULT);
    std::str::from_utf8(bytes).is_ok_and(|text| text.trim_end() == name)
}

/// Runs when the process ends.
#[allow(unsafe_code)]
#[used]
// SAFETY: the loader calls what is listed in this section without arguments as the process ends, which is
// what the function's type says.
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

extern "C" fn at_exit() {
    while is("exit-hangs") {
        std::thread::park();
    }
}

/// Faults that end or stop the process, wherever they are asked for.
pub(crate) fn strike(at: &str) {
    let whole = |what: &str| is(&format!("{at}-{what}"));
    if whole("panics") {
        panic!("{at} was asked to panic");
    }
    if whole("aborts") {
        std::process::abort();
    }
    if whole("exits") {
        std::process::exit(0);
    }
    if whole("loops") {
        loop {
            std::hint::spin_loop();
        }
    }
    if whole("overflows") {
        black_box(descend(black_box(1)));
    }
    if whole("segfaults") {
        // The signal that a wild pointer brings.
        kill_self();
    }
}

pub(crate) fn ignore_sigterm() {
    #[allow(unsafe_code)]
    // SAFETY: ignoring a signal runs no code and touches no memory of anybody.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
}

pub(crate) fn open_umask() {
    #[allow(unsafe_code)]
    // SAFETY: setting the umask touches no memory.
    unsafe {
        libc::umask(0);
    }
}

#[allow(unconditional_recursion)]
fn descend(depth: u64) -> u64 {
    let room = black_box([depth; 512]);
    descend(depth + 1) + room[(depth % 512) as usize]
}

fn kill_self() {
    #[allow(unsafe_code)]
    // SAFETY: raising a signal in one's own process touches no memory.
    unsafe {
        libc::raise(libc::SIGSEGV);
    }
}

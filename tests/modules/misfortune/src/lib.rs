//! Preloaded into one process (`LD_PRELOAD`): the wall clock can be set and writes to disk can fail,
//! for that process alone, and while it runs.
//!
//! The environment variable `MISFORTUNE` names a file of two 64-bit integers in the machine's byte
//! order. The test changes the file; this library maps it, so a change is seen at once:
//!
//! 1. By how many seconds the wall clock (`CLOCK_REALTIME`) is ahead. Other clocks are not changed.
//! 2. How many calls of `fsync` and `fdatasync` still succeed before one fails with `EIO`, plus one:
//!    with 1 the next call fails. The library counts down; 0 means that none fails.
//!
//! The functions use the allocator, locks and clocks of the standard library nowhere: the process may
//! call them from anywhere.

use std::ffi::{CStr, c_int, c_long};
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

/// What the file holds.
#[repr(C)]
struct Control {
    clock_ahead: AtomicI64,
    syncs_left: AtomicI64,
}

/// Where nothing is to go wrong.
static CALM: Control = Control { clock_ahead: AtomicI64::new(0), syncs_left: AtomicI64::new(0) };

const VARIABLE: &CStr = c"MISFORTUNE";

fn control() -> &'static Control {
    static MAPPED: AtomicPtr<Control> = AtomicPtr::new(ptr::null_mut());
    let mut control = MAPPED.load(Ordering::Acquire);
    if control.is_null() {
        control = map().unwrap_or((&raw const CALM).cast_mut());
        MAPPED.store(control, Ordering::Release);
    }
    // SAFETY: it points to CALM, or to a mapping that is never taken away and is as long as a
    // `Control`, whose fields are atomics: any bytes are values, and others may change them.
    unsafe { &*control }
}

fn map() -> Option<*mut Control> {
    let length = size_of::<Control>();
    // SAFETY: the name is a C string, and so is what the variable holds; nobody changes the
    // environment of the tests' hosts while it is read. The mapping is a new one; its file has that
    // length, else nothing is mapped.
    unsafe {
        let path = libc::getenv(VARIABLE.as_ptr());
        if path.is_null() {
            return None;
        }
        let file = libc::open(path, libc::O_RDWR | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let mut about: libc::stat = std::mem::zeroed();
        let whole = libc::fstat(file, &raw mut about) == 0
            && usize::try_from(about.st_size).is_ok_and(|size| size >= length);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let start = if whole {
            libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, file, 0)
        } else {
            libc::MAP_FAILED
        };
        libc::close(file);
        (start != libc::MAP_FAILED).then_some(start.cast())
    }
}

/// Whether this call to put something on disk is the one that fails.
fn fails() -> bool {
    let count_down = |left: i64| (left > 0).then_some(left - 1);
    control().syncs_left.fetch_update(Ordering::AcqRel, Ordering::Acquire, count_down) == Ok(1)
}

/// What the C library's function returns where the kernel returned this.
fn outcome(result: c_long) -> c_int {
    // `syscall` has set the error already.
    c_int::try_from(result).unwrap_or(-1)
}

fn failed() -> c_int {
    // SAFETY: the C library's own address of the calling thread's error.
    unsafe { *libc::__errno_location() = libc::EIO };
    -1
}

/// Reads a clock.
///
/// # Safety
/// As of the C library: `time` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // SAFETY: the kernel checks the pointer itself.
    let result = outcome(unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) });
    if result == 0 && matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE) {
        // SAFETY: the kernel has just written to it.
        unsafe { (*time).tv_sec += control().clock_ahead.load(Ordering::Acquire) };
    }
    result
}

/// Puts a file on disk, or fails.
///
/// # Safety
/// None: it takes no pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(file: c_int) -> c_int {
    if fails() {
        return failed();
    }
    // SAFETY: no pointers.
    outcome(unsafe { libc::syscall(libc::SYS_fsync, file) })
}

/// Puts a file's data on disk, or fails.
///
/// # Safety
/// None: it takes no pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(file: c_int) -> c_int {
    if fails() {
        return failed();
    }
    // SAFETY: no pointers.
    outcome(unsafe { libc::syscall(libc::SYS_fdatasync, file) })
}

//! What of a connection is still in the kernel's queues.
//!
//! No library has a safe form of this request, so this file has the only unsafe code of the module.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

mod request {
    nix::ioctl_read_bad!(unacknowledged, nix::libc::TIOCOUTQ, std::ffi::c_int);
    nix::ioctl_read_bad!(unsent, nix::libc::SIOCOUTQNSD, std::ffi::c_int);
    nix::ioctl_read_bad!(unread, nix::libc::FIONREAD, std::ffi::c_int);
}

/// Bytes that were written and that the other side's system has not acknowledged. The end of the
/// data counts as one byte.
pub(crate) fn unacknowledged(stream: &TcpStream) -> io::Result<u64> {
    ask(stream, request::unacknowledged)
}

/// Of these, the bytes that this system has not sent yet.
pub(crate) fn unsent(stream: &TcpStream) -> io::Result<u64> {
    ask(stream, request::unsent)
}

/// Bytes that this system has acknowledged and that were not read.
pub(crate) fn unread(stream: &TcpStream) -> io::Result<u64> {
    ask(stream, request::unread)
}

fn ask(
    stream: &TcpStream,
    request: unsafe fn(c_int, *mut c_int) -> nix::Result<c_int>,
) -> io::Result<u64> {
    let mut bytes = 0;
    // SAFETY: both requests write one `int`, which `bytes` is, and keep no pointer to it. The
    // descriptor is open for as long as the stream is borrowed.
    unsafe { request(stream.as_raw_fd(), &raw mut bytes) }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

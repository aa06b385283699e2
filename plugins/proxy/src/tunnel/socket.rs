//! Reads and writes at once, without the system call that would find nothing.
//!
//! What takes or brings less than was asked for has emptied, or filled, a queue of the kernel: it is
//! waited for then. The readiness that is forgotten is the one that was known before the call, so that
//! nothing that comes meanwhile is missed.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv, send};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there; 0 means that the data has ended.
///
/// # Errors
/// `WouldBlock` if there is nothing.
pub(super) fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let asked = buffer.len();
    at_once(stream, Interest::READABLE, asked, || {
        Ok(recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
    })
}

/// Writes what there is room for.
///
/// # Errors
/// `WouldBlock` if there is none.
pub(super) fn write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    at_once(stream, Interest::WRITABLE, bytes.len(), || {
        Ok(send(stream.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?)
    })
}

fn at_once(
    stream: &TcpStream,
    interest: Interest,
    asked: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut moved = 0;
    let outcome = stream.try_io(interest, || {
        moved = call()?;
        match moved {
            0 => Ok(0),
            _ if moved < asked => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(moved),
        }
    });
    match outcome {
        Err(error) if moved > 0 && error.kind() == io::ErrorKind::WouldBlock => Ok(moved),
        outcome => outcome,
    }
}

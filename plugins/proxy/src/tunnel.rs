//! Bytes both ways between two streams, counted as they are delivered.
//!
//! Buffers are bounded and a slow peer slows only its own tunnel; an end of data one way is passed
//! on, and the other way goes on. Whoever drops the future closes nothing: the streams are the
//! caller's.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::{Instant, sleep};

/// Bytes on their way in one direction of a tunnel.
const BUFFER: usize = 16 * 1024;

/// How a tunnel ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error("passing bytes on")]
    Copy(#[source] io::Error),
    #[error("no byte either way for {0:?}")]
    Idle(Duration),
}

/// Copies both ways until both have ended. Each byte is added to `used` once it is delivered.
pub(crate) async fn run<A, B>(
    a: &mut A,
    b: &mut B,
    used: &AtomicU64,
    idle: Duration,
) -> Result<(), TunnelError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // The tunnel's own count is that no other tunnel of the channel keeps it from being idle.
    let moved = AtomicU64::new(0);
    let mut a = Counted { stream: a, used, moved: &moved };
    let mut b = Counted { stream: b, used, moved: &moved };
    tokio::select! {
        outcome = copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER) => {
            outcome.map(|_| ()).map_err(TunnelError::Copy)
        }
        () = is_idle(&moved, idle) => Err(TunnelError::Idle(idle)),
    }
}

/// Returns when the count stood still for so long, give or take a quarter: a timer re-armed for
/// each byte would cost more than the bytes.
async fn is_idle(moved: &AtomicU64, idle: Duration) {
    let mut last = (moved.load(Relaxed), Instant::now());
    while last.1.elapsed() < idle {
        sleep(idle / 4).await;
        let now = moved.load(Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

/// A stream whose accepted bytes are counted.
struct Counted<'a, S> {
    stream: &'a mut S,
    used: &'a AtomicU64,
    moved: &'a AtomicU64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.used.fetch_add(count as u64, Relaxed);
            self.moved.fetch_add(count as u64, Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

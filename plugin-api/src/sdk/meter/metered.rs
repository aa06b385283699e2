//! A stream whose bytes are counted as they pass.
//!
//! Credit is set aside for one step of the stream, and counted for what this step has moved: so what
//! is counted is what was read or written, whenever the stream is dropped. While there is no credit
//! nothing moves, and the other side waits.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::futures::OwnedNotified;

use super::{Meter, Reserved};

/// The most that one step may move. What a larger one saves in system calls it loses in the
/// processor's cache.
const PIECE: usize = 16 * 1024;

/// A stream of which a [`Meter`] counts every byte, both ways: made by [`Meter::stream`].
///
/// Use it as any stream, also with `tokio::io::copy` and `copy_bidirectional`. Reading and writing
/// return an error, which is the meter's [`Ended`](super::Ended), once nothing may be used any more.
pub struct Metered<S> {
    meter: Meter,
    stream: S,
    reading: Waiting,
    writing: Waiting,
}

/// What a direction waits for while there is no credit.
type Waiting = Option<Pin<Box<OwnedNotified>>>;

impl<S> Metered<S> {
    pub(super) fn new(meter: Meter, stream: S) -> Self {
        Self { meter, stream, reading: None, writing: None }
    }

    /// The stream itself, past the meter.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S> fmt::Debug for Metered<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metered").field("meter", &self.meter).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { meter, stream, reading, .. } = &mut *self;
        let most = buffer.remaining().min(PIECE);
        if most == 0 {
            return Pin::new(stream).poll_read(context, buffer);
        }
        let (reserved, granted) = ready!(poll_credit(meter, reading, context, most))?;
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(granted));
        ready!(Pin::new(stream).poll_read(context, &mut piece))?;
        let count = piece.filled().len();
        buffer.advance(count);
        reserved.used(count as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { meter, stream, writing, .. } = &mut *self;
        let most = bytes.len().min(PIECE);
        if most == 0 {
            return Pin::new(stream).poll_write(context, bytes);
        }
        let (reserved, granted) = ready!(poll_credit(meter, writing, context, most))?;
        let count = ready!(Pin::new(stream).poll_write(context, &bytes[..granted]))?;
        reserved.used(count as u64);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Sets credit aside for a step; waits while there is none.
fn poll_credit(
    meter: &Meter,
    waiting: &mut Waiting,
    context: &mut Context<'_>,
    most: usize,
) -> Poll<io::Result<(Reserved, usize)>> {
    let shared = &meter.handle.shared;
    loop {
        if let Some(ended) = meter.end() {
            *waiting = None;
            return Poll::Ready(Err(io::Error::other(ended)));
        }
        let reserved = shared.reserve(most as u64);
        // No more than `most`.
        let granted = usize::try_from(reserved.granted).unwrap_or(most);
        if granted > 0 {
            *waiting = None;
            return Poll::Ready(Ok((reserved, granted)));
        }
        match waiting {
            // From here on no change is missed; what has changed by now is looked at once more.
            None => {
                let changed = Arc::clone(&shared.changed).notified_owned();
                waiting.insert(Box::pin(changed)).as_mut().enable();
            }
            Some(changed) => {
                ready!(changed.as_mut().poll(context));
                *waiting = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The stream below a connection: who sends a large message waits until there is room for it, and who
//! does not read what it is sent for long is closed.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Sleep, sleep};

use super::budget::{Budget, Ticket};

/// How much of a message is read before there has to be room for all of it.
const FREE: usize = 8 * 1024;

/// How long the other end may take to read anything at all of what is written.
const STALLED: Duration = Duration::from_secs(10);

/// What is read of one message. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Intake {
    inner: Arc<Mutex<Reading>>,
}

#[derive(Default)]
struct Reading {
    /// Since the last whole message.
    bytes: usize,
    /// Who is charged for a large message, and for how much.
    payer: Option<(Budget, usize)>,
    ticket: Option<Ticket>,
}

impl Intake {
    /// From now on large messages are charged. Those of strangers are not: they are few, and small.
    pub(super) fn charge(&self, budget: Budget, most: usize) {
        self.lock().payer = Some((budget, most));
    }

    /// A message is there whole, and from now on somebody else's to account for.
    pub(super) fn whole(&self) {
        let mut reading = self.lock();
        reading.bytes = 0;
        reading.ticket = None;
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Asking = Pin<Box<dyn Future<Output = Ticket> + Send>>;

/// See the module's documentation.
pub(super) struct Tap<S> {
    inner: S,
    intake: Intake,
    asking: Option<Asking>,
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Duration,
}

impl<S> Tap<S> {
    pub(super) fn new(inner: S, intake: Intake) -> Self {
        Self { inner, intake, asking: None, stalled: None, patience: STALLED }
    }

    /// Waits until there is room for the message that is being read.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.asking.is_none() {
            let reading = self.intake.lock();
            let Some((budget, most)) = &reading.payer else { return Poll::Ready(()) };
            if reading.bytes <= FREE || reading.ticket.is_some() {
                return Poll::Ready(());
            }
            let (budget, most) = (budget.clone(), *most);
            self.asking = Some(Box::pin(async move { budget.hold(most).await }));
        }
        if let Some(asking) = &mut self.asking {
            let ticket = ready!(asking.as_mut().poll(context));
            self.asking = None;
            self.intake.lock().ticket = Some(ticket);
        }
        Poll::Ready(())
    }

    /// What a write has come to; one that waits for the other end does not wait for ever.
    fn within<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_room(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.intake.lock().bytes += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.within(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_shutdown(context);
        self.within(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, bytes);
        self.within(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use uuid::Uuid;

    use super::super::budget::Budgets;
    use super::*;

    #[tokio::test]
    async fn a_large_message_is_read_when_there_is_room_for_it() {
        let budget = Budgets::default().of(Some(Uuid::nil()));
        let taken = [budget.try_hold(8 << 20), budget.try_hold(8 << 20)];
        assert!(taken.iter().all(Option::is_some));
        let intake = Intake::default();
        let (mut program, host) = duplex(64 * 1024);
        let mut host = Tap::new(host, intake.clone());
        intake.charge(budget.clone(), 1 << 20);
        program.write_all(&[0; 40_000]).await.expect("sent");
        let mut part = [0; 8192];
        host.read_exact(&mut part).await.expect("the first of it");
        host.read_exact(&mut part[..1]).await.expect("and the first byte too many");
        let mut more = Box::pin(host.read(&mut part));
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut more).await.is_err());
        drop(taken);
        assert!(more.await.expect("read") > 0);
        let held = [budget.try_hold(8 << 20), budget.try_hold(8 << 20)];
        assert!(held[0].is_some() && held[1].is_none(), "it is charged");
        intake.whole();
        assert!(budget.try_hold(8 << 20).is_some());
    }

    #[tokio::test]
    async fn who_does_not_read_is_not_written_to_for_ever() {
        let (program, host) = duplex(16);
        let mut host = Tap::new(host, Intake::default());
        host.patience = Duration::from_millis(10);
        let error = host.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(program);
    }
}

//! What of a tunnel's bytes counts as used: what the receiver's system on the line has acknowledged.
//!
//! The kernel's queues know it, and each look at them is a system call. So a tunnel looks after so many
//! bytes, when the credit is low, now and then while bytes wait, and at its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::leg::is_reset;
use crate::queue;
use crate::session::Member;

/// After how many bytes on the line a tunnel counts. It counts earlier when the credit is low, and
/// every [`LOOK`] while bytes wait. To count is one or two system calls: for each buffer they would
/// take about a tenth of a tunnel's processor time.
pub(crate) const COUNT_AFTER: u64 = 256 * 1024;

/// How often a tunnel counts while bytes wait in queues.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// The bytes of one tunnel. Dropped, it has counted them all.
pub(super) struct Count<'a> {
    line: &'a TcpStream,
    pub(super) member: &'a Member,
    /// Whether what waits to be read from the line counts. It does at the client, whose system has
    /// told the agent that it is here. It does not at the agent, which has not served it yet.
    unread: bool,
    /// Bytes read from the line, and written to it.
    received: AtomicU64,
    sent: AtomicU64,
    /// Whether the end of the data was sent to the line.
    finished: AtomicBool,
    /// Whether what comes from the line is not read now.
    held: AtomicBool,
    counted: AtomicU64,
    /// Bytes that have passed the line since they were counted last.
    uncounted: AtomicU64,
    /// Bytes that were read, and that were written, on either side.
    moved: AtomicU64,
}

impl<'a> Count<'a> {
    pub(super) fn new(line: &'a TcpStream, member: &'a Member, unread: bool) -> Self {
        Self {
            line,
            member,
            unread,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            held: AtomicBool::new(false),
            counted: AtomicU64::new(0),
            uncounted: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    /// Takes credit without waiting. When the credit is low, everything that was used is counted
    /// first, so that the meter reports it and asks for more in time.
    pub(super) fn try_take(&self, most: usize) -> usize {
        let allowed = self.member.try_take(most);
        if allowed < most && self.uncounted.load(Relaxed) > 0 {
            self.now();
            return allowed + self.member.try_take(most - allowed);
        }
        allowed
    }

    /// Bytes were read from the line.
    pub(super) fn received(&self, count: usize) {
        self.passed(&self.received, count);
    }

    /// Bytes were written to the line.
    pub(super) fn sent(&self, count: usize) {
        self.passed(&self.sent, count);
    }

    fn passed(&self, total: &AtomicU64, count: usize) {
        let count = count as u64;
        total.fetch_add(count, Relaxed);
        if self.uncounted.fetch_add(count, Relaxed) + count >= COUNT_AFTER {
            self.now();
        }
        self.moved(count);
    }

    /// Bytes were read from the end, or written to it.
    pub(super) fn on_end(&self, count: usize) {
        self.moved(count as u64);
    }

    fn moved(&self, count: u64) {
        self.moved.fetch_add(count, Relaxed);
    }

    /// The end of the data was sent to the line.
    pub(super) fn finish(&self) {
        self.finished.store(true, Relaxed);
    }

    /// What comes from the line waits until the guard is dropped.
    pub(super) fn hold(&self) -> Held<'_> {
        self.held.store(true, Relaxed);
        Held(&self.held)
    }

    /// Counts what has passed the line since the last time; whether bytes wait in a queue.
    pub(super) fn now(&self) -> bool {
        let waiting = self.unacknowledged();
        self.all_but(waiting);
        waiting > 0 || self.held.load(Relaxed)
    }

    /// The bytes that were written to the line and that the other side has not acknowledged. Whether
    /// it has acknowledged the end of the data does not matter.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.without_end(queue::unacknowledged(self.line).unwrap_or(0))
    }

    /// Of what waits on the line, the bytes: the end of the data is one of the last.
    fn without_end(&self, waiting: u64) -> u64 {
        waiting.saturating_sub(u64::from(self.finished.load(Relaxed)))
    }

    /// Counts all that was received or sent but for so much of it.
    fn all_but(&self, waiting: u64) {
        self.uncounted.store(0, Relaxed);
        let unread = if self.unread { queue::unread(self.line).unwrap_or(0) } else { 0 };
        let sent = self.sent.load(Relaxed).saturating_sub(waiting);
        let passed = self.received.load(Relaxed) + sent;
        self.counted.store(self.member.deliver(passed, unread), Relaxed);
    }

    /// Keeps the count while bytes wait in queues. A tunnel at rest costs nothing. To be polled after
    /// what moves bytes, in the same task: nothing else tells it of them.
    pub(super) async fn keep(&self) -> Infallible {
        let mut timer = pin!(sleep(LOOK));
        let (mut seen, mut looking) = (0, false);
        poll_fn(|context| {
            loop {
                let moved = self.moved.load(Relaxed);
                if !looking && moved == seen {
                    return Poll::Pending;
                }
                if !looking {
                    (seen, looking) = (moved, true);
                    timer.as_mut().reset(Instant::now() + LOOK);
                }
                ready!(timer.as_mut().poll(context));
                // Bytes that wait are looked at again, and so are those that came meanwhile.
                looking = self.now() || moved != seen;
                seen = moved;
                timer.as_mut().reset(Instant::now() + LOOK);
            }
        })
        .await
    }

    /// The bytes that were moved, and those that were counted: changes while a tunnel is in use.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.moved.load(Relaxed), self.counted.load(Relaxed))
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        // What was sent arrives before the reset that follows; unless the other side has left.
        let is_reset = pin!(is_reset(self.line)).poll(&mut Context::from_waker(Waker::noop()));
        let queue = match is_reset {
            Poll::Ready(()) => queue::unacknowledged(self.line),
            Poll::Pending => queue::unsent(self.line),
        };
        self.all_but(self.without_end(queue.unwrap_or(0)));
    }
}

/// Set until it is dropped.
pub(super) struct Held<'a>(&'a AtomicBool);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

//! Bytes both ways between the other party and an end, counted where both parties can see them.
//!
//! The **line** is the connection between agent and client, the **end** is the agent's destination or
//! the client's local program. Both parties count on the line, what the receiver's system has
//! acknowledged: what is still in the sender's queue is not delivered, what waits to be read is. So
//! both count the same, however slow a reader is.
//!
//! Buffers are bounded, and a slow reader slows only its own tunnel. An end of data one way is passed
//! on, and the other way goes on. A reset is passed on as a reset, and whatever ends a tunnel before
//! both ways have ended, dropping the future included, ends with a reset of both connections:
//! nobody takes a part for the whole.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::queue;
use crate::session::Member;

/// Bytes on their way in one direction of a tunnel. A larger buffer saves system calls and costs more
/// processor time than they do: the bytes leave the cache before they are written.
const BUFFER: usize = 16 * 1024;

/// After how many bytes on the line a tunnel looks at the queues and counts. It counts earlier when
/// the credit is low, and every [`LOOK`] while bytes wait. Each look is one or two system calls: a
/// look for each buffer takes about a tenth of a tunnel's processor time.
pub(crate) const COUNT_AFTER: u64 = 256 * 1024;

/// How often the queues are looked at while bytes wait in them; at the end of a tunnel, at first.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
const SHORT: Duration = Duration::from_millis(1);

/// How long a reader may take nothing of what was sent before a reset.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// How a tunnel ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error("reading")]
    Read(#[source] io::Error),
    #[error("writing")]
    Write(#[source] io::Error),
    #[error("one side has reset its connection")]
    Reset,
    #[error("no byte either way for {0:?}")]
    Idle(Duration),
}

/// A connection that is reset when it is dropped, unless both of its ways have ended. The same
/// happens when the process is killed, since the system knows of it from the beginning.
#[derive(Debug)]
pub(crate) struct Leg {
    stream: TcpStream,
}

impl Leg {
    pub(crate) fn new(stream: TcpStream) -> Self {
        linger(&stream, Some(Duration::ZERO));
        Self { stream }
    }

    /// Both ways have ended.
    fn ended(&self) {
        linger(&self.stream, None);
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        // Before a reset, what has arrived is acknowledged, or the other side would not count it.
        let _ = self.stream.set_quickack(true);
    }
}

fn linger(stream: &TcpStream, linger: Option<Duration>) {
    // A connection that cannot be reset is closed all the same.
    if let Err(error) = SockRef::from(stream).set_linger(linger) {
        tracing::debug!(%error, "a socket option was not taken");
    }
}

/// What an operator, and the side that a tunnel is on, decide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// How long no byte may pass.
    pub(crate) idle: Duration,
    /// Whether what waits to be read from the line counts. It does at the client, whose system has
    /// told the agent that it is here. It does not at the agent, which has not served it yet.
    pub(crate) counts_unread: bool,
}

/// Carries both ways until both have ended.
pub(crate) async fn run(
    line: Leg,
    end: Leg,
    member: &Member,
    manner: Manner,
) -> Result<(), TunnelError> {
    let outcome = {
        let tunnel = Tunnel::new(&line.stream, &end.stream, member, manner);
        tokio::select! {
            outcome = tunnel.carry() => outcome,
            outcome = tunnel.keep_counting() => match outcome {},
            () = tunnel.is_idle() => Err(TunnelError::Idle(manner.idle)),
        }
    };
    if outcome.is_ok() {
        line.ended();
        end.ended();
    }
    outcome
}

/// What both ways of a tunnel, and its meter, share.
struct Tunnel<'a> {
    line: &'a TcpStream,
    end: &'a TcpStream,
    member: &'a Member,
    manner: Manner,
    /// Bytes read from the line, and written to it.
    received: AtomicU64,
    sent: AtomicU64,
    /// Whether the end of the data was sent to the line.
    finished: AtomicBool,
    /// Whether one side takes nothing more, because it was reset.
    broken: AtomicBool,
    /// Whether what comes from the line is not read now.
    held: AtomicBool,
    /// What is counted of it.
    counted: AtomicU64,
    /// Bytes that have passed the line since the last look at the queues.
    uncounted: AtomicU64,
    /// Bytes that were read, and that were written, on either side.
    moved: AtomicU64,
    /// There is something to count again.
    news: Notify,
}

/// One direction.
struct Way<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    /// To be increased by what is read, and by what is written.
    read: Option<&'a AtomicU64>,
    written: Option<&'a AtomicU64>,
}

impl<'a> Tunnel<'a> {
    fn new(line: &'a TcpStream, end: &'a TcpStream, member: &'a Member, manner: Manner) -> Self {
        Self {
            line,
            end,
            member,
            manner,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            held: AtomicBool::new(false),
            counted: AtomicU64::new(0),
            uncounted: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            news: Notify::new(),
        }
    }

    /// Carries both ways; returns once all of it has arrived, or cannot.
    async fn carry(&self) -> Result<(), TunnelError> {
        let from_line =
            Way { from: self.line, to: self.end, read: Some(&self.received), written: None };
        let to_line = Way { from: self.end, to: self.line, read: None, written: Some(&self.sent) };
        let carried = {
            let mut from_line = pin!(self.pass(from_line));
            let mut to_line = pin!(self.pass(to_line));
            tokio::select! {
                done = &mut from_line => rest(done, to_line, self.line).await,
                done = &mut to_line => rest(done, from_line, self.end).await,
            }
        };
        match &carried {
            // The system brings the end what it has; the line's bytes have to be counted.
            Ok(()) => self.arrived(self.line, None).await?,
            Err(_) => {
                let (line, end) = (Some(LAST_BYTES), Some(LAST_BYTES));
                // The side that was reset is done at once; the other gets what was read for it.
                let _ = tokio::join!(self.arrived(self.line, line), self.arrived(self.end, end));
            }
        }
        carried
    }

    /// One way until its data ends.
    async fn pass(&self, way: Way<'_>) -> Result<(), TunnelError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = self.read(&way, &mut buffer).await.map_err(TunnelError::Read)?;
            if count == 0 && self.broken.load(Relaxed) {
                return Err(TunnelError::Reset);
            }
            if count == 0 {
                break;
            }
            self.write(&way, &buffer[..count]).await.map_err(|error| self.broken(error))?;
        }
        let ended = SockRef::from(way.to).shutdown(Shutdown::Write);
        ended.map_err(|error| self.broken(error))?;
        if way.written.is_some() {
            self.finished.store(true, Relaxed);
        }
        Ok(())
    }

    /// Reads no more than the member may use.
    async fn read(&self, way: &Way<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Also lets other tasks run now and then.
            poll_fn(|context| way.from.poll_read_ready(context)).await?;
            let allowed = match self.try_take(buffer.len()) {
                0 => {
                    let _held = self.hold(way);
                    tokio::select! {
                        allowed = self.member.take(buffer.len()) => allowed,
                        () = is_reset(way.from) => {
                            return Err(io::ErrorKind::ConnectionReset.into());
                        }
                    }
                }
                allowed => allowed,
            };
            let read = way.from.try_read(&mut buffer[..allowed]);
            let count = *read.as_ref().unwrap_or(&0);
            self.member.give_back(allowed - count);
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(count) => {
                    self.note(way.read, count);
                    return Ok(count);
                }
                error => return error,
            }
        }
    }

    /// Takes credit without waiting. When the credit is low, everything that was used is counted
    /// first, so that the meter reports it and asks for more in time.
    fn try_take(&self, most: usize) -> usize {
        let allowed = self.member.try_take(most);
        if allowed < most && self.uncounted.load(Relaxed) > 0 {
            self.count();
            return allowed + self.member.try_take(most - allowed);
        }
        allowed
    }

    async fn write(&self, way: &Way<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match way.to.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.note(way.written, count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _held = self.hold(way);
                    way.to.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Bytes were moved; of those on the line, the total is given.
    fn note(&self, on_line: Option<&AtomicU64>, count: usize) {
        self.moved.fetch_add(count as u64, Relaxed);
        if let Some(total) = on_line {
            total.fetch_add(count as u64, Relaxed);
            let before = self.uncounted.fetch_add(count as u64, Relaxed);
            if before + count as u64 >= COUNT_AFTER {
                self.count();
            }
        }
        self.news.notify_one();
    }

    /// One side takes nothing more. The other way may still bring what it had sent.
    fn broken(&self, error: io::Error) -> TunnelError {
        self.broken.store(true, Relaxed);
        TunnelError::Write(error)
    }

    /// What comes on this way waits until the guard is dropped.
    fn hold(&self, way: &Way<'_>) -> Option<Held<'_>> {
        way.read.map(|_| Held::new(&self.held))
    }

    /// Counts what has passed the line since the last time; whether bytes wait in a queue.
    fn count(&self) -> bool {
        let waiting = self.without_end(queue::unacknowledged(self.line));
        self.count_but(waiting);
        waiting > 0 || self.held.load(Relaxed)
    }

    /// Counts all that was received or sent but for so much of it.
    fn count_but(&self, waiting: u64) {
        self.uncounted.store(0, Relaxed);
        let unread = match self.manner.counts_unread {
            true => queue::unread(self.line).unwrap_or(0),
            false => 0,
        };
        let sent = self.sent.load(Relaxed).saturating_sub(waiting);
        let passed = self.received.load(Relaxed) + sent;
        self.counted.store(self.member.deliver(passed, unread), Relaxed);
    }

    /// Of what waits on the line, the bytes: the end of the data is one of the last.
    fn without_end(&self, waiting: io::Result<u64>) -> u64 {
        waiting.unwrap_or(0).saturating_sub(u64::from(self.finished.load(Relaxed)))
    }

    /// Keeps the count while bytes wait in queues. A tunnel at rest costs nothing.
    async fn keep_counting(&self) -> std::convert::Infallible {
        loop {
            self.news.notified().await;
            loop {
                let before = self.moved.load(Relaxed);
                sleep(LOOK).await;
                if !self.count() && self.moved.load(Relaxed) == before {
                    break;
                }
            }
        }
    }

    /// Returns once the other side has acknowledged all of it.
    ///
    /// `patience` is how long it may acknowledge nothing.
    async fn arrived(
        &self,
        stream: &TcpStream,
        patience: Option<Duration>,
    ) -> Result<(), TunnelError> {
        let (mut least, mut since, mut pause) = (u64::MAX, Instant::now(), SHORT);
        loop {
            let waiting = queue::unacknowledged(stream).unwrap_or(0);
            // That the end of data was acknowledged is not awaited.
            let last = u64::from(std::ptr::eq(stream, self.line) && self.finished.load(Relaxed));
            self.count();
            if waiting <= last {
                return Ok(());
            }
            if waiting < least {
                (least, since) = (waiting, Instant::now());
            }
            if patience.is_some_and(|patience| since.elapsed() >= patience) {
                return Err(TunnelError::Reset);
            }
            tokio::select! {
                () = is_reset(stream) => return Err(TunnelError::Reset),
                () = sleep(pause) => pause = (pause * 2).min(LOOK),
            }
        }
    }

    /// Returns when nothing has moved for so long, give or take a quarter: a timer re-armed for
    /// each byte would cost more than the bytes.
    async fn is_idle(&self) {
        let idle = self.manner.idle;
        let state = || {
            // A slow reader empties a queue long before it makes room for more.
            let waiting = queue::unacknowledged(self.end).unwrap_or(0);
            (self.moved.load(Relaxed), self.counted.load(Relaxed), waiting)
        };
        let mut last = (state(), Instant::now());
        while last.1.elapsed() < idle {
            sleep(idle / 4).await;
            let now = state();
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
    }
}

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        // What was sent arrives before the reset that follows; unless the other side has left.
        let is_reset = pin!(is_reset(self.line)).poll(&mut Context::from_waker(Waker::noop()));
        let queue = match is_reset {
            Poll::Ready(()) => queue::unacknowledged(self.line),
            Poll::Pending => queue::unsent(self.line),
        };
        self.count_but(self.without_end(queue));
    }
}

/// Set until it is dropped.
struct Held<'a>(&'a AtomicBool);

impl<'a> Held<'a> {
    fn new(flag: &'a AtomicBool) -> Self {
        flag.store(true, Relaxed);
        Self(flag)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// What becomes of the other way once one has ended, whose data came from `ended`.
async fn rest(
    done: Result<(), TunnelError>,
    other: Pin<&mut impl Future<Output = Result<(), TunnelError>>>,
    ended: &TcpStream,
) -> Result<(), TunnelError> {
    match done {
        Ok(()) => tokio::select! {
            outcome = other => outcome,
            () = is_reset(ended) => Err(TunnelError::Reset),
        },
        // What was sent before the reset is still here.
        Err(TunnelError::Write(_)) => {
            let _ = other.await;
            done
        }
        Err(_) => done,
    }
}

/// Returns once the connection was reset, or has failed otherwise.
async fn is_reset(stream: &TcpStream) {
    // An error would mean that the runtime ends.
    let _ = stream.ready(Interest::ERROR).await;
}

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

mod count;
mod leg;
mod socket;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use self::count::Count;
#[cfg(test)]
pub(crate) use self::count::{COUNT_AFTER, LOOK};
pub(crate) use self::leg::Leg;
use self::leg::is_reset;
use crate::queue;
use crate::session::Member;

/// Bytes that are read at once. More would save system calls and cost more processor time than they
/// do: the bytes leave the cache before they are written.
const BUFFER: usize = 16 * 1024;

thread_local! {
    /// Bytes are here between a read and the write that follows at once, so that tunnels at rest have no
    /// buffers, and busy ones share one that stays in the cache.
    static PASSING: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// The pauses between two looks at what has arrived at the end of a tunnel.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(50);

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

/// What an operator, and the side that a tunnel is on, decide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// How long no byte may pass.
    pub(crate) idle: Duration,
    /// Whether what waits to be read from the line counts as used.
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
            biased;
            outcome = tunnel.carry() => outcome,
            outcome = tunnel.count.keep() => match outcome {},
            () = tunnel.is_idle() => Err(TunnelError::Idle(manner.idle)),
        }
    };
    if outcome.is_ok() {
        line.ended();
        end.ended();
    }
    outcome
}

/// What both ways of a tunnel share.
struct Tunnel<'a> {
    line: &'a TcpStream,
    end: &'a TcpStream,
    idle: Duration,
    count: Count<'a>,
    /// Whether one side takes nothing more, because it was reset.
    broken: AtomicBool,
}

/// One direction.
struct Way<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    /// Whether it comes from the line, or else goes to it.
    from_line: bool,
}

impl<'a> Tunnel<'a> {
    fn new(line: &'a TcpStream, end: &'a TcpStream, member: &'a Member, manner: Manner) -> Self {
        let count = Count::new(line, member, manner.counts_unread);
        Self { line, end, idle: manner.idle, count, broken: AtomicBool::new(false) }
    }

    /// Carries both ways; returns once all of it has arrived, or cannot.
    async fn carry(&self) -> Result<(), TunnelError> {
        let from_line = Way { from: self.line, to: self.end, from_line: true };
        let to_line = Way { from: self.end, to: self.line, from_line: false };
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
        // What was read and found no room.
        let mut rest = Vec::new();
        loop {
            let allowed = self.admit(&way).await.map_err(TunnelError::Read)?;
            let Some(read) = self.step(&way, allowed, &mut rest)? else { continue };
            if read == 0 && self.broken.load(Relaxed) {
                return Err(TunnelError::Reset);
            }
            if read == 0 {
                break;
            }
            if !rest.is_empty() {
                self.write(&way, &rest).await.map_err(|error| self.broken(error))?;
                rest = Vec::new();
            }
        }
        let ended = SockRef::from(way.to).shutdown(Shutdown::Write);
        ended.map_err(|error| self.broken(error))?;
        if !way.from_line {
            self.count.finish();
        }
        Ok(())
    }

    /// Waits for something to read, and for how much of it the member may use.
    async fn admit(&self, way: &Way<'_>) -> io::Result<usize> {
        // Also lets other tasks run now and then.
        poll_fn(|context| way.from.poll_read_ready(context)).await?;
        match self.count.try_take(BUFFER) {
            0 => {
                let _held = way.from_line.then(|| self.count.hold());
                tokio::select! {
                    allowed = self.count.member.take(BUFFER) => Ok(allowed),
                    () = is_reset(way.from) => Err(io::ErrorKind::ConnectionReset.into()),
                }
            }
            allowed => Ok(allowed),
        }
    }

    /// Reads so much and writes it at once; what there is no room for is the rest. How much was read, if
    /// there was anything.
    fn step(
        &self,
        way: &Way<'_>,
        allowed: usize,
        rest: &mut Vec<u8>,
    ) -> Result<Option<usize>, TunnelError> {
        PASSING.with_borrow_mut(|buffer| {
            let read = socket::read(way.from, &mut buffer[..allowed]);
            let count = *read.as_ref().unwrap_or(&0);
            self.count.member.give_back(allowed - count);
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(TunnelError::Read(error)),
                Ok(_) if way.from_line => self.count.received(count),
                Ok(_) => self.count.on_end(count),
            }
            let written = self.write_at_once(way, &buffer[..count]);
            let written = written.map_err(|error| self.broken(error))?;
            rest.extend_from_slice(&buffer[written..count]);
            Ok(Some(count))
        })
    }

    /// Writes what there is room for.
    fn write_at_once(&self, way: &Way<'_>, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match socket::write(way.to, bytes) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                match way.from_line {
                    true => self.count.on_end(count),
                    false => self.count.sent(count),
                }
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, way: &Way<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let held = way.from_line.then(|| self.count.hold());
            way.to.writable().await?;
            drop(held);
            bytes = &bytes[self.write_at_once(way, bytes)?..];
        }
        Ok(())
    }

    /// One side takes nothing more. The other way may still bring what it had sent.
    fn broken(&self, error: io::Error) -> TunnelError {
        self.broken.store(true, Relaxed);
        TunnelError::Write(error)
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
            let waiting = match std::ptr::eq(stream, self.line) {
                true => self.count.unacknowledged(),
                false => queue::unacknowledged(stream).unwrap_or(0),
            };
            self.count.now();
            if waiting == 0 {
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
                () = sleep(pause) => pause = (pause * 2).min(LONG),
            }
        }
    }

    /// Returns when nothing has moved for so long, give or take a quarter: a timer re-armed for
    /// each byte would cost more than the bytes.
    async fn is_idle(&self) {
        let idle = self.idle;
        let state = || {
            // A slow reader empties a queue long before it makes room for more.
            let waiting = queue::unacknowledged(self.end).unwrap_or(0);
            (self.count.progress(), waiting)
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

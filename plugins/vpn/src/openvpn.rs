//! An OpenVPN process and the line to its management interface.
//!
//! The module listens and OpenVPN connects, so nobody else can take the only place there is. When
//! the line breaks OpenVPN ends by itself, and the kernel kills it when the thread that started it
//! is gone: it does not outlive the host, however that ends.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::journal::{Entry, Journal, JournalError, private};
use crate::management::{MAX_LINE, Message, Parser, ProtocolError, command_line};
use crate::run;

/// How long it may take to connect, and to answer a command.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Lines of its output that are kept to say why it ended.
const TAIL: usize = 12;

/// Messages that may wait for whoever reads them.
const WAITING: usize = 1024;

/// The longest path of a Unix socket, with its end.
const MAX_SOCKET: usize = 107;

/// Why there is no process, or no talking to it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenvpnError {
    #[error("writing {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the path of the management socket is too long: {}", .0.display())]
    LongPath(PathBuf),
    #[error("listening on {}", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("starting openvpn")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("openvpn ended: {0}")]
    Ended(String),
    #[error("openvpn does not answer")]
    Hangs,
    #[error("the agent's server has assigned no address")]
    NoAddress,
    #[error("{0}")]
    Link(String),
    #[error("the management interface")]
    Line(#[source] io::Error),
    #[error("the management interface")]
    Protocol(#[from] ProtocolError),
}

/// A running OpenVPN.
pub(crate) struct Openvpn {
    child: Child,
    journal: Arc<Journal>,
    entry: Option<Entry>,
    config: PathBuf,
    tail: Tail,
}

type Tail = Arc<Mutex<VecDeque<String>>>;

/// What a process says, to be looked at while it runs.
pub(crate) struct LastWords(Tail);

impl LastWords {
    /// What tells of errors, if anything.
    pub(crate) fn telling(&self) -> Option<String> {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut telling: Vec<_> = tail.iter().filter(|line| is_telling(line)).cloned().collect();
        telling.dedup();
        (!telling.is_empty()).then(|| telling.join("; "))
    }
}

/// What is run, and where its files go.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) program: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) socket: PathBuf,
}

impl Place {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let path = |end| directory.join(format!("{name}.{end}"));
        Self { program: run::program("openvpn"), config: path("conf"), socket: path("sock") }
    }
}

impl Openvpn {
    /// Starts a process with a configuration and waits until it can be talked to; it then waits
    /// for `hold release`.
    pub(crate) async fn start(
        place: &Place,
        config: &str,
        journal: &Arc<Journal>,
    ) -> Result<(Self, Line), OpenvpnError> {
        let write = |source| OpenvpnError::Write { path: place.config.clone(), source };
        private(&place.config).and_then(|mut f| f.write_all(config.as_bytes())).map_err(write)?;
        let listener = listen(&place.socket)?;
        let mut command = Command::new(run::program("setpriv"));
        command.args(["--pdeathsig", "KILL", "--"]).arg(&place.program);
        command.arg("--config").arg(&place.config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().map_err(OpenvpnError::Start)?;
        let entry = child.id().and_then(Entry::process);
        if let Some(entry) = &entry {
            journal.note(entry.clone())?;
        }
        let tail = Tail::default();
        if let Some(output) = child.stdout.take() {
            tokio::spawn(keep_tail(output, Arc::clone(&tail)));
        }
        if let Some(output) = child.stderr.take() {
            tokio::spawn(keep_tail(output, Arc::clone(&tail)));
        }
        let journal = Arc::clone(journal);
        let mut process = Self { child, journal, entry, config: place.config.clone(), tail };
        let connected = timeout(PATIENCE, process.connected(&listener)).await;
        // One connection is all there is to be.
        let _ = std::fs::remove_file(&place.socket);
        match connected.unwrap_or(Err(OpenvpnError::Hangs)) {
            Ok(stream) => Ok((process, Line::new(stream))),
            Err(error) => {
                process.end(Duration::ZERO).await;
                Err(error)
            }
        }
    }

    async fn connected(&mut self, listener: &UnixListener) -> Result<UnixStream, OpenvpnError> {
        tokio::select! {
            accepted = listener.accept() => {
                accepted.map(|(stream, _)| stream).map_err(OpenvpnError::Line)
            }
            // Its last words may still be on their way.
            _ = self.child.wait() => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(OpenvpnError::Ended(self.last_words()))
            }
        }
    }

    /// What it says.
    pub(crate) fn words(&self) -> LastWords {
        LastWords(Arc::clone(&self.tail))
    }

    /// What it said last, for people.
    pub(crate) fn last_words(&self) -> String {
        let last = || self.tail.lock().unwrap_or_else(PoisonError::into_inner).back().cloned();
        let telling = self.words().telling();
        telling.or_else(last).unwrap_or_else(|| "it said nothing".to_owned())
    }

    /// Waits for its end and makes one after a while.
    pub(crate) async fn end(&mut self, grace: Duration) {
        if timeout(grace, self.child.wait()).await.is_err() {
            // It may have ended just now; that it cannot be waited for is not to be mended.
            let _ = self.child.kill().await;
        }
        if let Some(entry) = self.entry.take()
            && let Err(error) = self.journal.strike(&entry)
        {
            tracing::warn!(%error, "the journal was not kept");
        }
        let _ = std::fs::remove_file(&self.config);
    }
}

fn is_telling(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["error", "fail", "cannot", "fatal", "in use", "refused", "denied"]
        .iter()
        .any(|word| line.contains(word))
}

fn listen(path: &Path) -> Result<UnixListener, OpenvpnError> {
    if path.as_os_str().len() > MAX_SOCKET {
        return Err(OpenvpnError::LongPath(path.to_owned()));
    }
    // One that a killed host has left; the directory is the module's own.
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path)
        .map_err(|source| OpenvpnError::Listen { path: path.to_owned(), source })
}

/// Forwards what it says to the log, and remembers the end of it.
async fn keep_tail(output: impl AsyncRead + Unpin, tail: Tail) {
    let mut lines = BufReader::new(output).lines();
    // What is no text is not logged further.
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!(line, "openvpn");
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        // Its lines begin with the time.
        let time = line.len() > 20 && line.as_bytes()[4] == b'-' && line.as_bytes()[13] == b':';
        let said = line.get(20..).filter(|_| time).unwrap_or(&line);
        tail.push_back(said.to_owned());
    }
}

/// What a command was sent for; its answer comes in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To have it done.
    Done,
    /// To learn what has come.
    Stats,
}

/// The line to the management interface.
pub(crate) struct Line {
    write: OwnedWriteHalf,
    messages: mpsc::Receiver<Result<Message, OpenvpnError>>,
    asked: VecDeque<(Asked, Instant)>,
}

impl Line {
    fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let (send, messages) = mpsc::channel(WAITING);
        tokio::spawn(read_all(read, send));
        Self { write, messages, asked: VecDeque::new() }
    }

    /// Sends a command of one line.
    pub(crate) async fn send(&mut self, command: &str, asked: Asked) -> Result<(), OpenvpnError> {
        let line = command_line(command)?;
        let sent = timeout(PATIENCE, self.write.write_all(line.as_bytes())).await;
        sent.map_err(|_| OpenvpnError::Hangs)?.map_err(OpenvpnError::Line)?;
        self.asked.push_back((asked, Instant::now()));
        Ok(())
    }

    /// The next message; `None` once the line is broken. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, OpenvpnError>> {
        self.messages.recv().await
    }

    /// Which command the answer that has just come belongs to.
    pub(crate) fn answered(&mut self) -> Option<Asked> {
        self.asked.pop_front().map(|(asked, _)| asked)
    }

    /// Asks for a sign of life.
    pub(crate) async fn ping(&mut self) -> Result<(), OpenvpnError> {
        if self.asked.front().is_some_and(|(_, since)| since.elapsed() > PATIENCE) {
            return Err(OpenvpnError::Hangs);
        }
        self.send("pid", Asked::Done).await
    }
}

async fn read_all(read: OwnedReadHalf, send: mpsc::Sender<Result<Message, OpenvpnError>>) {
    let mut read = BufReader::new(read);
    let (mut parser, mut line) = (Parser::default(), Vec::new());
    loop {
        line.clear();
        let limit = MAX_LINE as u64 + 2;
        let message = match (&mut read).take(limit).read_until(b'\n', &mut line).await {
            Ok(0) => return,
            Ok(_) => {
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                parser.line(line).map_err(OpenvpnError::Protocol).transpose()
            }
            Err(error) => Some(Err(OpenvpnError::Line(error))),
        };
        let Some(message) = message else { continue };
        let broken = message.is_err();
        if send.send(message).await.is_err() || broken {
            return;
        }
    }
}

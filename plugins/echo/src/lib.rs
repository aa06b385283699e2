//! A TCP echo service: the module to read first.
//!
//! The agent's side (`agent`) listens; the client's (`client`) connects, says
//! `<client key> <password>\n`, reads `ok\n` or `denied <reason>\n`, and from there on gets back
//! every byte it sends. Usage is the bytes both ways, and no byte is passed on that the core has not
//! granted: the SDK's [`Meter`] sees to that. This file holds the module itself and what both sides
//! share: the line to each channel, and the traffic on it.
//!
//! Nothing is process-wide, and nothing outside the process happens before `configure`.

mod agent;
mod client;

use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How long a login may take, on both sides.
const LOGIN_TIME: Duration = Duration::from_secs(10);
/// The longest login line and the longest answer to it, in bytes.
const MAX_LINE: u64 = 512;
/// The pause before something is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// `[modules.echo]`; `echo.config.json` says what each one means and may be.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    listen: String,
    address: Option<String>,
    report_ms: NonZeroU64,
    greeting: String,
}

impl Default for Settings {
    fn default() -> Self {
        const SECOND: NonZeroU64 = NonZeroU64::new(1000).unwrap();
        let (listen, greeting) = ("127.0.0.1:0".into(), "hello".into());
        Self { listen, address: None, report_ms: SECOND, greeting }
    }
}

/// The module.
struct Echo {
    role: Role,
    shared: Arc<Shared>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

/// What the tasks of a module need.
struct Shared {
    core: Core,
    settings: OnceLock<Settings>,
    lines: Lines,
    /// The client's: to have the connection of a channel carry something.
    errands: Mutex<HashMap<ClientKey, mpsc::Sender<client::Errand>>>,
}

impl Shared {
    fn settings(&self) -> &Settings {
        self.settings.get_or_init(Settings::default)
    }

    /// How sessions are reported.
    fn reports(&self) -> MeterOptions {
        let report_every = Duration::from_millis(self.settings().report_ms.get());
        MeterOptions { report_every, ..MeterOptions::default() }
    }
}

impl ServiceModule for Echo {
    async fn create(core: Core, host: HostInfo) -> Result<Self, Error> {
        let (settings, errands) = (OnceLock::new(), Mutex::default());
        let shared = Shared { core, settings, lines: Lines::default(), errands };
        Ok(Self { role: host.role, shared: Arc::new(shared), listening: Mutex::default() })
    }

    async fn configure(&self, config: Value) -> Result<(), Error> {
        let settings: Settings = serde_json::from_value(config)?;
        self.shared.settings.get_or_init(|| settings);
        if self.role == Role::Agent {
            *self.listening.lock().await = Some(agent::listen(&self.shared).await?);
        }
        Ok(())
    }

    async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
        match self.role {
            // It listens already, and the core decides who may log in.
            Role::Agent => Ok(Started::Ready),
            Role::Client => client::start(&self.shared, channel).await,
        }
    }

    async fn stop(&self, channel: ClientKey, _reason: StopReason) -> Result<(), Error> {
        self.shared.lines.cut(channel).await;
        self.shared.errands.lock().await.remove(&channel);
        Ok(())
    }

    async fn exercise(&self, channel: ClientKey, amount: u64) -> Result<u64, Error> {
        match self.role {
            // Its clients have the bytes.
            Role::Agent => Err(Unsupported.into()),
            Role::Client => client::exercise(&self.shared, channel, amount).await,
        }
    }

    async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
        Ok(self.shared.lines.served().await)
    }

    async fn shutdown(&self, _deadline: Duration) -> Result<(), Error> {
        if let Some(listening) = self.listening.lock().await.take() {
            listening.abort();
            // The port is free once the task is gone; that it was aborted is no news.
            let _ = listening.await;
        }
        self.shared.lines.cut_all().await;
        Ok(())
    }
}

export_module!(Echo);

/// The line to each channel: at most one at a time.
#[derive(Default)]
struct Lines {
    open: Mutex<OpenLines>,
}

#[derive(Default)]
struct OpenLines {
    /// Set by [`Lines::cut_all`]: no line is opened any more.
    ended: bool,
    by_channel: HashMap<ClientKey, Handle>,
}

/// The module's end of a line. The line has ended once no [`Line`] receives `cut` any more, also
/// if its task panicked.
#[derive(Clone)]
struct Handle {
    made_with: String,
    cut: watch::Sender<bool>,
    serving: Arc<AtomicBool>,
}

/// The end of a line that its task holds, until the last usage is reported.
struct Line {
    channel: ClientKey,
    cut: watch::Receiver<bool>,
    serving: Arc<AtomicBool>,
}

impl Lines {
    /// A new line, once an older one of the channel has ended; `None` when the module is ending.
    async fn open(&self, channel: ClientKey, made_with: &str) -> Option<Line> {
        loop {
            let mut open = self.open.lock().await;
            if open.ended {
                return None;
            }
            if let Some(older) = open.by_channel.get(&channel).filter(|line| !line.cut.is_closed())
            {
                let older = older.clone();
                drop(open);
                older.cut().await;
                continue;
            }
            let (cut, receiver) = watch::channel(false);
            let serving = Arc::<AtomicBool>::default();
            let line = Line { channel, cut: receiver, serving: Arc::clone(&serving) };
            open.by_channel
                .insert(channel, Handle { made_with: made_with.to_owned(), cut, serving });
            return Some(line);
        }
    }

    /// Whether the channel is being served by a line made with just this.
    async fn serves(&self, channel: ClientKey, made_with: &str) -> bool {
        let open = self.open.lock().await;
        open.by_channel
            .get(&channel)
            .is_some_and(|line| line.serves() && line.made_with == made_with)
    }

    async fn served(&self) -> Vec<ClientKey> {
        let open = self.open.lock().await;
        let serving = open.by_channel.iter().filter(|(_, line)| line.serves());
        serving.map(|(channel, _)| *channel).collect()
    }

    /// Cuts the line of a channel and returns once it has ended.
    async fn cut(&self, channel: ClientKey) {
        let line = self.open.lock().await.by_channel.get(&channel).cloned();
        if let Some(line) = line {
            line.cut().await;
        }
        // What has ended anywhere may be forgotten.
        self.open.lock().await.by_channel.retain(|_, line| !line.cut.is_closed());
    }

    /// Cuts all lines for good and returns once they have ended.
    async fn cut_all(&self) {
        let lines: Vec<_> = {
            let mut open = self.open.lock().await;
            open.ended = true;
            open.by_channel.drain().map(|(_, line)| line).collect()
        };
        // All at once first, so that they end side by side.
        for line in &lines {
            line.cut.send_replace(true);
        }
        for line in lines {
            line.cut().await;
        }
    }
}

impl Handle {
    async fn cut(&self) {
        self.cut.send_replace(true);
        self.cut.closed().await;
    }

    fn serves(&self) -> bool {
        self.serving.load(SeqCst) && !self.cut.is_closed()
    }
}

impl Line {
    /// Returns when the line is cut.
    async fn is_cut(&mut self) {
        // An error would mean that the module is gone.
        let _ = self.cut.wait_for(|cut| *cut).await;
    }
}

/// Why a session is over.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    /// The traffic ended, and may begin again.
    Traffic,
    /// The line was cut, or the core allows no more use.
    Cut,
}

/// Runs the traffic of a session until it ends or has to; then closes the session.
async fn run(meter: Meter, traffic: impl Future<Output = io::Result<()>>, line: &mut Line) -> Over {
    line.serving.store(true, SeqCst);
    let mut traffic = Box::pin(traffic);
    let over = tokio::select! {
        () = line.is_cut() => Over::Cut,
        outcome = &mut traffic => {
            tracing::debug!(channel = %line.channel, ?outcome, "the connection ended");
            Over::Traffic
        }
        ended = meter.ended() => {
            tracing::info!(channel = %line.channel, %ended, "the connection is closed");
            // The channel is still to be served, once the core can say so again.
            if matches!(ended, Ended::Unacknowledged(_)) { Over::Traffic } else { Over::Cut }
        }
    };
    // Closes the connection: what is counted now is all there will be.
    drop(traffic);
    meter.stop().await;
    line.serving.store(false, SeqCst);
    over
}

/// Counts what has come in already. What is left of it waits for credit, and with it whatever comes
/// after; if the session ends meanwhile, it has come in all the same.
async fn count(meter: &Meter, received: u64) -> io::Result<()> {
    let mut left = received;
    while left > 0 {
        match meter.take(left).await {
            Ok(granted) => left -= granted,
            Err(ended) => {
                meter.record(left);
                return Err(io::Error::other(ended));
            }
        }
    }
    Ok(())
}

/// Sends as much as the credit allows at a time.
async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
    mut bytes: &[u8],
) -> io::Result<()> {
    while !bytes.is_empty() {
        let granted = meter.take(bytes.len() as u64).await.map_err(io::Error::other)?;
        let (now, later) = bytes.split_at(granted as usize);
        stream.write_all(now).await?;
        bytes = later;
    }
    Ok(())
}

/// A line of text without its end; `None` if it is too long or was not finished.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    reader.take(MAX_LINE).read_line(&mut line).await?;
    Ok(line.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

//! The gate's second line: rules that a flush of the firewall leaves alone.
//!
//! A table of nftables may have an owner, the process that has made it. Nobody else can change such
//! a table, `nft flush ruleset` passes it by, and it goes when its process does. So the barrier is
//! an `nft` that is kept running. Its rules drop what the gate's table would drop for every client,
//! and every packet that would leave with an address of the tunnel's network: that is one which the
//! gate's table has not translated, so that table is gone. While the gate is up, the barrier drops
//! nothing that the gate lets through.
//!
//! Not here: who is served, and what is counted. Without the gate's table nothing passes anyway.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

use super::rules;
use crate::run::{self, RunError};
use crate::settings::Settings;

/// How long `nft` may take to make the rules.
const DEADLINE: Duration = Duration::from_secs(5);

/// The barrier of a killed host goes when the kernel has ended its process: so often it is tried.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// The process that owns the table, if there is one.
pub(super) struct Barrier {
    name: String,
    script: String,
    holder: Option<Holder>,
    /// Whether it has stood, so that it can on this machine.
    stood: bool,
}

struct Holder {
    child: Child,
    /// `nft` ends when this is closed.
    _orders: ChildStdin,
}

impl Barrier {
    pub(super) fn new(settings: &Settings, table: &str) -> Self {
        let name = format!("{table}_barrier");
        let script = rules::barrier(settings, &name);
        Self { name, script, holder: None, stood: false }
    }

    /// Makes the table.
    pub(super) async fn raise(&mut self) -> Result<(), RunError> {
        let mut tries = 0;
        loop {
            match self.hold().await {
                Ok(holder) => {
                    (self.holder, self.stood) = (Some(holder), true);
                    return Ok(());
                }
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => tries += 1,
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether its process has ended: the table is gone with it.
    pub(super) fn has_fallen(&mut self) -> bool {
        let stands = |holder: &mut Holder| matches!(holder.child.try_wait(), Ok(None));
        self.stood && !self.holder.as_mut().is_some_and(stands)
    }

    /// Takes it away.
    pub(super) async fn lower(&mut self) {
        self.stood = false;
        if let Some(mut holder) = self.holder.take() {
            // It may have ended by itself.
            let _ = holder.child.kill().await;
        }
    }

    async fn hold(&self) -> Result<Holder, RunError> {
        let start = |source| RunError::Start { program: "nft".to_owned(), source };
        let failed = |said: &str| RunError::Failed {
            command: "nft -i".to_owned(),
            said: said.trim().to_owned(),
        };
        let mut command = Command::new(run::program("setpriv"));
        // As OpenVPN, it does not outlive the host.
        command.args(["--pdeathsig", "KILL", "--"]).arg(run::program("nft")).arg("-i");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.env("LC_ALL", "C").kill_on_drop(true).spawn().map_err(start)?;
        let (Some(mut orders), Some(output), Some(mut errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("it has no input or output"));
        };
        let made = async {
            // The list, which it writes in the end, says that all of it was made.
            let script = format!("{}list table inet {}\n", self.script, self.name);
            orders.write_all(script.as_bytes()).await.map_err(start)?;
            orders.flush().await.map_err(start)?;
            let (mut lines, mut said) = (BufReader::new(output).lines(), [0; 400]);
            loop {
                tokio::select! {
                    biased;
                    length = errors.read(&mut said) => {
                        let length = length.unwrap_or(0);
                        return Err(failed(&String::from_utf8_lossy(&said[..length])));
                    }
                    line = lines.next_line() => match line {
                        Ok(Some(line)) if line == "}" => return Ok(()),
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => return Err(failed("it has ended")),
                    },
                }
            }
        };
        let late = |_| RunError::Late { program: "nft".to_owned() };
        timeout(DEADLINE, made).await.map_err(late)??;
        Ok(Holder { child, _orders: orders })
    }
}

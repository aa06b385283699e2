//! From the last byte of a dropped module to its running, in the real binary.
//!
//! Each arrival is in a node and a home of its own: a library that was mapped once would be loaded
//! faster. The floor is a process that does no more than load the same library.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use privatix_host::modules::probe;
use privatix_host::modules::registry::{ModuleView, State};
use privatix_host::operator::client::Client;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::Effort;
use crate::figures::{Figures, Row, nanoseconds};
use crate::report::MILLISECOND;

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);

pub(crate) fn measure(binary: &Path, library: &Path, effort: Effort) -> anyhow::Result<Row> {
    let package = Package::echo(library)?;
    let (mut arrivals, mut loads) = (Vec::new(), Vec::new());
    for _ in 0..effort.arrivals {
        arrivals.push(nanoseconds(Node::start(binary)?.receive(&package)?));
        loads.push(nanoseconds(load(binary, library)?));
    }
    let row = Row::new("the last byte of a module to its running", Figures::of(arrivals));
    let floor = Figures::of(loads);
    Ok(row.above("a process that loads it", floor).target(300.0 * MILLISECOND))
}

/// The time of a process that loads the library.
fn load(binary: &Path, library: &Path) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let output = Command::new(binary).arg(probe::SUBCOMMAND).arg(library).output()?;
    let time = begun.elapsed();
    ensure!(output.status.success(), "loading {}: {output:?}", library.display());
    Ok(time)
}

/// The files of the module `echo`, the library last.
struct Package {
    files: Vec<(String, Vec<u8>)>,
}

impl Package {
    fn echo(library: &Path) -> anyhow::Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/echo");
        let files = [
            source.join("echo.access.json"),
            source.join("echo.offering.json"),
            library.to_owned(),
        ];
        Ok(Self { files: files.iter().map(read).collect::<anyhow::Result<_>>()? })
    }
}

fn read(path: &PathBuf) -> anyhow::Result<(String, Vec<u8>)> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.file_name().context("a file's name")?.to_string_lossy().into_owned();
    Ok((name, bytes))
}

/// A running agent in a home of its own.
struct Node {
    home: TempDir,
    child: Child,
    runtime: Runtime,
}

impl Node {
    fn start(binary: &Path) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("privatix-bench-").tempdir()?;
        let command = || {
            let mut command = Command::new(binary);
            command.arg("--home").arg(home.path()).stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let status = command().args(["init", "--role", "agent"]).status()?;
        ensure!(status.success(), "making a node: {status}");
        let log = File::create(home.path().join("host.log"))?;
        let child = command().arg("run").stderr(log).spawn()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let node = Self { home, child, runtime };
        node.wait("the host's socket", |node| Ok(node.get::<Vec<ModuleView>>("/v1/modules")))?;
        Ok(node)
    }

    /// How long after its last byte the module runs.
    fn receive(&self, package: &Package) -> anyhow::Result<Duration> {
        for (name, bytes) in &package.files {
            fs::write(self.home.path().join("plugins").join(name), bytes)?;
        }
        let complete = Instant::now();
        self.wait("the module", |node| {
            let Some(view) = node.get::<ModuleView>("/v1/modules/echo") else { return Ok(None) };
            match view.state {
                State::Running => Ok(Some(())),
                State::Refused | State::Failed => bail!("the module does not run: {view:?}"),
                _ => Ok(None),
            }
        })?;
        Ok(complete.elapsed())
    }

    fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let client = Client::new(&self.home.path().join("privatix.sock"));
        self.runtime.block_on(client.get(path)).ok()
    }

    fn wait<T>(
        &self,
        what: &str,
        ask: impl Fn(&Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask(self)? {
                return Ok(answer);
            }
            if Instant::now() > until {
                let log = fs::read_to_string(self.home.path().join("host.log"))?;
                bail!("waited {PATIENCE:?} for {what}; the host's log:\n{log}");
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Everything it has is in the temporary home.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

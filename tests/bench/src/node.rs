//! A running host in a home of its own: the real binary, asked through its socket.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use privatix_modules::registry::{ModuleView, State};
use privatix_operator::client::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);

/// The files of a module, the library last.
pub(crate) struct Package {
    name: &'static str,
    files: Vec<(String, Vec<u8>)>,
}

impl Package {
    /// A library with the templates of a directory of this repository.
    pub(crate) fn read(
        name: &'static str,
        library: &Path,
        templates: &str,
    ) -> anyhow::Result<Self> {
        // Where this was compiled may be another checkout with the same target directory.
        let package = std::env::var_os("CARGO_MANIFEST_DIR");
        let package = package.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let source = package.join("../..").join(templates);
        let files = [
            source.join(format!("{name}.access.json")),
            source.join(format!("{name}.offering.json")),
            library.to_owned(),
        ];
        Ok(Self { name, files: files.iter().map(read).collect::<anyhow::Result<_>>()? })
    }
}

fn read(path: &PathBuf) -> anyhow::Result<(String, Vec<u8>)> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.file_name().context("a file's name")?.to_string_lossy().into_owned();
    Ok((name, bytes))
}

pub(crate) struct Node {
    home: TempDir,
    child: Child,
    runtime: Runtime,
}

impl Node {
    /// Runs a host; the text is put before its modules' settings, which come last in its file.
    pub(crate) fn start(
        binary: &Path,
        role: &str,
        environment: &[(&str, &str)],
        modules: &str,
    ) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("privatix-bench-").tempdir()?;
        let command = || {
            let mut command = Command::new(binary);
            command.arg("--home").arg(home.path()).stdin(Stdio::null()).stdout(Stdio::null());
            command.envs(environment.iter().copied());
            command
        };
        let status = command().args(["init", "--role", role]).status()?;
        ensure!(status.success(), "making a node: {status}");
        let configuration = home.path().join("privatix.toml");
        let text = fs::read_to_string(&configuration)?;
        fs::write(configuration, format!("{text}\n{modules}"))?;
        let log = File::create(home.path().join("host.log"))?;
        let child = command().arg("run").stderr(log).spawn()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let node = Self { home, child, runtime };
        node.wait("the host's socket", |node| Ok(node.get::<Vec<ModuleView>>("/v1/modules")))?;
        Ok(node)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How long after its last byte the module runs.
    pub(crate) fn receive(&self, package: &Package) -> anyhow::Result<Duration> {
        for (name, bytes) in &package.files {
            fs::write(self.home.path().join("plugins").join(name), bytes)?;
        }
        let complete = Instant::now();
        self.wait("the module", |node| {
            let path = format!("/v1/modules/{}", package.name);
            let Some(view) = node.get::<ModuleView>(&path) else { return Ok(None) };
            match view.state {
                State::Running => Ok(Some(())),
                State::Refused | State::Failed => bail!("the module does not run: {view:?}"),
                _ => Ok(None),
            }
        })?;
        Ok(complete.elapsed())
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let client = Client::new(&self.home.path().join("privatix.sock"));
        self.runtime.block_on(client.get(path)).ok()
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let client = Client::new(&self.home.path().join("privatix.sock"));
        Ok(self.runtime.block_on(client.post(path, body))?)
    }

    pub(crate) fn wait<T>(
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

/// Memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(kilobytes * 1024)
}

//! A host: the real binary, run in a home directory of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use privatix_core::{ChannelView, SessionView};
use privatix_modules::registry::{ModuleView, State};
use privatix_operator::client::{Client, ClientError};
use privatix_plugin_api::message::{ClientKey, Status};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Package, wait_for};

pub(crate) struct Node {
    home: TempDir,
    child: Option<Child>,
    runtime: Runtime,
    /// The network namespace its processes run in, if not the test's own.
    namespace: Option<String>,
}

impl Node {
    /// A running agent.
    pub(crate) fn agent() -> Self {
        Self::configured("agent", "")
    }

    /// A running host; the text is added to its configuration.
    pub(crate) fn configured(role: &str, configuration: &str) -> Self {
        let mut node = Self::stopped(role, configuration);
        node.start();
        node
    }

    /// A host that does not run yet.
    pub(crate) fn stopped(role: &str, configuration: &str) -> Self {
        let home = tempfile::Builder::new().prefix("privatix-").tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let node =
            Self { home, child: None, runtime: runtime.expect("a runtime"), namespace: None };
        let output = node.privatix(&["init", "--role", role]);
        assert!(output.status.success(), "{output:?}");
        // Nodes run beside each other.
        node.configure("[exchange]\nlisten = \"127.0.0.1:0\"\n");
        node.configure(configuration);
        node
    }

    /// Has everything run in a network namespace from now on.
    pub(crate) fn inside(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Adds text to the configuration: keys of the default file are replaced, sections appended.
    pub(crate) fn configure(&self, addition: &str) {
        let addition = addition.parse().expect("TOML");
        self.reconfigure(|table| merge(table, addition));
    }

    /// Changes the configuration in any way.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(&mut toml::Table)) {
        let path = self.home().join("privatix.toml");
        let mut table = fs::read_to_string(&path).expect("readable").parse().expect("TOML");
        change(&mut table);
        fs::write(&path, table.to_string()).expect("written");
    }

    /// Runs the host and waits until it can be asked.
    pub(crate) fn start(&mut self) {
        self.start_with(|_| {});
    }

    /// As [`Node::start`], with changes to how the process is started.
    pub(crate) fn start_with(&mut self, change: impl FnOnce(&mut Command)) {
        assert!(self.child.is_none(), "already running");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = self.command(&["run"]);
        command.stderr(log).stdout(Stdio::null());
        change(&mut command);
        self.child = Some(command.spawn().expect("started"));
        wait_for("the host's socket", || self.get::<Vec<ModuleView>>("/v1/modules"));
    }

    /// Runs the host, which is expected to end soon, whatever it is asked.
    pub(crate) fn run_to_the_end(&mut self) -> ExitStatus {
        assert!(self.child.is_none(), "already running");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = self.command(&["run"]);
        command.stderr(log).stdout(Stdio::null());
        self.child = Some(command.spawn().expect("started"));
        self.ended()
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.home().join("plugins")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Whether the host's process lives.
    pub(crate) fn alive(&mut self) -> bool {
        let child = self.child.as_mut().expect("started");
        child.try_wait().expect("waitable").is_none()
    }

    /// Runs a command of the command line against this host.
    pub(crate) fn privatix(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run")
    }

    /// A command of the command line against this host, to be run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_privatix"));
        if let Some(namespace) = &self.namespace {
            // It becomes the program, so the process is the host's.
            command = Command::new("ip");
            command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_privatix")]);
        }
        command.env_remove("PRIVATIX_TEST_MODULES").stdin(Stdio::null());
        command.arg("--home").arg(self.home()).args(arguments);
        command
    }

    /// Asks the operator's socket.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let client = Client::new(&self.socket());
        self.runtime.block_on(client.get(path)).ok()
    }

    /// Asks the operator's socket to do something.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let client = Client::new(&self.home().join("privatix.sock"));
        self.runtime.block_on(client.post(path, body))
    }

    pub(crate) fn channel(&self, id: ClientKey) -> ChannelView {
        self.get(&format!("/v1/channels/{id}")).expect("a channel")
    }

    pub(crate) fn sessions(&self, id: ClientKey) -> Vec<SessionView> {
        self.get(&format!("/v1/channels/{id}/sessions")).expect("sessions")
    }

    /// Waits until a channel has a status.
    pub(crate) fn wait_channel(&self, id: ClientKey, status: Status) -> ChannelView {
        wait_for(&format!("{id} to be {status}"), || {
            let view: Option<ChannelView> = self.get(&format!("/v1/channels/{id}"));
            view.filter(|view| view.status == status)
        })
    }

    pub(crate) fn module(&self, name: &str) -> Option<ModuleView> {
        // Some tests ask for names that are no part of an address.
        let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/v1/modules/{name}"))
    }

    /// Names of all modules.
    pub(crate) fn names(&self) -> Vec<String> {
        let modules: Vec<ModuleView> = self.get("/v1/modules").expect("listed");
        modules.into_iter().map(|module| module.name).collect()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home().join("privatix.sock")
    }

    /// Waits until a module is as described.
    pub(crate) fn wait(
        &self,
        name: &str,
        what: &str,
        mut is: impl FnMut(&ModuleView) -> bool,
    ) -> ModuleView {
        let mut last = None;
        let until = std::time::Instant::now() + super::PATIENCE;
        while std::time::Instant::now() < until {
            last = self.module(name);
            if let Some(view) = last.as_ref().filter(|view| is(view)) {
                return view.clone();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("waited for {name} to be {what}; it is {last:#?}")
    }

    pub(crate) fn wait_state(&self, name: &str, state: State) -> ModuleView {
        self.wait(name, state.as_str(), |view| view.state == state)
    }

    /// Waits until a module is in a state for a reason.
    pub(crate) fn wait_problem(&self, name: &str, state: State, code: &str) -> ModuleView {
        self.wait(name, code, |view| {
            view.state == state
                && view.problem.as_ref().is_some_and(|problem| problem.code.code() == code)
        })
    }

    /// Waits until a version runs.
    pub(crate) fn wait_version(&self, name: &str, version: &str) -> ModuleView {
        self.wait(name, version, |view| {
            view.state == State::Running
                && view.version.as_ref().is_some_and(|known| known.version == version)
        })
    }

    /// Drops a package in and waits until it runs.
    pub(crate) fn run(&self, package: &Package) -> ModuleView {
        package.drop_into(&self.plugins());
        self.wait_state(&package.name, State::Running)
    }

    /// Tells the host to stop and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    /// Tells the host to stop.
    pub(crate) fn terminate(&self) {
        signal(self.pid(), nix::sys::signal::Signal::SIGTERM);
    }

    /// Waits until the host's process has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("started");
        let status = wait_for("the host's end", || child.try_wait().expect("waitable"));
        self.child = None;
        status
    }

    /// Kills the host without a word.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("killed");
        child.wait().expect("waitable");
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.home().join("host.log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- the host's log\n{}", self.log());
        }
    }
}

pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, signal).expect("signalled");
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(more)) => merge(inner, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

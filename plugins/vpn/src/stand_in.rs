//! Stand-ins for tests: a core that answers as it is told, and an OpenVPN whose words are a test's.
//!
//! The program that is started does nothing but live; its conversation is led by the test, over the
//! socket that OpenVPN would connect to. So a test says what OpenVPN says, and when it dies.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use abi_stable::erased_types::TD_Opaque;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use privatix_plugin_api::abi::{Bytes, CoreInterface, CoreInterface_TO, Future, FutureExt};
use privatix_plugin_api::message::{
    ApiError, CoreRequest, ErrorName, Reply, Usage, decode, encode,
};
use privatix_plugin_api::sdk::Core;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::journal::Journal;
use crate::openvpn::Place;

/// How long anything may take that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until there is an answer.
pub(crate) async fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "expected {what} within {PATIENCE:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What was called, and what is to be answered: the status, or an error so many times first.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) calls: Vec<String>,
    pub(crate) failures: u32,
    pub(crate) status: Option<&'static str>,
    /// What a login is answered, if it is not let in.
    pub(crate) refusal: Option<ErrorName>,
}

#[derive(Clone)]
pub(crate) struct TestCore {
    script: Arc<Mutex<Script>>,
    /// Whether it answers.
    answers: watch::Sender<bool>,
}

impl Default for TestCore {
    fn default() -> Self {
        Self { script: Arc::default(), answers: watch::Sender::new(true) }
    }
}

impl TestCore {
    pub(crate) fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().expect("not poisoned"))
    }

    /// Has it keep its answers back, or give them.
    pub(crate) fn answers(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.script(|script| script.calls.clone())
    }

    pub(crate) async fn wait_called(&self, call: &str) {
        let called = || self.calls().iter().any(|known| known == call).then_some(());
        wait_for(&format!("{call} to be called"), called).await;
    }

    pub(crate) fn handle(&self) -> Core {
        Core::from_object(CoreInterface_TO::from_value(self.clone(), TD_Opaque))
    }

    fn answer(&self, request: CoreRequest) -> Result<Value, ApiError> {
        self.script(|script| {
            let status = script.status.unwrap_or("active");
            let mut refusal = None;
            let (call, answer) = match request {
                CoreRequest::AuthClient { password, .. } => {
                    refusal = script.refusal;
                    (format!("auth {}", password.0), json!({}))
                }
                CoreRequest::StartSession { .. } => (
                    "start".to_owned(),
                    json!({"session": uuid::Uuid::nil(), "offering": {"a": 1}, "status": status}),
                ),
                CoreRequest::UpdateSession { usage: Usage::Total(total), .. } => {
                    (format!("total {total}"), json!({ "status": status }))
                }
                CoreRequest::StopSession { .. } => ("stop".to_owned(), json!({"status": status})),
                other => panic!("{other:?}"),
            };
            if script.failures > 0 {
                script.failures -= 1;
                refusal = Some(ErrorName::Internal);
            }
            let failed = if refusal.is_some() { " failed" } else { "" };
            script.calls.push(format!("{call}{failed}"));
            refusal.map_or(Ok(answer), |name| Err(name.into()))
        })
    }
}

impl CoreInterface for TestCore {
    fn call(&self, request: Bytes<u8>) -> Future<Bytes<u8>> {
        let reply = Reply::from(self.answer(decode(&request).expect("a request")));
        let mut answers = self.answers.subscribe();
        async move {
            // Nobody is left to keep it back: then it is given.
            let _ = answers.wait_for(|answers| *answers).await;
            Bytes::from(encode(&reply))
        }
        .into_ffi()
    }
}

/// Where the stand-in for OpenVPN is started, and what it was started with.
pub(crate) struct Scene {
    home: tempfile::TempDir,
    pub(crate) place: Place,
    pub(crate) journal: Arc<Journal>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let mut place = Place::new(home.path(), "it");
        place.program = home.path().join("openvpn");
        let journal = Arc::new(Journal::open(home.path()).expect("a journal"));
        let scene = Self { home, place, journal };
        scene.lives();
        scene
    }

    /// What is started from now on lives until it is killed.
    pub(crate) fn lives(&self) {
        self.program("exec sleep 1000");
    }

    /// What is started from now on does this.
    pub(crate) fn program(&self, text: &str) {
        let text = format!("#!/bin/sh\necho $$ >> '{}'\n{text}\n", self.starts_path().display());
        // A file that is being run cannot be written.
        let part = self.home.path().join("part");
        fs::write(&part, text).expect("written");
        fs::set_permissions(&part, fs::Permissions::from_mode(0o700)).expect("set");
        fs::rename(&part, &self.place.program).expect("renamed");
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        self.home.path()
    }

    fn starts_path(&self) -> PathBuf {
        self.home.path().join("starts")
    }

    /// The processes that were started, in turn.
    pub(crate) fn starts(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.starts_path()).unwrap_or_default();
        text.lines().map(|line| line.parse().expect("a number")).collect()
    }

    pub(crate) async fn wait_starts(&self, count: usize) -> i32 {
        wait_for(&format!("start {count}"), || self.starts().get(count - 1).copied()).await
    }

    /// The configuration of the process that runs.
    pub(crate) fn config(&self) -> String {
        fs::read_to_string(&self.place.config).expect("readable")
    }

    /// Connects as the process that was started at this turn.
    pub(crate) async fn connect(&self, turn: usize) -> Openvpn {
        let pid = self.wait_starts(turn).await;
        let until = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(&self.place.socket).await {
                Ok(stream) => {
                    let (read, write) = stream.into_split();
                    return Openvpn { read: BufReader::new(read), write, pid };
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < until, "nobody listens");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The stand-in for one process, as it speaks to the module.
pub(crate) struct Openvpn {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    pub(crate) pid: i32,
}

impl Openvpn {
    /// Says lines as they are.
    pub(crate) async fn says(&mut self, lines: &[&str]) {
        for line in lines {
            self.says_bytes(format!("{line}\r\n").as_bytes()).await;
        }
    }

    pub(crate) async fn says_bytes(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.expect("said");
    }

    /// The next command, which is not yet answered; signs of life are given.
    pub(crate) async fn hears(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.read.read_line(&mut line)).await;
            assert!(read.expect("a command in time").expect("readable") > 0, "the line was cut");
            let line = line.trim_end().to_owned();
            if line != "pid" {
                return line;
            }
            self.says(&["SUCCESS: pid=1"]).await;
        }
    }

    /// Hears these commands and does them.
    pub(crate) async fn does(&mut self, commands: &[&str]) {
        for command in commands {
            assert_eq!(self.hears().await, *command);
            self.says(&["SUCCESS: done"]).await;
        }
    }

    /// Up to the release of the hold.
    pub(crate) async fn begins(&mut self) {
        self.says(&[">INFO:OpenVPN Management Interface", ">HOLD:Waiting for hold release:0"])
            .await;
        self.does(&["bytecount 1", "state on", "hold release"]).await;
    }

    /// Dies, and with it its line.
    pub(crate) fn dies(self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).expect("killed");
    }

    /// Waits until the other side has cut the line.
    pub(crate) async fn is_cut(&mut self) {
        let until = Instant::now() + PATIENCE;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = tokio::time::timeout_at(until, self.read.read_until(b'\n', &mut line)).await;
            match read.expect("an end in time") {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

/// Whether a process is gone, or waits to be buried.
pub(crate) fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

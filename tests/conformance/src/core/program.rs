//! The program of a standalone module, and the host's own server for it.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use privatix_core::Service;
use privatix_modules::generation::Generation;
use privatix_modules::line::Line;
use privatix_modules::router::Router;
use privatix_standalone::{Desk, Endpoint, serve};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::case::{Finding, failed};
use crate::subject::Program;

/// How often is looked whether a program has subscribed.
const LOOK: Duration = Duration::from_millis(10);

/// The processes of programs that should be running.
static RUNNING: Mutex<Vec<i32>> = Mutex::new(Vec::new());
/// How the first of them ended that should not have.
static DEATH: Mutex<Option<String>> = Mutex::new(None);

/// How a program ended that should be running, if one did. Looking reaps nothing.
pub(crate) fn death() -> Option<String> {
    let mut death = DEATH.lock().unwrap_or_else(PoisonError::into_inner);
    if death.is_none() {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *death = running.into_iter().find_map(|id| {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            match waitid(Id::Pid(Pid::from_raw(id)), flags) {
                Ok(WaitStatus::Exited(_, code)) => {
                    Some(format!("the program ended by itself with exit status {code}"))
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    Some(format!("the program was ended by the signal {signal}"))
                }
                _ => None,
            }
        });
    }
    death.clone()
}

/// A program that runs, until it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    _stop: watch::Sender<bool>,
}

impl Running {
    /// Starts it and returns once it has subscribed.
    pub(super) async fn start(
        program: &Program,
        service: &Service,
        line: Arc<Line>,
        token: &str,
        data: &Path,
        patience: Duration,
    ) -> Result<Self, Finding> {
        let timeouts = privatix_base::config::ModuleTimeouts {
            create: patience,
            configure: patience,
            start: patience,
            stop: patience,
            call: patience,
            shutdown: patience,
        };
        let router = Arc::new(Router::default());
        let generation = Generation::standalone(Arc::clone(&line), &timeouts);
        router.open(line.caller().product, Arc::new(generation));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let endpoint = Endpoint { listener, tls: None, connections: 1024 };
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(endpoint, Desk::new(service.modules(), router), stopped));
        let [http, ws] = [format!("http://{address}/http"), format!("ws://{address}/ws")];
        let data = data.display().to_string();
        let put = |word: &String| {
            word.replace("{http}", &http).replace("{ws}", &ws).replace("{data}", &data)
        };
        let mut words = program.command.iter().map(put);
        let name = words.next().ok_or_else(|| failed("no program is named after --"))?;
        let mut command = Command::new(&name);
        command.args(words).env("PRIVATIX_TOKEN", token).current_dir(&program.directory);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|error| failed(format!("starting {name}: {error}")))?;
        let until = Instant::now() + patience;
        while !line.is_connected() {
            if let Some(status) = child.try_wait()? {
                return Err(failed(format!("the program ended with {status}")));
            }
            if Instant::now() > until {
                return Err(failed(format!("the program has not subscribed within {patience:?}")));
            }
            sleep(LOOK).await;
        }
        if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        }
        Ok(Self { child, _stop: stop })
    }

    /// Its end is expected from now on; that it has come already is noted.
    fn may_end(&self) {
        death();
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| Some(*known) != id);
    }

    /// Tells it to end and waits for that; says what was not in order.
    pub(super) async fn end(mut self, patience: Duration) -> Option<String> {
        self.may_end();
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        match timeout(patience, self.child.wait()).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("its end: {error}")),
            Err(_) => Some(format!("the program did not end within {patience:?} of SIGTERM")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.may_end();
    }
}

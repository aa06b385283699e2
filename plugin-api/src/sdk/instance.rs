//! One created module: its runtime, its object, and the way from an ABI call to the author's code.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinError, JoinHandle};

use super::{Core, Error, ServiceModule, ShutdownReport, Unsupported, log};
use crate::abi::{
    Bytes, CoreObject, Created, FfiResult, Future, FutureExt, ModuleInterface, ModuleInterface_TO,
};
use crate::chain;
use crate::error::{Fault, FaultKind};
use crate::message::{
    Cleaned, ClientKey, Description, Done, Exercised, HostInfo, ModuleRequest, Reply, Sessions,
    decode, encode,
};

/// How long a runtime may take to let go of its threads once the author's code is done.
const THREAD_GRACE: Duration = Duration::from_millis(500);

/// The `create` of every library's root module.
pub extern "C" fn create<M: ServiceModule>(core: CoreObject, host: Bytes<u8>) -> Created {
    // The panic is not to reach abi_stable, whose wrapper ends the process.
    let made = catch_unwind(AssertUnwindSafe(|| Instance::<M>::create(core, &host)));
    match made.unwrap_or_else(|panic| Err(panicked(&*panic))) {
        Ok(instance) => FfiResult::ROk(ModuleInterface_TO::from_value(
            instance,
            abi_stable::erased_types::TD_Opaque,
        )),
        Err(fault) => FfiResult::RErr(encode(&fault).into()),
    }
}

struct Instance<M> {
    live: Mutex<Option<Live<M>>>,
    /// Starts under way. The host does not wait for ever, and what it says next has to hold.
    starts: Mutex<HashMap<ClientKey, AbortHandle>>,
}

/// What `shutdown` takes out.
struct Live<M> {
    runtime: Runtime,
    threads: Arc<AtomicUsize>,
    module: Arc<M>,
    core: Core,
}

impl<M: ServiceModule> Instance<M> {
    fn create(core: CoreObject, host: &[u8]) -> Result<Self, Fault> {
        let host: HostInfo = decode(host).map_err(|error| failed(&error))?;
        let core = Core::from_object(core);
        log::forward_panics();
        let threads = Arc::new(AtomicUsize::new(0));
        let runtime = runtime(&core, &host, &threads).map_err(|error| failed(&error))?;
        // On a thread of the runtime, so that its events are forwarded and its panics caught.
        let given = core.clone();
        let made = runtime.block_on(runtime.spawn(async move { M::create(given, host).await }));
        let module = match settle(made) {
            Ok(module) => Arc::new(module),
            Err(fault) => {
                runtime.shutdown_timeout(THREAD_GRACE);
                return Err(fault);
            }
        };
        let live = Mutex::new(Some(Live { runtime, threads, module, core }));
        Ok(Self { live, starts: Mutex::default() })
    }

    fn take(&self) -> Option<Live<M>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Starts the author's code on the module's runtime; `None` after `shutdown`.
    fn spawn<R, F>(&self, run: impl FnOnce(Arc<M>) -> F) -> Option<JoinHandle<R>>
    where
        R: Send + 'static,
        F: std::future::Future<Output = R> + Send + 'static,
    {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.as_ref().map(|live| live.runtime.spawn(run(Arc::clone(&live.module))))
    }
}

impl<M: ServiceModule> Instance<M> {
    /// Starts on a command. A start of the same channel that is still under way is dropped at its
    /// next await, so that it cannot take effect after what was said later.
    fn in_turn(&self, request: ModuleRequest) -> Option<JoinHandle<Vec<u8>>> {
        let (channel, starts) = match &request {
            ModuleRequest::Start { client_key } => (*client_key, true),
            ModuleRequest::Stop { client_key, .. } => (*client_key, false),
            _ => return self.spawn(|module| async move { answer(&*module, request).await }),
        };
        let mut under_way = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, start| !start.is_finished());
        if let Some(earlier) = under_way.remove(&channel) {
            earlier.abort();
        }
        let task = self.spawn(|module| async move { answer(&*module, request).await })?;
        if starts {
            under_way.insert(channel, task.abort_handle());
        }
        Some(task)
    }
}

impl<M: ServiceModule> ModuleInterface for Instance<M> {
    fn call(&self, request: Bytes<u8>) -> Future<Bytes<u8>> {
        let request = match decode::<ModuleRequest>(&request) {
            Ok(request) => request,
            Err(error) => {
                return std::future::ready(Bytes::from(refused(&failed(&error)))).into_ffi();
            }
        };
        let task = self.in_turn(request);
        async move {
            let reply = match task {
                None => refused(&Fault::new(FaultKind::Stopped, "the module is shut down")),
                Some(task) => task.await.unwrap_or_else(|error| refused(&joined(error))),
            };
            Bytes::from(reply)
        }
        .into_ffi()
    }

    fn shutdown(&self, deadline_ms: u64) -> Future<Bytes<u8>> {
        let deadline = Duration::from_millis(deadline_ms);
        let Some(live) = self.take() else {
            let report = ShutdownReport::default();
            return async move { Bytes::from(encode(&report)) }.into_ffi();
        };
        let (send, report) = oneshot::channel();
        // Ending a runtime blocks, which neither the host's threads nor the runtime's own may do.
        let ending = std::thread::Builder::new().name("module-shutdown".into()).spawn(move || {
            // The host may have stopped waiting.
            let _ = send.send(live.end(deadline));
        });
        async move {
            let error = match ending {
                Err(error) => Err(format!("no thread to shut down with: {error}")),
                Ok(_) => report.await.map_err(|_| "the shutdown thread ended early".to_owned()),
            };
            let report = error.unwrap_or_else(|error| ShutdownReport {
                error: Some(error),
                ..ShutdownReport::default()
            });
            Bytes::from(encode(&report))
        }
        .into_ffi()
    }
}

impl<M> Drop for Instance<M> {
    fn drop(&mut self) {
        let live = self.live.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = live.take() {
            // Dropped without `shutdown`: nothing is awaited, since this may be an async context.
            live.runtime.shutdown_background();
        }
    }
}

impl<M: ServiceModule> Live<M> {
    fn end(self, deadline: Duration) -> ShutdownReport {
        let Self { runtime, threads, module, core } = self;
        let until = Instant::now() + deadline;
        // Waited for without the runtime, whose own clock stands still while all of its threads
        // are blocked.
        let (send, ended) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let outcome = tokio::spawn(async move { module.shutdown(deadline).await }).await;
            // Nobody waits any more after the deadline.
            let _ = send.send(settle(outcome));
        });
        let error = match ended.recv_timeout(deadline) {
            Err(_) => Some(format!("not shut down within {deadline:?}")),
            Ok(outcome) => outcome.err().map(|fault| fault.to_string()),
        };
        runtime.shutdown_timeout(until.saturating_duration_since(Instant::now()).max(THREAD_GRACE));
        let abandoned_threads = threads.load(Ordering::SeqCst);
        ShutdownReport { error, abandoned_threads, unreported: core.unreported() }
    }
}

fn runtime(core: &Core, host: &HostInfo, threads: &Arc<AtomicUsize>) -> std::io::Result<Runtime> {
    let dispatch = log::dispatch(core.clone(), host.log_level);
    let (started, stopped) = (Arc::clone(threads), Arc::clone(threads));
    Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().min(4)))
        .thread_name(format!("mod-{}", host.name))
        .enable_all()
        .on_thread_start(move || {
            started.fetch_add(1, Ordering::SeqCst);
            // For as long as the thread lives; what was set before it was nothing.
            std::mem::forget(tracing::dispatcher::set_default(&dispatch));
        })
        .on_thread_stop(move || {
            stopped.fetch_sub(1, Ordering::SeqCst);
        })
        .build()
}

async fn answer<M: ServiceModule>(module: &M, request: ModuleRequest) -> Vec<u8> {
    match request {
        ModuleRequest::Configure { config } => {
            reply(module.configure(config).await.map(|()| Done {}))
        }
        ModuleRequest::Start { client_key } => reply(module.start(client_key).await),
        ModuleRequest::Stop { client_key, reason } => {
            reply(module.stop(client_key, reason).await.map(|()| Done {}))
        }
        ModuleRequest::Sessions => {
            reply(module.sessions().await.map(|client_keys| Sessions { client_keys }))
        }
        ModuleRequest::Describe { client_key } => {
            reply(module.describe(client_key).await.map(Description))
        }
        ModuleRequest::Exercise { client_key, amount } => {
            reply(module.exercise(client_key, amount).await.map(|moved| Exercised { moved }))
        }
        ModuleRequest::HandOver => reply(module.hand_over().await.map(|()| Done {})),
        ModuleRequest::Health => reply(Ok(module.health().await)),
        ModuleRequest::Cleanup => match module.cleanup().await.transpose() {
            Some(outcome) => reply(outcome.map(Cleaned)),
            None => refused(&Fault::new(FaultKind::Unsupported, "it leaves nothing behind")),
        },
        ModuleRequest::Unknown => {
            refused(&Fault::new(FaultKind::Unsupported, "a command of a newer Service API"))
        }
    }
}

fn reply<T: Serialize>(outcome: Result<T, Error>) -> Vec<u8> {
    let outcome = outcome.map_err(|error| {
        let kind =
            if error.is::<Unsupported>() { FaultKind::Unsupported } else { FaultKind::Failed };
        Fault::new(kind, chain(&*error))
    });
    encode(&Reply::from(outcome))
}

fn refused(fault: &Fault) -> Vec<u8> {
    encode(&Reply::<(), _>::Error(fault))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Fault {
    Fault::new(FaultKind::Failed, chain(error))
}

/// What came of a task that returns a result.
fn settle<T>(joined_task: Result<Result<T, Error>, JoinError>) -> Result<T, Fault> {
    match joined_task {
        Ok(outcome) => outcome.map_err(|error| Fault::new(FaultKind::Failed, chain(&*error))),
        Err(error) => Err(joined(error)),
    }
}

fn joined(error: JoinError) -> Fault {
    match error.try_into_panic() {
        Ok(panic) => panicked(&*panic),
        Err(_) => Fault::new(FaultKind::Stopped, "the module is shut down"),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Fault::new(FaultKind::Panicked, text.unwrap_or_else(|| "no message".into()))
}

#[cfg(test)]
mod tests;

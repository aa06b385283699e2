//! The one way of a module's calls to the core, however they come.
//!
//! A door belongs to one generation of a module. It has, once for all ways in: the gate, which is
//! closed for good when the generation is stopped; the turns, which bound how many calls are carried
//! out at a time; the log lines of the module (`voice`); and the counts of its product (`counts`).
//!
//! The ways in are codecs in front of a door, and have none of these: [`crate::gateway`] reads and writes
//! the bytes of the ABI, `privatix-standalone` JSON-RPC in two spellings.
//!
//! A call that waits for its turn is broken off as soon as nobody waits for its answer. A call that has
//! begun is carried out to its end, whether or not its caller waits: it has a task of its own. No call has a deadline.

mod asked;
mod counts;
mod gone;
#[cfg(test)]
mod tests;
mod voice;

use std::any::Any;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use privatix_plugin_api::message::{ApiError, CoreRequest, Done, ErrorName, LogEvent};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use uuid::Uuid;

pub use self::asked::Asked;
pub use self::counts::{CallCounts, Called, Counts, ProductCounts};
pub use self::gone::{Gone, Here};
use self::voice::Voice;
use privatix_core::{Caller, CoreReply, ModuleApi, ModuleCall};

/// Calls of a module inside the host's process that are carried out at a time; further ones wait.
pub const OF_LIBRARY: usize = 1024;

/// The same of a module that is a program of its own.
pub const OF_PROGRAM: usize = 256;

/// The outcome of a call, on its way.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<CoreReply, ApiError>> + Send + 'a>>;

/// What answers behind a door. In a host this is the core; the conformance kit puts itself between.
pub trait Core: Send + Sync {
    /// Answers a call.
    fn call<'a>(&'a self, caller: &'a Caller, call: ModuleCall) -> Answering<'a>;

    /// A module has said something, which the host's log has by now, or has left out.
    fn logged(&self, _event: &LogEvent) {}
}

impl Core for ModuleApi {
    fn call<'a>(&'a self, caller: &'a Caller, call: ModuleCall) -> Answering<'a> {
        Box::pin(ModuleApi::call(self, caller, call))
    }
}

/// Whether a generation may still call. Cheap to clone.
///
/// It is open as long as the turns behind it can be had.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// From now on every call is answered `AccessDenied`, also those that wait for their turn.
    pub fn close(&self) {
        self.0.close();
    }
}

/// The gate of a module that has no door.
impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

/// See the module's documentation.
pub struct Door {
    core: Arc<dyn Core>,
    caller: Caller,
    gate: Gate,
    runtime: Handle,
    voice: Voice,
    counts: Arc<Counts>,
}

impl Door {
    /// An open door of a generation, which lets so many calls through at a time. The work is done on
    /// the current runtime.
    pub fn new(core: Arc<dyn Core>, caller: Caller, at_once: usize) -> Arc<Self> {
        Self::with(core, caller, at_once, Arc::default())
    }

    fn with(core: Arc<dyn Core>, caller: Caller, at_once: usize, counts: Arc<Counts>) -> Arc<Self> {
        let gate = Gate(Arc::new(Semaphore::new(at_once)));
        let voice = Voice::new(&caller.name);
        Arc::new(Self { core, caller, gate, runtime: Handle::current(), voice, counts })
    }

    /// On whose behalf calls come through here.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// To close this door with.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// What was counted of the product.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Has a call answered.
    ///
    /// A line for the log is taken at once and in any case, so that what a module says is not lost with
    /// it.
    pub fn ask(self: &Arc<Self>, call: impl Into<ModuleCall>) -> Asked<CoreReply> {
        let call = call.into();
        if let ModuleCall::Api(CoreRequest::Log(event)) = &call {
            self.counts.begin(Called::Log).answered(Instant::now());
            self.voice.say(event);
            self.core.logged(event);
            return Asked::ready(Ok(CoreReply::Done(Done {})));
        }
        let (called, door) = (Called::from(&call), Arc::clone(self));
        self.carry_out(called, async move { door.core.call(&door.caller, call).await })
    }

    /// Has something done for the module, in its turn and as one of its calls.
    pub fn carry_out<T: Send + 'static>(
        self: &Arc<Self>,
        called: Called,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Asked<T> {
        let count = self.counts.begin(called);
        match Arc::clone(&self.gate.0).try_acquire_owned() {
            Ok(turn) => {
                let door = Arc::clone(self);
                Asked::begun(self.runtime.spawn(async move { door.begin(turn, count, work).await }))
            }
            Err(TryAcquireError::Closed) => {
                count.refused(ErrorName::AccessDenied);
                Asked::ready(Err(ErrorName::AccessDenied.into()))
            }
            Err(TryAcquireError::NoPermits) => {
                let ((here, gone), door) = (Here::new(), Arc::clone(self));
                let waiting = async move {
                    let turn = Arc::clone(&door.gate.0).acquire_owned();
                    match gone.unless(turn).await {
                        Some(Ok(turn)) => door.begin(turn, count, work).await,
                        Some(Err(_)) => {
                            count.refused(ErrorName::AccessDenied);
                            Err(ErrorName::AccessDenied.into())
                        }
                        None => {
                            count.dropped();
                            // Nobody reads this answer.
                            Err(ErrorName::Internal.into())
                        }
                    }
                };
                Asked::waiting(self.runtime.spawn(waiting), here)
            }
        }
    }

    async fn begin<T>(
        &self,
        turn: OwnedSemaphorePermit,
        count: counts::Begun,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let outcome = caught(work).await.unwrap_or_else(|panic| {
            let (module, call) = (&self.caller.name, count.called().name());
            tracing::error!(module, call, panic, "the host panicked while it answered a call");
            Err(ErrorName::Internal.into())
        });
        drop(turn);
        match &outcome {
            Ok(_) => count.answered(Instant::now()),
            Err(error) => count.refused(error.name),
        }
        outcome
    }

    /// What came was no call: the refusal to answer it with.
    pub fn unreadable(&self, why: impl std::fmt::Display) -> ApiError {
        self.counts.begin(Called::Unknown).refused(ErrorName::BadRequest);
        ApiError::with(ErrorName::BadRequest, why)
    }
}

/// The outcome of some work, or what it panicked with.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    poll_fn(|context| {
        // What a panic leaves behind half done is dropped, and everything shared is behind locks.
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
            .map_or_else(|panic| Err(said(&*panic)).into(), |polled| polled.map(Ok))
    })
    .await
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into())
}

/// The doors of a host, and what was counted of each product since it started.
pub struct Doors {
    core: Arc<dyn Core>,
    products: Mutex<BTreeMap<Uuid, Product>>,
}

struct Product {
    /// The module that had it last.
    module: String,
    counts: Arc<Counts>,
}

impl Doors {
    /// Those before a core.
    pub fn new(core: Arc<dyn Core>) -> Self {
        Self { core, products: Mutex::default() }
    }

    /// An open door for a new generation. What is counted is added to what was counted of the
    /// product's generations before.
    pub fn open(&self, caller: Caller, at_once: usize) -> Arc<Door> {
        let counts = {
            let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
            let product = products
                .entry(caller.product)
                .or_insert_with(|| Product { module: String::new(), counts: Arc::default() });
            product.module.clone_from(&caller.name);
            Arc::clone(&product.counts)
        };
        Door::with(Arc::clone(&self.core), caller, at_once, counts)
    }

    /// What was counted of each product so far.
    pub fn counts(&self) -> Vec<ProductCounts> {
        let products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = products.iter().map(|(id, product)| ProductCounts {
            product: *id,
            module: product.module.clone(),
            calls: product.counts.snapshot(),
        });
        counts.collect()
    }
}

//! A module's way to the core through the ABI.
//!
//! The future handed out only waits: the work runs on the host's runtime, so that a module which
//! stops polling holds nothing up. Each generation has a gate of its own, closed for good when the
//! generation is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi_stable::erased_types::TD_Opaque;
use privatix_plugin_api::abi::{
    Bytes, CoreInterface, CoreInterface_TO, CoreObject, Future, FutureExt,
};
use privatix_plugin_api::message::{ApiError, CoreRequest, Done, ErrorName, Reply, decode, encode};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::voice::Voice;
use privatix_core::{Caller, Service};

/// Calls of one module that may be worked on at once; further ones wait their turn.
const AT_ONCE: usize = 1024;

/// Whether a generation may still call.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
}

impl Gate {
    /// From now on every call is answered `AccessDenied`.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// The core as one generation of a module sees it.
pub struct Gateway {
    inner: Arc<Inner>,
    runtime: Handle,
}

struct Inner {
    gate: Arc<Gate>,
    service: Service,
    caller: Caller,
    turns: Semaphore,
    voice: Voice,
}

impl Gateway {
    /// The object to hand to `create`; its work is done on the current runtime.
    pub fn object(service: Service, caller: Caller, gate: Arc<Gate>) -> CoreObject {
        let turns = Semaphore::new(AT_ONCE);
        let voice = Voice::new(&caller.name);
        let inner = Arc::new(Inner { gate, service, caller, turns, voice });
        let gateway = Self { inner, runtime: Handle::current() };
        CoreInterface_TO::from_value(gateway, TD_Opaque)
    }
}

impl CoreInterface for Gateway {
    fn call(&self, request: Bytes<u8>) -> Future<Bytes<u8>> {
        let request = match decode::<CoreRequest>(&request) {
            Ok(CoreRequest::Log(event)) => {
                // At once, so that what a module says is not lost with it.
                self.inner.voice.say(&event);
                return ready(encode(&Reply::<_, ApiError>::Ok(Done {})));
            }
            Ok(request) => request,
            Err(error) => {
                return ready(refusal(ApiError::with(
                    ErrorName::BadRequest,
                    privatix_plugin_api::chain(&error),
                )));
            }
        };
        let inner = Arc::clone(&self.inner);
        let task = self.runtime.spawn(async move { inner.answer(request).await });
        async move {
            let reply = task.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a call of a module was not answered");
                refusal(ErrorName::Internal.into())
            });
            Bytes::from(reply)
        }
        .into_ffi()
    }
}

impl Inner {
    async fn answer(&self, request: CoreRequest) -> Vec<u8> {
        let _turn = self.turns.acquire().await;
        if self.gate.is_closed() {
            return refusal(ErrorName::AccessDenied.into());
        }
        encode(&Reply::from(self.service.call(&self.caller, request).await))
    }
}

fn ready(reply: Vec<u8>) -> Future<Bytes<u8>> {
    std::future::ready(Bytes::from(reply)).into_ffi()
}

fn refusal(error: ApiError) -> Vec<u8> {
    encode(&Reply::<(), _>::Error(error))
}

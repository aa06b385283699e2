//! A codec in front of the [door](super::door): the calls of a module as bytes.
//!
//! The ABI carries these bytes. So can anything else that carries messages, such as a pipe to another
//! process: it hands each of them to [`answer`] and sends back what that returns.
//!
//! The future only waits: the work is done on the host's runtime, so that a module which stops polling
//! holds nothing up.

use std::sync::Arc;

use abi_stable::erased_types::TD_Opaque;
use privatix_core::CoreReply;
use privatix_plugin_api::abi::{
    self, Bytes, CoreInterface, CoreInterface_TO, CoreObject, FutureExt,
};
use privatix_plugin_api::message::{ApiError, CoreRequest, Reply, decode, encode};

use super::door::{Asked, Door};

/// A module's way to the core through the ABI.
pub struct Gateway {
    door: Arc<Door>,
}

impl Gateway {
    /// The object to hand to `create`.
    pub fn object(door: Arc<Door>) -> CoreObject {
        CoreInterface_TO::from_value(Self { door }, TD_Opaque)
    }
}

impl CoreInterface for Gateway {
    fn call(&self, request: Bytes<u8>) -> abi::Future<Bytes<u8>> {
        let answer = answer(&self.door, &request);
        async move { Bytes::from(answer.await) }.into_ffi()
    }
}

/// Has a message answered. Who drops what is returned waits no longer.
pub fn answer(door: &Arc<Door>, request: &[u8]) -> impl Future<Output = Vec<u8>> + Send + use<> {
    let asked: Result<Asked<CoreReply>, ApiError> = match decode::<CoreRequest>(request) {
        Ok(request) => Ok(door.ask(request)),
        Err(error) => Err(door.unreadable(privatix_plugin_api::chain(&error))),
    };
    async move {
        let answer = match asked {
            Ok(asked) => asked.await,
            Err(error) => Err(error),
        };
        encode(&Reply::from(answer))
    }
}

#[cfg(test)]
mod tests {
    use privatix_core::{Caller, ModuleCall};
    use privatix_plugin_api::message::{Done, ErrorName};
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::door::{Answering, Core};

    struct Ready;

    impl Core for Ready {
        fn call<'a>(&'a self, _: &'a Caller, _: ModuleCall) -> Answering<'a> {
            Box::pin(std::future::ready(Ok(CoreReply::Done(Done {}))))
        }
    }

    #[tokio::test]
    async fn bytes_are_answered_whether_they_are_a_call_or_not() {
        let caller = Caller { product: Uuid::nil(), name: "mine".into() };
        let door = Door::new(Arc::new(Ready), caller, 1);
        let ready = json!({ "call": "serviceReady", "clientKey": Uuid::nil() }).to_string();
        for (request, expected) in [
            (ready.as_bytes(), json!(null)),
            (b"{\"call\":\"danceAJig\"}", json!(null)),
            (b"", json!("BadRequest")),
            (b"{\"call\":\"serviceReady\"}", json!("BadRequest")),
            (b"\xff", json!("BadRequest")),
        ] {
            let object = Gateway::object(Arc::clone(&door));
            let by_abi = object.call(Bytes::from(request.to_vec())).await;
            let reply = answer(&door, request).await;
            assert_eq!(by_abi.as_slice(), reply, "one codec");
            let reply: Value = serde_json::from_slice(&reply).expect("JSON");
            assert_eq!(reply["error"]["name"], expected, "{reply}");
        }
        let refused = &door.counts().snapshot()[1].refused;
        assert_eq!(*refused, [(ErrorName::BadRequest, 6)]);
    }
}

//! The order of commands, through the ABI and with a core that agrees to everything.

use std::sync::OnceLock;

use abi_stable::erased_types::TD_Opaque;
use tokio::sync::Notify;
use uuid::Uuid;

use super::*;
use crate::abi::{CoreInterface, CoreInterface_TO, ModuleObject};
use crate::manifest::Role;
use crate::message::{LogLevel, Started, StopReason};

struct Agreeable;

impl CoreInterface for Agreeable {
    fn call(&self, _request: Bytes<u8>) -> Future<Bytes<u8>> {
        std::future::ready(Bytes::from(br#"{"ok":{}}"#.to_vec())).into_ffi()
    }
}

/// Serves a channel only once it is let.
struct Slow {
    begun: Notify,
    let_on: Notify,
    served: Mutex<Vec<ClientKey>>,
}

/// The one that `create` has made, since an object of the ABI shows nothing of it.
static SLOW: OnceLock<Arc<Slow>> = OnceLock::new();

struct Handle(Arc<Slow>);

impl ServiceModule for Handle {
    async fn create(_core: Core, _host: HostInfo) -> Result<Self, Error> {
        let slow = Slow { begun: Notify::new(), let_on: Notify::new(), served: Mutex::default() };
        Ok(Self(Arc::clone(SLOW.get_or_init(|| Arc::new(slow)))))
    }

    async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
        self.0.begun.notify_one();
        self.0.let_on.notified().await;
        self.0.served.lock().expect("locked").push(channel);
        Ok(Started::Ready)
    }

    async fn stop(&self, channel: ClientKey, _reason: StopReason) -> Result<(), Error> {
        self.0.served.lock().expect("locked").retain(|served| *served != channel);
        Ok(())
    }

    async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
        Ok(self.0.served.lock().expect("locked").clone())
    }
}

async fn ask(module: &ModuleObject, request: ModuleRequest) -> String {
    let reply = module.call(Bytes::from(encode(&request))).await;
    String::from_utf8(reply.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn a_start_that_is_late_does_not_take_effect_after_a_stop() {
    let host = HostInfo {
        api_version: 1,
        host_version: "0".into(),
        name: "slow".into(),
        role: Role::Agent,
        data_dir: "/".into(),
        log_level: LogLevel::Error,
    };
    let core = CoreInterface_TO::from_value(Agreeable, TD_Opaque);
    // On a thread that may block, as the host does it.
    let made = std::thread::spawn(move || create::<Handle>(core, Bytes::from(encode(&host))));
    let made = made.join().expect("returned");
    let FfiResult::ROk(module) = made else { panic!("not created") };
    let slow = SLOW.get().expect("created");
    let client_key = ClientKey(Uuid::from_u128(1));

    // The host has stopped waiting for the first start by the time it says stop.
    let late = module.call(Bytes::from(encode(&ModuleRequest::Start { client_key })));
    slow.begun.notified().await;
    let stop = ModuleRequest::Stop { client_key, reason: StopReason::Suspended };
    assert_eq!(ask(&module, stop.clone()).await, r#"{"ok":{}}"#);
    slow.let_on.notify_one();
    let late = String::from_utf8(late.await.to_vec()).expect("UTF-8");
    assert!(late.contains("stopped"), "{late}");
    assert_eq!(ask(&module, ModuleRequest::Sessions).await, r#"{"ok":{"clientKeys":[]}}"#);

    // One that is in time does.
    let start = module.call(Bytes::from(encode(&ModuleRequest::Start { client_key })));
    assert_eq!(start.await.to_vec(), br#"{"ok":"ready"}"#);
    assert!(ask(&module, ModuleRequest::Sessions).await.contains(&client_key.to_string()));
    assert_eq!(ask(&module, stop).await, r#"{"ok":{}}"#);
    module.shutdown(1000).await;
}

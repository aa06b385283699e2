//! That every way in leads to the same door: the ABI's bytes, and both spellings of JSON-RPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use privatix_base::config::{ModuleTimeouts, OrderPolicy};
use privatix_core::{
    AgentSettings, Caller, ClientSettings, CoreReply, ModuleApi, ModuleCall, PartySettings,
    Registration, Service, Settings,
};
use privatix_domain::billing::Tolerance;
use privatix_domain::identity::Identity;
use privatix_domain::template::{Template, TemplateKind};
use privatix_modules::door::{Answering, CallCounts, Core, Door, Gone, Here};
use privatix_modules::gateway;
use privatix_modules::generation::Generation;
use privatix_modules::line::{Line, Way};
use privatix_modules::router::Router;
use privatix_plugin_api::manifest::{Role, UsageReporting};
use privatix_plugin_api::message::{
    ClientKey, CoreRequest, Done, ErrorName, Password, SessionId, Usage, encode,
};
use privatix_store::Store;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::desk::{Desk, Visitor};
use super::places::Places;
use super::text;

const PRODUCT: Uuid = Uuid::from_u128(1);

#[derive(Debug, Clone, Copy)]
enum Codec {
    Abi,
    Own,
    Adapter,
}

const ALL: [Codec; 3] = [Codec::Abi, Codec::Own, Codec::Adapter];

/// A host with one standalone module, and its program's token.
struct Host {
    desk: Desk,
    door: Arc<Door>,
    token: String,
    _home: tempfile::TempDir,
}

impl Host {
    async fn new(role: Role) -> Self {
        Self::before(role, 256, |api| Arc::new(api)).await
    }

    async fn before(
        role: Role,
        at_once: usize,
        core: impl FnOnce(ModuleApi) -> Arc<dyn Core>,
    ) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::open(&home.path().join("state.db")).await.expect("opened");
        let service = Service::new(store, Identity::from_entropy([1; 96]), settings(), party(role));
        let access = include_bytes!("../../../plugins/echo/echo.access.json");
        let registration = Registration {
            product: PRODUCT,
            name: "mine",
            version: "1.0.0",
            usage_reporting: UsageReporting::Total,
            access: &Template::parse(TemplateKind::Access, access).expect("a template"),
            offering: None,
        };
        service.upkeep().register(registration).await.expect("registered");
        let token = service.operator().token_make("mine").await.expect("a token").token;
        let caller = Caller { product: PRODUCT, name: "mine".into() };
        let door = Door::new(core(service.modules()), caller, at_once);
        let line = Arc::new(Line::new(Arc::clone(&door), &json!({}), Arc::default()));
        let router = Arc::new(Router::default());
        router.open(PRODUCT, Arc::new(Generation::standalone(line, &timeouts())));
        Self { desk: Desk::new(service.modules(), router), door, token, _home: home }
    }

    /// The name of the error that a call is refused with, for somebody who may go away; nothing for an
    /// answer, or where nobody waits.
    async fn refusal(&self, codec: Codec, request: &CoreRequest, gone: Gone) -> Option<ErrorName> {
        let (text, proven) = match codec {
            Codec::Abi => {
                let answer = gateway::answer(&self.door, &encode(request));
                let reply = gone.unless(answer).await?;
                let reply: Value = serde_json::from_slice(&reply).expect("JSON");
                return reply.get("error").map(|error| named(&error["number"]));
            }
            Codec::Own => (own(request), true),
            Codec::Adapter => (adapter(request, &self.token), false),
        };
        let bearer = match proven {
            true => self.desk.api.token_proof(&self.token).await.expect("read"),
            false => None,
        };
        let place = Places::new(16).enter();
        let ticket = self.desk.budgets.of(None).hold(1024).await;
        let visitor = Visitor { bearer, way: Way::Asked, place, gone };
        let answer = text::answer(&self.desk, &visitor, text.as_bytes(), ticket).await;
        let answer: Value = serde_json::from_str(&answer.text.expect("a text")).expect("JSON");
        let error = answer.get("error")?;
        Some(match error["code"].as_i64() {
            Some(-32_000) => {
                let message = error["message"].as_str().expect("a text");
                let (text, number) = message.split_once(" (").expect("with a number");
                let number: u32 = number.trim_end_matches(')').parse().expect("a number");
                let name = named(&json!(number));
                assert_eq!(text, name.text(), "the stable text alone");
                name
            }
            _ => named(&error["code"]),
        })
    }

    async fn said(&self, codec: Codec, request: &CoreRequest) -> Option<ErrorName> {
        let (_here, gone) = Here::new();
        self.refusal(codec, request, gone).await
    }

    fn counted(&self) -> Vec<CallCounts> {
        self.door.counts().snapshot()
    }
}

fn named(number: &Value) -> ErrorName {
    let names = ErrorName::ALL.into_iter();
    let mut found = names.filter(|name| json!(name.number()) == *number);
    found.next().unwrap_or_else(|| panic!("{number} is no error of the Service API"))
}

fn own(request: &CoreRequest) -> String {
    let mut params = serde_json::to_value(request).expect("JSON");
    let call = params.as_object_mut().and_then(|params| params.remove("call")).expect("a call");
    let method = format!("service_{}", call.as_str().expect("a text"));
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

fn adapter(request: &CoreRequest, token: &str) -> String {
    let (method, more) = match request {
        CoreRequest::AuthClient { client_key, password } => {
            ("authClient", json!([client_key, password]))
        }
        CoreRequest::SetProductConfig { config } => ("setProductConfig", json!([config])),
        CoreRequest::GetAccess { client_key } => ("getEndpoint", json!([client_key])),
        CoreRequest::ServiceReady { client_key } => ("serviceReady", json!([client_key])),
        CoreRequest::StartSession { client_key, .. } => {
            ("startSession", json!([client_key, "", 0]))
        }
        CoreRequest::UpdateSession { client_key, .. } => ("updateSession", json!([client_key, 1])),
        CoreRequest::StopSession { client_key, .. } => ("stopSession", json!([client_key])),
        other => panic!("adapters do not know {other:?}"),
    };
    let mut params = vec![json!(PRODUCT), json!(token)];
    params.extend(more.as_array().expect("a list").iter().cloned());
    json!({ "jsonrpc": "2.0", "id": 1, "method": format!("sess_{method}"), "params": params })
        .to_string()
}

/// Every call that all codecs know, about a channel that is not there.
fn calls() -> [CoreRequest; 7] {
    let (client_key, session) = (ClientKey(Uuid::from_u128(7)), SessionId(Uuid::from_u128(8)));
    [
        CoreRequest::AuthClient { client_key, password: Password("p".into()) },
        CoreRequest::SetProductConfig { config: Default::default() },
        CoreRequest::GetAccess { client_key },
        CoreRequest::ServiceReady { client_key },
        CoreRequest::StartSession { client_key, client_address: None, client_port: None },
        CoreRequest::UpdateSession { client_key, session, usage: Usage::Total(1) },
        CoreRequest::StopSession { client_key, session },
    ]
}

#[tokio::test]
async fn every_codec_meets_the_same_refusals_and_the_same_counts() {
    use ErrorName::{BadProductConfig, ChannelNotFound, Unsupported};
    for (role, expected) in [
        (
            Role::Agent,
            [
                ChannelNotFound,
                BadProductConfig,
                Unsupported,
                ChannelNotFound,
                ChannelNotFound,
                ChannelNotFound,
                ChannelNotFound,
            ],
        ),
        (
            Role::Client,
            [
                Unsupported,
                Unsupported,
                ChannelNotFound,
                ChannelNotFound,
                ChannelNotFound,
                ChannelNotFound,
                ChannelNotFound,
            ],
        ),
    ] {
        let host = Host::new(role).await;
        let counts_of = async |codec| {
            for (request, name) in calls().iter().zip(expected) {
                let said = host.said(codec, request).await;
                assert_eq!(said, Some(name), "{role} by {codec:?}: {request:?}");
            }
            let counted = host.counted();
            counted.into_iter().map(|of| (of.called, of.asked, of.refused)).collect::<Vec<_>>()
        };
        for (round, codec) in (1..).zip(ALL) {
            for ((called, asked, refused), name) in counts_of(codec).await.into_iter().zip(expected)
            {
                assert_eq!((asked, refused), (round, vec![(name, round)]), "{called:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_codec_is_denied_behind_a_closed_door() {
    let host = Host::new(Role::Agent).await;
    host.door.gate().close();
    for codec in ALL {
        for request in &calls() {
            let said = host.said(codec, request).await;
            assert_eq!(said, Some(ErrorName::AccessDenied), "by {codec:?}: {request:?}");
        }
    }
    let asked: u64 = host.counted().iter().map(|of| of.asked).sum();
    assert_eq!(asked, 21);
}

/// A core that answers when the test says so.
struct Slow {
    begun: AtomicUsize,
    go: Semaphore,
}

impl Core for Slow {
    fn call<'a>(&'a self, _: &'a Caller, _: ModuleCall) -> Answering<'a> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.go.acquire().await.expect("never closed").forget();
            Ok(CoreReply::Done(Done {}))
        })
    }
}

/// Waits for a number that tasks bring about.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_codec_waits_for_a_turn_and_gives_its_place_up() {
    for codec in ALL {
        let core = Arc::new(Slow { begun: AtomicUsize::new(0), go: Semaphore::new(0) });
        let host = Host::before(Role::Agent, 1, |_| core.clone()).await;
        let host = Arc::new(host);
        let ask = |gone: Gone| {
            let host = Arc::clone(&host);
            tokio::spawn(async move { host.refusal(codec, &calls()[3], gone).await })
        };
        let asked = || host.counted().first().map_or(0, |of| of.asked);
        let dropped = || host.counted().first().map_or(0, |of| of.dropped);
        let ((_here, stays), (leaving, gone)) = (Here::new(), Here::new());
        let first = ask(stays.clone());
        until(|| core.begun.load(Ordering::SeqCst) == 1).await;
        let _second = ask(gone);
        until(|| asked() == 2).await;
        let third = ask(stays);
        until(|| asked() == 3).await;
        drop(leaving);
        until(|| dropped() == 1).await;
        assert_eq!(core.begun.load(Ordering::SeqCst), 1, "one at a time, by {codec:?}");
        core.go.add_permits(2);
        for call in [first, third] {
            assert_eq!(call.await.expect("no panic"), None, "answered, by {codec:?}");
        }
        assert_eq!(core.begun.load(Ordering::SeqCst), 2, "one was broken off, by {codec:?}");
    }
}

fn timeouts() -> ModuleTimeouts {
    let long = Duration::from_secs(60);
    ModuleTimeouts {
        create: long,
        configure: long,
        start: long,
        stop: long,
        call: long,
        shutdown: long,
    }
}

fn settings() -> Settings {
    Settings { activation_timeout: Duration::from_secs(60), max_unreported: 64 << 20 }
}

fn party(role: Role) -> PartySettings {
    match role {
        Role::Agent => PartySettings::Agent(AgentSettings {
            first_payment_timeout: Duration::from_secs(600),
            exchange: "http://192.0.2.1".into(),
            orders: OrderPolicy::Open,
            allowlist: Vec::new(),
            max_channels_per_client: 10,
            max_orders_per_hour: 10,
            max_waiting_orders_per_client: 5,
            max_waiting_orders: 1000,
            service_endpoint_address: None,
        }),
        Role::Client => PartySettings::Client(ClientSettings {
            allow_foreign_payment_receiver: false,
            tolerance: Tolerance::default(),
        }),
    }
}

//! What a host is asked for that only one of the other role does: the same refusal for all of it, and
//! for nothing else.

#![allow(clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use privatix_base::config::OrderPolicy;
use privatix_core::{AgentSettings, ClientSettings, PartySettings, Service, Settings};
use privatix_domain::billing::Tolerance;
use privatix_domain::code::Code;
use privatix_domain::identity::Identity;
use privatix_exchange::peer::Peer;
use privatix_modules::registry::Registry;
use privatix_modules::router::Router;
use privatix_operator::client::{Client, ClientError};
use privatix_operator::{Api, listen, serve};
use privatix_plugin_api::manifest::Role;
use privatix_store::Store;
use serde_json::{Value, json};

const CHANNEL: &str = "00000000-0000-4000-8000-000000000000";

fn party(role: Role) -> PartySettings {
    match role {
        Role::Agent => PartySettings::Agent(AgentSettings {
            first_payment_timeout: Duration::from_secs(600),
            exchange: "http://192.0.2.1".into(),
            orders: OrderPolicy::Open,
            allowlist: Vec::new(),
            max_channels_per_client: 1,
            max_orders_per_hour: 1,
            max_waiting_orders_per_client: 1,
            max_waiting_orders: 1,
            service_endpoint_address: None,
        }),
        Role::Client => PartySettings::Client(ClientSettings {
            allow_foreign_payment_receiver: false,
            tolerance: Tolerance::default(),
        }),
    }
}

/// A host that nobody has traded with, and its operator's end.
async fn host(role: Role) -> (Client, tempfile::TempDir) {
    let home = tempfile::tempdir().expect("a directory");
    let store = Store::open(&home.path().join("state.db")).await.expect("opened");
    let settings =
        Settings { activation_timeout: Duration::from_secs(60), max_unreported: 64 << 20 };
    let service = Service::new(store, Identity::from_entropy([1; 96]), settings, party(role));
    let api = Api {
        registry: Arc::new(Registry::default()),
        router: Arc::new(Router::default()),
        operator: service.operator(),
        peer: Peer::new(privatix_tls::nobody().expect("TLS")).expect("a way out"),
    };
    let socket = home.path().join("s");
    let listener = listen(&socket).expect("listening");
    tokio::spawn(serve(listener, api, std::future::pending()));
    (Client::new(&socket), home)
}

/// The code and the text of a refusal.
async fn refused(client: &Client, (path, body): &(String, Option<Value>)) -> (String, String) {
    let answer = match body {
        Some(body) => client.post::<Value>(path, body).await,
        None => client.get::<Value>(path).await,
    };
    match answer {
        Err(ClientError::Refused(refused)) => (refused.code.to_string(), refused.text),
        Err(error) => panic!("{path}: {error}"),
        Ok(answer) => (String::new(), answer.to_string()),
    }
}

#[tokio::test]
async fn each_host_refuses_what_only_the_other_role_does() {
    let post = |path: &str, body| (path.to_owned(), Some(body));
    let selling = [
        post("/v1/offerings", json!({"product": "m", "fields": {}})),
        post("/v1/offerings/0a/withdraw", json!(null)),
        post("/v1/orders/0a/accept", json!(null)),
        post("/v1/orders/0a/reject", json!(null)),
    ];
    let buying = [
        post("/v1/offerings/fetch", json!({"url": "http://127.0.0.1:9", "agent": null})),
        post("/v1/orders", json!({"offering": "0a", "deposit": null, "hold": false})),
        post("/v1/orders/0a/cancel", json!(null)),
        (format!("/v1/channels/{CHANNEL}/access"), None),
    ];
    for role in [Role::Agent, Role::Client] {
        let (client, _home) = host(role).await;
        let (own, others, text) = match role {
            Role::Agent => (&selling, &buying, "only a client does that"),
            Role::Client => (&buying, &selling, "only an agent does that"),
        };
        for request in own {
            let (code, _) = refused(&client, request).await;
            assert_ne!(code, "", "{role}: {} is of nothing that is there", request.0);
            assert_ne!(code, Code::WrongRole.to_string(), "{role}: {}", request.0);
        }
        for request in others {
            let expected = (Code::WrongRole.to_string(), text.to_owned());
            assert_eq!(refused(&client, request).await, expected, "{role}: {}", request.0);
        }
        // An id that is none is none on every host.
        let nonsense = ("/v1/channels/nonsense/access".to_owned(), None);
        assert_eq!(refused(&client, &nonsense).await.0, Code::ChannelNotFound.to_string());
        for list in ["offerings", "orders", "channels", "cheques", "modules", "products"] {
            let list: Value = client.get(&format!("/v1/{list}")).await.expect("a list");
            assert_eq!(list, json!([]));
        }
    }
}

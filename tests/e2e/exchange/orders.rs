//! Orders that are altered, repeated, late, or too many.

use std::thread;

use privatix_base::clock;
use privatix_core::OfferingView;
use privatix_domain::identity::PublicKey;
use privatix_domain::order::check_reply;
use privatix_domain::signed::Kind;
use privatix_plugin_api::json;
use privatix_plugin_api::message::Status;
use serde_json::{Value, json};
use uuid::Uuid;

use super::seller::{Seller, channel, client, order, request, with};

#[test]
fn orders_that_are_refused_leave_nothing() {
    let seller = Seller::open();
    let offering = seller.offer(3);
    let me = client(1);
    let now = clock::unix_now();
    let good = order(&offering, &me, &json!({}));
    let other = client(2).public();
    let changed = |changes: Value| order(&offering, &me, &changes);
    for (name, message, expected) in [
        ("altered", with(&good, &json!({ "deposit": 7 })), "400 BadOrderSignature"),
        (
            "for another's key",
            with(&good, &json!({ "clientSealingKey": other.sealing })),
            "400 BadOrderSignature",
        ),
        (
            "another's",
            changed(json!({ "clientSigningKey": other.signing })),
            "400 BadOrderSignature",
        ),
        ("unsigned", with(&good, &json!({ "signature": null })), "400 BadOrderSignature"),
        ("as a request", as_request(&good), "400 BadOrderSignature"),
        ("of nothing", order(&"0".repeat(64), &me, &json!({})), "404 OfferingNotFound"),
        ("of a part", order(&offering[..32], &me, &json!({})), "404 OfferingNotFound"),
        ("expired", changed(json!({ "expires": now })), "400 OrderExpired"),
        ("for ever", changed(json!({ "expires": now + 200_000 })), "400 OrderExpiryTooFar"),
        ("without a deposit", changed(json!({ "deposit": null })), "400 MalformedOrder"),
        ("with a word for a deposit", changed(json!({ "deposit": "7" })), "400 MalformedOrder"),
        ("without a nonce", changed(json!({ "nonce": "x" })), "400 MalformedOrder"),
        (
            "with a weak key",
            changed(json!({ "clientSealingKey": "A".repeat(43) })),
            "400 MalformedOrder",
        ),
        ("only the offering", json!({ "offering": offering }), "400 MalformedOrder"),
        ("padded", changed(json!({ "padding": "x".repeat(2000) })), "400 MalformedOrder"),
        ("padded a lot", changed(json!({ "padding": "x".repeat(60_000) })), "413 MessageTooLarge"),
    ] {
        assert_eq!(seller.order(&message).word(), expected, "{name}");
    }
    assert_eq!(seller.channels(), []);
    assert_eq!(seller.node.get::<Vec<Value>>("/v1/orders").expect("listed"), Vec::<Value>::new());
    assert_eq!(supply(&seller, &offering), 3);
    assert_eq!(seller.order(&good).word(), "200");
}

/// The fields of an order, signed as something else.
fn as_request(order: &Value) -> Value {
    let unsigned = with(order, &json!({ "signature": null }));
    let signed = privatix_domain::signed::sign(Kind::AccessRequest, unsigned, &client(1));
    signed.expect("signed")
}

fn supply(seller: &Seller, offering: &str) -> u64 {
    let view: Option<OfferingView> = seller.node.get(&format!("/v1/offerings/{offering}"));
    view.expect("the offering").supply_left
}

#[test]
fn an_order_is_one_channel_however_often_it_comes() {
    let seller = Seller::open();
    let offering = seller.offer(3);
    let me = client(1);
    let nonce = json!({ "nonce": Uuid::new_v4() });
    let message = order(&offering, &me, &nonce);
    let answers: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| seller.order(&message))).collect();
        asked.into_iter().map(|asked| asked.join().expect("answered")).collect()
    });
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
    }
    let agent: PublicKey = seller.identity.signing_key.parse().expect("a key");
    let hash = json::hash(&message).expect("a hash");
    let reply = check_reply(&answers[0].body, &agent, &hash).expect("a signed reply");
    seller.wait(reply.channel, Status::Active);
    // Written otherwise it is the same; with another content it is not.
    assert_eq!(
        seller.order(&serde_json::from_str(&format!("{message:#}")).expect("JSON")),
        answers[0]
    );
    for changes in [json!({ "deposit": 1 }), json!({ "expires": clock::unix_now() + 5 })] {
        let other = order(&offering, &me, &with(&nonce, &changes));
        assert_eq!(seller.order(&other).word(), "400 NonceUsed", "{changes}");
    }
    assert_eq!(seller.channels().len(), 1);
    // The nonce is the client's own: another may have the same.
    assert_ne!(channel(&seller.order(&order(&offering, &client(2), &nonce))), reply.channel);
    assert_eq!((seller.channels().len(), supply(&seller, &offering)), (2, 1));
}

#[test]
fn no_more_is_sold_than_there_is() {
    let seller = Seller::open();
    let offering = seller.offer(3);
    let mut found: Vec<String> = thread::scope(|scope| {
        let (seller, offering) = (&seller, &offering);
        let asked: Vec<_> = (1..=8)
            .map(|number| {
                let message = order(offering, &client(number), &json!({}));
                scope.spawn(move || seller.order(&message).word())
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().expect("answered")).collect()
    });
    found.sort();
    let (sold, refused) = (["200"; 3], ["503 SupplyExhausted"; 5]);
    assert_eq!(found, [&sold[..], &refused[..]].concat());
    assert_eq!((seller.channels().len(), supply(&seller, &offering)), (3, 0));
}

#[test]
fn only_so_many_orders_wait_for_the_operator() {
    let named = client(9);
    let seller = Seller::configured(&format!(
        "[agent]\norders = \"manual\"\nmax_waiting_orders_per_client = 2\nmax_waiting_orders = 3\n\
         allowlist = [\"{}\"]\n",
        named.public().signing
    ));
    let offering = seller.offer(9);
    let order = |client| order(&offering, client, &json!({}));
    let [me, other, third] = [1, 2, 3].map(client);
    let full = "429 TooManyWaiting";
    let first = order(&me);
    assert_eq!(seller.order(&first).status, 202);
    assert_eq!(seller.order(&order(&me)).status, 202);
    assert_eq!(seller.order(&order(&me)).word(), full, "of one client");
    assert_eq!(seller.order(&order(&other)).status, 202);
    assert_eq!(seller.order(&order(&third)).word(), full, "of all strangers");
    assert_eq!(seller.order(&first).status, 202, "known already");
    // Whom the operator knows is not kept out by strangers.
    assert_eq!(seller.order(&order(&named)).status, 202);
    let waiting: Vec<Value> = seller.node.get("/v1/orders").expect("listed");
    assert_eq!(waiting.len(), 4);
    let decide = |hash: &str, what: &str| {
        let path = format!("/v1/orders/{hash}/{what}");
        seller.node.post::<Value>(&path, &json!(null)).expect("decided")
    };
    for waiting in &waiting[..2] {
        decide(waiting["hash"].as_str().expect("a hash"), "reject");
    }
    assert_eq!(seller.order(&order(&third)).status, 202, "there is room again");
}

#[test]
fn one_client_may_have_and_order_so_much() {
    let seller = Seller::configured(
        "[agent]\norders = \"open\"\nmax_channels_per_client = 1\nmax_orders_per_hour = 2\n",
    );
    let offering = seller.offer(9);
    let me = client(1);
    let order = |client| order(&offering, client, &json!({}));
    let first = order(&me);
    let end = |channel| {
        let message = request(Kind::TerminateRequest, channel, &me, &json!({}));
        assert_eq!(seller.ask(channel, "terminate", &message).status, 200);
        seller.wait(channel, Status::Terminated);
    };
    let one = channel(&seller.order(&first));
    assert_eq!(seller.order(&order(&me)).word(), "429 TooManyChannels");
    end(one);
    let two = channel(&seller.order(&order(&me)));
    assert_eq!(seller.order(&order(&me)).word(), "429 TooManyOrders");
    end(two);
    assert_eq!(seller.order(&order(&me)).word(), "429 TooManyOrders");
    // What was answered is answered alike, and others have caps of their own.
    assert_eq!(seller.order(&first).word(), "200");
    assert_eq!(seller.order(&order(&client(2))).word(), "200");
    assert_eq!((seller.channels().len(), supply(&seller, &offering)), (3, 8));
}

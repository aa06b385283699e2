//! Requests about a channel that do not come from its client, or not now, or not for the first time.

use privatix_base::clock;
use privatix_domain::signed::Kind;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};
use uuid::Uuid;

use super::seller::{Seller, client, request, with};

const WHAT: [(&str, Kind); 3] = [
    ("access", Kind::AccessRequest),
    ("account", Kind::AccountRequest),
    ("terminate", Kind::TerminateRequest),
];

#[test]
fn a_request_is_its_clients_of_its_kind_of_now_and_made_once() {
    let seller = Seller::open();
    let offering = seller.offer(5);
    let (me, other) = (client(1), client(2));
    let (mine, next, foreign) = (
        seller.channel(&offering, &me),
        seller.channel(&offering, &me),
        seller.channel(&offering, &other),
    );
    for channel in [mine, next, foreign] {
        seller.wait(channel, Status::Active);
    }
    let before = seller.channels();
    let now = clock::unix_now();
    for (what, kind) in WHAT {
        // Refused requests use no nonce up: all of them have that of the good one.
        let nonce = json!({ "nonce": Uuid::new_v4() });
        let good = request(kind, mine, &me, &nonce);
        let with_nonce = |mut changes: Value| {
            let changed = changes.as_object_mut().expect("an object");
            changed.entry("nonce").or_insert_with(|| nonce["nonce"].clone());
            request(kind, mine, &me, &changes)
        };
        let by_other = request(kind, mine, &other, &nonce);
        for (name, message, expected) in [
            ("unsigned", with(&good, &json!({ "signature": null })), "400 BadRequestSignature"),
            ("another's", by_other, "400 BadRequestSignature"),
            ("altered", with(&good, &json!({ "time": now + 1000 })), "400 BadRequestSignature"),
            ("extended", with(&good, &json!({ "more": true })), "400 BadRequestSignature"),
            ("for the next channel", request(kind, next, &me, &nonce), "400 ForeignRequest"),
            ("old", with_nonce(json!({ "time": now - 300 })), "400 StaleRequest"),
            ("of the future", with_nonce(json!({ "time": now + 300 })), "400 StaleRequest"),
            ("without a time", with_nonce(json!({ "time": null })), "400 MalformedRequest"),
            (
                "with a word for a time",
                with_nonce(json!({ "time": "now" })),
                "400 MalformedRequest",
            ),
            ("without a nonce", with_nonce(json!({ "nonce": null })), "400 MalformedRequest"),
            ("empty", json!({}), "400 MalformedRequest"),
            ("a list", json!([]), "400 MalformedRequest"),
        ] {
            assert_eq!(seller.ask(mine, what, &message).word(), expected, "{name} for {what}");
        }
        for (_, wrong) in WHAT.into_iter().filter(|(_, other)| *other != kind) {
            let message = request(wrong, mine, &me, &nonce);
            let found = seller.ask(mine, what, &message).word();
            assert_eq!(found, "400 BadRequestSignature", "{wrong} for {what}");
        }
        for channel in [foreign, next] {
            let found = seller.ask(channel, what, &good).word();
            let known =
                if channel == next { "400 ForeignRequest" } else { "400 BadRequestSignature" };
            assert_eq!(found, known, "{what} of {channel}");
        }
        let unknown = ClientKey(Uuid::new_v4());
        assert_eq!(seller.ask(unknown, what, &good).word(), "404 ChannelNotFound");
        assert_eq!(seller.channels(), before, "nothing has changed by what was refused: {what}");

        assert_eq!(seller.ask(mine, what, &good).word(), "200", "{what}");
        let after = seller.channels();
        assert_eq!(seller.ask(mine, what, &good).word(), "400 RepeatedRequest", "{what}");
        // The nonce is used up for every kind.
        for (what, kind) in WHAT {
            let message = request(kind, mine, &me, &nonce);
            assert_eq!(seller.ask(mine, what, &message).word(), "400 RepeatedRequest", "{what}");
        }
        if what != "terminate" {
            assert_eq!(after, before, "{what} changes nothing");
            assert_eq!(seller.channels(), before);
        }
    }
    seller.wait(mine, Status::Terminated);
    for untouched in [next, foreign] {
        seller.wait(untouched, Status::Active);
    }
    // To end what has ended is no fault: the answer may have been lost.
    let again = request(Kind::TerminateRequest, mine, &me, &json!({}));
    let answer = seller.ask(mine, "terminate", &again);
    assert_eq!((answer.status, answer.body["status"].as_str()), (200, Some("terminated")));
}

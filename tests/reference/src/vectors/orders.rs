//! Orders and what answers them, requests about channels, and the agent's time: which are accepted.

use serde_json::{Value, json};

use super::{CHANNEL, NOW, OTHER_CHANNEL, damaged, hash, key, messages, with};
use crate::parties::identity;
use privatix_domain::offering::parse_signed;
use privatix_domain::order::{
    ChannelRequest, MAX_VALIDITY, check, check_refusal, check_reply, check_request, read,
    read_cancel,
};
use privatix_domain::signed::Kind;
use privatix_domain::time::Heard;

pub(super) fn file() -> Value {
    json!({
        "about": "What an agent and a client check, at the time `now`. A code of null: accepted.",
        "now": NOW,
        "offerings": offerings(),
        "orders": orders(),
        "replies": replies(),
        "refusals": refusals(),
        "cancellations": cancellations(),
        "requests": requests(),
        "times": times(),
    })
}

/// Each case with what comes of it.
fn judged(
    cases: Vec<(&str, Value)>,
    check: impl Fn(&Value) -> Result<(), &'static str>,
) -> Vec<Value> {
    let made = |(why, message): (&str, Value)| json!({ "why": why, "message": message, "code": check(&message).err() });
    cases.into_iter().map(made).collect()
}

fn offerings() -> Vec<Value> {
    let good = messages::of(Kind::Offering);
    let but = |changes| with(Kind::Offering, &good, &changes, "agent");
    let cases = vec![
        ("the offering", good.clone()),
        ("a limit of 0 is none, as one that is absent", but(json!({"maxUnits": null}))),
        ("a field of a newer version", but(json!({"colour": "blue"}))),
        ("signed by another than it names", with(Kind::Offering, &good, &json!({}), "stranger")),
        ("a bit of the signature was altered", damaged(&good)),
        ("no price", but(json!({"unitPrice": null}))),
        ("no hash", but(json!({"templateHash": "A".repeat(64)}))),
        ("no country", but(json!({"country": "ch"}))),
        ("no supply", but(json!({"supply": 0}))),
        ("no unit", but(json!({"unitSize": 0}))),
        ("no interval", but(json!({"billingInterval": 0}))),
        ("the lag is below two intervals", but(json!({"maxBillingUnitLag": 19}))),
        ("a lag of two intervals", but(json!({"maxBillingUnitLag": 20}))),
        ("fewer units at most than at least", but(json!({"maxUnits": 99}))),
        (
            "a deposit that no message can hold",
            but(json!({"unitPrice": 9_007_199_254_740_991_u64})),
        ),
        ("a user in the URL", but(json!({"exchange": "https://a:b@agent.example"}))),
        ("a query in the URL", but(json!({"exchange": "https://agent.example/?a"}))),
        ("another scheme", but(json!({"exchange": "ftp://agent.example"}))),
    ];
    judged(cases, |message| {
        parse_signed(message, None).map(drop).map_err(|error| error.code().code())
    })
}

fn orders() -> Vec<Value> {
    let good = messages::of(Kind::Order);
    let offering = messages::of(Kind::Offering);
    let terms = parse_signed(&offering, None).expect("an offering");
    let least = terms.min_deposit().expect("it has one");
    let but = |changes| with(Kind::Order, &good, &changes, "client");
    let cases = vec![
        ("the order", good.clone()),
        ("the least deposit", but(json!({"deposit": least}))),
        ("less than the least deposit", but(json!({"deposit": least - 1}))),
        ("expires in the last moment", but(json!({"expires": NOW + 1}))),
        ("expires now", but(json!({"expires": NOW}))),
        ("valid as long as may be", but(json!({"expires": NOW + MAX_VALIDITY}))),
        ("valid for longer", but(json!({"expires": NOW + MAX_VALIDITY + 1}))),
        ("another offering", but(json!({"offering": hash(&good)}))),
        ("a field that an order does not have", but(json!({"note": "hello"}))),
        ("no nonce", but(json!({"nonce": null}))),
        ("signed by another than it names", with(Kind::Order, &good, &json!({}), "stranger")),
        ("signed as a cheque", with(Kind::Cheque, &good, &json!({}), "client")),
        ("a bit of the signature was altered", damaged(&good)),
    ];
    let hash = hash(&offering);
    judged(cases, |message| {
        let order = read(message).map_err(|error| error.code().code())?;
        check(&order, NOW, &hash, &terms).map_err(|error| error.code().code())
    })
}

fn replies() -> Vec<Value> {
    let good = messages::of(Kind::OrderReply);
    let but = |changes| with(Kind::OrderReply, &good, &changes, "agent");
    let cases = vec![
        ("the reply", good.clone()),
        ("to another order", but(json!({"order": hash(&good)}))),
        (
            "the channel is no UUID v4",
            but(json!({"channel": "6f1c1f0e-3b5c-1c5e-8f7a-0c1d2e3f4a5b"})),
        ),
        ("no channel", but(json!({"channel": null}))),
        ("signed by a stranger", with(Kind::OrderReply, &good, &json!({}), "stranger")),
        ("signed as a refusal", with(Kind::OrderRefusal, &good, &json!({}), "agent")),
    ];
    let agent = identity("agent").public().signing;
    let order = messages::order_hash();
    judged(cases, |message| {
        check_reply(message, &agent, &order).map(drop).map_err(|error| error.code().code())
    })
}

fn refusals() -> Vec<Value> {
    let good = messages::of(Kind::OrderRefusal);
    let but = |changes| with(Kind::OrderRefusal, &good, &changes, "agent");
    let unsigned = super::changed(&good, &json!({}));
    let cases = vec![
        ("the refusal", good.clone()),
        ("a code of a newer agent", but(json!({"code": "OutOfTea"}))),
        ("not signed", unsigned),
        ("of another order", but(json!({"order": hash(&good)}))),
        ("signed by a stranger", with(Kind::OrderRefusal, &good, &json!({}), "stranger")),
        ("not the form of one", json!({"code": "Internal", "text": "later"})),
    ];
    let agent = identity("agent").public().signing;
    let order = messages::order_hash();
    judged(cases, |message| {
        check_refusal(message, &agent, &order).map(drop).map_err(|error| error.code().code())
    })
}

fn cancellations() -> Vec<Value> {
    let good = messages::of(Kind::OrderCancel);
    let cases = vec![
        ("the cancellation", good.clone()),
        ("a further field", with(Kind::OrderCancel, &good, &json!({"why": "late"}), "client")),
        ("signed by another than it names", with(Kind::OrderCancel, &good, &json!({}), "stranger")),
        ("signed as an order", with(Kind::Order, &good, &json!({}), "client")),
    ];
    judged(cases, |message| read_cancel(message).map(drop).map_err(|error| error.code().code()))
}

fn requests() -> Vec<Value> {
    let good = messages::of(Kind::AccountRequest);
    let tolerance = ChannelRequest::TOLERANCE;
    let but = |changes| with(Kind::AccountRequest, &good, &changes, "client");
    let cases = vec![
        ("the request", good.clone()),
        ("made two minutes ago", but(json!({"time": NOW - tolerance}))),
        ("made longer ago", but(json!({"time": NOW - tolerance - 1}))),
        ("made two minutes in the future", but(json!({"time": NOW + tolerance}))),
        ("made later still", but(json!({"time": NOW + tolerance + 1}))),
        ("about another channel", but(json!({"channel": OTHER_CHANNEL}))),
        ("asks for something else", messages::of(Kind::TerminateRequest)),
        ("signed by a stranger", with(Kind::AccountRequest, &good, &json!({}), "stranger")),
        ("no nonce", but(json!({"nonce": null}))),
    ];
    let client = identity("client").public().signing;
    let channel = CHANNEL.parse().expect("a UUID");
    judged(cases, |message| {
        let checked = check_request(Kind::AccountRequest, message, &client, channel, NOW);
        checked.map(drop).map_err(|error| error.code().code())
    })
}

/// By how many seconds the agent's clock is ahead; null where the message is not its answer.
fn times() -> Vec<Value> {
    let good = messages::of(Kind::Time);
    let agent = identity("agent").public().signing;
    let nonce = good["nonce"].as_str().expect("a text").parse().expect("a UUID");
    let cases = [
        ("in between", good.clone(), NOW - 5, NOW + 5),
        ("the clock is ahead", good.clone(), NOW - 130, NOW - 121),
        ("the clock is behind", good.clone(), NOW + 200, NOW + 201),
        (
            "the answer to another question",
            with(Kind::Time, &good, &json!({"nonce": OTHER_CHANNEL}), "agent"),
            NOW,
            NOW,
        ),
        (
            "names another agent",
            with(Kind::Time, &good, &json!({"agentPublicKey": key("client")}), "agent"),
            NOW,
            NOW,
        ),
        ("signed by a stranger", with(Kind::Time, &good, &json!({}), "stranger"), NOW, NOW),
    ];
    let made = |(why, message, asked, answered): (&str, Value, u64, u64)| {
        let heard = Heard { message: message.clone(), nonce, asked, answered };
        // Vectors have the form of messages, which has no sign.
        let (ahead, behind) = match heard.ahead(&agent) {
            None => (None, None),
            Some(ahead) if ahead < 0 => (Some(0), Some(ahead.unsigned_abs())),
            Some(ahead) => (Some(ahead.unsigned_abs()), Some(0)),
        };
        json!({
            "why": why, "message": message, "nonce": nonce, "asked": asked, "answered": answered,
            "ahead": ahead, "behind": behind,
        })
    };
    cases.into_iter().map(made).collect()
}

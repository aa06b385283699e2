//! What an agent signs about a channel, and what a client pays: which messages count.

use serde_json::{Value, json};

use super::{CHANNEL, NOW, OTHER_CHANNEL, damaged, hash, key, messages, with};
use crate::parties::identity;
use privatix_domain::account;
use privatix_domain::cheque::{Bundle, Expect, check, check_receipt, verify};
use privatix_domain::signed::Kind;

const DEPOSIT: u64 = 100_000;
const PAID: u64 = 1000;

pub(super) fn statements() -> Value {
    let good = messages::of(Kind::Account);
    let but = |changes| with(Kind::Account, &good, &changes, "agent");
    let cases = [
        ("the statement", good.clone()),
        ("with the best cheque", but(json!({"bestCheque": messages::of(Kind::Cheque)}))),
        (
            "a hold of a newer version",
            but(json!({"status": "suspended", "holds": ["user", "moon"]})),
        ),
        ("a newer one", but(json!({"time": NOW + 1}))),
        ("an older one", but(json!({"time": NOW - 1}))),
        ("of another channel", but(json!({"channel": OTHER_CHANNEL}))),
        ("a status that does not exist", but(json!({"status": "asleep"}))),
        ("no cost", but(json!({"cost": null}))),
        ("signed by a stranger", with(Kind::Account, &good, &json!({}), "stranger")),
        ("signed as a receipt", with(Kind::Receipt, &good, &json!({}), "agent")),
        ("a bit of the signature was altered", damaged(&good)),
    ];
    let agent = identity("agent").public().signing;
    let channel = CHANNEL.parse().expect("a UUID");
    let made = |(why, message): (&str, Value)| {
        let checked = account::check(&message, &agent, channel, NOW);
        json!({ "why": why, "message": message, "code": checked.err().map(|error| error.code().code()) })
    };
    json!({
        "about": "Statements (signed as `account`) as a client checks them. `last` is the time of the \
                  newest one that it has. A code of null: accepted.",
        "agent": "agent",
        "channel": CHANNEL,
        "last": NOW,
        "checks": cases.map(made),
    })
}

pub(super) fn cheques() -> Value {
    json!({
        "about": "Cheques as an agent checks them, receipts as a client does, and bundles as anybody \
                  does. A code of null: accepted.",
        "expect": {
            "agent": "agent", "client": "client", "channel": CHANNEL,
            "offering": hash(&messages::of(Kind::Offering)), "deposit": DEPOSIT, "paid": PAID,
        },
        "cheques": of_cheques(),
        "receipts": receipts(),
        "bundles": bundles(),
    })
}

fn of_cheques() -> Vec<Value> {
    let good = messages::of(Kind::Cheque);
    let but = |changes| with(Kind::Cheque, &good, &changes, "client");
    let cases = [
        ("the cheque", good.clone()),
        ("the same as is known already", but(json!({"balance": PAID}))),
        ("a lower one", but(json!({"balance": PAID - 1}))),
        ("of nothing", but(json!({"balance": 0}))),
        ("of all of the deposit", but(json!({"balance": DEPOSIT}))),
        ("of more", but(json!({"balance": DEPOSIT + 1}))),
        ("to another agent", but(json!({"agent": key("stranger")}))),
        (
            "from another client",
            with(Kind::Cheque, &good, &json!({"client": key("stranger")}), "stranger"),
        ),
        ("for another channel", but(json!({"channel": OTHER_CHANNEL}))),
        ("for another offering", but(json!({"offering": hash(&good)}))),
        ("signed by a stranger", with(Kind::Cheque, &good, &json!({}), "stranger")),
        ("signed as an order", with(Kind::Order, &good, &json!({}), "client")),
        ("a bit of the signature was altered", damaged(&good)),
        ("no balance", but(json!({"balance": null}))),
        ("a balance in words", but(json!({"balance": "1500"}))),
    ];
    let (agent, client) = (identity("agent").public().signing, identity("client").public().signing);
    let offering = hash(&messages::of(Kind::Offering));
    let expect = Expect {
        agent: &agent,
        client: &client,
        channel: CHANNEL.parse().expect("a UUID"),
        offering: &offering,
        deposit: DEPOSIT,
        paid: PAID,
    };
    let made = |(why, message): (&str, Value)| {
        let checked = check(&message, &expect).err().map(|error| error.code().code());
        json!({ "why": why, "message": message, "code": checked })
    };
    cases.into_iter().map(made).collect()
}

fn receipts() -> Vec<Value> {
    let good = messages::of(Kind::Receipt);
    let cheque = messages::of(Kind::Cheque);
    let but = |changes| with(Kind::Receipt, &good, &changes, "agent");
    let cases = [
        ("the receipt", good.clone()),
        ("more is paid by now", but(json!({"paid": 1600}))),
        ("less is paid", but(json!({"paid": 1499}))),
        ("for another cheque", but(json!({"cheque": hash(&good)}))),
        ("of another channel", but(json!({"channel": OTHER_CHANNEL}))),
        ("signed by a stranger", with(Kind::Receipt, &good, &json!({}), "stranger")),
        ("a statement", messages::of(Kind::Account)),
    ];
    let agent = identity("agent").public().signing;
    let channel = CHANNEL.parse().expect("a UUID");
    let made = |(why, message): (&str, Value)| {
        let balance = cheque["balance"].as_u64().expect("an integer");
        let checked = check_receipt(&message, &agent, channel, &hash(&cheque), balance);
        json!({
            "why": why, "message": message, "sent": cheque,
            "code": checked.err().map(|error| error.code().code()),
        })
    };
    cases.into_iter().map(made).collect()
}

fn bundles() -> Vec<Value> {
    let bundle = |cheque: Value, reply: Value| Bundle {
        cheque,
        offering: messages::of(Kind::Offering),
        order: messages::of(Kind::Order),
        order_reply: reply,
    };
    let (cheque, reply) = (messages::of(Kind::Cheque), messages::of(Kind::OrderReply));
    let other = with(Kind::OrderReply, &reply, &json!({"channel": OTHER_CHANNEL}), "agent");
    let above = with(Kind::Cheque, &cheque, &json!({"balance": DEPOSIT + 1}), "client");
    let elsewhere = with(Kind::Cheque, &cheque, &json!({"offering": hash(&reply)}), "client");
    let cases = [
        ("the bundle", bundle(cheque.clone(), reply.clone())),
        ("the order became another channel", bundle(cheque.clone(), other)),
        ("above the deposit", bundle(above, reply.clone())),
        ("another offering", bundle(elsewhere, reply.clone())),
        ("a bit of the cheque was altered", bundle(damaged(&cheque), reply.clone())),
        ("a bit of the reply was altered", bundle(cheque, damaged(&reply))),
    ];
    let made = |(why, bundle): (&str, Bundle)| match verify(&bundle) {
        Ok(proven) => json!({ "why": why, "bundle": bundle, "code": null, "proves": proven }),
        Err(error) => {
            json!({ "why": why, "bundle": bundle, "code": error.code().code(), "proves": null })
        }
    };
    cases.into_iter().map(made).collect()
}

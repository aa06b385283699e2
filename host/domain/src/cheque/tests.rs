//! Cheques and receipts: what each refusal takes, and that damage is noticed.

use privatix_plugin_api::json;
use privatix_plugin_api::message::Status;
use serde_json::json;

use super::*;
use crate::identity::testing::{CHANNEL, OTHER_CHANNEL, check_damage, identity, with};

const AGENT: u8 = 1;
const CLIENT: u8 = 2;
const MALLORY: u8 = 3;

fn channel() -> ClientKey {
    CHANNEL.parse().expect("a UUID")
}

fn key(number: u8) -> PublicKey {
    identity(number).public().signing
}

fn cheque() -> Value {
    let cheque = Cheque {
        agent: key(AGENT),
        client: key(CLIENT),
        channel: channel(),
        offering: "0".repeat(64),
        balance: 50,
    };
    signed::sign(Kind::Cheque, cheque, &identity(CLIENT)).expect("signed")
}

fn checked(message: &Value) -> Result<u64, &'static str> {
    let expect = Expect {
        agent: &key(AGENT),
        client: &key(CLIENT),
        channel: channel(),
        offering: &"0".repeat(64),
        deposit: 60,
        paid: 40,
    };
    check(message, &expect).map(|cheque| cheque.balance).map_err(|error| error.code().code())
}

#[test]
fn cheques() {
    for (kind, changes, signer, expected) in [
        (Kind::Cheque, json!({}), CLIENT, Ok(50)),
        (Kind::Cheque, json!({"of a newer version": 1}), CLIENT, Ok(50)),
        (Kind::Cheque, json!({"balance": 60}), CLIENT, Ok(60)),
        (Kind::Cheque, json!({"balance": 40}), CLIENT, Ok(40)),
        (Kind::Cheque, json!({"balance": 39}), CLIENT, Err("StaleCheque")),
        (Kind::Cheque, json!({"balance": 0}), CLIENT, Err("StaleCheque")),
        (Kind::Cheque, json!({"balance": 61}), CLIENT, Err("AboveDeposit")),
        (Kind::Cheque, json!({"balance": "50"}), CLIENT, Err("MalformedCheque")),
        (Kind::Cheque, json!({"balance": null}), CLIENT, Err("MalformedCheque")),
        (Kind::Cheque, json!({"channel": OTHER_CHANNEL}), CLIENT, Err("ForeignCheque")),
        (Kind::Cheque, json!({"offering": "1"}), CLIENT, Err("WrongChequeOffering")),
        (Kind::Cheque, json!({"agent": key(MALLORY)}), CLIENT, Err("WrongChequeParties")),
        (Kind::Cheque, json!({"client": key(MALLORY)}), MALLORY, Err("WrongChequeParties")),
        (Kind::Cheque, json!({}), MALLORY, Err("BadChequeSignature")),
        (Kind::Cheque, json!({}), AGENT, Err("BadChequeSignature")),
        (Kind::Order, json!({}), CLIENT, Err("BadChequeSignature")),
    ] {
        let message = with(kind, &cheque(), &changes, &identity(signer));
        assert_eq!(checked(&message), expected, "{kind} {changes} by {signer}");
    }
    for message in [json!(null), json!([]), json!({}), json!({"balance": 50})] {
        assert_eq!(checked(&message), Err("MalformedCheque"), "{message}");
    }
}

#[test]
fn a_cheque_of_nothing_is_refused_before_the_first_too() {
    let message = with(Kind::Cheque, &cheque(), &json!({"balance": 0}), &identity(CLIENT));
    let offering = "0".repeat(64);
    let (agent, client) = (key(AGENT), key(CLIENT));
    let expect = Expect {
        agent: &agent,
        client: &client,
        channel: channel(),
        offering: &offering,
        deposit: 60,
        paid: 0,
    };
    assert_eq!(check(&message, &expect).map_err(|error| error.code().code()), Err("StaleCheque"));
}

#[test]
fn no_damage_of_a_cheque_goes_unnoticed() {
    // Who, what and how much is looked at before the signature.
    let outcome = |message: &Value| match checked(message).map(drop) {
        Err("WrongChequeParties" | "ForeignCheque" | "WrongChequeOffering") => {
            Err("BadChequeSignature")
        }
        outcome => outcome,
    };
    check_damage(&cheque(), ["MalformedCheque", "BadChequeSignature"], outcome);
}

fn receipt() -> Value {
    let account = Account {
        channel: channel(),
        status: Status::Active,
        holds: Vec::new(),
        usage: 10,
        cost: 7,
        paid: 50,
        serial: 2,
        time: 1000,
        best_cheque: None,
    };
    let receipt = Receipt { cheque: json::hash(&cheque()).expect("a hash"), account };
    signed::sign(Kind::Receipt, receipt, &identity(AGENT)).expect("signed")
}

fn acknowledged(message: &Value) -> Result<u64, &'static str> {
    let hash = json::hash(&cheque()).expect("a hash");
    let receipt = check_receipt(message, &key(AGENT), channel(), &hash, 50);
    receipt.map(|receipt| receipt.account.paid).map_err(|error| error.code().code())
}

#[test]
fn receipts() {
    for (kind, changes, signer, expected) in [
        (Kind::Receipt, json!({}), AGENT, Ok(50)),
        (Kind::Receipt, json!({"paid": 55}), AGENT, Ok(55)),
        (Kind::Receipt, json!({"status": "terminated"}), AGENT, Ok(50)),
        (Kind::Receipt, json!({"paid": 49}), AGENT, Err("ReceiptTooLow")),
        (Kind::Receipt, json!({"cheque": "0"}), AGENT, Err("ForeignReceipt")),
        (Kind::Receipt, json!({"channel": OTHER_CHANNEL}), AGENT, Err("ForeignReceipt")),
        (Kind::Receipt, json!({"paid": null}), AGENT, Err("MalformedReceipt")),
        (Kind::Receipt, json!({}), MALLORY, Err("BadReceiptSignature")),
        (Kind::Account, json!({}), AGENT, Err("BadReceiptSignature")),
    ] {
        let message = with(kind, &receipt(), &changes, &identity(signer));
        assert_eq!(acknowledged(&message), expected, "{kind} {changes} by {signer}");
    }
    let open = |message: &Value| acknowledged(message).map(drop);
    check_damage(&receipt(), ["MalformedReceipt", "BadReceiptSignature"], open);
}

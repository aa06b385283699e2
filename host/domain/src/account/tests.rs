//! Accounts: what each refusal takes, and that damage is noticed.

use serde_json::json;

use super::*;
use crate::identity::testing::{CHANNEL, OTHER_CHANNEL, check_damage, identity, with};

const AGENT: u8 = 1;
const MALLORY: u8 = 3;

fn account() -> Value {
    let account = Account {
        channel: CHANNEL.parse().expect("a UUID"),
        status: Status::Suspended,
        holds: Account::words(Holds::NONE.with(Hold::Payment).with(Hold::User)),
        usage: 10,
        cost: 7,
        paid: 5,
        serial: 2,
        time: 1000,
        best_cheque: None,
    };
    signed::sign(Kind::Account, account, &identity(AGENT)).expect("signed")
}

fn checked(message: &Value) -> Result<Account, &'static str> {
    let agent = identity(AGENT).public().signing;
    let channel = CHANNEL.parse().expect("a UUID");
    check(message, &agent, channel, 1000).map_err(|error| error.code().code())
}

#[test]
fn accounts() {
    for (kind, changes, signer, expected) in [
        (Kind::Account, json!({}), AGENT, Ok(())),
        (Kind::Account, json!({"of a newer version": 1}), AGENT, Ok(())),
        (Kind::Account, json!({"holds": ["moon"]}), AGENT, Ok(())),
        (Kind::Account, json!({"time": 1001}), AGENT, Ok(())),
        (Kind::Account, json!({"time": 999}), AGENT, Err("StaleAccount")),
        (Kind::Account, json!({"channel": OTHER_CHANNEL}), AGENT, Err("ForeignAccount")),
        (Kind::Account, json!({"status": "asleep"}), AGENT, Err("MalformedAccount")),
        (Kind::Account, json!({"cost": null}), AGENT, Err("MalformedAccount")),
        (Kind::Account, json!({"holds": "user"}), AGENT, Err("MalformedAccount")),
        (Kind::Account, json!({}), MALLORY, Err("BadAccountSignature")),
        (Kind::Receipt, json!({}), AGENT, Err("BadAccountSignature")),
    ] {
        let message = with(kind, &account(), &changes, &identity(signer));
        assert_eq!(checked(&message).map(drop), expected, "{kind} {changes} by {signer}");
    }
}

#[test]
fn end_names_a_deposit_that_is_used_up() {
    let with_cost = |cost: u64| {
        let mut message = account();
        message["cost"] = cost.into();
        serde_json::from_value::<Account>(message).expect("an account")
    };
    for (cost, deposit, used) in
        [(0, 0, false), (0, 5, false), (4, 5, false), (5, 5, true), (6, 5, true)]
    {
        let text = with_cost(cost).end(deposit);
        assert!(text.starts_with("ended by the agent"), "{text}");
        assert_eq!(text.contains("deposit is used"), used, "{cost} of {deposit}");
    }
}

#[test]
fn holds_are_words_and_unknown_ones_are_no_holds() {
    let account = checked(&account()).expect("an account");
    assert_eq!(account.holds, ["user", "payment"]);
    assert_eq!(account.known_holds(), Holds::NONE.with(Hold::Payment).with(Hold::User));
    let newer = Account { holds: vec!["moon".into(), "fault".into()], ..account };
    assert_eq!(newer.known_holds(), Holds::NONE.with(Hold::Fault));
}

#[test]
fn no_damage_goes_unnoticed() {
    let open = |message: &Value| checked(message).map(drop);
    check_damage(&account(), ["MalformedAccount", "BadAccountSignature"], open);
}

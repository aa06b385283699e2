//! Money between two hosts: what use costs, what is paid for it, and what happens when it is not.

mod bought;
mod deal;
mod ends;
mod kills;
mod lag;
mod pace;
mod refusals;
mod unsaved;

use std::fs;
use std::process::Command;

use privatix_core::ChequeView;
use privatix_domain::cheque::Verified;
use privatix_plugin_api::message::Status;
use serde_json::{Value, json};

use self::deal::{Deal, MIB, PREPAID};
use crate::support::wait_for;

#[test]
fn real_bytes_are_paid_for_as_they_are_used() {
    let deal = Deal::proxy(PREPAID);
    // Paid in advance before anything could be used.
    let first = deal.agent_money().paid;
    assert!(first > 0);
    for fetched in 1..=4 {
        deal.fetch(MIB).expect("fetched");
        let used = deal.agree(fetched * MIB);
        // More than an interval ahead, so that the next one can be used at any speed.
        wait_for("what is owed to be paid", || {
            let money = deal.agent_money();
            (money.cost == 10 * used / MIB && money.paid > money.cost + 10).then_some(())
        });
    }
    deal.settled();
    let (agent, client) = (deal.agent_money(), deal.client_money());
    assert_eq!((agent.cost, agent.paid), (client.cost, client.paid));
    assert!(client.paid <= client.cost + 20, "two intervals in advance at most: {client:?}");
    assert_eq!((client.dispute, client.unsent), (None, false));
    assert_eq!(client.agent.expect("an account").paid, agent.paid);

    // The end: nothing more than what was signed already, and the same on both sides.
    deal.command(&deal.pair.client, "terminate", Status::Terminated);
    deal.pair.agent.wait_channel(deal.channel, Status::Terminated);
    deal.settled();
    assert_eq!(deal.agent_money().paid, client.paid);

    cheques_prove_it(&deal, client.paid);
}

/// Both sides list the same cheque, and what is exported can be checked without a host.
fn cheques_prove_it(deal: &Deal, paid: u64) {
    for node in [&deal.pair.agent, &deal.pair.client] {
        let listed = node.privatix(&["--json", "cheque", "list"]);
        let listed: Vec<ChequeView> = serde_json::from_slice(&listed.stdout).expect("JSON");
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].balance, listed[0].deposit), (paid, 1000));
        assert_eq!((listed[0].unsent, &listed[0].retry), (false, &None));
        let file = node.home().join("cheques.json");
        let path = file.to_str().expect("UTF-8");
        let export = ["cheque", "export", "--out", path];
        assert!(node.privatix(&export).status.success());
        let again = node.privatix(&export);
        assert_eq!(again.status.code(), Some(1), "a file that is there is kept: {again:?}");

        let elsewhere = tempfile::tempdir().expect("a directory");
        let verify = |name: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_privatix"));
            command.args(["--home", "/nonexistent", "--json", "cheque", "verify"]).arg(name);
            command.current_dir(elsewhere.path()).output().expect("run")
        };
        let good = verify(path);
        let verified: Vec<Verified> = serde_json::from_slice(&good.stdout).expect("JSON");
        assert_eq!((verified[0].balance, verified[0].deposit), (paid, 1000));
        assert_eq!(verified[0].channel, deal.channel);

        let exported: Value =
            serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
        for (change, code) in [
            (json!({"cheque": {"balance": paid + 1}}), "BadChequeSignature"),
            (json!({"order": {"deposit": 9999}}), "BadOrderSignature"),
            (json!({"offering": {"unitPrice": 1}}), "BadOfferingSignature"),
            (json!({"orderReply": {"order": "0"}}), "BadReplySignature"),
            (json!({"cheque": {"balance": "all"}}), "MalformedCheque"),
        ] {
            let mut forged = exported.clone();
            for (part, fields) in change.as_object().expect("an object") {
                for (field, value) in fields.as_object().expect("an object") {
                    forged[0][part][field] = value.clone();
                }
            }
            let path = elsewhere.path().join("forged.json");
            fs::write(&path, forged.to_string()).expect("written");
            let outcome = verify("forged.json");
            let text = String::from_utf8_lossy(&outcome.stderr);
            assert_eq!(outcome.status.code(), Some(1), "{change}");
            assert!(text.contains(code), "{change}: {text}");
        }
        let twice = Value::Array(vec![exported[0].clone(), exported[0].clone()]);
        fs::write(elsewhere.path().join("twice.json"), twice.to_string()).expect("written");
        assert_eq!(verify("twice.json").status.code(), Some(1), "a channel counts once");
        for (name, text) in [("empty", ""), ("half", "[{"), ("other", "[{}]"), ("number", "7")] {
            fs::write(elsewhere.path().join(name), text).expect("written");
            let outcome = verify(name);
            assert_eq!(outcome.status.code(), Some(1), "{name}: {outcome:?}");
        }
        assert_eq!(verify("missing").status.code(), Some(1));
    }
}

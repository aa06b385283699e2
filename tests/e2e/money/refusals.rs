//! What a client makes of every answer to a cheque: only what its agent has signed counts.

use privatix_plugin_api::message::Status;

use super::deal::{Deal, MIB, POSTPAID};
use crate::support::gate::Way;
use crate::support::wait_for;

/// Answers that no agent has signed.
const ANSWERS: [(u16, &str, &str); 9] = [
    (404, r#"{"code":"ChannelNotFound","text":"x"}"#, "ChannelNotFound"),
    (400, r#"{"code":"StaleCheque","text":"x"}"#, "StaleCheque"),
    (400, r#"{"code":"AboveDeposit","text":"x"}"#, "AboveDeposit"),
    (400, r#"{"code":"BadChequeSignature","text":"x"}"#, "BadChequeSignature"),
    (429, r#"{"code":"TooManyRequests","text":"x"}"#, "TooManyRequests"),
    (500, "oops", "500"),
    (200, "{}", "MalformedReceipt"),
    (
        200,
        r#"{"cheque":"0","channel":"00000000-0000-4000-8000-000000000000","status":"terminated",
            "holds":[],"usage":0,"cost":0,"paid":9007199254740991,"serial":1,"time":1,
            "signature":"AA"}"#,
        "BadReceiptSignature",
    ),
    (302, "", "302"),
];

#[test]
fn nothing_that_is_not_signed_ends_a_channel_or_settles_a_cheque() {
    let deal = Deal::proxy(POSTPAID);
    for (status, body, seen) in ANSWERS {
        deal.gate.set(Way::Answer(status, body));
        let before = deal.agree(0);
        deal.fetch(MIB).expect("fetched");
        deal.agree(before + MIB);
        wait_for(&format!("the client to note {seen}"), || {
            let retry = deal.client_money().retry?;
            retry.trouble.contains(seen).then_some(())
        });
        let view = deal.pair.client.channel(deal.channel);
        assert_eq!(view.status, Status::Active, "{seen}");
        assert!(view.money.expect("money").unsent, "{seen}");
        deal.gate.set(Way::Open);
        deal.settled();
    }
    let paid = deal.agent_money().paid;
    // The agent has taken it, and only its receipt was lost.
    deal.gate.set(Way::Swallow);
    let before = deal.agree(0);
    deal.fetch(MIB).expect("fetched");
    deal.agree(before + MIB);
    wait_for("the agent to have it", || (deal.agent_money().paid > paid).then_some(()));
    // Its account says so as well as a receipt would.
    deal.settled();
}

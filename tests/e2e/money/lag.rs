//! A client that stops paying: held at the lag of its terms, and released without help.

use std::time::{Duration, Instant};

use privatix_plugin_api::message::Status;
use serde_json::json;

use super::deal::{Deal, Download, MIB, POSTPAID, PREPAID};
use crate::support::gate::Way;
use crate::support::{Package, wait_for};

/// What the agent bears before it suspends: a lag of two units at ten each.
const BORNE: u64 = 20;

#[test]
fn unpaid_use_is_suspended_at_the_lag_and_goes_on_once_it_is_paid() {
    let deal = Deal::proxy(POSTPAID);
    deal.fetch(MIB).expect("fetched");
    deal.agree(MIB);
    deal.settled();
    deal.gate.set(Way::Silent);
    let paid = deal.agent_money().paid;
    // In small steps up to the lag, and not a coin further.
    let mut used = deal.agree(MIB);
    while 10 * (used + MIB / 8 + 16) / MIB <= paid + BORNE {
        deal.fetch(MIB / 8).expect("within the lag");
        used = deal.agree(used + MIB / 8);
        let view = deal.pair.agent.channel(deal.channel);
        let money = view.money.expect("money");
        assert!(money.cost - money.paid <= BORNE, "{money:?}");
        assert_eq!((view.status, &view.holds[..]), (Status::Active, &[][..]), "{money:?}");
    }
    let mut download = Download::begin(&deal);
    let mut got = 0;
    while download.read(MIB / 8).is_ok() {
        got += 1;
        assert!(got < 1_000, "traffic goes on and on");
    }
    let view = deal.pair.agent.wait_channel(deal.channel, Status::Suspended);
    assert_eq!(view.holds, ["payment"]);
    let money = view.money.expect("money");
    assert!(money.cost - money.paid > BORNE, "{money:?}");
    assert!(deal.fetch(1).is_err(), "no traffic while it is held");
    // Its client says so, and why.
    wait_for("the client to know", || {
        let money = deal.client_money();
        let said = money.agent?;
        (said.holds == ["payment"] && money.retry.is_some()).then_some(())
    });
    let shown = deal.pair.client.privatix(&["channel", "show", &deal.channel.to_string()]);
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    for words in ["held for payment", "times in vain"] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    let shown = deal.pair.agent.privatix(&["channel", "show", &deal.channel.to_string()]);
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    assert!(shown.contains("held until"), "{shown}");

    deal.gate.set(Way::Open);
    deal.pair.agent.wait_channel(deal.channel, Status::Active);
    wait_for("traffic to flow again", || deal.fetch(MIB / 8).ok());
    deal.settled();
    assert!(deal.pair.agent.channel(deal.channel).holds.is_empty());
}

#[test]
fn what_is_paid_in_advance_can_be_used_and_no_more() {
    let deal = Deal::proxy(PREPAID);
    deal.settled();
    deal.gate.set(Way::Silent);
    let paid = deal.agent_money().paid;
    assert_eq!(paid, 20);
    let mut download = Download::begin(&deal);
    while download.read(MIB / 8).is_ok() {}
    let view = deal.pair.agent.wait_channel(deal.channel, Status::Suspended);
    let money = view.money.expect("money");
    assert_eq!((&view.holds[..], money.paid), (&["payment".to_owned()][..], paid));
    assert!(money.cost >= paid, "{money:?}");
    deal.gate.set(Way::Open);
    deal.pair.agent.wait_channel(deal.channel, Status::Active);
    wait_for("traffic to flow again", || deal.fetch(MIB / 8).ok());
}

#[test]
fn a_client_that_is_suspended_by_its_user_pays_what_it_owes_and_nothing_in_advance() {
    let deal = Deal::proxy(POSTPAID);
    deal.fetch(MIB / 2).expect("fetched");
    deal.agree(MIB / 2);
    deal.command(&deal.pair.client, "suspend", Status::Suspended);
    // Less than an interval, but at its end.
    wait_for("what is owed to be paid", || {
        let money = deal.client_money();
        ((money.paid, money.cost) == (5, 5)).then_some(())
    });
    deal.settled();
    assert_eq!(deal.client_money().paid, 5, "and nothing in advance");
}

/// Each receipt says that more is owed by now, and the next cheque has its turn all the same.
#[test]
fn however_fast_use_is_it_is_not_paid_for_as_fast() {
    let module = "[modules.good]\ntick_ms = 5\namount = 10\n";
    let terms = json!({ "unitSize": 10, "unitPrice": 1, "maxBillingUnitLag": 1_000_000 });
    let deal = Deal::of(&Package::faulty("good"), module, module, &terms, 100_000_000);
    wait_for("a payment", || (deal.agent_money().paid > 0).then_some(()));
    let (before, began) = (deal.gate.asked(), Instant::now());
    wait_for("some more", || (deal.gate.asked() >= before + 12).then_some(()));
    assert!(began.elapsed() >= Duration::from_secs(2), "four a second: {:?}", began.elapsed());
}

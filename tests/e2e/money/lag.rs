//! A client that stops paying: its use waits at the lag of its terms, and goes on without help.

use std::time::{Duration, Instant};

use privatix_plugin_api::message::Status;
use serde_json::json;

use super::deal::{Deal, Download, MIB, POSTPAID, PREPAID};
use crate::support::gate::Way;
use crate::support::{Package, wait_for};

/// What the agent bears before use waits: a lag of two units at ten each.
const BORNE: u64 = 20;

#[test]
fn unpaid_use_waits_at_the_lag_and_goes_on_once_it_is_paid() {
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
    waits_for_payment(&deal, paid + BORNE);
    // Its client says why.
    wait_for("the client to know", || deal.client_money().retry.is_some().then_some(()));
    let shown = deal.pair.client.privatix(&["channel", "show", &deal.channel.to_string()]);
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    assert!(shown.contains("times in vain"), "{shown}");
    goes_on(&deal);
}

#[test]
fn what_is_paid_in_advance_can_be_used_and_no_more() {
    let deal = Deal::proxy(PREPAID);
    deal.settled();
    deal.gate.set(Way::Silent);
    let paid = deal.agent_money().paid;
    assert_eq!(paid, 20);
    // The last coin is not used up: with it the channel would be held.
    waits_for_payment(&deal, paid - 1);
    goes_on(&deal);
}

/// A download is carried until its use costs that much, and not a coin further: it waits, and is not
/// cut.
fn waits_for_payment(deal: &Deal, cost: u64) {
    let mut download = Download::begin(deal);
    // Ends when this side closes the connection, which waits for bytes until then.
    let connection = download.0.try_clone().expect("another handle");
    let reader = std::thread::spawn(move || while download.read(MIB / 8).is_ok() {});
    let used = wait_for("all that may be used to be used", || {
        let view = deal.pair.agent.channel(deal.channel);
        let money = view.money.expect("money");
        assert!(money.cost <= cost, "{money:?}");
        (money.cost == cost).then(|| deal.pair.agent.channel(deal.channel).usage)
    });
    // Whatever else is reported from now on, it is no more than a beginning of the next coin.
    let sessions = deal.pair.agent.sessions(deal.channel);
    let view = deal.pair.agent.channel(deal.channel);
    assert_eq!((view.status, &view.holds[..]), (Status::Active, &[][..]), "{sessions:?}");
    assert!(
        deal.pair.agent.channel(deal.channel).usage <= used + MIB / 10,
        "{} after {used}",
        deal.pair.agent.channel(deal.channel).usage
    );
    assert!(!reader.is_finished(), "the download was cut");
    connection.shutdown(std::net::Shutdown::Both).expect("closed");
    reader.join().expect("the reader ends");
}

/// The payment comes, and with it traffic, without help.
fn goes_on(deal: &Deal) {
    deal.gate.set(Way::Open);
    wait_for("traffic to flow again", || deal.fetch(MIB / 8).ok());
    deal.settled();
    let view = deal.pair.agent.channel(deal.channel);
    assert_eq!((view.status, &view.holds[..]), (Status::Active, &[][..]));
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

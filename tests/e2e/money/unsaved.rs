//! A client whose database takes nothing while it pays.

use std::time::Instant;

use serde_json::json;

use super::deal::Deal;
use crate::faults::{empty_disk, fill_disk, good, wait_trouble, wait_works};
use crate::support::gate::Way;
use crate::support::{Package, wait_for};

#[test]
fn a_client_that_cannot_note_its_payments_does_not_repeat_them_without_pause() {
    let package = Package::faulty("good");
    let module = "[modules.good]\ntick_ms = 5\namount = 10\n";
    let terms = json!({ "unitSize": 10, "unitPrice": 1, "billingInterval": 10,
                        "maxBillingUnitLag": 1_000_000 });
    let deal = Deal::of(&package, module, module, &terms, 100_000_000);
    wait_for("a payment", || (deal.agent_money().paid > 0).then_some(()));
    deal.gate.set(Way::Answer(500, "{}"));
    wait_for("a cheque that is not acknowledged", || {
        (deal.client_money().paid > deal.agent_money().paid).then_some(())
    });
    let signed = deal.client_money().paid;
    let client = &deal.pair.client;
    fill_disk(client);
    wait_trouble(client);
    let begin = (Instant::now(), deal.gate.asked());
    wait_for("more failures", || {
        good(client)?.database.is_some_and(|trouble| trouble.failures > 8).then_some(())
    });
    let (seconds, asked) = (begin.0.elapsed().as_secs_f64(), deal.gate.asked() - begin.1);
    // At once, and then after 1 s, 2 s, 4 s.
    assert!((asked as f64) < 4.0 + 2.0 * seconds, "{asked} requests in {seconds} s");
    deal.gate.set(Way::Open);
    empty_disk(client);
    wait_works(client);
    wait_for("what was signed before to be paid", || {
        (deal.agent_money().paid >= signed).then_some(())
    });
}

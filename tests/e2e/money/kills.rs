//! Hosts that are killed while money moves: no cheque is lost or counted twice.

use std::time::Duration;

use privatix_plugin_api::message::Status;
use serde_json::json;

use super::deal::Deal;
use crate::support::{Moments, Package, wait_for};

/// Kills of either host.
const KILLS: u64 = 60;

#[test]
fn killed_hosts_lose_no_cheque() {
    let package = Package::faulty("good");
    let module = "[modules.good]\ntick_ms = 5\namount = 10\n";
    let terms = json!({ "unitSize": 10, "unitPrice": 1, "billingInterval": 10,
                        "maxBillingUnitLag": 1_000_000, });
    let mut deal = Deal::of(&package, module, module, &terms, 100_000_000);
    let (mut moments, mut paid) = (Moments::new(20_261_125), 0);
    for _ in 0..KILLS {
        let kill_agent = moments.below(2) == 0;
        let node = if kill_agent { &mut deal.pair.agent } else { &mut deal.pair.client };
        // The moment is what is random here; there is nothing to wait for.
        std::thread::sleep(Duration::from_millis(moments.below(150)));
        node.kill();
        node.start();
        let (agents, clients) = (deal.agent_money().paid, deal.client_money().paid);
        assert!(agents >= paid, "the agent has lost a cheque of {paid}: {agents}");
        assert!(clients >= agents, "the client has signed {agents} and knows of {clients}");
        paid = agents;
    }
    assert!(paid > 0, "something was paid meanwhile");
    wait_for("payments to go on", || (deal.agent_money().paid > paid).then_some(()));
    deal.command(&deal.pair.client, "terminate", Status::Terminated);
    deal.pair.agent.wait_channel(deal.channel, Status::Terminated);
    deal.settled();
    // Usage that was reported late may have made one more cheque, which is on its way.
    let client = wait_for("both to know the same cheque", || {
        let (agent, client) = (deal.agent_money(), deal.client_money());
        (agent.paid == client.paid && !client.unsent).then_some(client)
    });
    assert!(client.paid <= client.cost + client.cost * 3 / 100 + 1, "{client:?}");
}

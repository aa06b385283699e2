//! A line that is much faster than the payments for it: it is slowed down to what is paid, and never
//! cut.

use privatix_core::MoneyView;

use super::*;

/// What a MiB costs.
const PRICE: u64 = 10;

fn money(node: &Node, channel: ClientKey) -> MoneyView {
    node.channel(channel).money.expect("money")
}

#[test]
fn vpn_delivers_no_more_than_is_paid_and_goes_on_with_the_next_payment() {
    let world = World::new("", "");
    let terms = json!({
        "supply": 5, "billingType": "prepaid", "unitPrice": PRICE, "billingInterval": 4,
    });
    let channel = world.order_with(&world.offer_of(terms), Some(100_000));
    world.wait_active(channel);
    world.wait_through();
    // Nothing is paid while the agent's exchange is out of reach; the tunnel is not.
    let mut transfers = Vec::new();
    for round in 1..=3 {
        // A new one each time: one that has stood still waits for a time of TCP's choice.
        flow(&world, &mut transfers, 8 * MIB);
        nft(&world, SHUT);
        let (limit, usage) = stuck(&world, channel, &transfers);
        nft(&world, "delete table inet shut");
        // What the module keeps back of a credit covers all that it cannot know in time.
        assert!(usage <= limit, "{round}: {usage} of {limit} paid");
        let delivered = sum(&transfers);
        assert!(delivered <= limit, "{round}: {delivered} were delivered of {limit}");
    }
    flow(&world, &mut transfers, 16 * MIB);
    for node in [&world.agent, &world.client] {
        let log = node.log();
        let mine = log.lines().filter(|line| line.contains(&channel.to_string()));
        let cuts: Vec<_> = mine.filter(|line| line.contains("to=suspending")).collect();
        assert!(cuts.is_empty(), "{cuts:?}");
        assert_eq!(node.channel(channel).status, Status::Active);
        assert_eq!(node.sessions(channel).len(), 1, "one session");
        assert!(money(node, channel).dispute.is_none(), "{:?}", money(node, channel));
    }
}

/// No payment comes through.
const SHUT: &str = "add table inet shut; table inet shut { chain input { type filter hook input priority -10; \
                    tcp dport 8480 reject with tcp reset; }; }";

fn nft(world: &World, script: &str) {
    let mut nft = network::program(&world.network.agent, "nft");
    let status = nft.arg(script).status().expect("nft runs");
    assert!(status.success(), "nft {script}");
}

fn sum(transfers: &[Arc<AtomicU64>]) -> u64 {
    transfers.iter().map(|got| got.load(Ordering::SeqCst)).sum()
}

/// Begins another transfer, and waits until so much more has come.
fn flow(world: &World, transfers: &mut Vec<Arc<AtomicU64>>, more: u64) {
    let begun = sum(transfers);
    transfers.push(world.endless());
    wait_for("transfers to go on", || (sum(transfers) > begun + more).then_some(()));
}

/// Waits until all but a MiB of what is paid is used, and nothing is used or delivered any more; how
/// much could be used, and was.
fn stuck(world: &World, channel: ClientKey, transfers: &[Arc<AtomicU64>]) -> (u64, u64) {
    let see = || {
        let view = world.agent.channel(channel);
        (view.money.expect("money").paid * MIB / PRICE, view.usage, sum(transfers))
    };
    let mut last = (see(), Instant::now());
    wait_for("the credit to be used up", || {
        let now = see();
        if now != last.0 {
            last = (now, Instant::now());
        }
        let (limit, usage, _) = now;
        let over = usage + MIB > limit && last.1.elapsed() > Duration::from_secs(2);
        over.then_some((limit, usage))
    })
}

//! A line that is much faster than the payments for it: it is slowed down to what is paid, and never
//! cut.

use nix::sys::signal::Signal;
use privatix_core::MoneyView;

use super::*;

/// What a MiB costs.
const PRICE: u64 = 10;

/// What may be delivered beyond the credit: see `docs/vpn.md`.
fn remainder(credit: u64) -> u64 {
    credit / 20 + MIB
}

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
    let got = world.endless();
    // Nothing is paid while the client's host stands still; its tunnel does not.
    let host = world.client.pid();
    for round in 1..=3 {
        let begun = got.load(Ordering::SeqCst);
        wait_for("the transfer to go on", || {
            (got.load(Ordering::SeqCst) > begun + 8 * MIB).then_some(())
        });
        signal(host, Signal::SIGSTOP);
        let (paid, usage) = stuck(&world, channel, &got);
        signal(host, Signal::SIGCONT);
        let limit = paid * MIB / PRICE;
        assert!(usage <= limit + remainder(8 * MIB), "{round}: {usage} of {limit} paid");
        assert!(usage + 4 * MIB > limit, "{round}: {usage}: all that is paid can be used");
        let delivered = got.load(Ordering::SeqCst);
        assert!(delivered <= limit, "{round}: {delivered} were delivered of {limit}");
    }
    let begun = got.load(Ordering::SeqCst);
    wait_for("the transfer to go on", || {
        (got.load(Ordering::SeqCst) > begun + 16 * MIB).then_some(())
    });
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

/// Waits until nothing is delivered any more; what is paid by then, and what was used of it.
fn stuck(world: &World, channel: ClientKey, got: &AtomicU64) -> (u64, u64) {
    let see = || {
        let view = world.agent.channel(channel);
        (view.money.expect("money").paid, view.usage, got.load(Ordering::SeqCst))
    };
    let mut last = (see(), Instant::now());
    wait_for("the credit to be used up", || {
        let now = see();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(2)).then_some((now.0, now.1))
    })
}

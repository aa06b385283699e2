//! What changes under a tunnel that is in use: the agent's settings, and the client's module.

use std::sync::atomic::AtomicBool;

use super::*;

/// The rules of the client's kill switch.
fn kill_switch(world: &World, channel: ClientKey) -> String {
    let table = format!("privatix_{}", device(channel));
    let list = ["list", "table", "inet", &table];
    let output = network::program(&world.network.client, "nft").args(list).output().expect("nft");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What the sessions of each side say together is what the channel says: nothing is counted twice.
fn is_counted_once(world: &World, channel: ClientKey) {
    for node in [&world.agent, &world.client] {
        wait_for("the sum of the sessions", || {
            let sum: u64 = node.sessions(channel).iter().map(|session| session.usage).sum();
            (sum == node.channel(channel).usage).then_some(())
        });
        let open = node.sessions(channel).iter().filter(|s| s.stopped_at.is_none()).count();
        assert_eq!(open, 1);
    }
    let [agents, clients] = world.usage(channel);
    // Each side has counted what its own end saw; what is lost on the way makes the difference, and
    // on a busy machine that is a lot. What is counted twice would make another one.
    assert!(agents.abs_diff(clients) * 4 <= agents, "agent {agents}, client {clients}");
}

#[test]
fn vpn_changed_settings_of_the_agent_reach_its_clients() {
    let mut world = World::new("", "");
    let channel = world.channel();
    world.wait_through();
    world.fetch_and_count(channel, 4 * MIB);
    let mut used = world.usage(channel);
    for (settings, resolver, open, shut) in [
        // The server stays where it is: the client is back in its tunnel when it learns of it.
        ("dns = [\"192.0.2.53\"]", "192.0.2.53", "udp dport 1194", "tcp dport 1194"),
        ("dns = [\"192.0.2.54\"]\nport = 1195", "192.0.2.54", "udp dport 1195", "dport 1194"),
        (
            "dns = [\"192.0.2.55\"]\nprotocol = \"tcp\"",
            "192.0.2.55",
            "tcp dport 1195",
            "udp dport 119",
        ),
    ] {
        world.agent.stop();
        world.agent.configure(&format!("[modules.vpn]\n{settings}\n"));
        world.agent.start();
        wait_for("the client to use the new settings", || {
            let set = world.network.resolvers();
            (set.contains(resolver) && set.contains("privatix")).then_some(())
        });
        let rules = kill_switch(&world, channel);
        assert!(rules.contains(open) && !rules.contains(shut), "{settings}: {rules}");
        world.wait_through();
        let now = world.usage(channel);
        assert!(now[0] >= used[0] && now[1] >= used[1], "{now:?} after {used:?}");
        world.fetch_and_count(channel, 4 * MIB);
        is_counted_once(&world, channel);
        used = world.usage(channel);
    }
    world.command(&world.client, channel, "terminate", Status::Terminated);
    assert_eq!(world.network.resolvers(), RESOLVERS);
}

#[test]
fn vpn_the_kill_switch_stands_while_the_clients_module_is_replaced() {
    let world = World::new("", "");
    let channel = world.channel();
    world.wait_through();
    world.fetch_and_count(channel, 4 * MIB);
    let (over, leaked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Somebody who tries to get out all the time.
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let seen = world.network.ask(None, 0).map(|(_, seen)| seen);
                let lifted = kill_switch(&world, channel).is_empty();
                leaked.fetch_add(
                    u64::from(seen.is_ok_and(|s| s == CLIENT) || lifted),
                    Ordering::SeqCst,
                );
            }
        });
        let replaced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for version in ["0.2.0", "0.3.0"] {
                world.package.clone().version(version).drop_into(&world.client.plugins());
                world.client.wait_version("vpn", version);
                world.wait_through();
            }
        }));
        over.store(true, Ordering::SeqCst);
        if let Err(panic) = replaced {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(leaked.load(Ordering::SeqCst), 0, "there was a way past the tunnel");
    world.fetch_and_count(channel, 4 * MIB);
    is_counted_once(&world, channel);
    // The last one lifts what the first has made.
    world.command(&world.client, channel, "suspend", Status::Suspended);
    assert_eq!(tables(&world.network.client), "");
    assert_eq!(world.network.fetch(1).expect("fetched"), CLIENT);
}

//! Hosts that are killed at any moment: what was acknowledged stays, and the service goes on.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use privatix_plugin_api::message::{ClientKey, Status};

use crate::support::{Moments, Node, Package, Pair, wait_for};

/// Kills of either host.
const KILLS: u64 = 200;

/// The last total of each session that the core has acknowledged to the module.
fn acknowledged(node: &Node) -> HashMap<String, u64> {
    let text = fs::read_to_string(node.home().join("marker")).expect("the module's marker file");
    let mut last = HashMap::new();
    // A line may have been cut off by a kill.
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        if let ["ack", _, session, total] = words[..]
            && let Ok(total) = total.parse()
        {
            last.insert(session.to_owned(), total);
        }
    }
    last
}

/// What the database has of each session is what was acknowledged, or the one report after it
/// whose acknowledgement was lost with the process.
fn check(node: &Node, channel: ClientKey) {
    let acknowledged = acknowledged(node);
    // A module that noted nothing would have this check pass over nothing.
    assert!(acknowledged.len() > 1, "sessions with an acknowledged report: {acknowledged:?}");
    let sessions = node.sessions(channel);
    let known: HashMap<_, _> =
        sessions.iter().map(|session| (session.id.to_string(), session.usage)).collect();
    for (session, total) in &acknowledged {
        let stored = known.get(session).copied();
        assert!(
            stored.is_some_and(|stored| stored == *total || stored == total + 1),
            "session {session}: acknowledged {total}, stored {stored:?}"
        );
    }
    let open = sessions.iter().filter(|session| session.stopped_at.is_none()).count();
    assert!(open <= 1, "{open} open sessions");
}

#[test]
fn killed_hosts_lose_nothing_and_go_on() {
    let package = Package::faulty("good");
    let agent = "[agent]\norders = \"open\"\nservice_endpoint_address = \"192.0.2.1\"\n";
    let mut pair = Pair::configured(&package, agent, "");
    for node in [&mut pair.agent, &mut pair.client] {
        let marker = node.home().join("marker");
        node.configure(&format!("[modules.good]\ntick_ms = 2\nwrite_marker = {marker:?}\n"));
        node.stop();
        node.start();
    }
    pair.agent.wait_state("good", privatix_modules::registry::State::Running);
    let channel = pair.order(&pair.offer(&package));
    for node in [&pair.client, &pair.agent] {
        node.wait_channel(channel, Status::Active);
    }

    let mut moments = Moments::new(20_261_122);
    for _ in 0..KILLS {
        let node = if moments.below(2) == 0 { &mut pair.agent } else { &mut pair.client };
        // The moment is what is random here; there is nothing to wait for.
        std::thread::sleep(Duration::from_millis(moments.below(120)));
        node.kill();
        node.start();
    }

    for node in [&pair.agent, &pair.client] {
        node.wait_channel(channel, Status::Active);
        // The first one seen may still be that of the killed process.
        let mut seen = HashMap::new();
        wait_for("an open session whose usage grows", || {
            let sessions = node.sessions(channel);
            let open = sessions.into_iter().find(|session| session.stopped_at.is_none())?;
            let first = *seen.entry(open.id).or_insert(open.usage);
            (open.usage > first).then_some(())
        });
    }
    for node in [&mut pair.agent, &mut pair.client] {
        // At rest nothing is on its way any more.
        node.stop();
        node.configure("[modules.good]\nfault = \"start-hangs\"\n");
        node.start();
        check(node, channel);
    }
}

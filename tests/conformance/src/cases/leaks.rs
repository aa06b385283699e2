//! What is left behind: threads, descriptors, memory, processes, ports.

use std::time::Duration;

use privatix_plugin_api::message::StopReason;

use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Bench, Pair, Party, wait_for};
use crate::process::{self, Holdings};

const RULE: &str = "docs/writing-a-module.md#what-a-module-promises: `shutdown(deadline)`; before a new version starts, the old one stops";

/// More memory than this, in KiB, is a leak; allocators keep some.
const SLACK: usize = 8 * 1024;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("leaks.ports", "After shutdown it listens nowhere.", RULE)
            .after(&["lifecycle.shutdown-live"])
            .mend("end the task that accepts, and wait for it, in shutdown")
            .run(ports),
        case(
            "leaks.channels",
            "Thirty starts and stops of a channel leave no thread, descriptor or memory.",
            RULE,
        )
        .after(&["commands.alternate"])
        .mend("what start makes, stop has to end: tasks, connections, files, map entries")
        .run(|bench| channels(bench, 30)),
        case(
            "leaks.thousand-channels",
            "A thousand starts and stops of a channel leave no thread, descriptor or memory.",
            RULE,
        )
        .after(&["leaks.channels"])
        .mend("what start makes, stop has to end: tasks, connections, files, map entries")
        .thorough(Duration::from_secs(900))
        .run(|bench| channels(bench, 1000)),
        case(
            "leaks.generations",
            "Ten rounds of create and shutdown leave no thread and no descriptor.",
            RULE,
        )
        .after(&["lifecycle.created-again", "leaks.ports"])
        .mend("in shutdown end every task and thread and close every file and socket")
        .run(|bench| generations(bench, 10)),
        case(
            "leaks.many-generations",
            "A hundred rounds of create and shutdown leave no thread, descriptor or memory.",
            RULE,
        )
        .after(&["leaks.generations"])
        .thorough(Duration::from_secs(900))
        .run(|bench| generations(bench, 100)),
        case("leaks.processes", "After shutdown none of its processes runs.", RULE)
            .after(&["lifecycle.shutdown-live"])
            .mend("kill and wait for every process that the module has started, in shutdown")
            .run(processes),
    ]
}

async fn channels(bench: Bench, rounds: usize) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let mut before = None;
    for round in 0..rounds {
        for party in [&pair.client, &pair.agent].into_iter().filter(|party| party.has_module()) {
            party.module()?.stop(channel, StopReason::Suspended).await?;
        }
        // The first rounds fill what is kept for good: pools, caches, threads for blocking work.
        if round == rounds / 3 {
            before = Some(Holdings::now()?);
        }
        for party in [&pair.agent, &pair.client].into_iter().filter(|party| party.has_module()) {
            party.module()?.start(channel).await.map_err(|error| {
                failed(format!(
                    "start of the {} in round {round}: {}",
                    party.role,
                    crate::chain(&error)
                ))
            })?;
        }
    }
    for party in [&pair.client, &pair.agent].into_iter().filter(|party| party.has_module()) {
        party.module()?.stop(channel, StopReason::Suspended).await?;
    }
    no_more_than(before, rounds - rounds / 3, true).await
}

async fn generations(bench: Bench, rounds: usize) -> Result<(), Finding> {
    let mut parties = Vec::new();
    for role in bench.roles()? {
        parties.push(Party::core(&bench, role).await?);
    }
    let mut before = None;
    for round in 0..rounds {
        if round == 1 + rounds / 5 {
            before = Some(Holdings::now()?);
        }
        for party in &mut parties {
            party.bring_up().await?;
            party.take_down_cleanly().await?;
        }
    }
    no_more_than(before, rounds - 1 - rounds / 5, rounds > 50).await
}

/// Waits for what ends a moment later, and fails for what stays. One thing a round is a leak; one
/// alone may be anything.
async fn no_more_than(
    before: Option<Holdings>,
    rounds: usize,
    memory: bool,
) -> Result<(), Finding> {
    let before = before.ok_or_else(|| failed("no round was made"))?;
    let settled = wait_for("threads and descriptors to go", || async {
        let now = Holdings::now()?;
        let few = (rounds / 2).min(4);
        let gone =
            now.threads <= before.threads + few && now.descriptors <= before.descriptors + few;
        Ok(gone.then_some(now))
    });
    let after = match settled.await {
        Ok(after) => after,
        Err(_) => {
            let now = Holdings::now()?;
            return Err(failed(format!(
                "in {rounds} rounds threads went from {} to {}, descriptors from {} to {}",
                before.threads, now.threads, before.descriptors, now.descriptors
            )));
        }
    };
    // A page a round is what may be kept by allocators; twice the slack is not.
    ensure(!memory || after.memory <= before.memory + SLACK + 4 * rounds, || {
        format!("in {rounds} rounds memory went from {} KiB to {} KiB", before.memory, after.memory)
    })
}

async fn ports(bench: Bench) -> Result<(), Finding> {
    let before = process::listening()?;
    let mut pair = Pair::new(&bench).await?;
    pair.channel().await?;
    for party in [&mut pair.client, &mut pair.agent] {
        if party.has_module() {
            party.take_down_cleanly().await?;
        }
    }
    let after = process::listening()?;
    ensure(after <= before, || format!("it still listens on {} ports", after - before))
}

async fn processes(bench: Bench) -> Result<(), Finding> {
    let mut pair = Pair::new(&bench).await?;
    let stopped = pair.channel().await?;
    pair.channel().await?;
    for party in [&mut pair.client, &mut pair.agent] {
        if party.has_module() {
            party.module()?.stop(stopped, StopReason::Suspended).await?;
            party.take_down_cleanly().await?;
        }
    }
    let left = process::running_children()?;
    ensure(left.is_empty(), || format!("it has left {} processes running", left.len()))
}

//! Both sides of the module against each other: order, access, session, usage, suspend, resume,
//! terminate.

use std::time::Duration;

use privatix_domain::status::Event;
use privatix_plugin_api::message::{ClientKey, Status, StopReason};

use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Bench, Pair, wait_for, wait_long};

/// How much is carried where it does not matter, in smallest units.
pub(super) const AMOUNT: u64 = 100_000;

const FLOW: &str = "docs/reference/service-api.md: Access flow";
const STATUS: &str = "docs/reference/service-api.md#status-and-holds: Status and holds";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("together.carry", "The service carries what it is given.", FLOW)
            .after(&["lifecycle.start"])
            .mend("implement ServiceModule::exercise so that it uses the service as a user would; see docs/conformance.md")
            .run(carry),
        case("together.usage", "Both sides report what was carried.",
            "docs/reference/service-api.md#calls-of-a-module: UpdateSession: usage in the smallest unit")
            .after(&["together.carry"])
            .mend("report the usage of every session at intervals, on both sides")
            .run(usage),
        case("together.agree", "Both sides report about the same.",
            "docs/money.md#what-a-client-pays: the client pays min(agent's signed cost, own cost × (1 + tolerance)), 3 %")
            .after(&["together.usage", "lifecycle.stop"])
            .mend("count the same bytes at both ends")
            .run(agree),
        case("together.suspend", "A channel that the agent suspends carries nothing any more.", STATUS)
            .after(&["together.carry", "lifecycle.stop"])
            .mend("in stop: cut the client's connections, and let none in while the core refuses it")
            .run(|bench| suspended(bench, true)),
        case("together.suspend-by-client", "A channel that the client suspends carries nothing any more.", STATUS)
            .after(&["together.carry", "lifecycle.stop"])
            .run(|bench| suspended(bench, false)),
        case("together.resume", "A channel that is resumed carries again.", STATUS)
            .after(&["together.suspend", "together.suspend-by-client"])
            .mend("serve again when start comes after stop")
            .run(resume),
        case("together.terminate", "A channel that is terminated is over on both sides.", STATUS)
            .after(&["lifecycle.stop"])
            .run(terminate),
        case("together.terminate-by-client", "A channel that the client terminates is over on both sides.", STATUS)
            .after(&["lifecycle.stop"])
            .run(terminate_by_client),
        case("together.two", "Suspending one channel leaves the other as it is.",
            "docs/reference/service-api.md: Every call reaches only its own channels")
            .after(&["together.suspend", "together.usage"])
            .mend("keep what belongs to a channel by its client key")
            .run(two),
        case("together.ten", "Ten channels are served at the same time.", FLOW)
            .after(&["lifecycle.start"])
            .run(ten),
        case("together.story", "From the order to the end, twice suspended and resumed.", FLOW)
            .after(&["together.resume", "together.terminate"])
            .run(story),
        case("together.agent-restart", "A client finds a restarted agent again by itself.",
            "docs/reference/service-api.md#calls-of-a-module: A change re-issues the access message of every live channel")
            .after(&["together.carry", "lifecycle.replay"])
            .mend("on a lost connection, ask get_access again and reconnect until stop")
            .thorough(Duration::from_secs(180))
            .run(agent_restart),
    ]
}

async fn carry(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for amount in [1, 1000, AMOUNT] {
        let moved = pair.exercise(channel, amount).await?;
        ensure(moved > 0, || {
            format!("exercise was to carry {amount} and says that it was nothing")
        })?;
    }
    Ok(())
}

async fn usage(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let moved = pair.exercise(channel, AMOUNT).await?;
    for party in pair.parties() {
        pair.used(party, channel, moved).await?;
    }
    Ok(())
}

async fn agree(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    if pair.parties().count() < 2 {
        return Err(Finding::Skipped("the module has one side only".into()));
    }
    let channel = pair.channel().await?;
    let mut moved = 0;
    for _ in 0..10 {
        moved += pair.exercise(channel, AMOUNT).await?;
    }
    pair.used(&pair.agent, channel, moved).await?;
    pair.used(&pair.client, channel, moved).await?;
    // What is on disk then is all there will be.
    for party in [&pair.client, &pair.agent] {
        party.module()?.stop(channel, StopReason::Suspended).await?;
    }
    let (agent, client) = (pair.agent.usage(channel).await?, pair.client.usage(channel).await?);
    let (low, high) = (agent.min(client), agent.max(client));
    ensure(high <= at_most(low), || {
        format!("{moved} were carried; the agent has {agent}, the client {client}")
    })?;
    ensure(high <= at_most(moved), || {
        format!("{moved} were carried, and {high} are to be paid for")
    })
}

/// What may be counted where so much was carried: the tolerance of a client, and what a connection
/// costs by itself.
pub(super) fn at_most(moved: u64) -> u64 {
    // Where little is carried, as of seconds or requests, one more at either end.
    moved + moved * 3 / 100 + (moved / 10).clamp(2, 4096)
}

/// Whether a channel carries nothing.
pub(super) async fn carries_nothing(pair: &Pair, channel: ClientKey) -> Result<(), Finding> {
    match pair.try_exercise(channel, AMOUNT).await? {
        Err(_) | Ok(0) => Ok(()),
        Ok(moved) => Err(failed(format!("it still carried {moved}"))),
    }
}

async fn suspended(bench: Bench, by_agent: bool) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    pair.exercise(channel, AMOUNT).await?;
    let party = if by_agent { &pair.agent } else { &pair.client };
    if !party.has_module() {
        return Err(Finding::Skipped(format!("the module has no {}'s side", party.role)));
    }
    pair.command(party, channel, Event::Suspend).await?;
    pair.status(party, channel, Status::Suspended).await?;
    let (open, _) = party.sessions(channel).await?;
    ensure(open == 0, || format!("the {}'s session is open", party.role))?;
    carries_nothing(&pair, channel).await?;
    ensure(!was_forced(party), || "the core had to force it: stop was not acknowledged".into())
}

fn was_forced(party: &crate::core::Party) -> bool {
    party.service.outbox().forced(party.product()) > 0
}

async fn resume(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for party in pair.parties() {
        pair.command(party, channel, Event::Suspend).await?;
        pair.status(party, channel, Status::Suspended).await?;
        pair.command(party, channel, Event::Resume).await?;
        pair.status(party, channel, Status::Active).await?;
    }
    carries_again(&pair, channel).await.map(drop)
}

/// Waits until it does; how much.
async fn carries_again(pair: &Pair, channel: ClientKey) -> Result<u64, Finding> {
    wait_for("the channel to carry again", || async {
        Ok(pair.exercise_patiently(channel, AMOUNT).await?.ok().filter(|moved| *moved > 0))
    })
    .await
}

async fn terminate(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    pair.command(&pair.agent, channel, Event::Terminate).await?;
    over(&pair, channel).await
}

async fn terminate_by_client(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    pair.command(&pair.client, channel, Event::Terminate).await?;
    over(&pair, channel).await
}

async fn over(pair: &Pair, channel: ClientKey) -> Result<(), Finding> {
    for party in pair.parties() {
        pair.status(party, channel, Status::Terminated).await?;
        // A stop without an open session has the status before its answer.
        pair.answered(party, channel, "stop").await?;
        let served = party.module()?.sessions().await?;
        ensure(!served.contains(&channel), || format!("the {} still serves it", party.role))?;
        ensure(!was_forced(party), || format!("the {}'s core had to force it", party.role))?;
    }
    Ok(())
}

async fn two(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let (one, other) = (pair.channel().await?, pair.channel().await?);
    let before = pair.exercise(other, AMOUNT).await?;
    for party in pair.parties() {
        pair.command(party, one, Event::Suspend).await?;
        pair.status(party, one, Status::Suspended).await?;
    }
    let after = pair.exercise(other, AMOUNT).await?;
    for party in pair.parties() {
        pair.used(party, other, before + after).await?;
        let used = party.usage(one).await?;
        ensure(used < pair.amount(AMOUNT).div_ceil(2), || {
            format!("the {} has {used} on a channel that carried nothing", party.role)
        })?;
    }
    Ok(())
}

async fn ten(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let mut channels = Vec::new();
    for _ in 0..10 {
        channels.push(pair.order().await?);
    }
    for channel in channels {
        pair.active(channel).await?;
    }
    Ok(())
}

async fn story(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let mut moved = pair.exercise(channel, AMOUNT).await?;
    for _ in 0..2 {
        for party in pair.parties() {
            pair.command(party, channel, Event::Suspend).await?;
        }
        for party in pair.parties() {
            pair.status(party, channel, Status::Suspended).await?;
        }
        for party in pair.parties() {
            pair.command(party, channel, Event::Resume).await?;
        }
        pair.active(channel).await?;
        moved += carries_again(&pair, channel).await?;
    }
    pair.command(&pair.client, channel, Event::Terminate).await?;
    over(&pair, channel).await?;
    for party in pair.parties() {
        pair.used(party, channel, moved).await?;
    }
    Ok(())
}

async fn agent_restart(bench: Bench) -> Result<(), Finding> {
    let mut pair = Pair::new(&bench).await?;
    if pair.parties().count() < 2 {
        return Err(Finding::Skipped("the module has one side only".into()));
    }
    let channel = pair.channel().await?;
    pair.exercise(channel, AMOUNT).await?;
    pair.agent.take_down_cleanly().await?;
    pair.agent.bring_up().await?;
    wait_long("the channel to carry again", Duration::from_secs(90), || async {
        Ok(pair.try_exercise(channel, AMOUNT).await?.ok().filter(|moved| *moved > 0).map(drop))
    })
    .await
}

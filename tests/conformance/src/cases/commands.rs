//! Commands repeated, out of order, in parallel, for channels that nobody knows, and by chance.

use std::time::Duration;

use privatix_plugin_api::message::{ClientKey, StopReason};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Act, Bench, Call, Pair, Party, health, wait_for};

const SAFE: &str = "docs/reference/service-api.md#commands-to-a-module: `start` and `stop` come in order per channel, are never lost, and are safe to repeat";

/// How long the core holds a start up.
const HELD_UP: Duration = Duration::from_millis(250);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "commands.alternate",
            "Start and stop, ten times in turn, end in what was said last.",
            SAFE,
        )
        .after(&["lifecycle.stop-again"])
        .run(alternate),
        case(
            "commands.stop-first",
            "A stop before the start does not keep the start from serving.",
            SAFE,
        )
        .after(&["lifecycle.stop-unstarted", "lifecycle.stop"])
        .run(stop_first),
        case(
            "commands.parallel",
            "Commands of different channels can come at the same time.",
            "docs/reference/service-api.md#commands-to-a-module: `start` and `stop` come in order per channel",
        )
        .after(&["lifecycle.stop"])
        .mend("hold no lock over what waits for the network or for the core")
        .run(parallel),
        case("commands.overtaken", "A stop that comes while the start is still at it holds.", SAFE)
            .after(&["lifecycle.stop"])
            .mend("look at the end of start whether the channel was stopped meanwhile")
            .run(overtaken),
        case(
            "commands.same-channel",
            "The same command twice at the same time harms nobody.",
            SAFE,
        )
        .after(&["lifecycle.start-again"])
        .run(same_channel),
        case(
            "commands.unknown-start",
            "A start of a channel that the core does not know serves nothing.",
            "docs/reference/service-api.md#calls-of-a-module: any other key: `ChannelNotFound`",
        )
        .after(&["lifecycle.configure"])
        .mend("return the core's error from start")
        .run(unknown_start),
        case(
            "commands.unknown-many",
            "Commands for a hundred unknown channels leave nothing behind.",
            "docs/reference/service-api.md#calls-of-a-module: any other key: `ChannelNotFound`",
        )
        .after(&["commands.unknown-start", "lifecycle.stop-unstarted"])
        .run(unknown_many),
        case(
            "commands.chance",
            "Thirty commands by chance, on three channels, are answered, and after a stop all is at rest.",
            SAFE,
        )
        .after(&["commands.alternate", "commands.overtaken"])
        .run(|bench| by_chance(bench, 30)),
        case(
            "commands.much-chance",
            "Five hundred commands by chance, on three channels, are answered, and after a stop all is at rest.",
            SAFE,
        )
        .after(&["commands.chance"])
        .thorough(Duration::from_secs(600))
        .run(|bench| by_chance(bench, 500)),
    ]
}

async fn alternate(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for party in pair.parties() {
        for _ in 0..10 {
            party.module()?.stop(channel, StopReason::Suspended).await?;
            party.module()?.start(channel).await?;
        }
        party.module()?.stop(channel, StopReason::Suspended).await?;
        at_rest(party, channel).await?;
    }
    Ok(())
}

/// Whether a side serves a channel no longer, and has no session open.
async fn at_rest(party: &Party, channel: ClientKey) -> Result<(), Finding> {
    let side = party.role;
    let served = party.module()?.sessions().await?;
    ensure(!served.contains(&channel), || format!("the {side} serves a channel that was stopped"))?;
    let (open, _) = party.sessions(channel).await?;
    ensure(open == 0, || format!("the {side} has a session open of a channel that was stopped"))
}

async fn stop_first(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for party in pair.parties() {
        party.module()?.stop(channel, StopReason::Suspended).await?;
        party.module()?.stop(channel, StopReason::Suspended).await?;
    }
    for party in pair.parties() {
        party.module()?.start(channel).await.map_err(|error| {
            failed(format!("start of the {} after stop: {}", party.role, crate::chain(&error)))
        })?;
    }
    if pair.client.has_module() {
        wait_for("the client to serve after stop and start", || async {
            Ok(pair.client.module()?.sessions().await?.contains(&channel).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn parallel(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let mut channels = Vec::new();
    for _ in 0..8 {
        channels.push(pair.order().await?);
    }
    for channel in &channels {
        pair.active(*channel).await?;
    }
    for party in pair.parties() {
        let mut commands = JoinSet::new();
        for (number, channel) in channels.clone().into_iter().enumerate() {
            let module = std::sync::Arc::clone(party.module()?);
            commands.spawn(async move {
                if number % 2 == 0 {
                    module.stop(channel, StopReason::Suspended).await
                } else {
                    module.start(channel).await.map(drop)
                }
            });
        }
        while let Some(done) = commands.join_next().await {
            done??;
        }
        for channel in channels.iter().step_by(2) {
            at_rest(party, *channel).await?;
        }
    }
    Ok(())
}

/// A start is held up by its core until a stop has been sent after it.
async fn overtaken(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    // The client first, which is then left stopped: one that runs would come back to the agent, whose
    // core knows nothing of this.
    let mut parties: Vec<_> = pair.parties().collect();
    parties.reverse();
    for party in parties {
        party.module()?.stop(channel, StopReason::Suspended).await?;
        for call in [Call::GetAccess, Call::StartSession] {
            party.script.set(Some(call), Act::Delay(HELD_UP), u64::MAX);
        }
        let asked = party.script.seen().len();
        let module = std::sync::Arc::clone(party.module()?);
        let start = tokio::spawn(async move { module.start(channel).await });
        wait_for("start to ask its core, or to be over", || async {
            Ok((party.script.seen().len() > asked || start.is_finished()).then_some(()))
        })
        .await?;
        party.module()?.stop(channel, StopReason::Suspended).await?;
        // It may have been dropped on the way.
        let _ = start.await?;
        // What would still come of it comes in this time.
        tokio::time::sleep(HELD_UP * 4).await;
        party.script.clear();
        at_rest(party, channel).await?;
    }
    Ok(())
}

async fn same_channel(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for party in pair.parties() {
        let mut commands = JoinSet::new();
        for number in 0..8 {
            let module = std::sync::Arc::clone(party.module()?);
            commands.spawn(async move {
                match number % 4 {
                    0 => module.sessions().await.map(drop),
                    1 => health(&module).await.map(drop),
                    // Of two starts the first may be dropped.
                    2 => {
                        let _ = module.start(channel).await;
                        Ok(())
                    }
                    _ => module.stop(channel, StopReason::Suspended).await,
                }
            });
        }
        while let Some(done) = commands.join_next().await {
            done??;
        }
        party.module()?.stop(channel, StopReason::Suspended).await?;
        at_rest(party, channel).await?;
    }
    Ok(())
}

async fn unknown_start(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        let party = Party::new(&bench, role).await?;
        let channel = ClientKey(Uuid::new_v4());
        let outcome = party.module()?.start(channel).await;
        if let Err(error) = &outcome
            && error.is_breakdown()
        {
            return Err(failed(format!("as {role}: {}", crate::chain(error))));
        }
        let served = party.module()?.sessions().await?;
        ensure(!served.contains(&channel), || {
            format!("as {role} it serves a channel that its core does not know")
        })?;
    }
    Ok(())
}

async fn unknown_many(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        let party = Party::new(&bench, role).await?;
        let module = party.module()?;
        for _ in 0..100 {
            let channel = ClientKey(Uuid::new_v4());
            if let Err(error) = module.start(channel).await
                && error.is_breakdown()
            {
                return Err(failed(format!("as {role}: {}", crate::chain(&error))));
            }
            module.stop(channel, StopReason::Terminated).await?;
        }
        let served = module.sessions().await?;
        ensure(served.is_empty(), || format!("as {role} it serves {} of them", served.len()))?;
    }
    Ok(())
}

/// One after the other per channel, as the core sends them; channels are mixed.
async fn by_chance(bench: Bench, steps: usize) -> Result<(), Finding> {
    let seed = bench.seed();
    let mut chance = fastrand::Rng::with_seed(seed);
    let pair = Pair::new(&bench).await?;
    let mut channels = Vec::new();
    for _ in 0..3 {
        channels.push(pair.channel().await?);
    }
    let parties: Vec<_> = pair.parties().collect();
    let mut said = Vec::new();
    for step in 0..steps {
        let party = parties[chance.usize(..parties.len())];
        let number = chance.usize(..channels.len());
        let channel = channels[number];
        let module = party.module()?;
        let word = ["start", "stop", "stop for good", "describe", "sessions"][chance.usize(..5)];
        let outcome = match word {
            "start" => module.start(channel).await.map(drop),
            "stop" => module.stop(channel, StopReason::Suspended).await,
            "stop for good" => module.stop(channel, StopReason::Terminated).await,
            "describe" => match module.describe(channel).await {
                Err(error) if !error.is_breakdown() => Ok(()),
                outcome => outcome.map(drop),
            },
            _ => module.sessions().await.map(drop),
        };
        said.push(format!("{} {word} {number}", party.role));
        let because = |why: String| {
            let last = said[said.len().saturating_sub(5)..].join(", ");
            failed(format!("with --seed {seed}, at step {step} ({last}): {why}"))
        };
        match outcome {
            Ok(()) => {}
            // A client cannot start while its agent is stopped.
            Err(error) if word == "start" && !error.is_breakdown() => {}
            Err(error) => return Err(because(crate::chain(&error))),
        }
        if word.starts_with("stop") {
            at_rest(party, channel).await.map_err(|finding| match finding {
                Finding::Failed(why) => because(why),
                other => other,
            })?;
        }
    }
    for party in pair.parties() {
        for channel in &channels {
            party.module()?.stop(*channel, StopReason::Suspended).await?;
            at_rest(party, *channel).await?;
        }
    }
    Ok(())
}

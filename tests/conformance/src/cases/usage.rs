//! Usage: never falling, complete, neither lost nor counted twice.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use privatix_plugin_api::manifest::UsageReporting;
use privatix_plugin_api::message::{ClientKey, ErrorName, SessionId, StopReason, Usage};
use tokio::time::timeout;

use super::together::{AMOUNT, at_most};
use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Act, Bench, Call, Pair, Party, Seen, wait_for};

const UPDATE: &str = "docs/reference/service-api.md#calls-of-a-module: UpdateSession: `total` of the session, never falling, or `incremental` with a rising sequence number";

/// For how long after stop was sent nothing can be saved.
const UNSAVED: Duration = Duration::from_secs(2);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "usage.kind",
            "Reports are of the kind that the manifest says.",
            "docs/reference/package.md#manifest-of-a-library: usage reporting (`total`, preferred, or `incremental`)",
        )
        .after(&["together.usage"])
        .mend("say .incremental_usage() in build.rs, or report Usage::Total")
        .run(kind),
        case("usage.rising", "What a session reports never falls.", UPDATE)
            .after(&["usage.kind"])
            .mend("report from one counter per session that only grows")
            .run(rising),
        case(
            "usage.at-stop",
            "What was carried before stop is on disk when stop is answered.",
            "docs/writing-a-module.md#sessions-usage-and-credit: Acknowledged means on disk; a session ends with its usage reported",
        )
        .after(&["together.usage", "lifecycle.stop"])
        .mend("in stop: close the connections, then report, then stop_session")
        .run(at_stop),
        case(
            "usage.at-shutdown",
            "What was carried before shutdown is on disk when it is answered.",
            "docs/modules.md#replacing: the old one is stopped with its usage reported",
        )
        .after(&["together.usage", "lifecycle.shutdown-live"])
        .mend("in shutdown: report the last usage of every session")
        .run(at_shutdown),
        case(
            "usage.lost-answer",
            "A report whose answer was lost is neither lost nor counted twice.",
            "docs/reference/service-api.md: Calls may be repeated unchanged: they may have been saved",
        )
        .after(&["usage.rising", "usage.at-stop"])
        .mend(
            "after Internal, report again: the total, or the same increment under the same number",
        )
        .run(lost_answer),
        case(
            "usage.refused",
            "A report that the core could not save is made again, also the last one.",
            "docs/writing-a-module.md#sessions-usage-and-credit: Acknowledged means on disk; `Internal` is not",
        )
        .after(&["usage.lost-answer"])
        .mend("forget what is reported only once it was answered well; in stop, try a few times")
        .run(refused),
        case(
            "usage.not-more",
            "Nothing is reported that was not carried.",
            "docs/writing-a-module.md#sessions-usage-and-credit: usage is the sum over a channel's sessions",
        )
        .after(&["usage.rising"])
        .run(not_more),
        case(
            "usage.own-session",
            "Every report is of a session that the core has opened for the channel.",
            "docs/reference/service-api.md#calls-of-a-module: then `SessionNotFound`",
        )
        .after(&["usage.rising", "lifecycle.stop"])
        .mend("use the session id that start_session answered")
        .run(own_session),
        case("usage.short-sessions", "Nothing is lost in twenty short sessions.", UPDATE)
            .after(&["usage.at-stop", "together.resume"])
            .run(|bench| short_sessions(bench, 20)),
        case("usage.thousand-sessions", "Nothing is lost in a thousand short sessions.", UPDATE)
            .after(&["usage.short-sessions"])
            .thorough(Duration::from_secs(900))
            .run(|bench| short_sessions(bench, 1000)),
    ]
}

/// The reports of one side, by session.
fn reports(party: &Party) -> HashMap<SessionId, Vec<Usage>> {
    let mut by_session: HashMap<SessionId, Vec<Usage>> = HashMap::new();
    for Seen { session, usage, .. } in party.script.calls(Call::UpdateSession) {
        if let (Some(session), Some(usage)) = (session, usage) {
            by_session.entry(session).or_default().push(usage);
        }
    }
    by_session
}

async fn used_pair(bench: &Bench, rounds: usize) -> Result<Pair, Finding> {
    let pair = Pair::new(bench).await?;
    let channel = pair.channel().await?;
    let mut moved = 0;
    for _ in 0..rounds {
        moved += pair.exercise(channel, AMOUNT).await?;
        for party in pair.parties() {
            pair.used(party, channel, moved).await?;
        }
    }
    Ok(pair)
}

async fn kind(bench: Bench) -> Result<(), Finding> {
    let says = bench.manifest()?.usage_reporting;
    let pair = used_pair(&bench, 1).await?;
    for party in pair.parties() {
        for usage in reports(party).into_values().flatten() {
            let is = match usage {
                Usage::Total(_) => UsageReporting::Total,
                Usage::Incremental { .. } => UsageReporting::Incremental,
            };
            ensure(is == says, || {
                format!("the manifest says {says:?}, and the {} reports {usage:?}", party.role)
            })?;
        }
    }
    Ok(())
}

async fn rising(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for _ in 0..5 {
        let sent = |party: &Party| party.script.calls(Call::UpdateSession).len();
        let before: Vec<_> = pair.parties().map(sent).collect();
        pair.exercise(channel, AMOUNT).await?;
        for (party, before) in pair.parties().zip(before) {
            wait_for("another report", || async { Ok((sent(party) > before).then_some(())) })
                .await?;
        }
    }
    for party in pair.parties() {
        let side = party.role;
        for (session, reports) in reports(party) {
            for pair in reports.windows(2) {
                let falls = match (pair[0], pair[1]) {
                    (Usage::Total(before), Usage::Total(after)) => after < before,
                    (
                        Usage::Incremental { sequence: before, amount: was },
                        Usage::Incremental { sequence: after, amount: is },
                    ) => after < before || (after == before && was != is),
                    _ => true,
                };
                ensure(!falls, || {
                    format!("session {session} of the {side}: {:?} after {:?}", pair[1], pair[0])
                })?;
            }
        }
        let refused = party.script.calls(Call::UpdateSession);
        let fell = refused.iter().any(|call| call.is_refused_as(&[ErrorName::UsageWentBackwards]));
        ensure(!fell, || format!("the {side}'s core answered UsageWentBackwards"))?;
    }
    Ok(())
}

/// Several times: a report that happens to be made just before stop hides that none was made in it.
async fn at_stop(bench: Bench) -> Result<(), Finding> {
    short_sessions(bench, 10).await
}

async fn at_shutdown(bench: Bench) -> Result<(), Finding> {
    let mut pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let moved = pair.exercise(channel, AMOUNT).await?;
    for party in [&mut pair.agent, &mut pair.client] {
        if !party.has_module() {
            continue;
        }
        party.take_down_cleanly().await?;
        let used = party.usage(channel).await?;
        ensure(used >= moved, || {
            format!("{moved} were carried; after shutdown the {} has {used} on disk", party.role)
        })?;
    }
    Ok(())
}

/// Whether all that was carried is on disk, and not twice.
async fn counted_once(party: &Party, channel: ClientKey, moved: u64) -> Result<(), Finding> {
    let used = party.usage(channel).await?;
    ensure(used >= moved, || format!("the {} lost {}", party.role, moved - used))?;
    ensure(used <= at_most(moved), || {
        format!("{moved} were carried, and the {} has {used}: counted twice", party.role)
    })
}

/// The core says that it could not save a report, several times; then all of them until after stop was
/// sent, so that everything of the last use is in the report that stop has to make again.
async fn refused(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let refuse = |times| {
        for party in pair.parties() {
            let refusal = Act::Refuse(ErrorName::Internal);
            party.script.set(Some(Call::UpdateSession), refusal, times);
        }
    };
    let mut moved = 0;
    for _ in 0..3 {
        refuse(2);
        moved += pair.exercise(channel, AMOUNT).await?;
    }
    for party in pair.parties() {
        pair.used(party, channel, moved).await?;
    }
    refuse(u64::MAX);
    moved += pair.exercise(channel, AMOUNT).await?;
    for party in pair.parties() {
        let mut stop = pin!(party.module()?.stop(channel, StopReason::Suspended));
        match timeout(UNSAVED, &mut stop).await {
            Ok(stopped) => stopped?,
            Err(_) => {
                party.script.clear();
                stop.await?;
            }
        }
        counted_once(party, channel, moved).await?;
    }
    Ok(())
}

async fn lost_answer(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let mut moved = 0;
    for _ in 0..3 {
        for party in pair.parties() {
            party.script.set(Some(Call::UpdateSession), Act::Lose, 2);
        }
        moved += pair.exercise(channel, AMOUNT).await?;
        for party in pair.parties() {
            pair.used(party, channel, moved).await?;
        }
    }
    for party in pair.parties() {
        party.script.clear();
        party.module()?.stop(channel, StopReason::Suspended).await?;
        counted_once(party, channel, moved).await?;
    }
    Ok(())
}

async fn not_more(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let mut moved = 0;
    for _ in 0..10 {
        moved += pair.exercise(channel, AMOUNT).await?;
    }
    for party in pair.parties() {
        pair.used(party, channel, moved).await?;
        party.module()?.stop(channel, StopReason::Suspended).await?;
        let used = party.usage(channel).await?;
        ensure(used <= at_most(moved), || {
            format!("{moved} were carried, and the {} reports {used}", party.role)
        })?;
    }
    Ok(())
}

/// What a core answers a module with that speaks of a session that is not its own.
const OF_A_STRANGER: [ErrorName; 4] = [
    ErrorName::SessionNotFound,
    ErrorName::ChannelNotFound,
    ErrorName::BadRequest,
    ErrorName::Unsupported,
];

async fn own_session(bench: Bench) -> Result<(), Finding> {
    let pair = used_pair(&bench, 2).await?;
    for party in pair.parties() {
        for call in party.script.seen() {
            if call.is_refused_as(&OF_A_STRANGER) {
                let (side, error) = (party.role, call.error().unwrap_or_default());
                return Err(failed(format!("{:?} of the {side} was answered {error}", call.call)));
            }
        }
    }
    Ok(())
}

async fn short_sessions(bench: Bench, rounds: usize) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let mut moved = 0;
    for round in 0..rounds {
        let carried = wait_for("the channel to carry", || async {
            Ok(pair.try_exercise(channel, 1000).await?.ok().filter(|moved| *moved > 0))
        });
        moved += carried.await?;
        let parties = [&pair.client, &pair.agent];
        for party in parties.into_iter().filter(|party| party.has_module()) {
            party.module()?.stop(channel, StopReason::Suspended).await?;
        }
        for party in parties.into_iter().filter(|party| party.has_module()) {
            let used = party.usage(channel).await?;
            ensure(used >= moved, || {
                format!(
                    "after {} sessions {moved} were carried, the {} has {used}",
                    round + 1,
                    party.role
                )
            })?;
        }
        for party in parties.into_iter().rev().filter(|party| party.has_module()) {
            match party.module()?.start(channel).await {
                Ok(_) => {}
                Err(error) => return Err(failed(format!("start: {}", crate::chain(&error)))),
            }
        }
    }
    Ok(())
}

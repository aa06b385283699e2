//! The status in each reply: what it says is done, and in time.

use std::time::Duration;

use privatix_plugin_api::message::{ClientKey, ErrorName, Status};

use super::together::{AMOUNT, carries_nothing};
use crate::case::{Case, Finding, case, failed};
use crate::core::{Act, Bench, Call, Pair, Party, wait_for, wait_long};

/// How long a module may go on after it was told: its own interval of reports, and some.
const IN_TIME: Duration = Duration::from_secs(10);

const RULE: &str = "docs/reference/service-api.md#status-and-credit: The status in each reply, and `stop`, end access when the core says so";
const MEND: &str = "after every update_session and start_session: serve on only while status.allows_use(), \
                    else cut the client, report and stop the session";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "status.update-suspending",
            "A reply to a report that says `suspending` ends the service.",
            RULE,
        )
        .after(&["together.usage", "lifecycle.stop"])
        .mend(MEND)
        .run(|bench| updated(bench, Act::Say(Status::Suspending))),
        case(
            "status.update-terminating",
            "A reply to a report that says `terminating` ends the service.",
            RULE,
        )
        .after(&["status.update-suspending"])
        .mend(MEND)
        .run(|bench| updated(bench, Act::Say(Status::Terminating))),
        case(
            "status.update-refused",
            "A report that is answered `ChannelNotFound` ends the service.",
            RULE,
        )
        .after(&["status.update-suspending"])
        .mend("treat an error other than Internal as the end of the service")
        .run(|bench| updated(bench, Act::Refuse(ErrorName::ChannelNotFound))),
        case(
            "status.start-suspending",
            "A session that is opened with `suspending` is not served.",
            RULE,
        )
        .after(&["agent.session"])
        .mend(MEND)
        .run(started),
        case(
            "status.by-client",
            "The client's side ends its service by the replies it gets, too.",
            RULE,
        )
        .after(&["status.update-suspending"])
        .mend(MEND)
        .run(by_client),
    ]
}

/// Waits until a side has ended its service of a channel by itself.
async fn ended(party: &Party, channel: ClientKey) -> Result<(), Finding> {
    let what = format!("the {} to end its service as it was told in a reply", party.role);
    wait_long(&what, IN_TIME, || async {
        let served = party.module()?.sessions().await?;
        Ok((!served.contains(&channel)).then_some(()))
    })
    .await
}

/// The agent's side where there is one: it is what gives access.
fn giver(pair: &Pair) -> &Party {
    if pair.agent.has_module() { &pair.agent } else { &pair.client }
}

async fn updated(bench: Bench, act: Act) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let moved = pair.exercise(channel, AMOUNT).await?;
    let party = giver(&pair);
    pair.used(party, channel, moved).await?;
    party.script.set(Some(Call::UpdateSession), act, u64::MAX);
    // No session is opened meanwhile, as the core would have none.
    let refuse = Act::Refuse(ErrorName::NonActiveChannel);
    party.script.set(Some(Call::StartSession), refuse, u64::MAX);
    party.script.set(Some(Call::AuthClient), refuse, u64::MAX);
    // A report is made where something is used; this may be cut at once, or not.
    let _ = pair.try_exercise(channel, AMOUNT).await?;
    ended(party, channel).await?;
    carries_nothing(&pair, channel).await
}

async fn started(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    // Nothing else says so: a module that only looks at replies to its reports goes on.
    pair.agent.script.set(Some(Call::StartSession), Act::Say(Status::Suspending), u64::MAX);
    let channel = pair.order().await?;
    pair.status(&pair.agent, channel, Status::Active).await?;
    // Some open a session when the client comes in, some when it first uses something.
    wait_for("a session to be asked for", || async {
        let _ = pair.try_exercise(channel, AMOUNT).await?;
        let asked = pair.agent.script.calls(Call::StartSession);
        Ok(asked.iter().any(|call| call.channel == Some(channel)).then_some(()))
    })
    .await?;
    ended(&pair.agent, channel).await?;
    match pair.try_exercise(channel, 20 * AMOUNT).await? {
        Ok(moved) if moved >= pair.amount(20 * AMOUNT) => {
            Err(failed(format!("it carried {moved} in a session that was not to be served")))
        }
        _ => Ok(()),
    }
}

async fn by_client(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    if !pair.client.has_module() {
        return Err(Finding::Skipped("the module has no client's side".into()));
    }
    let channel = pair.channel().await?;
    pair.exercise(channel, AMOUNT).await?;
    let say = Act::Say(Status::Suspending);
    for call in [Call::UpdateSession, Call::StartSession] {
        pair.client.script.set(Some(call), say, u64::MAX);
    }
    let _ = pair.try_exercise(channel, AMOUNT).await?;
    ended(&pair.client, channel).await
}

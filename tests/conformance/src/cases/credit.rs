//! Credit: what a module serves between two acknowledged reports.
//!
//! The host takes a module that ignores credit for what it is: the field is optional, and the status
//! alone ends the service. The case is required all the same. Such a module gives service away while
//! a database, a host or a network fails, and cuts the users whom it should have kept waiting.

use std::pin::pin;
use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use tokio::time::Instant;

use super::together::AMOUNT;
use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Act, Bench, Call, PATIENCE, Pair, Party, draft, wait_for};

const RULE: &str = "docs/reference/service-api.md#status-and-credit: Credit: a module serves no unit beyond it, and stops at zero until a reply gives more";

/// For how long no further use must be reported before the module counts as waiting.
const A_WHILE: Duration = Duration::from_secs(1);

/// The same where some of the credit is left.
const LONGER: Duration = Duration::from_secs(4);

/// What the kit accepts beyond a credit: a piece that cannot be divided, such as a packet.
const PIECE: u64 = 4096;

/// Both sides are starved twice, and each may need its patience.
const DEADLINE: Duration = Duration::from_secs(180);

pub(super) fn cases() -> Vec<Case> {
    let credit = case(
        "usage.credit",
        "No unit is served beyond the credit, and the service goes on when a reply gives more.",
        RULE,
    )
    .after(&["together.usage"])
    .mend(
        "count with `Meter::stream` or `Meter::take` of the SDK; or count against the credit of the last reply, wait at \
         zero, and report the same usage again every 50 to 200 ms until a reply gives more",
    )
    .run(credit);
    vec![Case { deadline: DEADLINE, ..credit }]
}

async fn credit(bench: Bench) -> Result<(), Finding> {
    if draft(&bench).get("unitType").is_some_and(|kind| kind == "seconds") {
        let why = "the core measures seconds itself and states no credit for them";
        return Err(Finding::Skipped(why.into()));
    }
    let pair = Pair::new(&bench).await?;
    // A quarter of it has to be something.
    let amount = if pair.amount(AMOUNT) >= 4 { AMOUNT } else { 20 * AMOUNT };
    for party in pair.parties() {
        starved(&pair, party, amount).await?;
    }
    Ok(())
}

/// Has a new channel carry an amount while one side is allowed a quarter of it, then a half, and
/// then all.
async fn starved(pair: &Pair, party: &Party, amount: u64) -> Result<(), Finding> {
    let whole = pair.amount(amount);
    let grants = [whole / 4, whole / 2];
    grant(party, grants[0]);
    let channel = pair.channel().await?;
    let mut carrying = pin!(pair.exercise_patiently(channel, amount));
    let mut carried = None;
    for granted in grants {
        grant(party, granted);
        let mut waits = pin!(waits(party, channel, granted));
        while carried.is_none() {
            tokio::select! {
                outcome = &mut carrying => carried = Some(outcome?),
                outcome = &mut waits => {
                    outcome?;
                    break;
                }
            }
        }
        keeps_to(party, channel, carried.as_ref(), granted)?;
    }
    party.script.clear();
    let carried = match carried {
        Some(carried) => carried,
        None => carrying.await?,
    };
    let moved = match carried {
        Ok(moved) if moved > grants[1] => moved,
        // It has given up meanwhile, as it may: a new use has to be served.
        early => goes_on(pair, party, channel, early).await?,
    };
    pair.used(party, channel, moved).await
}

/// Has the replies to a side state what is left of so much.
fn grant(party: &Party, usage: u64) {
    for call in [Call::ServiceReady, Call::StartSession, Call::UpdateSession] {
        party.script.set(Some(call), Act::Credit(usage), u64::MAX);
    }
}

/// Waits until a side has reported about all that it was allowed, and then nothing more for a while. One
/// whose next piece is too large for what is left has longer.
async fn waits(party: &Party, channel: ClientKey, granted: u64) -> Result<(), Finding> {
    let mut since = (0, Instant::now());
    let what = format!("the {} to report use within its credit of {granted}", party.role);
    let mut look = || {
        let reported = party.script.reported(channel);
        if reported != since.0 {
            since = (reported, Instant::now());
        }
        let used_up = reported + piece(granted) >= granted;
        reported > 0 && since.1.elapsed() >= if used_up { A_WHILE } else { LONGER }
    };
    wait_for(&what, || std::future::ready(Ok(look().then_some(())))).await
}

/// What may be served beyond a credit, because it cannot be divided.
fn piece(granted: u64) -> u64 {
    (granted / 10).min(PIECE)
}

fn keeps_to(
    party: &Party,
    channel: ClientKey,
    carried: Option<&Result<u64, String>>,
    granted: u64,
) -> Result<(), Finding> {
    let (side, reported) = (party.role, party.script.reported(channel));
    let most = granted + piece(granted);
    if let Some(Ok(moved)) = carried {
        ensure(*moved <= most, || {
            format!("the {side} was allowed to serve {granted}, and {moved} were carried")
        })?;
    }
    ensure(reported <= most, || {
        format!("the {side} was allowed to serve {granted}, and it reported {reported}")
    })
}

async fn goes_on(
    pair: &Pair,
    party: &Party,
    channel: ClientKey,
    early: Result<u64, String>,
) -> Result<u64, Finding> {
    let mut last = early.err();
    let until = Instant::now() + PATIENCE;
    loop {
        match pair.exercise_patiently(channel, AMOUNT).await? {
            Ok(moved) if moved > 0 => return Ok(moved),
            Ok(_) => {}
            Err(why) => last = Some(why),
        }
        if Instant::now() >= until {
            let why = last.map(|why| format!(": {why}")).unwrap_or_default();
            let side = party.role;
            return Err(failed(format!(
                "the core allowed the {side} more after its credit was used up, and the service did \
                 not go on{why}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

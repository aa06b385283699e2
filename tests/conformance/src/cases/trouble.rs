//! A core that answers errors, slowly, nonsense, or not at all.

use std::time::Duration;

use privatix_plugin_api::message::{ClientKey, ErrorName, StopReason};
use tokio::time::timeout;

use super::together::AMOUNT;
use crate::case::{Case, Finding, case, failed};
use crate::core::{Act, Bench, Call, Pair, Party, health, wait_for};

const ERRORS: &str =
    "docs/reference/codes.md#errors-of-the-service-api: Errors: stable name, number, text";

/// How long a module may need until it has got over what its core did.
const OVER: Duration = Duration::from_secs(30);

const NAMES: [ErrorName; 12] = [
    ErrorName::AccessDenied,
    ErrorName::ChannelNotFound,
    ErrorName::BadClientPassword,
    ErrorName::Internal,
    ErrorName::NonActiveChannel,
    ErrorName::SessionNotFound,
    ErrorName::AccessNotFound,
    ErrorName::BadProductConfig,
    ErrorName::BadStatus,
    ErrorName::Unsupported,
    ErrorName::UsageWentBackwards,
    ErrorName::BadRequest,
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (id, call, sentence) in [
        (
            "trouble.product-config",
            Call::SetProductConfig,
            "Every error that set_product_config can be answered with is borne.",
        ),
        (
            "trouble.auth-client",
            Call::AuthClient,
            "Every error that auth_client can be answered with is borne.",
        ),
        (
            "trouble.get-access",
            Call::GetAccess,
            "Every error that get_access can be answered with is borne.",
        ),
        (
            "trouble.start-session",
            Call::StartSession,
            "Every error that start_session can be answered with is borne.",
        ),
        (
            "trouble.update-session",
            Call::UpdateSession,
            "Every error that update_session can be answered with is borne.",
        ),
        (
            "trouble.stop-session",
            Call::StopSession,
            "Every error that stop_session can be answered with is borne.",
        ),
    ] {
        let run = case(id, sentence, ERRORS)
            .after(&["lifecycle.stop", "lifecycle.shutdown-live"])
            .mend("return errors instead of unwrapping them; try again after Internal, give up after others");
        cases.push(if call == Call::SetProductConfig {
            run.run(configured_badly)
        } else {
            run.run(move |bench| errors(bench, call))
        });
    }
    cases.extend([
        case(
            "trouble.slow",
            "With a core that takes 300 ms for every answer all goes on.",
            "docs/reference/service-api.md: Calls may be repeated unchanged after a time-out",
        )
        .after(&["lifecycle.stop"])
        .run(slow),
        case(
            "trouble.silent",
            "With a core that falls silent the module still answers its own calls.",
            "docs/reference/service-api.md#commands-to-a-module: a silent module never traps a channel",
        )
        .after(&["lifecycle.shutdown-deadline"])
        .mend("hold no lock and block no thread while waiting for the core")
        .run(silent),
        case(
            "trouble.nonsense",
            "Answers that cannot be read are treated as errors.",
            "docs/reference/service-api.md#commands-to-a-module: Bad input of any kind gets a clear error",
        )
        .after(&["lifecycle.stop", "lifecycle.shutdown-live"])
        .run(nonsense),
        case(
            "trouble.recovers",
            "When its core is well again, so is the service.",
            "docs/reference/service-api.md#status-and-holds: `fault` is retried with back-off",
        )
        .after(&["lifecycle.start-again", "together.carry"])
        .mend("after Internal, try again; after a failed start, let the next one begin afresh")
        .run(recovers),
    ]);
    cases
}

async fn configured_badly(bench: Bench) -> Result<(), Finding> {
    bench.needs(privatix_plugin_api::manifest::Role::Agent)?;
    let role = privatix_plugin_api::manifest::Role::Agent;
    for name in NAMES {
        let party = Party::core(&bench, role).await?;
        party.script.set(Some(Call::SetProductConfig), Act::Refuse(name), u64::MAX);
        let module = party.create().await?;
        if let Err(error) = module.configure(bench.settings(role)).await
            && error.is_breakdown()
        {
            return Err(failed(format!("{name}: configure: {}", crate::chain(&error))));
        }
        let retired = module.retire().await;
        if let Some(problem) = retired.problem {
            return Err(failed(format!("{name}: shutdown: {problem}")));
        }
    }
    Ok(())
}

async fn errors(bench: Bench, call: Call) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    for name in NAMES {
        let what = |finding: Finding| match finding {
            Finding::Failed(why) => Finding::Failed(format!("{call:?} answered {name}: {why}")),
            other => other,
        };
        let channel = pair.order().await?;
        for party in pair.parties() {
            party.script.set(Some(call), Act::Refuse(name), 3);
        }
        endure(&pair, channel).await.map_err(what)?;
    }
    Ok(())
}

/// Starts, uses and stops a channel while something is not well; nothing of it has to succeed, but
/// nothing may break, and in the end the channel is at rest.
async fn endure(pair: &Pair, channel: ClientKey) -> Result<(), Finding> {
    for party in [&pair.agent, &pair.client].into_iter().filter(|party| party.has_module()) {
        if let Err(error) = party.module()?.start(channel).await
            && error.is_breakdown()
        {
            return Err(failed(format!("start of the {}: {}", party.role, crate::chain(&error))));
        }
    }
    if let Err(finding @ Finding::Failed(_)) = pair.try_exercise(channel, 1000).await {
        return Err(finding);
    }
    for party in [&pair.client, &pair.agent].into_iter().filter(|party| party.has_module()) {
        let (side, module) = (party.role, party.module()?);
        health(module).await?;
        let rested = timeout(OVER, async {
            loop {
                if let Err(error) = module.stop(channel, StopReason::Terminated).await {
                    if error.is_breakdown()
                        && !matches!(error, privatix_modules::generation::CommandError::TimedOut(_))
                    {
                        return Err(failed(format!(
                            "stop of the {side}: {}",
                            crate::chain(&error)
                        )));
                    }
                    continue;
                }
                if !module.sessions().await?.contains(&channel) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        rested
            .unwrap_or_else(|_| Err(failed(format!("the {side} did not stop within {OVER:?}"))))?;
    }
    Ok(())
}

async fn slow(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    for party in pair.parties() {
        party.script.set(None, Act::Delay(Duration::from_millis(300)), u64::MAX);
    }
    let channel = pair.channel().await?;
    if let Err(finding @ Finding::Failed(_)) = pair.exercise(channel, AMOUNT).await {
        return Err(finding);
    }
    for party in pair.parties() {
        party.module()?.stop(channel, StopReason::Suspended).await?;
    }
    Ok(())
}

async fn silent(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    pair.channel().await?;
    for party in pair.parties() {
        party.script.set(None, Act::Silence, u64::MAX);
        let module = std::sync::Arc::clone(party.module()?);
        let channel = pair.order().await?;
        // One that hangs in its core, as it may.
        let hanging = tokio::spawn(async move { module.start(channel).await });
        let module = party.module()?;
        for _ in 0..5 {
            health(module).await.map_err(|error| answers(party, "health", &error))?;
            module.sessions().await.map_err(|error| answers(party, "sessions", &error))?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        hanging.abort();
    }
    Ok(())
}

fn answers(party: &Party, call: &str, error: &dyn std::error::Error) -> Finding {
    failed(format!("{call} of the {} while its core is silent: {error}", party.role))
}

async fn nonsense(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.order().await?;
    for party in pair.parties() {
        party.script.set(None, Act::Garbage, 10);
    }
    endure(&pair, channel).await
}

async fn recovers(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for party in pair.parties() {
        party.script.set(None, Act::Refuse(ErrorName::Internal), 5);
    }
    // May fail as long as it lasts.
    let _ = pair.try_exercise(channel, AMOUNT).await?;
    for party in pair.parties() {
        party.script.clear();
    }
    wait_for("the service after its core is well again", || async {
        for party in [&pair.agent, &pair.client].into_iter().filter(|party| party.has_module()) {
            let _ = party.module()?.start(channel).await;
        }
        Ok(pair.try_exercise(channel, AMOUNT).await?.ok().filter(|moved| *moved > 0).map(drop))
    })
    .await
}

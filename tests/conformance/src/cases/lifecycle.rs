//! From `configure` to `shutdown`, and again.

use std::time::{Duration, Instant};

use privatix_modules::generation::CommandError;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, Health, StopReason};
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use super::abi::first_role;
use crate::case::{Case, Finding, case, ensure, failed};
use crate::child::Part;
use crate::core::{Act, Bench, Call, Pair, Party, wait_for};

const COMMANDS: &str = "docs/reference/service-api.md#commands-to-a-module: `start` and `stop` are sent again after a restart and are safe to repeat";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("lifecycle.configure", "It takes its settings, as each of its roles.",
            "docs/modules.md#installing: A module's settings are checked against its schema before it starts")
            .after(&["abi.create"])
            .mend("see the error; settings for the kit stand in NAME.check.toml")
            .run(configure),
        case("lifecycle.wrong-settings", "Settings that it cannot use are answered with an error.",
            "docs/reference/service-api.md#commands-to-a-module: Bad input of any kind gets a clear error naming the place")
            .after(&["lifecycle.configure"])
            .mend("return the error of reading the settings from configure")
            .run(wrong_settings),
        case("lifecycle.health", "It says how it is, and that it is well after configure.",
            "docs/reference/service-api.md#commands-to-a-module: `health()`")
            .after(&["lifecycle.configure"])
            .mend("answer Healthy unless somebody has to look")
            .run(health),
        case("lifecycle.idle", "Before the first channel it serves none.", "docs/reference/service-api.md#commands-to-a-module: `sessions()` (channels being served now)")
            .after(&["lifecycle.configure"])
            .run(idle),
        case("lifecycle.shutdown-idle", "It shuts down without a channel, and leaves no thread.",
            "docs/writing-a-module.md#what-a-module-promises: `shutdown(deadline)`")
            .after(&["lifecycle.configure"])
            .mend("end every thread and task that the module has started, also blocking ones")
            .run(shutdown_idle),
        case("lifecycle.stop-unstarted", "A stop of what was never started is acknowledged.", COMMANDS)
            .after(&["lifecycle.configure"])
            .mend("answer stop with Ok where there is nothing to stop")
            .run(stop_unstarted),
        case("lifecycle.product-config", "After configure, an access message can be made from what it has said.",
            "docs/operating.md#selling-offerings-and-orders: It is published only when an access message made from the product's present config is valid")
            .after(&["lifecycle.configure", "templates.offering-filled"])
            .mend("call set_product_config in configure with externalIP and every additionalParam that the access template requires")
            .run(product_config),
        case("lifecycle.start", "A channel that was ordered is started and becomes active.",
            "docs/reference/service-api.md#status-and-holds: activating: `start` answered \"ready\", ServiceReady, StartSession → active")
            .after(&["lifecycle.product-config"])
            .mend("answer start with Ready, or call service_ready or start_session before the time-out")
            .run(start),
        case("lifecycle.start-again", "A second start of a served channel is answered, and ends nothing.", COMMANDS)
            .after(&["lifecycle.start"])
            .mend("look whether the channel is served already before doing anything")
            .run(start_again),
        case("lifecycle.stop", "Stop ends the service: no session is open, and it is served no longer.",
            "docs/reference/service-api.md#status-and-holds: `stop` acknowledged with no open session → suspended")
            .after(&["lifecycle.start", "lifecycle.stop-unstarted"])
            .mend("in stop: end the client's access, report the last usage, stop the session, then answer")
            .run(stop),
        case("lifecycle.stop-again", "A second stop is answered as the first.", COMMANDS)
            .after(&["lifecycle.stop"])
            .run(stop_again),
        case("lifecycle.describe", "It says what the user of a channel should know, or nothing.",
            "docs/operating.md#health-and-forced-stops: a module's answers never break its host")
            .after(&["lifecycle.start"])
            .run(describe),
        case("lifecycle.ten-times", "Every call can be made ten times.", COMMANDS)
            .after(&["lifecycle.start-again", "lifecycle.stop-again", "lifecycle.health", "lifecycle.describe"])
            .run(ten_times),
        case("lifecycle.shutdown-live", "Shutdown with live channels closes every session.",
            "docs/modules.md#replacing: the old one is stopped with its usage reported")
            .after(&["lifecycle.stop", "lifecycle.shutdown-idle"])
            .mend("in shutdown: report the last usage of every session and stop it")
            .run(shutdown_live),
        case("lifecycle.shutdown-deadline", "Shutdown keeps its deadline, also with a core that is silent.",
            "docs/writing-a-module.md#what-a-module-promises: `shutdown(deadline)`")
            .after(&["lifecycle.shutdown-live"])
            .mend("wait for nothing without a limit, and never block a thread")
            .run(shutdown_deadline),
        case("lifecycle.shutdown-again", "A second shutdown is answered, and calls after it are refused.",
            "docs/modules.md#replacing: A stopped generation's calls get `AccessDenied`")
            .after(&["lifecycle.shutdown-idle"])
            .run(shutdown_again),
        case("lifecycle.created-again", "After a shutdown the same library can be created again, and serves.",
            "docs/modules.md#replacing: the new one started and told of every live channel")
            .after(&["lifecycle.shutdown-live"])
            .mend("keep nothing process-wide, and let go of ports and files in shutdown")
            .run(created_again),
        case("lifecycle.replay", "A module that comes up is told of every live channel and serves it again.",
            "docs/reference/service-api.md#commands-to-a-module: At start-up every live channel is replayed to its module and compared with `sessions()`")
            .after(&["lifecycle.created-again", "lifecycle.idle"])
            .run(replay),
        case("lifecycle.killed", "After a crash of the host a new process serves the channel again.",
            "docs/reference/service-api.md: Calls may be repeated unchanged after a time-out or a crash")
            .after(&["lifecycle.replay"])
            .run(killed),
    ]
}

pub(super) async fn configure(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        Party::new(&bench, role).await?;
    }
    Ok(())
}

async fn wrong_settings(bench: Bench) -> Result<(), Finding> {
    let mut ignored = Vec::new();
    for settings in [json!({"no_such_setting_as_this": {"a": [1]}}), json!([7]), json!("x")] {
        let party = Party::core(&bench, first_role(&bench)?).await?;
        let module = party.create().await?;
        match module.configure(settings.clone()).await {
            Err(CommandError::Fault(fault))
                if fault.kind == privatix_plugin_api::FaultKind::Panicked =>
            {
                return Err(failed(format!("configure with {settings} panicked: {}", fault.text)));
            }
            Err(CommandError::Fault(_)) => {}
            Err(error) => return Err(Finding::from(error)),
            Ok(()) => ignored.push(settings.to_string()),
        }
    }
    // A host never hands over what the schema refuses, so this is no failure.
    if ignored.is_empty() || bench.manifest()?.config_schema.is_none() {
        return Ok(());
    }
    Err(Finding::Warning(format!("configure took {} without a word", ignored.join(", "))))
}

async fn health(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        let party = Party::new(&bench, role).await?;
        match crate::core::health(party.module()?).await? {
            None => return Err(Finding::Skipped("it is older than the question".into())),
            Some(Health::Healthy) => {}
            Some(Health::Degraded(why)) => {
                return Err(Finding::Warning(format!("as {role} it is degraded: {why}")));
            }
            Some(Health::Unhealthy(why)) => {
                return Err(failed(format!("as {role} it says that it is unhealthy: {why}")));
            }
        }
    }
    Ok(())
}

async fn idle(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        let party = Party::new(&bench, role).await?;
        let served = party.module()?.sessions().await?;
        ensure(served.is_empty(), || format!("as {role} it serves {served:?}"))?;
    }
    Ok(())
}

async fn shutdown_idle(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        Party::new(&bench, role).await?.take_down_cleanly().await?;
    }
    Ok(())
}

async fn product_config(bench: Bench) -> Result<(), Finding> {
    // A module without an agent's side has nothing to say.
    if !bench.roles()?.contains(&Role::Agent) {
        return Ok(());
    }
    let party = Party::new(&bench, Role::Agent).await?;
    let said = party.script.calls(Call::SetProductConfig);
    ensure(!said.is_empty(), || "set_product_config was not called in configure".into())?;
    let bad = said.iter().find_map(|call| call.error().map(str::to_owned));
    ensure(bad.is_none(), || format!("set_product_config was answered {bad:?}"))?;
    // Makes an offering, which needs a valid access message.
    let client = Party::core(&bench, Role::Client).await?;
    Pair::of(&bench, party, client).await.map(drop)
}

async fn start(bench: Bench) -> Result<(), Finding> {
    Pair::new(&bench).await?.channel().await.map(drop)
}

async fn start_again(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for party in pair.parties() {
        let (open, _) = party.sessions(channel).await?;
        party.module()?.start(channel).await?;
        let (after, _) = party.sessions(channel).await?;
        ensure(after >= open, || {
            format!("the {}'s session was closed by a second start", party.role)
        })?;
    }
    Ok(())
}

async fn stop(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    stopped(&pair, channel).await
}

/// Stops a channel on both sides, the client's first, and looks whether it is over.
async fn stopped(pair: &Pair, channel: ClientKey) -> Result<(), Finding> {
    for party in [&pair.client, &pair.agent].into_iter().filter(|party| party.has_module()) {
        let side = party.role;
        party
            .module()?
            .stop(channel, StopReason::Suspended)
            .await
            .map_err(|error| failed(format!("stop of the {side}: {}", crate::chain(&error))))?;
        let (open, _) = party.sessions(channel).await?;
        ensure(open == 0, || format!("the {side} acknowledged stop with its session open"))?;
        let served = party.module()?.sessions().await?;
        ensure(!served.contains(&channel), || {
            format!("the {side} says that it serves a channel whose stop it acknowledged")
        })?;
    }
    Ok(())
}

async fn stop_again(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    stopped(&pair, channel).await?;
    stopped(&pair, channel).await
}

async fn stop_unstarted(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        let party = Party::new(&bench, role).await?;
        for reason in [StopReason::Suspended, StopReason::Terminated] {
            party
                .module()?
                .stop(ClientKey(Uuid::new_v4()), reason)
                .await
                .map_err(|error| failed(format!("as {role}: {}", crate::chain(&error))))?;
        }
    }
    Ok(())
}

async fn describe(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for party in pair.parties() {
        for channel in [channel, ClientKey(Uuid::new_v4())] {
            match party.module()?.describe(channel).await {
                Ok(described) => {
                    let empty = described.0.iter().any(|(key, _)| key.is_empty());
                    ensure(!empty, || {
                        format!("the {} tells something without a name", party.role)
                    })?;
                }
                // Then nothing is shown.
                Err(error) if !error.is_breakdown() => {}
                Err(error) => return Err(failed(crate::chain(&error))),
            }
        }
    }
    Ok(())
}

async fn ten_times(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for party in pair.parties() {
        let module = party.module()?;
        for _ in 0..10 {
            module.start(channel).await?;
            module.sessions().await?;
            crate::core::health(module).await?;
            module.describe(channel).await?;
        }
    }
    for _ in 0..10 {
        stopped(&pair, channel).await?;
    }
    Ok(())
}

async fn shutdown_live(bench: Bench) -> Result<(), Finding> {
    let mut pair = Pair::new(&bench).await?;
    let channels = [pair.channel().await?, pair.channel().await?];
    for party in [&mut pair.client, &mut pair.agent] {
        if !party.has_module() {
            continue;
        }
        party.take_down_cleanly().await?;
        for channel in channels {
            let (open, _) = party.sessions(channel).await?;
            ensure(open == 0, || format!("the {} left a session open", party.role))?;
        }
    }
    Ok(())
}

async fn shutdown_deadline(bench: Bench) -> Result<(), Finding> {
    let deadline = Duration::from_secs(2);
    let mut pair = Pair::with(&bench, |timeouts| timeouts.shutdown = deadline).await?;
    pair.channel().await?;
    for party in [&mut pair.client, &mut pair.agent] {
        if !party.has_module() {
            continue;
        }
        party.script.set(None, Act::Silence, u64::MAX);
        let limit = deadline + Duration::from_secs(3);
        let begun = Instant::now();
        // That it was not done is as it has to be; what counts is that it says so.
        let retired = party.take_down().await?;
        ensure(begun.elapsed() < limit, || {
            format!("the {} took {:?}", party.role, begun.elapsed())
        })?;
        ensure(retired.problem.as_deref() != Some("no answer to shutdown"), || {
            format!("the {} did not answer shutdown", party.role)
        })?;
        ensure(retired.threads == 0, || {
            format!("the {} left {} threads running", party.role, retired.threads)
        })?;
    }
    Ok(())
}

async fn shutdown_again(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        let party = Party::core(&bench, role).await?;
        let module = party.create().await?;
        module.configure(bench.settings(role)).await?;
        for _ in 0..2 {
            let retired = module.retire().await;
            ensure(retired.problem.is_none(), || format!("as {role}: {:?}", retired.problem))?;
        }
        match module.sessions().await {
            Err(error) if error.is_stopped() => {}
            other => return Err(failed(format!("as {role}, after shutdown: {other:?}"))),
        }
    }
    Ok(())
}

async fn created_again(bench: Bench) -> Result<(), Finding> {
    let mut pair = Pair::new(&bench).await?;
    pair.channel().await?;
    for round in 1..=3 {
        for party in [&mut pair.client, &mut pair.agent] {
            if party.has_module() {
                party.take_down_cleanly().await?;
            }
        }
        for party in [&mut pair.agent, &mut pair.client] {
            if bench.roles()?.contains(&party.role) {
                party.bring_up().await.map_err(|finding| round_of(round, finding))?;
            }
        }
        pair.channel().await?;
    }
    Ok(())
}

fn round_of(round: usize, finding: Finding) -> Finding {
    match finding {
        Finding::Failed(why) => Finding::Failed(format!("in round {round}: {why}")),
        other => other,
    }
}

async fn replay(bench: Bench) -> Result<(), Finding> {
    let mut pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    for party in [&mut pair.client, &mut pair.agent] {
        if party.has_module() {
            party.take_down_cleanly().await?;
        }
    }
    for party in [&mut pair.agent, &mut pair.client] {
        if bench.roles()?.contains(&party.role) {
            party.bring_up().await?;
        }
    }
    pair.active(channel).await?;
    serves_again(&pair, channel).await
}

/// The client's side serves a started channel; the agent's may wait for its client.
async fn serves_again(pair: &Pair, channel: ClientKey) -> Result<(), Finding> {
    if !pair.client.has_module() {
        return Ok(());
    }
    let client = pair.client.module()?;
    wait_for("the client to serve the channel again", || async {
        Ok(client.sessions().await?.contains(&channel).then_some(()))
    })
    .await
}

const SERVED: &str = "lifecycle.served";

/// The part of [`killed`] that is killed: it says which channel is served, and never ends.
pub(super) fn served() -> Case {
    case(SERVED, "A channel is served until the host is killed.", "").run(|bench| async move {
        let pair = Pair::new(&bench).await?;
        let channel = pair.channel().await?;
        let part = bench.directory().join("part");
        std::fs::write(&part, channel.to_string())?;
        std::fs::rename(part, bench.directory().join(SERVED))?;
        std::future::pending().await
    })
}

/// A host is killed where it stands, and another one comes up with what it has left.
async fn killed(bench: Bench) -> Result<(), Finding> {
    let bench = bench.below("host");
    let mut host = Part::begin(&bench, SERVED)?;
    let said = bench.directory().join(SERVED);
    let channel = wait_for("a channel to be served", || {
        let ended = host.ended(&bench);
        let channel = std::fs::read_to_string(&said).ok();
        async move { ended.map(|()| channel) }
    });
    let channel = channel.await?;
    let channel = channel.parse().map_err(|error: uuid::Error| failed(error.to_string()))?;
    drop(host);
    let up = timeout(Duration::from_secs(30), Pair::new(&bench)).await;
    let pair = up.map_err(|_| failed("it did not come up within 30 s"))??;
    pair.active(channel).await?;
    serves_again(&pair, channel).await
}

//! What a client's module does with its access message.

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, ErrorName, Status};
use serde_json::Value;

use super::together::AMOUNT;
use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Act, Bench, Call, Pair, health, wait_for};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "client.access",
            "It takes all that it needs from the access message.",
            "docs/reference/service-api.md#calls-of-a-module: The client gets them in the access message",
        )
        .after(&["lifecycle.start"])
        .mend("call get_access in start")
        .run(access),
        case(
            "client.no-access",
            "Without an access message it does not serve, and does when it has come.",
            "docs/reference/service-api.md#calls-of-a-module: `AccessNotFound` until it is here",
        )
        .after(&["client.access"])
        .mend("return the error of get_access from start: the core starts the channel again")
        .run(no_access),
        case(
            "client.access-changed",
            "A start with a new access message has it looked at again.",
            "docs/reference/service-api.md#calls-of-a-module: `start` comes again when the access message has changed",
        )
        .after(&["client.access", "lifecycle.start-again"])
        .mend("in every start: call get_access, and reconnect where the nonce is another")
        .run(access_changed),
        case(
            "client.agent-away",
            "Where the agent is not reached, start says so in time and the module lives.",
            "docs/writing-a-module.md#what-a-module-promises: `start(client key)` → ready now or later",
        )
        .after(&["lifecycle.shutdown-live"])
        .mend("bound every connection attempt in time; answer start with an error or with Later")
        .run(agent_away),
        case(
            "client.agent-gone",
            "When the agent goes away, stop and shutdown of the client still work.",
            "docs/reference/service-api.md#commands-to-a-module: a silent module never traps a channel",
        )
        .after(&["lifecycle.shutdown-live"])
        .run(agent_gone),
        case("client.usage", "It measures what it uses.", "docs/money.md#what-a-client-pays: own cost")
            .after(&["together.carry"])
            .run(usage),
    ]
}

async fn pair(bench: &Bench) -> Result<Pair, Finding> {
    bench.needs(Role::Client)?;
    Pair::new(bench).await
}

async fn access(bench: Bench) -> Result<(), Finding> {
    let pair = pair(&bench).await?;
    let channel = pair.channel().await?;
    let asked = pair.client.script.calls(Call::GetAccess);
    let well = asked.iter().any(|call| call.channel == Some(channel) && call.is_ok());
    ensure(well, || "the client became active without having asked for its access".into())
}

async fn no_access(bench: Bench) -> Result<(), Finding> {
    let pair = pair(&bench).await?;
    let refuse = Act::Refuse(ErrorName::AccessNotFound);
    pair.client.script.set(Some(Call::GetAccess), refuse, u64::MAX);
    let channel = pair.order().await?;
    wait_for("the client to ask for its access", || async {
        Ok((!pair.client.script.calls(Call::GetAccess).is_empty()).then_some(()))
    })
    .await?;
    let status = pair.client.service.operator().channel_view(channel).await?.status;
    ensure(status != Status::Active, || "it is active without an access message".into())?;
    match pair.client.module()?.start(channel).await {
        Err(error) if error.is_breakdown() => {
            return Err(failed(format!(
                "start without an access message: {}",
                crate::chain(&error)
            )));
        }
        _ => {}
    }
    pair.client.script.clear();
    // As the core does with back-off.
    wait_for("the client to serve once its access is here", || async {
        if pair.client.module()?.start(channel).await.is_err() {
            return Ok(None);
        }
        let served = pair.client.module()?.sessions().await?.contains(&channel);
        let active =
            pair.client.service.operator().channel_view(channel).await?.status == Status::Active;
        Ok((served || active).then_some(()))
    })
    .await
}

async fn access_changed(bench: Bench) -> Result<(), Finding> {
    let pair = pair(&bench).await?;
    let channel = pair.channel().await?;
    renew(&pair, channel).await?;
    let before = pair.client.script.calls(Call::GetAccess).len();
    pair.client.module()?.start(channel).await?;
    let after = pair.client.script.calls(Call::GetAccess).len();
    ensure(after > before, || "start came again, and the access message was not looked at".into())?;
    wait_for("the channel to be served with the new access message", || async {
        let served = pair.client.module()?.sessions().await?.contains(&channel);
        Ok(served.then_some(()))
    })
    .await
}

/// The same access message under another nonce, as after a change of the product's config.
async fn renew(pair: &Pair, channel: ClientKey) -> Result<(), Finding> {
    let store = &pair.client.store;
    let mut txn = store.begin().await?;
    let row = txn.channel_find(channel).await?.ok_or_else(|| failed("the channel is gone"))?;
    let text = row.access.ok_or_else(|| failed("the channel has no access message"))?;
    let mut message: Value = serde_json::from_str(&text)?;
    message["nonce"] = uuid::Uuid::new_v4().to_string().into();
    txn.channel_set_access(channel, row.access_serial, Some(&message.to_string())).await?;
    txn.commit().await?;
    Ok(())
}

async fn agent_away(bench: Bench) -> Result<(), Finding> {
    let mut pair = pair(&bench).await?;
    if !pair.agent.has_module() {
        return Err(Finding::Skipped("the module has no agent's side".into()));
    }
    // So that offering and access message are made; then there is nobody at the address.
    pair.agent.take_down_cleanly().await?;
    let channel = pair.order().await?;
    wait_for("the client to try", || async {
        Ok((!pair.client.script.calls(Call::GetAccess).is_empty()).then_some(()))
    })
    .await?;
    let module = pair.client.module()?;
    if let Err(error) = module.start(channel).await
        && error.is_breakdown()
    {
        return Err(failed(format!("start: {}", crate::chain(&error))));
    }
    // Unwell is a fair thing to say now.
    health(module).await?;
    module.stop(channel, privatix_plugin_api::message::StopReason::Suspended).await?;
    pair.client.take_down_cleanly().await
}

async fn agent_gone(bench: Bench) -> Result<(), Finding> {
    let mut pair = pair(&bench).await?;
    if !pair.agent.has_module() {
        return Err(Finding::Skipped("the module has no agent's side".into()));
    }
    let (one, _other) = (pair.channel().await?, pair.channel().await?);
    pair.agent.take_down_cleanly().await?;
    let module = pair.client.module()?;
    module.sessions().await?;
    health(module).await?;
    module.stop(one, privatix_plugin_api::message::StopReason::Terminated).await?;
    pair.client.take_down_cleanly().await
}

async fn usage(bench: Bench) -> Result<(), Finding> {
    let pair = pair(&bench).await?;
    let channel = pair.channel().await?;
    let moved = pair.exercise(channel, AMOUNT).await?;
    pair.used(&pair.client, channel, moved).await
}

//! What an agent's module has to ask and say.

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ErrorName, Status};

use super::together::{AMOUNT, carries_nothing};
use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Act, Bench, Call, Pair, wait_for};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("agent.asks", "It asks its core who may come in.",
            "docs/reference/service-api.md#calls-of-a-module: The agent's module asks `AuthClient`")
            .after(&["together.carry"])
            .mend("call auth_client with the user name and password that the client gave, before serving it")
            .run(asks),
        case("agent.wrong-password", "Nobody comes in whose password the core refuses.",
            "docs/reference/service-api.md#calls-of-a-module: wrong password `BadClientPassword`")
            .after(&["agent.asks"])
            .mend("serve nothing unless auth_client answered Ok")
            .run(|bench| refused(bench, ErrorName::BadClientPassword)),
        case("agent.unknown-client", "Nobody comes in whose channel the core does not know.",
            "docs/reference/service-api.md#calls-of-a-module: any other key: `ChannelNotFound`")
            .after(&["agent.asks"])
            .mend("serve nothing unless auth_client answered Ok")
            .run(|bench| refused(bench, ErrorName::ChannelNotFound)),
        case("agent.failing-core", "Nobody comes in while the core cannot say who may.",
            "docs/reference/codes.md#errors-of-the-service-api: `Internal` (details only in the log)")
            .after(&["agent.asks"])
            .mend("serve nothing unless auth_client answered Ok")
            .run(|bench| refused(bench, ErrorName::Internal)),
        case("agent.session", "A client that comes in gets a session, which is stopped again.",
            "docs/writing-a-module.md#sessions-usage-and-credit: Both modules then start, update and stop sessions")
            .after(&["together.carry", "lifecycle.stop"])
            .run(session),
        case("agent.no-session", "A client that the core opens no session for gets no service.",
            "docs/reference/service-api.md#calls-of-a-module: StartSession: else `NonActiveChannel`")
            .after(&["agent.session"])
            .mend("serve nothing unless start_session answered Ok")
            .run(no_session),
    ]
}

/// Both sides of a module that has both.
async fn pair(bench: &Bench) -> Result<Pair, Finding> {
    bench.needs(Role::Agent)?;
    bench.needs(Role::Client)?;
    Pair::new(bench).await
}

async fn asks(bench: Bench) -> Result<(), Finding> {
    let pair = pair(&bench).await?;
    let channel = pair.channel().await?;
    pair.exercise(channel, AMOUNT).await?;
    let asked = pair.agent.script.calls(Call::AuthClient);
    let well = asked.iter().any(|call| call.channel == Some(channel) && call.is_ok());
    ensure(well, || {
        let errors: Vec<_> = asked.iter().filter_map(|call| call.error()).collect();
        format!("auth_client was called {} times and never well: {errors:?}", asked.len())
    })
}

async fn refused(bench: Bench, by: ErrorName) -> Result<(), Finding> {
    let pair = pair(&bench).await?;
    pair.agent.script.set(Some(Call::AuthClient), Act::Refuse(by), u64::MAX);
    let channel = pair.order().await?;
    // The client's core hands it over; whether start waits or fails is the module's affair.
    wait_for("the client to ask for access, or to be refused", || async {
        let asked = pair.agent.script.calls(Call::AuthClient).len();
        let view = pair.client.service.operator().channel_view(channel).await.ok();
        let over = view.is_some_and(|view| view.status == Status::Suspended);
        Ok((asked > 0 || over).then_some(()))
    })
    .await?;
    carries_nothing(&pair, channel).await?;
    let (_, sessions) = pair.agent.sessions(channel).await?;
    ensure(sessions == 0, || "the agent opened a session for whom the core refused".into())
}

async fn session(bench: Bench) -> Result<(), Finding> {
    let pair = pair(&bench).await?;
    let channel = pair.channel().await?;
    pair.exercise(channel, AMOUNT).await?;
    // A session may have ended with its last user: then there was one, and none is open.
    let (open, all) = pair.agent.sessions(channel).await?;
    ensure(all > 0, || "it carried without the agent having opened a session".into())?;
    ensure(open < 2, || format!("the agent has {open} open sessions of one channel"))?;
    let module = pair.agent.module()?;
    let named = wait_for("`sessions` to name the channel", || async {
        let served = module.sessions().await?.contains(&channel);
        let (open, _) = pair.agent.sessions(channel).await?;
        Ok((served || open == 0).then_some(()))
    });
    ensure(named.await.is_ok(), || {
        "while a session is open, `sessions` does not name the channel".into()
    })?;
    module.stop(channel, privatix_plugin_api::message::StopReason::Suspended).await?;
    let (open, _) = pair.agent.sessions(channel).await?;
    ensure(open == 0, || "after stop the agent's session is open".into())
}

async fn no_session(bench: Bench) -> Result<(), Finding> {
    let pair = pair(&bench).await?;
    let refuse = Act::Refuse(ErrorName::NonActiveChannel);
    pair.agent.script.set(Some(Call::StartSession), refuse, u64::MAX);
    let channel = pair.order().await?;
    wait_for("the agent to be asked for a session, or the client to give up", || async {
        let asked = pair.agent.script.calls(Call::StartSession).len();
        // A client that is content with logging in opens no session by itself.
        match pair.try_exercise(channel, AMOUNT).await? {
            Ok(moved) if moved > 0 => Err(failed(format!("it carried {moved}"))),
            _ => Ok((asked > 0).then_some(())),
        }
    })
    .await?;
    carries_nothing(&pair, channel).await
}

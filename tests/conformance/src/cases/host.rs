//! What a module leaves as it was in the process that it shares with its host.

use std::fs;
use std::time::Duration;

use privatix_plugin_api::message::{ErrorName, StopReason};

use super::together::AMOUNT;
use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Act, Bench, Call, Pair, wait_long};

const RULE: &str = "docs/modules.md#modules-that-end-the-host: Every refusal leaves the host and the other modules running";

/// How much a module may print; what it has to say belongs into its core's log.
const MOST_PRINTED: u64 = 256 * 1024;

/// How long a service may need to be well again, with the core's own pauses.
const AGAIN: Duration = Duration::from_secs(40);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("host.signals", "It leaves the process's signals as they are.", RULE)
            .after(&["lifecycle.stop", "lifecycle.shutdown-live"])
            .mend("do not handle, ignore or block signals: the host ends its modules by shutdown")
            .run(signals),
        case("host.directory", "It leaves the process's working directory as it is.", RULE)
            .after(&["lifecycle.stop", "lifecycle.shutdown-live"])
            .mend("use absolute paths below the data directory instead of set_current_dir")
            .run(directory),
        case("host.umask", "It leaves the process's umask as it is.", RULE)
            .after(&["lifecycle.stop", "lifecycle.shutdown-live"])
            .mend("give each file its mode when it is created instead of calling umask")
            .run(umask),
        case("host.panics", "None of its tasks panics.", "docs/reference/codes.md#errors-of-the-service-api: Errors: stable name, number, text")
            .after(&["lifecycle.stop", "lifecycle.shutdown-live"])
            .mend("return errors from tasks; a task that panicked does its work no more")
            .run(panics),
        case("host.output", "It prints no more than a little.", RULE)
            .after(&["lifecycle.stop", "lifecycle.shutdown-live"])
            .mend("log with tracing instead of printing: standard output is the host's")
            .run(output),
        case(
            "host.session-again",
            "One failure to open a session does not end the service.",
            "docs/reference/service-api.md: Calls may be repeated unchanged after a time-out or a crash",
        )
        .after(&["together.carry", "lifecycle.stop"])
        .mend("after Internal from start_session, serve the next user, or open the session again")
        .run(session_again),
    ]
}

/// A short life: a channel is started, used, stopped, started again, and all is taken down.
/// Returns what the module has logged.
async fn live(bench: &Bench) -> Result<Vec<String>, Finding> {
    let mut pair = Pair::new(bench).await?;
    let channel = pair.channel().await?;
    // A module without the hook is looked at all the same.
    let _ = pair.try_exercise(channel, AMOUNT).await;
    for party in [&pair.client, &pair.agent].into_iter().filter(|party| party.has_module()) {
        party.module()?.stop(channel, StopReason::Suspended).await?;
    }
    for party in [&mut pair.client, &mut pair.agent] {
        if party.has_module() {
            party.take_down_cleanly().await?;
        }
    }
    let events = [&pair.agent, &pair.client].map(|party| party.script.events());
    Ok(events.into_iter().flatten().map(|event| event.message).collect())
}

/// A line of this process's status.
fn status(name: &str) -> Result<String, Finding> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|line| line.trim().to_owned()).ok_or_else(|| failed(format!("no {name} in /proc")))
}

/// Which of the signals that a host is ended or told by are blocked, ignored and handled.
fn dispositions() -> Result<Vec<(&'static str, bool, bool, bool)>, Finding> {
    let mask = |name: &str| -> Result<u64, Finding> {
        u64::from_str_radix(&status(name)?, 16).map_err(Finding::from)
    };
    let (blocked, ignored, caught) = (mask("SigBlk")?, mask("SigIgn")?, mask("SigCgt")?);
    let has = |mask: u64, number: u32| mask >> (number - 1) & 1 == 1;
    let signals = [("SIGHUP", 1), ("SIGINT", 2), ("SIGQUIT", 3), ("SIGPIPE", 13), ("SIGTERM", 15)];
    Ok(signals
        .iter()
        .map(|(name, number)| {
            (*name, has(blocked, *number), has(ignored, *number), has(caught, *number))
        })
        .collect())
}

async fn signals(bench: Bench) -> Result<(), Finding> {
    let before = dispositions()?;
    live(&bench).await?;
    let words =
        |(_, blocked, ignored, caught): &(&str, bool, bool, bool)| match (blocked, ignored, caught)
        {
            (true, ..) => "blocked",
            (_, true, _) => "ignored",
            (.., true) => "handled",
            _ => "as by default",
        };
    for (was, is) in before.iter().zip(&dispositions()?) {
        ensure(was == is, || format!("{} was {} and is {}", was.0, words(was), words(is)))?;
    }
    Ok(())
}

async fn directory(bench: Bench) -> Result<(), Finding> {
    let before = std::env::current_dir()?;
    live(&bench).await?;
    let after = std::env::current_dir()?;
    ensure(after == before, || {
        format!("the working directory was {} and is {}", before.display(), after.display())
    })
}

async fn umask(bench: Bench) -> Result<(), Finding> {
    let before = status("Umask")?;
    live(&bench).await?;
    let after = status("Umask")?;
    ensure(after == before, || format!("the umask was {before} and is {after}"))
}

async fn panics(bench: Bench) -> Result<(), Finding> {
    // The SDK logs a panic; without it, or in a thread of the author's own, it is printed.
    let logged = live(&bench).await?.join("\n");
    let printed = fs::read(bench.directory().join("printed")).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed);
    let said = format!("{logged}\n{printed}");
    let panic = said.lines().find(|line| line.contains("panicked at"));
    ensure(panic.is_none(), || format!("a thread of it said: {}", panic.unwrap_or_default()))
}

async fn output(bench: Bench) -> Result<(), Finding> {
    live(&bench).await?;
    let printed = fs::metadata(bench.directory().join("printed")).map_or(0, |file| file.len());
    ensure(printed <= MOST_PRINTED, || format!("it printed {printed} bytes in a few seconds"))
}

async fn session_again(bench: Bench) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    for party in pair.parties() {
        party.script.set(Some(Call::StartSession), Act::Refuse(ErrorName::Internal), 1);
        let what = format!(
            "the channel to carry, of which the {}'s first start_session was answered `Internal`",
            party.role
        );
        let channel = pair.order().await?;
        wait_long(&what, AGAIN, || async {
            Ok(pair.try_exercise(channel, AMOUNT).await?.ok().filter(|moved| *moved > 0).map(drop))
        })
        .await?;
        party.script.clear();
    }
    Ok(())
}

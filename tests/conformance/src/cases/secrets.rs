//! Credentials: never in logs, files, error texts or the process list.

use std::fs;
use std::path::Path;

use privatix_domain::identity::Identity;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, StopReason};

use super::together::AMOUNT;
use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Bench, Pair, health};
use crate::process;

const RULE: &str = "docs/reference/exchange.md#access-messages: `password`: stored nowhere";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "secrets.log",
            "The password is in no line of its log, and in nothing it prints.",
            RULE,
        )
        .after(&["lifecycle.stop"])
        .mend("never log an access message or a Password's text; Debug of Password shows none")
        .run(log),
        case(
            "secrets.files",
            "The password is in no file that it leaves readable for others.",
            RULE,
        )
        .after(&["lifecycle.stop"])
        .mend(
            "write no credentials, or only below data_dir with mode 0600, and remove them in stop",
        )
        .run(files),
        case(
            "secrets.processes",
            "The password is in no argument and no environment of a process.",
            RULE,
        )
        .after(&["lifecycle.stop"])
        .mend("hand credentials to programs over a pipe or a socket")
        .run(processes),
        case("secrets.words", "The password is in nothing that the module tells of itself.", RULE)
            .after(&["lifecycle.stop"])
            .mend("keep passwords out of describe, health and error texts")
            .run(words),
    ]
}

/// A used channel, and its password.
async fn used(bench: &Bench) -> Result<(Pair, ClientKey, String), Finding> {
    let pair = Pair::new(bench).await?;
    let channel = pair.channel().await?;
    let _ = pair.try_exercise(channel, AMOUNT).await;
    let row = pair.agent.store.begin().await?.channel_find(channel).await?;
    let row = row.ok_or_else(|| failed("the channel is gone"))?;
    // The agent's identity is the kit's own.
    let password = Identity::from_entropy([1; 96]).password(channel, &row.order_hash).0;
    Ok((pair, channel, password))
}

async fn log(bench: Bench) -> Result<(), Finding> {
    let (pair, channel, password) = used(&bench).await?;
    for party in pair.parties() {
        party.module()?.stop(channel, StopReason::Terminated).await?;
    }
    for party in pair.parties() {
        for event in party.script.events() {
            let text = format!("{} {:?}", event.message, event.fields);
            ensure(!text.contains(&password), || {
                let hidden = text.replace(&password, "(the password)");
                format!("the {} logged it at {}: {hidden}", party.role, event.target)
            })?;
        }
    }
    let printed = fs::read(bench.directory().join("printed")).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed);
    ensure(!printed.contains(&password), || "it was printed".into())
}

async fn files(bench: Bench) -> Result<(), Finding> {
    let (pair, channel, password) = used(&bench).await?;
    for party in pair.parties() {
        search(&party.data_dir, &password, false)?;
    }
    search(&bench.directory().join("tmp"), &password, false)?;
    for party in pair.parties() {
        party.module()?.stop(channel, StopReason::Terminated).await?;
    }
    for party in pair.parties() {
        search(&party.data_dir, &password, true)?;
    }
    search(&bench.directory().join("tmp"), &password, true)
}

/// Looks through all files below a directory: while a channel is served, those that others can
/// read; after its end, all.
fn search(directory: &Path, password: &str, all: bool) -> Result<(), Finding> {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // It may be gone by now, or a socket.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            search(&path, password, all)?;
        } else if meta.is_file() && (all || meta.permissions().mode() & 0o077 != 0) {
            let bytes = fs::read(&path).unwrap_or_default();
            ensure(!bytes.windows(password.len()).any(|part| part == password.as_bytes()), || {
                format!(
                    "it is in {}, mode {:04o}",
                    path.display(),
                    meta.permissions().mode() & 0o7777
                )
            })?;
        }
    }
    Ok(())
}

async fn processes(bench: Bench) -> Result<(), Finding> {
    let (pair, _channel, password) = used(&bench).await?;
    let shown = process::shown_of_children()?;
    drop(pair);
    ensure(!shown.contains(&password), || "a process that it has started shows it".into())
}

async fn words(bench: Bench) -> Result<(), Finding> {
    let (pair, channel, password) = used(&bench).await?;
    for party in pair.parties() {
        let module = party.module()?;
        let mut words = vec![format!("{:?}", module.describe(channel).await?)];
        words.push(format!("{:?}", health(module).await?));
        if party.role == Role::Client {
            // With nobody there, a start says why it failed.
            let core = crate::core::Act::Refuse(privatix_plugin_api::message::ErrorName::Internal);
            party.script.set(None, core, u64::MAX);
            if let Err(error) = module.start(channel).await {
                words.push(crate::chain(&error));
            }
            party.script.clear();
        }
        for text in words {
            ensure(!text.contains(&password), || {
                format!("the {} says: {}", party.role, text.replace(&password, "(the password)"))
            })?;
        }
    }
    Ok(())
}

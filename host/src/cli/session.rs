//! `privatix session`.

use std::path::Path;

use clap::Subcommand;

use super::{host, output};
use crate::clock;
use crate::service::SessionView;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The sessions of a channel, oldest first
    List {
        /// The channel's id
        channel: String,
    },
}

pub(super) async fn run(command: Command, home: &Path, json: bool) -> anyhow::Result<()> {
    let Command::List { channel } = command;
    let path = format!("/v1/channels/{}/sessions", output::segment(&channel));
    let sessions: Vec<SessionView> = host(home)?.get(&path).await?;
    if json {
        return output::json(&sessions);
    }
    let now = clock::unix_now();
    let rows: Vec<Vec<String>> = sessions
        .iter()
        .map(|session| {
            let ended = session.stopped_at.map_or_else(|| "open".into(), |at| output::ago(at, now));
            vec![
                session.id.to_string(),
                output::ago(session.started_at, now),
                ended,
                session.usage.to_string(),
            ]
        })
        .collect();
    output::table(&["SESSION", "STARTED", "ENDED", "USAGE"], &rows)
}

//! `privatix session`.

use std::path::Path;

use clap::Subcommand;

use super::paging::Paging;
use super::{host, output};
use privatix_base::clock;
use privatix_core::SessionView;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the sessions of a channel, oldest first
    List {
        /// The channel's whole id, as `channel list` shows it
        channel: String,
        #[command(flatten)]
        paging: Paging,
    },
}

pub(super) async fn run(command: Command, home: &Path, json: bool) -> anyhow::Result<()> {
    let Command::List { channel, paging } = command;
    let path = format!("/v1/channels/{}/sessions", output::segment(&channel));
    let id = |session: &SessionView| session.id.to_string();
    let sessions = paging.read(&host(home)?, &path, id).await?;
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

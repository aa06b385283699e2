//! `privatix channel`.

use std::path::Path;

use clap::Subcommand;
use privatix_plugin_api::message::Status;

use super::paging::Paging;
use super::{host, money, output};
use privatix_base::clock::{self, UnixSeconds};
use privatix_core::ChannelView;
use privatix_domain::present::Line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List channels, newest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show one channel: status, holds, usage, money and history
    Show {
        /// The channel's whole id, as `channel list` shows it
        id: String,
    },
    /// Client: show the access message
    Access {
        /// The channel's whole id, as `channel list` shows it
        id: String,
        /// Show the password too
        #[arg(long)]
        reveal: bool,
    },
    /// Suspend a channel until it is resumed
    Suspend {
        /// The channel's whole id, as `channel list` shows it
        id: String,
    },
    /// Resume a suspended channel
    Resume {
        /// The channel's whole id, as `channel list` shows it
        id: String,
    },
    /// End a channel for good
    Terminate {
        /// The channel's whole id, as `channel list` shows it
        id: String,
    },
}

pub(super) async fn run(command: Command, home: &Path, json: bool) -> anyhow::Result<()> {
    let host = host(home)?;
    let path = |id: &str, what: &str| format!("/v1/channels/{}{what}", output::segment(id));
    let channel: ChannelView = match &command {
        Command::List { paging } => {
            let id = |channel: &ChannelView| channel.id.to_string();
            let channels = paging.read(&host, "/v1/channels", id).await?;
            return if json { output::json(&channels) } else { list(&channels) };
        }
        Command::Access { id, reveal } => {
            let lines: Vec<Line> = host.get(&path(id, &format!("/access?reveal={reveal}"))).await?;
            return if json { output::json(&lines) } else { output::lines(&lines) };
        }
        Command::Show { id } => host.get(&path(id, "")).await?,
        Command::Suspend { id } => host.post(&path(id, "/suspend"), &()).await?,
        Command::Resume { id } => host.post(&path(id, "/resume"), &()).await?,
        Command::Terminate { id } => host.post(&path(id, "/terminate"), &()).await?,
    };
    if json { output::json(&channel) } else { output::block(&show(&channel)) }
}

fn list(channels: &[ChannelView]) -> anyhow::Result<()> {
    let now = clock::unix_now();
    let rows: Vec<Vec<String>> = channels
        .iter()
        .map(|channel| {
            vec![
                channel.id.to_string(),
                channel.product.clone(),
                channel.status.to_string(),
                if channel.holds.is_empty() { "-".into() } else { channel.holds.join(",") },
                output::ago(channel.since, now),
                channel.usage.to_string(),
                channel.money.as_ref().map_or_else(|| "-".into(), |money| money.cost.to_string()),
                channel.money.as_ref().map_or_else(|| "-".into(), |money| money.paid.to_string()),
            ]
        })
        .collect();
    output::table(
        &["CHANNEL", "PRODUCT", "STATUS", "HOLDS", "SINCE", "USAGE", "COST", "PAID"],
        &rows,
    )
}

fn show(channel: &ChannelView) -> Vec<String> {
    let now = clock::unix_now();
    let mut holds = if channel.holds.is_empty() { "none".into() } else { channel.holds.join(", ") };
    if let Some(at) = channel.retry_at {
        holds += &format!(" (started again in {})", output::ago(now, at));
    }
    let mut lines = vec![
        format!("channel   {}", channel.id),
        format!("product   {}", channel.product),
        format!(
            "status    {} for {} ({})",
            channel.status,
            output::ago(channel.since, now),
            channel.reason
        ),
        format!("holds     {holds}"),
        format!("usage     {}", channel.usage),
        format!("access    message {}", channel.access_serial),
        format!("offering  {}", channel.offering),
        format!("peer      {}", channel.peer),
    ];
    if let Some(progress) = &channel.progress {
        let ago = output::ago(progress.at, now);
        lines.push(format!("contact   {} ({ago} ago)", progress.text));
    }
    if let Some(trouble) = &channel.trouble {
        let ago = output::ago(trouble.at, now);
        let over = if channel.status == Status::Active { ", over" } else { "" };
        lines.push(format!("trouble   {} ({ago} ago{over})", trouble.reason));
    }
    let money = money::lines(channel, now).into_iter();
    lines.extend(money.map(|(name, text)| format!("{name:<8}  {text}")));
    lines.extend(channel.service.iter().map(|(name, value)| format!("{name:<8}  {value}")));
    lines.extend(history(channel, now));
    lines
}

/// What became of the channel, oldest first.
fn history(channel: &ChannelView, now: UnixSeconds) -> impl Iterator<Item = String> {
    channel.history.iter().enumerate().map(move |(number, change)| {
        let name = if number == 0 { "history" } else { "" };
        let plus = if change.holds.is_empty() { "" } else { "+" };
        let state = format!("{}{plus}{}", change.status, change.holds.join(","));
        format!("{name:<8}  {:>4} ago  {state:<18}  {}", output::ago(change.at, now), change.reason)
    })
}

//! `privatix cheque`. `verify` needs neither a running host nor a home.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use privatix_plugin_api::files::NewFile;
use privatix_plugin_api::json;
use serde_json::Value;

use super::paging::Paging;
use super::{host, output};
use privatix_base::clock;
use privatix_core::ChequeView;
use privatix_domain::cheque::{Bundle, Verified, verify};
use privatix_operator::client::Client;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the best cheque of each channel, newest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Export the best cheque of each channel with its signed proofs, as JSON, for settlement
    Export {
        /// Write to this new file instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Verify exported cheques. Works without a running host
    Verify {
        /// The file that `cheque export` wrote; `-` reads standard input
        file: PathBuf,
    },
}

pub(super) async fn run(command: Command, home: &Path, json: bool) -> anyhow::Result<()> {
    match command {
        Command::List { paging } => {
            let channel = |cheque: &ChequeView| cheque.channel.to_string();
            let cheques = paging.read(&host(home)?, "/v1/cheques", channel).await?;
            if json { output::json(&cheques) } else { list(&cheques) }
        }
        Command::Export { out } => {
            let host = host(home)?;
            let Some(path) = out else { return export(&host, output::raw).await };
            let at = || format!("writing {}", path.display());
            let mut file = NewFile::begin(&path).with_context(at)?;
            export(&host, |piece| file.write_all(piece).with_context(at)).await?;
            file.finish().with_context(at)
        }
        Command::Verify { file } => {
            let verified = verified(&read(&file)?)?;
            if json { output::json(&verified) } else { table(&verified) }
        }
    }
}

fn list(cheques: &[ChequeView]) -> anyhow::Result<()> {
    let now = clock::unix_now();
    let rows: Vec<Vec<String>> = cheques
        .iter()
        .map(|cheque| {
            let note = match (&cheque.retry, cheque.unsent) {
                (Some(retry), _) => format!(
                    "sent {} times in vain, again in {}: {}",
                    retry.attempts,
                    output::ago(now, retry.at),
                    retry.trouble
                ),
                (None, true) => "being sent".into(),
                (None, false) => "-".into(),
            };
            vec![
                cheque.channel.to_string(),
                cheque.balance.to_string(),
                cheque.deposit.to_string(),
                output::ago(cheque.made_at, now),
                note,
            ]
        })
        .collect();
    output::table(&["CHANNEL", "BALANCE", "DEPOSIT", "AGE", "NOTE"], &rows)
}

/// Writes all bundles as one JSON array, page by page, so that nobody has to hold all of them;
/// nothing where not even the first is answered.
async fn export(
    host: &Client,
    mut write: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut after: Option<String> = None;
    loop {
        let page = after.as_ref().map(|after| format!("?after={after}")).unwrap_or_default();
        let bundles: Vec<Bundle> = host.get(&format!("/v1/cheques/bundles{page}")).await?;
        for bundle in &bundles {
            let begin = if after.is_none() { "[\n" } else { ",\n" };
            let text = begin.to_owned() + &serde_json::to_string_pretty(bundle)?;
            write(text.replace('\n', "\n  ").as_bytes())?;
            let channel = bundle.cheque.get("channel").and_then(Value::as_str);
            after = Some(channel.context("the host sent a cheque without a channel")?.to_owned());
        }
        if bundles.is_empty() {
            return write(if after.is_none() { b"[]\n" } else { b"\n]\n" });
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<Bundle>> {
    let shown = path.display();
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .take(MAX_FILE + 1)
            .read_to_end(&mut text)
            .context("reading standard input")?;
    } else {
        let regular = fs::metadata(path).with_context(|| format!("reading {shown}"))?.is_file();
        ensure!(regular, "{shown} is no file");
        let file = File::open(path).with_context(|| format!("reading {shown}"))?;
        file.take(MAX_FILE + 1)
            .read_to_end(&mut text)
            .with_context(|| format!("reading {shown}"))?;
    }
    ensure!(text.len() as u64 <= MAX_FILE, "{shown} has more than {MAX_FILE} bytes");
    let value = json::parse(&text).with_context(|| format!("{shown} is not what was exported"))?;
    let bundles = match value {
        Value::Array(bundles) => bundles,
        one => vec![one],
    };
    let bundles = bundles.into_iter().enumerate().map(|(index, bundle)| {
        let place = format!("{shown}: entry {}: not what was exported", index + 1);
        serde_json::from_value(bundle).context(place)
    });
    bundles.collect()
}

/// All of them, or the first that proves nothing.
fn verified(bundles: &[Bundle]) -> anyhow::Result<Vec<Verified>> {
    let mut verified: Vec<Verified> = Vec::new();
    for (index, bundle) in bundles.iter().enumerate() {
        let checked = verify(bundle)
            .map_err(|error| {
                anyhow::anyhow!("{} ({})", privatix_plugin_api::chain(&error), error.code())
            })
            .with_context(|| format!("entry {} proves nothing", index + 1))?;
        if verified.iter().any(|known| known.channel == checked.channel) {
            bail!("entry {}: channel {} is there already", index + 1, checked.channel);
        }
        verified.push(checked);
    }
    Ok(verified)
}

fn table(verified: &[Verified]) -> anyhow::Result<()> {
    let rows: Vec<Vec<String>> = verified
        .iter()
        .map(|cheque| {
            vec![
                cheque.channel.to_string(),
                cheque.client.fingerprint(),
                cheque.agent.fingerprint(),
                cheque.balance.to_string(),
            ]
        })
        .collect();
    let sum: u128 = verified.iter().map(|cheque| u128::from(cheque.balance)).sum();
    output::table(&["CHANNEL", "CLIENT", "AGENT", "BALANCE"], &rows)?;
    output::text(&format!("All are good: {sum} in all."))
}

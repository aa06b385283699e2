//! Lists in pages: what to show of them, and the way to all of it.

use clap::Args;
use serde::de::DeserializeOwned;

use super::output;
use privatix_core::MAX_PAGE;
use privatix_operator::client::Client;

#[derive(Debug, Args)]
pub(super) struct Paging {
    /// Show only entries with this status
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Show at most this many entries
    #[arg(long, value_name = "NUMBER", default_value_t = MAX_PAGE,
          value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Begin after the entry with this id or hash
    #[arg(long, value_name = "ENTRY")]
    after: Option<String>,
    /// Show all entries
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl Paging {
    /// Reads what was asked for, page by page, and says where it stopped.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        host: &Client,
        path: &str,
        name: impl Fn(&T) -> String,
    ) -> anyhow::Result<Vec<T>> {
        let mut entries: Vec<T> = Vec::new();
        let mut after = self.after.clone();
        let most = if self.all { usize::MAX } else { usize::try_from(self.limit)? };
        loop {
            let wanted = u32::try_from(most - entries.len()).unwrap_or(MAX_PAGE).min(MAX_PAGE);
            // Where enough is there, one more tells whether that was all.
            let page: Vec<T> =
                host.get(&self.request(path, after.as_deref(), wanted.max(1))).await?;
            if wanted == 0 {
                if let (Some(last), false) = (entries.last(), page.is_empty()) {
                    let last = name(last);
                    output::note(&format!("there are more: --after {last}, or --all"));
                }
                return Ok(entries);
            }
            let is_last = page.len() < usize::try_from(wanted)?;
            after = page.last().map(&name).or(after);
            entries.extend(page);
            if is_last {
                return Ok(entries);
            }
        }
    }

    fn request(&self, path: &str, after: Option<&str>, limit: u32) -> String {
        let mut request = format!("{path}?limit={limit}");
        for (key, value) in [("status", self.status.as_deref()), ("after", after)] {
            if let Some(value) = value {
                request.push_str(&format!("&{key}={}", output::segment(value)));
            }
        }
        request
    }
}

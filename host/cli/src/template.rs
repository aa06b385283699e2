//! `privatix template`.

use std::path::Path;

use anyhow::bail;
use clap::Subcommand;

use super::{host, output};
use privatix_base::clock;
use privatix_core::TemplateView;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List registered templates
    List,
    /// Print one template as JSON
    Show {
        /// The template's hash or the beginning of it
        hash: String,
    },
}

pub(super) async fn run(command: Command, home: &Path, json: bool) -> anyhow::Result<()> {
    match command {
        Command::List => {
            let templates: Vec<TemplateView> = host(home)?.get("/v1/templates").await?;
            if json { output::json(&templates) } else { list(&templates) }
        }
        Command::Show { hash } => {
            if hash.is_empty() || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                bail!("{hash:?} is no beginning of a template's hash (0-9, a-f)");
            }
            let path = format!("/v1/templates/{}", hash.to_ascii_lowercase());
            let template: TemplateView = host(home)?.get(&path).await?;
            if json { output::json(&template) } else { output::json(&template.document) }
        }
    }
}

fn list(templates: &[TemplateView]) -> anyhow::Result<()> {
    let now = clock::unix_now();
    let rows: Vec<Vec<String>> = templates
        .iter()
        .map(|template| {
            vec![
                template.hash.clone(),
                template.kind.clone(),
                output::ago(template.registered_at, now),
                template.title.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(&["HASH", "KIND", "AGE", "TITLE"], &rows)
}

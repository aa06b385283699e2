//! `privatix offering`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use privatix_plugin_api::json;
use serde_json::{Map, Value};

use super::paging::Paging;
use super::{host, output};
use privatix_base::clock;
use privatix_core::{Draft, IdentityView, OfferingView};
use privatix_domain::code::Code;
use privatix_domain::present::Line;
use privatix_operator::client::Client;
use privatix_operator::trade::{Fetch, Fetched};

/// How long an agent's pages may take, each of which has a time-out of its own.
const FETCH: Duration = Duration::from_secs(330);

/// Refusals of offerings that are for another module than those here, or than the one chosen.
const ELSEWHERE: [Code; 2] = [Code::UnknownProduct, Code::WrongProduct];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List offerings, newest first: an agent's own, or those that a client has fetched
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show one offering
    Show {
        /// The offering's hash or the beginning of it
        hash: String,
    },
    /// Agent: create, sign and publish an offering
    Create {
        /// The name of the module to sell
        product: String,
        /// A JSON file with fields of the offering template
        #[arg(long, value_name = "FILE")]
        fields: Option<PathBuf>,
        /// Set one field. A value that is not JSON is taken as text
        #[arg(long = "set", value_name = "NAME=VALUE")]
        set: Vec<String>,
    },
    /// Agent: withdraw an offering. Its channels go on; new orders are refused
    Withdraw {
        /// The offering's hash or the beginning of it
        hash: String,
    },
    /// Client: fetch an agent's offerings
    Fetch {
        /// The agent's URL
        url: String,
        /// The fingerprint of the agent's key. Without it, the command asks on a terminal
        #[arg(long, value_name = "FINGERPRINT")]
        agent: Option<String>,
        /// The module to use, if several modules have the offering's templates
        #[arg(long, value_name = "NAME")]
        product: Option<String>,
    },
}

pub(super) async fn run(command: Command, home: &Path, json: bool) -> anyhow::Result<()> {
    let host = host(home)?;
    match command {
        Command::List { paging } => {
            let hash = |offering: &OfferingView| offering.hash.clone();
            let offerings = paging.read(&host, "/v1/offerings", hash).await?;
            if json { output::json(&offerings) } else { list(&offerings) }
        }
        Command::Show { hash } => {
            let hash = output::segment(&hash);
            if json {
                let offering: OfferingView = host.get(&format!("/v1/offerings/{hash}")).await?;
                return output::json(&offering);
            }
            let lines: Vec<Line> = host.get(&format!("/v1/offerings/{hash}/lines")).await?;
            output::lines(&lines)
        }
        Command::Create { product, fields, set } => {
            let draft = Draft { product, fields: draft(fields.as_deref(), &set)? };
            let offering: OfferingView = host.post("/v1/offerings", &draft).await?;
            if json { output::json(&offering) } else { output::text(&offering.hash) }
        }
        Command::Withdraw { hash } => {
            let path = format!("/v1/offerings/{}/withdraw", output::segment(&hash));
            let offering: OfferingView = host.post(&path, &()).await?;
            if json { output::json(&offering) } else { output::text(&offering.hash) }
        }
        Command::Fetch { url, agent, product } => {
            // One that does not answer at all is found out sooner.
            let _: IdentityView = host.get("/v1/identity").await?;
            // The host follows all of an agent's pages.
            fetch(&host.patient(FETCH), url, agent, product, json).await
        }
    }
}

async fn fetch(
    host: &Client,
    url: String,
    agent: Option<String>,
    product: Option<String>,
    json: bool,
) -> anyhow::Result<()> {
    let agent = match agent {
        Some(agent) => agent,
        None => confirm(host, &url).await?,
    };
    let fetch = Fetch { url, agent: Some(agent), product };
    let fetched: Fetched = host.post("/v1/offerings/fetch", &fetch).await?;
    if json {
        output::json(&fetched)?;
    } else {
        list(&fetched.offerings)?;
    }
    // An agent may well sell what this host has no use for.
    let (others, refused): (Vec<_>, Vec<_>) =
        fetched.refused.iter().partition(|refused| refused.code.is_one_of(&ELSEWHERE));
    if let Some(first) = refused.first().or(others.first().filter(|_| fetched.offerings.is_empty()))
    {
        let all = fetched.refused.len();
        bail!("{all} of the offerings at this URL were refused. The first: {first}");
    }
    if let Some(first) = others.first() {
        let all = others.len();
        output::note(&format!("{all} more offerings were left out. The first: {first}"));
    }
    Ok(())
}

/// On first use a person compares the fingerprint with what the agent has told them.
async fn confirm(host: &Client, url: &str) -> anyhow::Result<String> {
    let look = Fetch { url: url.to_owned(), agent: None, product: None };
    let fetched: Fetched = host.post("/v1/offerings/fetch", &look).await?;
    if fetched.agents.is_empty() {
        bail!("there are no offerings at {url}");
    }
    let [agent] = fetched.agents.as_slice() else {
        bail!(
            "{} agents have signed the offerings at {url}; name one with --agent",
            fetched.agents.len()
        );
    };
    if !io::stdin().is_terminal() {
        bail!(
            "the agent at {url} has the fingerprint {agent}; compare it with what the agent has \
               told you, and give it with --agent"
        );
    }
    let mut out = io::stderr().lock();
    write!(
        out,
        "The agent at {url} has the fingerprint\n  {agent}\nIs that what it has told you? [y/N] "
    )?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was fetched");
    }
    Ok(agent.clone())
}

fn draft(file: Option<&Path>, set: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut fields = match file {
        None => Map::new(),
        Some(path) => {
            let text =
                std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            let value = json::parse(&text).with_context(|| path.display().to_string())?;
            match value {
                Value::Object(fields) => fields,
                _ => bail!("{} holds no JSON object", path.display()),
            }
        }
    };
    for pair in set {
        let (name, value) =
            pair.split_once('=').with_context(|| format!("{pair:?} is not NAME=VALUE"))?;
        let value = json::parse(value.as_bytes()).unwrap_or_else(|_| value.into());
        fields.insert(name.to_owned(), value);
    }
    Ok(fields)
}

fn list(offerings: &[OfferingView]) -> anyhow::Result<()> {
    let now = clock::unix_now();
    let rows: Vec<Vec<String>> = offerings
        .iter()
        .map(|offering| {
            let field = |name: &str| match offering.message.get(name) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => "-".into(),
            };
            vec![
                offering.hash.clone(),
                offering.product.clone(),
                field("serviceName"),
                field("country"),
                if offering.withdrawn_at.is_some() {
                    "withdrawn".into()
                } else {
                    offering.supply_left.to_string()
                },
                output::ago(offering.made_at, now),
                offering.agent.chars().take(16).collect(),
            ]
        })
        .collect();
    output::table(&["HASH", "PRODUCT", "SERVICE", "COUNTRY", "SUPPLY LEFT", "AGE", "AGENT"], &rows)
}

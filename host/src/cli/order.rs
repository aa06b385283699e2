//! `privatix order`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, Subcommand};

use super::{host, output};
use crate::clock;
use crate::operator::trade::NewOrder;
use crate::service::OrderView;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(super) struct Order {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    new: Option<New>,
}

#[derive(Debug, Args)]
struct New {
    /// Client: the offering to accept, by its hash or a beginning of it
    offering: String,
    /// What may be spent at most; the least that the offering allows if it is not given
    #[arg(long)]
    deposit: Option<u64>,
    /// Let the channel wait until it is resumed
    #[arg(long)]
    hold: bool,
    /// How long to wait for the agent's answer, in seconds
    #[arg(long, default_value_t = 30)]
    wait: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All orders, received or sent
    List,
    /// Agent: accept an order that waits
    Accept {
        /// Its hash, or a beginning of it
        hash: String,
    },
    /// Agent: refuse an order that waits
    Reject {
        /// Its hash, or a beginning of it
        hash: String,
    },
}

pub(super) async fn run(order: Order, home: &Path, json: bool) -> anyhow::Result<()> {
    match (order.command, order.new) {
        (Some(Command::List), _) => {
            let orders: Vec<OrderView> = host(home)?.get("/v1/orders").await?;
            if json { output::json(&orders) } else { list(&orders) }
        }
        (Some(Command::Accept { hash }), _) => decide(home, &hash, "accept", json).await,
        (Some(Command::Reject { hash }), _) => decide(home, &hash, "reject", json).await,
        (None, Some(new)) => make(home, new, json).await,
        (None, None) => bail!("an offering to order is missing"),
    }
}

async fn decide(home: &Path, hash: &str, what: &str, json: bool) -> anyhow::Result<()> {
    let path = format!("/v1/orders/{}/{what}", output::segment(hash));
    let order: OrderView = host(home)?.post(&path, &()).await?;
    if json { output::json(&order) } else { list(&[order]) }
}

/// Makes an order and waits for the agent's answer; the node goes on sending it in any case.
async fn make(home: &Path, new: New, json: bool) -> anyhow::Result<()> {
    let host = host(home)?;
    let order = NewOrder { offering: new.offering, deposit: new.deposit, hold: new.hold };
    let mut order: OrderView = host.post("/v1/orders", &order).await?;
    let until = Instant::now() + Duration::from_secs(new.wait);
    while order.state == "waiting" && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        order = host.get(&format!("/v1/orders/{}", order.hash)).await?;
    }
    if json {
        output::json(&order)?;
    }
    match (order.state.as_str(), order.channel) {
        ("accepted", Some(channel)) if !json => output::text(&channel.to_string()),
        ("accepted", _) => Ok(()),
        ("rejected", _) => bail!("the agent refused the order; the log of this node says why"),
        _ => bail!(
            "the agent has not answered within {} s; the order {} is sent on until it does",
            new.wait,
            order.hash
        ),
    }
}

fn list(orders: &[OrderView]) -> anyhow::Result<()> {
    let now = clock::unix_now();
    let rows: Vec<Vec<String>> = orders
        .iter()
        .map(|order| {
            vec![
                order.hash.clone(),
                order.state.clone(),
                output::ago(order.created_at, now),
                order.channel.map_or_else(|| "-".into(), |channel| channel.to_string()),
                order.client.chars().take(16).collect(),
            ]
        })
        .collect();
    output::table(&["HASH", "STATE", "SINCE", "CHANNEL", "CLIENT"], &rows)
}

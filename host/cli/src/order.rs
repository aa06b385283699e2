//! `privatix order`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use privatix_plugin_api::message::{ClientKey, Status};
use serde::de::DeserializeOwned;

use super::paging::Paging;
use super::progress::Progress;
use super::{host, output};
use privatix_base::clock;
use privatix_core::{ChannelView, Obstacle, OrderView};
use privatix_operator::client::{Client, ClientError};
use privatix_operator::trade::NewOrder;

/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// So much of a hash is shown to a person.
const SHORT: usize = 16;

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
    /// Client: the hash of the offering to order, or the beginning of it
    offering: String,
    /// The most that may be spent on the channel [default: the least that the offering allows]
    #[arg(long)]
    deposit: Option<u64>,
    /// Create the channel with the hold `user`: it waits for `channel resume`
    #[arg(long)]
    hold: bool,
    /// Seconds to wait for the agent's answer and for the service. With --json, for the answer
    /// only
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    wait: u64,
    /// Do not wait; print the order's hash
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List orders, received or sent, newest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show one order and what it waits for
    Show {
        /// The order's hash or the beginning of it
        hash: String,
    },
    /// Agent: accept a waiting order
    Accept {
        /// The order's hash or the beginning of it
        hash: String,
    },
    /// Agent: reject a waiting order
    Reject {
        /// The order's hash or the beginning of it
        hash: String,
    },
    /// Client: cancel an order that the agent has not accepted yet
    Cancel {
        /// The order's hash or the beginning of it
        hash: String,
        /// Seconds to wait for the agent's answer
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        wait: u64,
    },
}

pub(super) async fn run(order: Order, home: &Path, json: bool) -> anyhow::Result<()> {
    match (order.command, order.new) {
        (Some(Command::List { paging }), _) => {
            let hash = |order: &OrderView| order.hash.clone();
            let orders = paging.read(&host(home)?, "/v1/orders", hash).await?;
            if json { output::json(&orders) } else { list(&orders) }
        }
        (Some(Command::Show { hash }), _) => {
            let path = format!("/v1/orders/{}", output::segment(&hash));
            let order: OrderView = host(home)?.get(&path).await?;
            if json { output::json(&order) } else { output::block(&show(&order)) }
        }
        (Some(Command::Accept { hash }), _) => decide(home, &hash, "accept", json).await,
        (Some(Command::Reject { hash }), _) => decide(home, &hash, "reject", json).await,
        (Some(Command::Cancel { hash, wait }), _) => cancel(home, &hash, wait, json).await,
        (None, Some(new)) => make(home, new, json).await,
        (None, None) => bail!("an offering to order is missing"),
    }
}

async fn decide(home: &Path, hash: &str, what: &str, json: bool) -> anyhow::Result<()> {
    let path = format!("/v1/orders/{}/{what}", output::segment(hash));
    let order: OrderView = host(home)?.post(&path, &()).await?;
    if json { output::json(&order) } else { list(&[order]) }
}

/// Cancels an order and waits until its agent knows; the host goes on in any case.
async fn cancel(home: &Path, hash: &str, wait: u64, json: bool) -> anyhow::Result<()> {
    let host = host(home)?;
    let path = format!("/v1/orders/{}/cancel", output::segment(hash));
    let mut order: OrderView = host.post(&path, &()).await?;
    let mut progress = Progress::new(json);
    let until = Instant::now() + Duration::from_secs(wait);
    while order.state == "cancelling" && Instant::now() < until {
        progress.wait(&waiting(&order));
        tokio::time::sleep(PAUSE).await;
        order = host.get(&format!("/v1/orders/{}", order.hash)).await?;
    }
    drop(progress);
    match order.state.as_str() {
        "accepted" => bail!(
            "the agent accepted the order before it was cancelled. The host ends the channel{}",
            order.channel.map(|id| format!(": privatix channel show {id}")).unwrap_or_default()
        ),
        "rejected" => bail!("the agent refused the order before it was cancelled"),
        "cancelled" => {}
        _ => {
            let (why, short) = (waiting(&order), look_at_order(&order.hash));
            output::note(&format!(
                "the agent has not heard of the cancellation yet: {why}. {short}"
            ));
        }
    }
    if json { output::json(&order) } else { list(&[order]) }
}

/// Makes an order and waits for the agent's answer. The host keeps trying when the command ends.
async fn make(home: &Path, new: New, json: bool) -> anyhow::Result<()> {
    let host = host(home)?;
    let order = NewOrder { offering: new.offering, deposit: new.deposit, hold: new.hold };
    let order: OrderView = host.post("/v1/orders", &order).await?;
    if new.no_wait {
        return if json { output::json(&order) } else { output::text(&order.hash) };
    }
    let hash = order.hash.clone();
    let mut watch = Watch {
        host,
        until: Instant::now() + Duration::from_secs(new.wait),
        wait: new.wait,
        json,
        progress: Progress::new(json),
        channel: None,
    };
    let interrupted = tokio::signal::ctrl_c();
    let ended = tokio::select! {
        ended = watch.follow(order) => return ended,
        ended = interrupted => ended,
    };
    ended.context("listening for Ctrl-C")?;
    match watch.channel {
        Some(channel) => bail!("interrupted. {}", look_at_channel(channel)),
        None => bail!("interrupted. {}", look_at_order(&hash)),
    }
}

fn look_at_order(hash: &str) -> String {
    let short = &hash[..hash.len().min(SHORT)];
    format!(
        "The host keeps trying. To look: privatix order show {short}. To give up: privatix order \
         cancel {short}"
    )
}

fn look_at_channel(channel: ClientKey) -> String {
    format!(
        "The channel exists and the host keeps trying. To look: privatix channel show {channel}"
    )
}

/// Somebody waits for an order.
struct Watch {
    host: Client,
    until: Instant,
    wait: u64,
    json: bool,
    progress: Progress,
    channel: Option<ClientKey>,
}

impl Watch {
    async fn follow(&mut self, order: OrderView) -> anyhow::Result<()> {
        self.progress.done(&format!("order {} made", &order.hash[..order.hash.len().min(SHORT)]));
        let order = self.answered(order).await?;
        if self.json {
            output::json(&order)?;
        }
        match (order.state.as_str(), order.channel) {
            ("accepted", _) if self.json => Ok(()),
            ("accepted", Some(channel)) => {
                self.channel = Some(channel);
                self.progress.done("the agent accepted it");
                self.progress.aside(|| output::text(&channel.to_string()))?;
                self.usable(channel, &order.hash).await
            }
            ("cancelled" | "cancelling", _) => bail!("the order was cancelled"),
            ("rejected", _) => match order.refusal {
                Some(refusal) => bail!("the agent refused the order: {refusal}"),
                None => bail!("the agent refused the order"),
            },
            _ => bail!(
                "the agent has not accepted the order within {} s: {}. {}",
                self.wait,
                waiting(&order),
                look_at_order(&order.hash)
            ),
        }
    }

    /// Asks the host; while there is time, one that does not answer is asked again.
    async fn ask<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        loop {
            match self.host.get(path).await {
                Err(ClientError::NoAnswer { .. }) if Instant::now() < self.until => {
                    self.progress.wait("the host does not answer; asking again");
                }
                answered => return answered,
            }
        }
    }

    /// The order with the agent's answer, or as it is when there is no more time.
    async fn answered(&mut self, mut order: OrderView) -> anyhow::Result<OrderView> {
        while order.state == "waiting" && Instant::now() < self.until {
            self.progress.wait(&waiting(&order));
            tokio::time::sleep(PAUSE).await;
            order = self.ask(&format!("/v1/orders/{}", order.hash)).await?;
        }
        Ok(order)
    }

    /// Until the channel can be used, or there is no more time, which is no failure: it is there.
    async fn usable(&mut self, channel: ClientKey, order: &str) -> anyhow::Result<()> {
        let mut received = false;
        loop {
            let view: ChannelView = self.ask(&format!("/v1/channels/{channel}")).await?;
            if view.access_serial > 0 && !received {
                received = true;
                self.progress.done("access message received");
            }
            let what = match view.status {
                Status::Active => {
                    let service =
                        view.service.iter().map(|(name, value)| format!(" {name} {value}"));
                    self.progress.done(&format!("active{}", service.collect::<String>()));
                    return Ok(());
                }
                Status::Suspended if view.holds == ["user"] => {
                    let resume = format!("on hold until: privatix channel resume {channel}");
                    self.progress.done(&resume);
                    return Ok(());
                }
                Status::Terminating | Status::Terminated => {
                    bail!("the channel is over: {}", view.reason)
                }
                Status::Pending => {
                    let order: OrderView = self.ask(&format!("/v1/orders/{order}")).await?;
                    let trouble = order.progress.map(|progress| format!(": {}", progress.text));
                    format!("waiting for the access message{}", trouble.unwrap_or_default())
                }
                Status::Activating => "the module starts the service".to_owned(),
                _ => format!("{}: {}", view.status, view.reason),
            };
            if Instant::now() >= self.until {
                self.progress.done(&format!("not active within {} s: {what}", self.wait));
                self.progress.done(&look_at_channel(channel));
                return Ok(());
            }
            self.progress.wait(&what);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What an order without an answer waits for.
fn waiting(order: &OrderView) -> String {
    match &order.progress {
        None if order.state == "cancelling" => "telling the agent".to_owned(),
        None => "sending the order to the agent".to_owned(),
        Some(progress) => match progress.obstacle {
            Obstacle::Unreached => format!("{}; the host keeps trying", progress.text),
            Obstacle::NotNow => format!("not yet: {}; the host keeps trying", progress.text),
            Obstacle::Deciding => "waiting for the agent's operator to decide".to_owned(),
        },
    }
}

fn show(order: &OrderView) -> Vec<String> {
    let now = clock::unix_now();
    let state = match order.state.as_str() {
        "waiting" | "cancelling" if order.progress.is_some() => {
            format!("{}: {}", order.state, waiting(order))
        }
        state => state.to_owned(),
    };
    let mut lines = vec![
        format!("order     {}", order.hash),
        format!("offering  {}", order.offering),
        format!("client    {}", order.client),
        format!("made      {} ago", output::ago(order.created_at, now)),
        format!("state     {state}"),
    ];
    lines.extend(order.channel.map(|channel| format!("channel   {channel}")));
    lines.extend(order.refusal.as_ref().map(|refusal| format!("refused   {refusal}")));
    lines
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
    output::table(&["HASH", "STATE", "AGE", "CHANNEL", "CLIENT"], &rows)
}

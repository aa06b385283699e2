//! Requests that only a client's host answers.

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::api::{Answer, Api, Channel, Client};
use super::trade::{Fetch, Fetched, NewOrder};
use privatix_core::{OrderView, Refused, Source};
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::present::Line;
use privatix_domain::time::complaint;
use privatix_exchange::peer::Offerings;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/offerings/fetch", post(offering_fetch))
        .route("/v1/orders", post(order_make))
        .route("/v1/orders/{hash}/cancel", post(order_cancel))
        .route("/v1/channels/{id}/access", get(channel_access))
}

async fn offering_fetch(
    State(api): State<Api>,
    Client(client): Client,
    Json(fetch): Json<Fetch>,
) -> Answer<Fetched> {
    let url = fetch.url.trim_end_matches('/');
    let found = api.peer.offerings(url).await;
    let found = found
        .map_err(|error| Refused::new(Code::NotFetched, privatix_plugin_api::chain(&error)))?;
    let mut fetched = Fetched { agents: Vec::new(), offerings: Vec::new(), refused: Vec::new() };
    if !found.all {
        let text = format!("there are more than the first {}", found.messages.len());
        fetched.refused.push(Refused::new(Code::TooManyOfferings, text));
    }
    check_clocks(&found, fetch.agent.as_deref())?;
    for message in found.messages {
        let Some(key) = signer(&message) else {
            fetched.refused.push(Refused::new(Code::BadOffering, "it names no agent's key"));
            continue;
        };
        let print = key.fingerprint();
        if !fetched.agents.contains(&print) {
            fetched.agents.push(print.clone());
        }
        match &fetch.agent {
            None => {}
            Some(agent) if *agent != print => {
                let text = format!("it is signed by {print}, not by the agent asked for");
                fetched.refused.push(Refused::new(Code::ForeignAgent, text));
            }
            Some(_) => {
                client.agent_pin(&key).await?;
                let from = Source { agent: &key, url, product: fetch.product.as_deref() };
                match client.offering_fetched(&message, from).await {
                    Ok(view) => fetched.offerings.push(view),
                    Err(refused) => fetched.refused.push(refused),
                }
            }
        }
    }
    Ok(Json(fetched))
}

/// Before anything is kept: what is ordered with clocks that differ comes to nothing.
fn check_clocks(found: &Offerings, agent: Option<&str>) -> Result<(), Refused> {
    let Some(heard) = &found.time else { return Ok(()) };
    let key = signer(&heard.message).filter(|key| agent.is_none_or(|a| a == key.fingerprint()));
    let complaint = key.and_then(|key| complaint(heard.ahead(&key)?));
    complaint.map_or(Ok(()), |text| Err(Refused::new(Code::ClocksDiffer, text)))
}

fn signer(message: &Value) -> Option<PublicKey> {
    message.get("agentPublicKey")?.as_str()?.parse().ok()
}

async fn order_make(Client(client): Client, Json(new): Json<NewOrder>) -> Answer<OrderView> {
    Ok(Json(client.order_make(&new.offering, new.deposit, new.hold).await?))
}

async fn order_cancel(Client(client): Client, Path(hash): Path<String>) -> Answer<OrderView> {
    Ok(Json(client.order_cancel(&hash).await?))
}

#[derive(Debug, Deserialize)]
struct Reveal {
    #[serde(default)]
    reveal: bool,
}

async fn channel_access(
    Channel(channel): Channel,
    Client(client): Client,
    Query(Reveal { reveal }): Query<Reveal>,
) -> Answer<Vec<Line>> {
    Ok(Json(client.channel_access(channel, reveal).await?))
}

//! Requests about identity, offerings, orders, channels, sessions and cheques.

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::{Api, Failure};
use privatix_core::{
    ChannelView, ChequeView, Draft, IdentityView, ListQuery, OfferingView, OrderView, Refused,
    SessionView, Source,
};
use privatix_domain::cheque::Bundle;
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::present::Line;
use privatix_domain::status::Event;
use privatix_domain::time::complaint;
use privatix_exchange::peer::Offerings;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/identity", get(identity))
        .route("/v1/offerings", get(offerings).post(offering_create))
        .route("/v1/offerings/fetch", post(offering_fetch))
        .route("/v1/offerings/{hash}", get(offering))
        .route("/v1/offerings/{hash}/lines", get(offering_lines))
        .route("/v1/offerings/{hash}/withdraw", post(offering_withdraw))
        .route("/v1/orders", get(orders).post(order_make))
        .route("/v1/orders/{hash}", get(order))
        .route("/v1/orders/{hash}/accept", post(order_accept))
        .route("/v1/orders/{hash}/reject", post(order_reject))
        .route("/v1/orders/{hash}/cancel", post(order_cancel))
        .route("/v1/channels", get(channels))
        .route("/v1/channels/{id}", get(channel))
        .route("/v1/channels/{id}/access", get(channel_access))
        .route("/v1/channels/{id}/sessions", get(sessions))
        .route("/v1/channels/{id}/suspend", post(suspend))
        .route("/v1/channels/{id}/resume", post(resume))
        .route("/v1/channels/{id}/terminate", post(terminate))
        .route("/v1/cheques", get(cheques))
        .route("/v1/cheques/bundles", get(cheque_bundles))
}

/// What to fetch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fetch {
    /// The agent's URL.
    pub url: String,
    /// The fingerprint of its key; without it, nothing is kept.
    pub agent: Option<String>,
    /// The module that the offerings are for; where absent, the one with their templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fetched {
    /// Fingerprints of the keys that the offerings there are signed with.
    pub agents: Vec<String>,
    /// What was kept.
    pub offerings: Vec<OfferingView>,
    /// Why others were not.
    pub refused: Vec<Refused>,
}

/// What to order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewOrder {
    /// The offering's hash, or a beginning of it.
    pub offering: String,
    /// What may be spent; the least that the offering allows where absent.
    pub deposit: Option<u64>,
    /// Whether the channel waits to be resumed.
    pub hold: bool,
}

type Answer<T> = Result<Json<T>, Failure>;

async fn identity(State(api): State<Api>) -> Json<IdentityView> {
    Json(api.service.identity_view())
}

async fn offerings(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<OfferingView>> {
    Ok(Json(api.service.offering_views(&query).await?))
}

async fn offering(State(api): State<Api>, Path(hash): Path<String>) -> Answer<OfferingView> {
    Ok(Json(api.service.offering_view(&hash).await?))
}

async fn offering_lines(State(api): State<Api>, Path(hash): Path<String>) -> Answer<Vec<Line>> {
    Ok(Json(api.service.offering_lines(&hash).await?))
}

async fn offering_create(State(api): State<Api>, Json(draft): Json<Draft>) -> Answer<OfferingView> {
    Ok(Json(api.service.offering_create(draft).await?))
}

async fn offering_withdraw(
    State(api): State<Api>,
    Path(hash): Path<String>,
) -> Answer<OfferingView> {
    Ok(Json(api.service.offering_withdraw(&hash).await?))
}

async fn offering_fetch(State(api): State<Api>, Json(fetch): Json<Fetch>) -> Answer<Fetched> {
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
                api.service.agent_pin(&key).await?;
                let from = Source { agent: &key, url, product: fetch.product.as_deref() };
                match api.service.offering_fetched(&message, from).await {
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

async fn orders(State(api): State<Api>, Query(query): Query<ListQuery>) -> Answer<Vec<OrderView>> {
    Ok(Json(api.service.order_views(&query).await?))
}

async fn order(State(api): State<Api>, Path(hash): Path<String>) -> Answer<OrderView> {
    Ok(Json(api.service.order_view(&hash).await?))
}

async fn order_make(State(api): State<Api>, Json(new): Json<NewOrder>) -> Answer<OrderView> {
    Ok(Json(api.service.order_make(&new.offering, new.deposit, new.hold).await?))
}

async fn order_accept(State(api): State<Api>, Path(hash): Path<String>) -> Answer<OrderView> {
    Ok(Json(api.service.order_decide(&hash, true).await?))
}

async fn order_reject(State(api): State<Api>, Path(hash): Path<String>) -> Answer<OrderView> {
    Ok(Json(api.service.order_decide(&hash, false).await?))
}

async fn order_cancel(State(api): State<Api>, Path(hash): Path<String>) -> Answer<OrderView> {
    Ok(Json(api.service.order_cancel(&hash).await?))
}

async fn channels(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<ChannelView>> {
    Ok(Json(api.service.channel_views(&query).await?))
}

async fn channel(State(api): State<Api>, Path(id): Path<String>) -> Answer<ChannelView> {
    let mut view = api.service.channel_view(key(&id)?).await?;
    if let Some(generation) = api.router.route(view.product_id) {
        match generation.describe(view.id).await {
            Ok(description) => view.service = description.0,
            Err(error) => {
                tracing::warn!(
                    channel = id,
                    error = privatix_plugin_api::chain(&error),
                    "not described"
                );
            }
        }
    }
    Ok(Json(view))
}

#[derive(Debug, Deserialize)]
struct Reveal {
    #[serde(default)]
    reveal: bool,
}

async fn channel_access(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(Reveal { reveal }): Query<Reveal>,
) -> Answer<Vec<Line>> {
    Ok(Json(api.service.channel_access(key(&id)?, reveal).await?))
}

async fn sessions(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<SessionView>> {
    Ok(Json(api.service.session_views(key(&id)?, &query).await?))
}

async fn suspend(State(api): State<Api>, Path(id): Path<String>) -> Answer<ChannelView> {
    Ok(Json(api.service.channel_command(key(&id)?, Event::Suspend).await?))
}

async fn resume(State(api): State<Api>, Path(id): Path<String>) -> Answer<ChannelView> {
    Ok(Json(api.service.channel_command(key(&id)?, Event::Resume).await?))
}

async fn terminate(State(api): State<Api>, Path(id): Path<String>) -> Answer<ChannelView> {
    Ok(Json(api.service.channel_command(key(&id)?, Event::Terminate).await?))
}

async fn cheques(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<ChequeView>> {
    Ok(Json(api.service.cheque_views(&query).await?))
}

async fn cheque_bundles(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<Bundle>> {
    Ok(Json(api.service.cheque_bundles(&query).await?))
}

fn key(id: &str) -> Result<ClientKey, Refused> {
    id.parse()
        .map_err(|_| Refused::new(Code::ChannelNotFound, format!("{id:?} is no channel's id")))
}

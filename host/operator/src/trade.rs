//! Requests about identity, offerings, orders, channels, sessions and cheques, that hosts of both sides
//! answer. What only an agent does is in `selling`, what only a client does in `buying`.

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::api::{Answer, Api, Channel};
use privatix_core::{
    ChannelView, ChequeView, IdentityView, ListQuery, OfferingView, OrderView, Refused, SessionView,
};
use privatix_domain::cheque::Bundle;
use privatix_domain::present::Line;
use privatix_domain::status::Event;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/identity", get(identity))
        .route("/v1/offerings", get(offerings))
        .route("/v1/offerings/{hash}", get(offering))
        .route("/v1/offerings/{hash}/lines", get(offering_lines))
        .route("/v1/orders", get(orders))
        .route("/v1/orders/{hash}", get(order))
        .route("/v1/channels", get(channels))
        .route("/v1/channels/{id}", get(channel))
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

async fn identity(State(api): State<Api>) -> Json<IdentityView> {
    Json(api.operator.identity())
}

async fn offerings(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<OfferingView>> {
    Ok(Json(api.operator.offering_views(&query).await?))
}

async fn offering(State(api): State<Api>, Path(hash): Path<String>) -> Answer<OfferingView> {
    Ok(Json(api.operator.offering_view(&hash).await?))
}

async fn offering_lines(State(api): State<Api>, Path(hash): Path<String>) -> Answer<Vec<Line>> {
    Ok(Json(api.operator.offering_lines(&hash).await?))
}

async fn orders(State(api): State<Api>, Query(query): Query<ListQuery>) -> Answer<Vec<OrderView>> {
    Ok(Json(api.operator.order_views(&query).await?))
}

async fn order(State(api): State<Api>, Path(hash): Path<String>) -> Answer<OrderView> {
    Ok(Json(api.operator.order_view(&hash).await?))
}

async fn channels(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<ChannelView>> {
    Ok(Json(api.operator.channel_views(&query).await?))
}

async fn channel(State(api): State<Api>, Channel(channel): Channel) -> Answer<ChannelView> {
    let mut view = api.operator.channel_view(channel).await?;
    if let Some(generation) = api.router.route(view.product_id) {
        match generation.describe(view.id).await {
            Ok(description) => view.service = description.0,
            Err(error) => {
                tracing::warn!(
                    %channel,
                    error = privatix_plugin_api::chain(&error),
                    "not described"
                );
            }
        }
    }
    Ok(Json(view))
}

async fn sessions(
    State(api): State<Api>,
    Channel(channel): Channel,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<SessionView>> {
    Ok(Json(api.operator.session_views(channel, &query).await?))
}

async fn suspend(State(api): State<Api>, Channel(channel): Channel) -> Answer<ChannelView> {
    Ok(Json(api.operator.channel_command(channel, Event::Suspend).await?))
}

async fn resume(State(api): State<Api>, Channel(channel): Channel) -> Answer<ChannelView> {
    Ok(Json(api.operator.channel_command(channel, Event::Resume).await?))
}

async fn terminate(State(api): State<Api>, Channel(channel): Channel) -> Answer<ChannelView> {
    Ok(Json(api.operator.channel_command(channel, Event::Terminate).await?))
}

async fn cheques(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<ChequeView>> {
    Ok(Json(api.operator.cheque_views(&query).await?))
}

async fn cheque_bundles(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<Bundle>> {
    Ok(Json(api.operator.cheque_bundles(&query).await?))
}

//! Requests that only an agent's host answers.

use axum::extract::Path;
use axum::routing::post;
use axum::{Json, Router};

use super::api::{Agent, Answer, Api};
use privatix_core::{Draft, OfferingView, OrderView};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/offerings", post(offering_create))
        .route("/v1/offerings/{hash}/withdraw", post(offering_withdraw))
        .route("/v1/orders/{hash}/accept", post(order_accept))
        .route("/v1/orders/{hash}/reject", post(order_reject))
}

async fn offering_create(Agent(agent): Agent, Json(draft): Json<Draft>) -> Answer<OfferingView> {
    Ok(Json(agent.offering_create(draft).await?))
}

async fn offering_withdraw(Agent(agent): Agent, Path(hash): Path<String>) -> Answer<OfferingView> {
    Ok(Json(agent.offering_withdraw(&hash).await?))
}

async fn order_accept(Agent(agent): Agent, Path(hash): Path<String>) -> Answer<OrderView> {
    Ok(Json(agent.order_decide(&hash, true).await?))
}

async fn order_reject(Agent(agent): Agent, Path(hash): Path<String>) -> Answer<OrderView> {
    Ok(Json(agent.order_decide(&hash, false).await?))
}

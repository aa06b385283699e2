//! `/http`: one text a request, answered in its body.

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use privatix_plugin_api::message::ErrorName;
use serde_json::Value;
use tokio::time::{Duration, timeout};

use super::desk::{Desk, Visitor};
use super::rpc::{self, Failure};
use super::{max_message, server};
use crate::modules::line::Way;
use crate::service::Proof;

/// How long a body may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers a request.
pub(super) async fn answer(State(desk): State<Desk>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bearer = match bearer(&desk, &parts.headers).await {
        Ok(bearer) => bearer,
        Err(response) => return response,
    };
    let place = parts.extensions.get::<server::Place>().cloned();
    if let Some(place) = place.as_ref().filter(|_| bearer.is_some()) {
        // Before the answer, which may be long in coming.
        place.prove();
    }
    let text = match read(body, max_message(bearer.is_some())).await {
        Ok(text) => text,
        Err((status, why)) => return refusal(status, Failure::request(why)),
    };
    let visitor = Visitor { bearer, way: Way::Asked };
    // Whoever hangs up meanwhile breaks nothing off.
    let answered = tokio::spawn(async move { desk.answer(&visitor, &text).await }).await;
    let Ok(answer) = answered else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, ErrorName::Internal.into());
    };
    if let Some(place) = place.filter(|_| !answer.effects.proven.is_empty()) {
        place.prove();
    }
    match answer.text {
        Some(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn read(body: Body, most: usize) -> Result<Bytes, (StatusCode, String)> {
    match timeout(DEADLINE, to_bytes(body, most)).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(_)) => {
            let why = format!("the body is broken off or has more than {most} bytes");
            Err((StatusCode::PAYLOAD_TOO_LARGE, why))
        }
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long".into())),
    }
}

/// Whose token the headers show; an answer where it is nobody's.
pub(super) async fn bearer(desk: &Desk, headers: &HeaderMap) -> Result<Option<Proof>, Response> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let denied = || refusal(StatusCode::UNAUTHORIZED, ErrorName::AccessDenied.into());
    match desk.proof(token.ok_or_else(denied)?).await {
        Ok(Some(proof)) => Ok(Some(proof)),
        Ok(None) => Err(denied()),
        Err(failure) => Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, failure)),
    }
}

/// An answer to what is no call, in the form of one.
pub(super) fn refusal(status: StatusCode, failure: Failure) -> Response {
    (status, Json(rpc::response(&Value::Null, Err(failure)))).into_response()
}

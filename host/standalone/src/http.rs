//! `/http`: one text a request, answered in its body.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use privatix_plugin_api::message::ErrorName;
use serde_json::Value;
use tokio::time::{Duration, timeout};

use super::budget::{Ticket, cost, cost_at_most, max_message};
use super::desk::{Desk, Visitor};
use super::places::Place;
use super::rpc::{self, Failure};
use super::text;
use privatix_core::Proof;
use privatix_modules::door::Here;
use privatix_modules::line::Way;

/// How long a body may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long a request waits for room to be read into.
const ROOM: Duration = Duration::from_secs(30);

/// How much of an answer is given to the connection at a time.
const PIECE: usize = 16 * 1024;

/// Answers a request.
pub(super) async fn answer(State(desk): State<Desk>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bearer = match bearer(&desk, &parts.headers).await {
        Ok(bearer) => bearer,
        Err(response) => return response,
    };
    let Some(place) = parts.extensions.get::<Place>().cloned() else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, ErrorName::Internal.into());
    };
    if let Some(proof) = &bearer
        && let Err(failure) = desk.place(&place, proof.product()).await
    {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, failure);
    }
    let proven = bearer.is_some();
    let most = max_message(proven);
    let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let budget = desk.budgets.of(bearer.as_ref().map(Proof::product));
    // Strangers are few and their texts small: who sends one slowly keeps nobody waiting.
    let charged = if proven { cost_at_most(length.unwrap_or(most).min(most)) } else { 0 };
    let Ok(mut ticket) = timeout(ROOM, budget.hold(charged)).await else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, ErrorName::TooManyWaiting.into());
    };
    let said = match read(body, most).await {
        Ok(said) => said,
        Err((status, why)) => return refusal(status, Failure::request(why)),
    };
    let Some(cost) = cost(&said, proven) else {
        return refusal(StatusCode::OK, rpc::too_much());
    };
    ticket.resize(cost, &budget).await;
    let (here, gone) = Here::new();
    let visitor = Visitor { bearer, way: Way::Asked, place, gone };
    // A caller that hangs up cancels what waits, and nothing that has begun.
    let answered = tokio::spawn(async move {
        let answer = text::answer(&desk, &visitor, &said, ticket).await;
        drop(said);
        answer
    });
    let answered = answered.await;
    drop(here);
    let Ok(answer) = answered else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, ErrorName::Internal.into());
    };
    match answer.text {
        Some(text) => {
            let body = Body::new(Pieces { rest: text.into(), _ticket: answer.ticket });
            ([(CONTENT_TYPE, "application/json")], body).into_response()
        }
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// An answer on its way, which is accounted for until the last of it has been taken.
struct Pieces {
    rest: Bytes,
    _ticket: Ticket,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest.len()).unwrap_or(u64::MAX))
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

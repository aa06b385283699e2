//! What a text is answered with: its calls are found, each is answered in its spelling, and the answers
//! are put together.

use serde_json::Value;

use super::budget::{MOST_ANSWERS, Ticket};
use super::desk::{Asking, Desk, Effects, Visitor};
use super::rpc::{self, Failure, Incoming, Request};
use super::{adapter, own};

/// The outcome of a text.
pub(super) struct Answer {
    /// To be sent back.
    pub(super) text: Option<String>,
    /// What else came of it.
    pub(super) effects: Effects,
    /// What is held for it, until it has been written.
    pub(super) ticket: Ticket,
}

/// Answers a text, for which the ticket is held.
pub(super) async fn answer(desk: &Desk, visitor: &Visitor, text: &[u8], ticket: Ticket) -> Answer {
    let read = rpc::read(text);
    let is_batch = matches!(read, Incoming::Batch(_));
    let mut asking = Asking { effects: Effects::default(), ticket, is_batch };
    let text = match read {
        Incoming::One(call) => {
            one(desk, visitor, call, &mut asking).await.map(|answer| answer.to_string())
        }
        Incoming::Batch(calls) => batch(desk, visitor, calls, &mut asking).await,
    };
    Answer { text, effects: asking.effects, ticket: asking.ticket }
}

async fn batch(
    desk: &Desk,
    visitor: &Visitor,
    calls: Vec<Result<Request, rpc::Bad>>,
    asking: &mut Asking,
) -> Option<String> {
    let mut answers = String::new();
    for mut call in calls {
        if visitor.gone.is_gone() {
            return None;
        }
        if answers.len() > MOST_ANSWERS
            && let Ok(Request { id, .. }) = call
        {
            let failure = Failure::request("the batch has been answered at too great a length");
            call = Err(rpc::Bad { id: id.unwrap_or_default(), failure });
        }
        if let Some(answer) = one(desk, visitor, call, asking).await {
            answers.push(if answers.is_empty() { '[' } else { ',' });
            answers.push_str(&answer.to_string());
        }
    }
    // Of calls alone that want no answer.
    (!answers.is_empty()).then(|| answers + "]")
}

async fn one(
    desk: &Desk,
    visitor: &Visitor,
    call: Result<Request, rpc::Bad>,
    asking: &mut Asking,
) -> Option<Value> {
    let Request { id, method, params } = match call {
        Ok(request) => request,
        Err(bad) => return Some(rpc::response(&bad.id, Err(bad.failure))),
    };
    let outcome = match method.split_once('_') {
        Some(("service", call)) => own::answer(desk, visitor, call, params, asking).await,
        Some(("sess", _)) => adapter::answer(desk, visitor, &method, params, asking).await,
        _ => Err(Failure::method(&method)),
    };
    id.map(|id| rpc::response(&id, outcome))
}

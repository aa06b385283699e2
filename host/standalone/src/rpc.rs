//! JSON-RPC 2.0: what a text asks for, and what an answer looks like.
//!
//! Texts are read as strictly as every message ([`json`]). Absent here: which calls there are.

use privatix_plugin_api::json::{self, JsonError};
use privatix_plugin_api::message::{ApiError, ErrorName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The most calls in a batch.
const MAX_BATCH: usize = 64;

/// One call.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    /// Nothing where no answer is wanted.
    pub(super) id: Option<Value>,
    pub(super) method: String,
    pub(super) params: Params,
}

/// What a call is given.
#[derive(Debug, PartialEq)]
pub(super) enum Params {
    Positional(Vec<Value>),
    Named(Map<String, Value>),
}

/// An error as JSON-RPC has it.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Option<Value>,
}

/// A call that is none.
#[derive(Debug, PartialEq)]
pub(super) struct Bad {
    /// Its id, as far as it can be told.
    pub(super) id: Value,
    pub(super) failure: Failure,
}

/// What a text asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    One(Result<Request, Bad>),
    Batch(Vec<Result<Request, Bad>>),
}

impl Failure {
    pub(super) fn parse(why: impl std::fmt::Display) -> Self {
        Self { code: -32700, message: format!("parse error: {why}"), data: None }
    }

    pub(super) fn request(why: impl std::fmt::Display) -> Self {
        Self { code: -32600, message: format!("invalid request: {why}"), data: None }
    }

    pub(super) fn method(method: &str) -> Self {
        let method: String = method.chars().take(64).collect();
        let message = format!("the method {method} does not exist");
        Self { code: -32601, message, data: None }
    }

    pub(super) fn params(why: impl std::fmt::Display) -> Self {
        Self { code: -32602, message: format!("invalid params: {why}"), data: None }
    }
}

/// As our own spelling has it: number, text, and the stable name beside them.
impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let data = json!({ "name": error.name });
        Self { code: error.number.into(), message: error.text, data: Some(data) }
    }
}

impl From<ErrorName> for Failure {
    fn from(name: ErrorName) -> Self {
        ApiError::new(name).into()
    }
}

/// The answer to a text of more values than one may have.
pub(super) fn too_much() -> Failure {
    Failure::request("more values than one message may have; say it in several")
}

/// The id of a call that cannot be read otherwise.
#[derive(Deserialize)]
struct Peek {
    id: Id,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u32),
    Text(String),
}

/// Reads a text.
pub(super) fn read(text: &[u8]) -> Incoming {
    let bad = |failure| Incoming::One(Err(Bad { id: Value::Null, failure }));
    match json::parse(text) {
        // Only a number is not as it should be: whose it is can be told.
        Err(error @ (JsonError::NumberTooLarge { .. } | JsonError::NumberNotInteger { .. })) => {
            match serde_json::from_slice(text) {
                Ok(Peek { id }) => {
                    let id = json!(id);
                    Incoming::One(Err(Bad { id, failure: Failure::params(error) }))
                }
                Err(_) => bad(Failure::parse(error)),
            }
        }
        Err(error) => bad(Failure::parse(error)),
        Ok(Value::Array(calls)) if calls.is_empty() => bad(Failure::request("an empty batch")),
        Ok(Value::Array(calls)) if calls.len() > MAX_BATCH => {
            bad(Failure::request(format_args!("more than {MAX_BATCH} calls in a batch")))
        }
        Ok(Value::Array(calls)) => Incoming::Batch(calls.into_iter().map(request).collect()),
        Ok(call) => Incoming::One(request(call)),
    }
}

fn request(call: Value) -> Result<Request, Bad> {
    let Value::Object(mut call) = call else {
        return Err(Bad { id: Value::Null, failure: Failure::request("no object") });
    };
    let id = call.remove("id");
    if !matches!(id, None | Some(Value::Null | Value::String(_) | Value::Number(_))) {
        let failure = Failure::request("an id is a string, a number or null");
        return Err(Bad { id: Value::Null, failure });
    }
    let bad =
        |why: &str| Bad { id: id.clone().unwrap_or_default(), failure: Failure::request(why) };
    if call.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(bad("jsonrpc has to be \"2.0\""));
    }
    let Some(Value::String(method)) = call.remove("method") else {
        return Err(bad("method has to be a string"));
    };
    let params = match call.remove("params") {
        None => Params::Positional(Vec::new()),
        Some(Value::Array(params)) => Params::Positional(params),
        Some(Value::Object(params)) => Params::Named(params),
        Some(_) => return Err(bad("params have to be an array or an object")),
    };
    Ok(Request { id, method, params })
}

/// The answer to a call.
pub(super) fn response(id: &Value, outcome: Result<Value, Failure>) -> Value {
    match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(Failure { code, message, data }) => {
            let mut error = json!({ "code": code, "message": message });
            if let Some(data) = data {
                error["data"] = data;
            }
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        }
    }
}

/// What is told without having been asked.
pub(super) fn notification(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The id and code that a text is answered with before anything is looked up; nothing for a call.
    fn refused(text: &str) -> Option<(Value, i64)> {
        match read(text.as_bytes()) {
            Incoming::One(Err(bad)) => Some((bad.id, bad.failure.code)),
            Incoming::One(Ok(_)) | Incoming::Batch(_) => None,
        }
    }

    #[test]
    fn texts_that_are_no_calls() {
        for (text, id, code) in [
            ("", json!(null), -32700),
            ("{", json!(null), -32700),
            ("\u{0}", json!(null), -32700),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#, json!(null), -32700),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#, json!(null), -32700),
            (r#"{"jsonrpc":"2.0","id":-1,"method":"m"}"#, json!(null), -32700),
            (r#"{"jsonrpc":"2.0","id":7,"method":"m","params":[1.5]}"#, json!(7), -32602),
            (r#"{"id":"a","params":{"total":9007199254740992}}"#, json!("a"), -32602),
            (r#"{"id":"a","params":{"total":-1},"id":"b"}"#, json!(null), -32700),
            (r#"[{"id":"a","params":{"total":-1}}]"#, json!(null), -32700),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m"} {}"#, json!(null), -32700),
            ("1", json!(null), -32600),
            ("null", json!(null), -32600),
            ("[]", json!(null), -32600),
            ("{}", json!(null), -32600),
            (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, json!(null), -32600),
            (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, json!(1), -32600),
            (r#"{"id":"a","method":"m"}"#, json!("a"), -32600),
            (r#"{"jsonrpc":"2.0","id":1}"#, json!(1), -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, json!(1), -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":"p"}"#, json!(1), -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#, json!(1), -32600),
        ] {
            assert_eq!(refused(text), Some((id, code)), "{text}");
        }
        let long = format!("[{}1]", "1,".repeat(MAX_BATCH));
        assert_eq!(refused(&long), Some((json!(null), -32600)));
        let deep = "[".repeat(100_000);
        assert_eq!(refused(&deep), Some((json!(null), -32700)));
    }

    #[test]
    fn calls_and_what_they_are_given() {
        for (params, expected) in [
            ("", Params::Positional(Vec::new())),
            (r#","params":[1,"a"]"#, Params::Positional(vec![json!(1), json!("a")])),
            (r#","params":{"a":1}"#, Params::Named([("a".into(), json!(1))].into_iter().collect())),
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m"{params}}}"#);
            let request = Request { id: Some(json!(1)), method: "m".into(), params: expected };
            assert_eq!(read(text.as_bytes()), Incoming::One(Ok(request)), "{text}");
        }
        let Incoming::Batch(calls) = read(br#"[1,{"jsonrpc":"2.0","method":"m"}]"#) else {
            panic!("a batch")
        };
        assert_eq!((calls.len(), calls[0].is_err(), calls[1].is_ok()), (2, true, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever comes is answered in one of the ways that there are.
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let answer = read(&bytes);
            prop_assert!(!matches!(answer, Incoming::One(Ok(_))), "{answer:?}");
        }

        /// Calls in which some bytes are others: read or refused, with the id where there is one.
        #[test]
        fn nearly_calls(
            at in proptest::collection::vec((0usize..64, any::<u8>()), 0..4),
            cut in 0usize..80,
        ) {
            let mut text = br#"{"jsonrpc":"2.0","id":1,"method":"service_x","params":{"a":[1]}}"#.to_vec();
            for (at, byte) in at {
                text[at] = byte;
            }
            text.truncate(cut);
            match read(&text) {
                Incoming::One(Ok(request)) => prop_assert!(request.method.len() < 64),
                Incoming::One(Err(bad)) => {
                    prop_assert!([-32700, -32602, -32600].contains(&bad.failure.code));
                }
                Incoming::Batch(calls) => prop_assert!(calls.len() <= MAX_BATCH),
            }
        }
    }
}

//! Our own spelling, `service_…`: the messages of the Service API by their own names, with named
//! parameters, and what takes the place of commands in-process.

use std::collections::BTreeMap;
use std::time::Duration;

use privatix_plugin_api::message::{
    ApiError, ClientKey, CoreRequest, Description, Done, ErrorName, Exercised, Sessions, Started,
    StopReason,
};
use privatix_plugin_api::{Fault, FaultKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::desk::{Asking, Desk, Effects, Joined, Visitor, internal};
use super::rpc::{self, Failure, Params};
use privatix_modules::line::{Command, Ended, Line, Order, Style, Subscription, Way};

/// The longest that a question for commands waits for one, in seconds.
const LONGEST_WAIT: u64 = 50;

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Subscribe {
    /// Channels that it serves already; without it, open sessions stay as they are.
    serving: Option<Vec<ClientKey>>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Unsubscribe {
    subscription: String,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Commands {
    subscription: String,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_seconds: u64,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Acknowledge {
    subscription: String,
    id: u64,
    answer: Word,
    /// Why it failed.
    #[serde(default)]
    text: String,
    /// What the channel's user should know, by name.
    service: Option<BTreeMap<String, String>>,
    /// Which channels are served.
    serving: Option<Vec<ClientKey>>,
    /// What was really carried.
    moved: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum Word {
    Ready,
    Later,
    Stopped,
    Serving,
    Exercised,
    Unsupported,
    Failed,
}

/// What a program is told: a command with its number.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Told {
    /// To acknowledge it by; it rises from 1 within a subscription.
    id: u64,
    #[serde(flatten)]
    command: Instruction,
}

/// See [`Order`].
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "command", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Instruction {
    /// Serve this channel.
    Start { client_key: ClientKey },
    /// Serve it no longer.
    Stop { client_key: ClientKey, reason: StopReason },
    /// Say which channels are served.
    Sessions,
    /// For tests alone: carry about so much through a channel, in smallest units.
    Exercise { client_key: ClientKey, amount: u64 },
}

/// The JSON Schemas of what `service_…` calls are given beyond the Service API, and of a command.
#[cfg(feature = "schema")]
pub(super) fn schemas(
    generator: &mut schemars::SchemaGenerator,
) -> Vec<(&'static str, schemars::Schema)> {
    use schemars::JsonSchema;
    vec![
        ("subscribe", Subscribe::json_schema(generator)),
        ("unsubscribe", Unsubscribe::json_schema(generator)),
        ("commands", Commands::json_schema(generator)),
        ("acknowledge", Acknowledge::json_schema(generator)),
        ("command", Told::json_schema(generator)),
    ]
}

/// Answers a call, named without its prefix.
pub(super) async fn answer(
    desk: &Desk,
    visitor: &Visitor,
    call: &str,
    params: Params,
    asking: &mut Asking,
) -> Result<Value, Failure> {
    let effects = &mut asking.effects;
    let proof = visitor.bearer.as_ref().ok_or(ErrorName::AccessDenied)?;
    let line = desk.line(proof).await?;
    effects.proven.push(proof.clone());
    let params = match params {
        Params::Named(params) => params,
        Params::Positional(params) if params.is_empty() => Map::new(),
        Params::Positional(_) => return Err(bad("parameters have names")),
    };
    match call {
        "configuration" => Ok(line.card().clone()),
        "subscribe" => subscribe(desk, visitor, line, read(params)?, effects).await,
        "unsubscribe" => {
            let Unsubscribe { subscription } = read(params)?;
            let found = subscription_of(&line, &subscription)?;
            line.leave(&found, Ended::Left);
            effects.left = Some(subscription);
            Ok(json!({}))
        }
        "commands" => {
            let asked: Commands = read(params)?;
            if asking.is_batch && asked.wait_seconds > 0 {
                return Err(bad(
                    "a call in a batch cannot wait: make it alone, or without waitSeconds",
                ));
            }
            let commands = commands(desk, visitor, &line, asked).await?;
            // What is told meanwhile is not for a token that is void meanwhile.
            desk.line(proof).await.map(|_| commands)
        }
        "acknowledge" => acknowledge(&line, read(params)?),
        _ => core(visitor, &line, call, params).await,
    }
}

/// A call of the Service API: the parameters are the message's fields.
async fn core(
    visitor: &Visitor,
    line: &Line,
    call: &str,
    mut params: Map<String, Value>,
) -> Result<Value, Failure> {
    let door = line.door();
    if params.insert("call".into(), call.into()).is_some() {
        return Err(door.unreadable("no call has a parameter named \"call\"").into());
    }
    let request: CoreRequest = serde_json::from_value(Value::Object(params))
        .map_err(|error| door.unreadable(format_args!("the message cannot be read: {error}")))?;
    let reply = door.ask(request).unless_gone(&visitor.gone).await?;
    Ok(serde_json::to_value(reply).map_err(internal)?)
}

async fn subscribe(
    desk: &Desk,
    visitor: &Visitor,
    line: std::sync::Arc<Line>,
    Subscribe { serving }: Subscribe,
    effects: &mut Effects,
) -> Result<Value, Failure> {
    let id = Uuid::new_v4().to_string();
    let held = desk.join(visitor, &line, id.clone(), Style::Answered, serving).await?;
    if visitor.way == Way::Asked {
        held.keep();
    } else {
        effects.joined = Some(Joined { held, write: notification });
    }
    Ok(json!({ "subscription": id }))
}

fn notification(subscription: &Subscription, command: &Command) -> String {
    let mut params = written(command);
    params["subscription"] = subscription.id().into();
    rpc::notification("service_command", &params)
}

async fn commands(
    desk: &Desk,
    visitor: &Visitor,
    line: &Line,
    asked: Commands,
) -> Result<Value, Failure> {
    let subscription = subscription_of(line, &asked.subscription)?;
    if subscription.way() != Way::Asked {
        return Err(bad("the commands of this subscription come by its connection"));
    }
    // Over a WebSocket others' answers would wait for nothing.
    let longest = if visitor.way == Way::Asked { LONGEST_WAIT } else { 0 };
    let wait = Duration::from_secs(asked.wait_seconds.min(longest));
    let waiting = (!wait.is_zero()).then(|| desk.budgets.of(Some(line.caller().product)).wait());
    if matches!(waiting, Some(None)) {
        return Err(ErrorName::TooManyWaiting.into());
    }
    let commands = visitor.gone.unless(subscription.ask(asked.after, wait)).await.flatten();
    let commands = commands.ok_or(ErrorName::SubscriptionNotFound)?;
    Ok(json!({ "commands": commands.iter().map(written).collect::<Vec<_>>() }))
}

fn written(command: &Command) -> Value {
    let id = command.number;
    let command = match command.order {
        Order::Start(client_key) => Instruction::Start { client_key },
        Order::Stop(client_key, reason) => {
            // A program knows these two.
            let reason = match reason {
                StopReason::Terminated => StopReason::Terminated,
                _ => StopReason::Suspended,
            };
            Instruction::Stop { client_key, reason }
        }
        Order::Sessions => Instruction::Sessions,
        Order::Exercise(client_key, amount) => Instruction::Exercise { client_key, amount },
    };
    json!(Told { id, command })
}

fn acknowledge(line: &Line, given: Acknowledge) -> Result<Value, Failure> {
    let subscription = subscription_of(line, &given.subscription)?;
    // One that nobody waits for any more was answered, or took too long; neither is an error.
    let Some(command) = subscription.waiting(given.id) else { return Ok(json!({})) };
    let answer = match (given.answer, command.order) {
        (Word::Failed, _) => Err(Fault::new(FaultKind::Failed, given.text)),
        (Word::Unsupported, _) => Err(Fault::new(FaultKind::Unsupported, given.text)),
        (Word::Ready, Order::Start(_)) => Ok(json!(Started::Ready)),
        (Word::Later, Order::Start(_)) => Ok(json!(Started::Later)),
        (Word::Stopped, Order::Stop(..)) => Ok(json!(Done {})),
        (Word::Serving, Order::Sessions) => {
            Ok(json!(Sessions { client_keys: given.serving.unwrap_or_default() }))
        }
        (Word::Exercised, Order::Exercise(..)) => {
            Ok(json!(Exercised { moved: given.moved.unwrap_or_default() }))
        }
        (_, order) => {
            let wanted = match order {
                Order::Start(_) => "ready, later",
                Order::Stop(..) => "stopped",
                Order::Sessions => "serving",
                Order::Exercise(..) => "exercised",
            };
            return Err(bad(format_args!("this command is answered {wanted} or failed")));
        }
    };
    line.answered(&subscription, given.id, answer, given.service.map(Description));
    Ok(json!({}))
}

fn subscription_of(line: &Line, id: &str) -> Result<std::sync::Arc<Subscription>, Failure> {
    line.subscription(id).ok_or_else(|| ErrorName::SubscriptionNotFound.into())
}

fn read<T: DeserializeOwned>(params: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(params)).map_err(bad)
}

fn bad(why: impl std::fmt::Display) -> Failure {
    ApiError::with(ErrorName::BadRequest, why).into()
}

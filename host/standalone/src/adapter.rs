//! The spelling that existing adapters speak, `sess_…`: positional parameters, of which the first two
//! are product id and token, errors of the code −32000, and a subscription to changes of channels.
//!
//! What such an adapter needs beyond the Service API is in the service; here is only how it is said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use privatix_plugin_api::json;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{
    AccessMessage, ApiError, ClientKey, CoreRequest, ErrorName, Password,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::desk::{Asking, Desk, Effects, Joined, Visitor, internal};
use super::rpc::{self, Failure, Params};
use privatix_core::{AdapterCall, CoreReply, ModuleCall, OfferingView};
use privatix_modules::line::{Command, Line, Order, Style, Subscription, Way};

/// How long a call waits for its module after the host has come up: such an adapter takes it for the end
/// of everything to be told that there is none.
const COMING_UP: Duration = Duration::from_secs(15);

/// The code of all errors of this spelling.
const CODE: i64 = -32000;

/// Answers a call.
pub(super) async fn answer(
    desk: &Desk,
    visitor: &Visitor,
    method: &str,
    params: Params,
    asking: &mut Asking,
) -> Result<Value, Failure> {
    let Params::Positional(params) = params else {
        return Err(Failure::params("they have an order, not names"));
    };
    let mut given = Given::new(params);
    let Some(call) = Call::named(method) else { return Err(Failure::method(method)) };
    if call == Call::Unsubscribe {
        asking.effects.left = Some(given.next()?);
        return given.end().map(|()| json!(true));
    }
    if call == Call::Subscribe {
        let kind: String = given.next()?;
        if kind != "connChange" {
            return Err(Failure::params("there are only subscriptions to \"connChange\""));
        }
    }
    let (product, token): (Uuid, String) = (given.next()?, given.next()?);
    let asked = call.read(&mut given)?;
    given.end()?;
    let line = proven(desk, visitor, product, &token, asking).await?;
    match asked {
        None => subscribe(desk, visitor, line, &mut asking.effects).await,
        Some(call) => ask(desk, visitor, line, call).await,
    }
}

/// The line of a product whose token was given, which has it pay for this call from here on.
async fn proven(
    desk: &Desk,
    visitor: &Visitor,
    product: Uuid,
    token: &str,
    asking: &mut Asking,
) -> Result<Arc<Line>, Failure> {
    let denied = || worded(ErrorName::AccessDenied.into());
    let proof = desk.proof(token).await.map_err(|_| worded(ErrorName::Internal.into()))?;
    let proof = proof.filter(|proof| proof.product() == product).ok_or_else(denied)?;
    let placed = desk.place(&visitor.place, product).await;
    placed.map_err(|_| worded(ErrorName::TooManyWaiting.into()))?;
    let budget = desk.budgets.of(Some(product));
    let paying = asking.ticket.move_to(&budget);
    // Nobody reads this answer.
    visitor.gone.unless(paying).await.ok_or_else(|| worded(ErrorName::Internal.into()))?;
    let line = routed(desk, visitor, product).await?;
    asking.effects.proven.push(proof);
    Ok(line)
}

/// The line of a product, waited for while its module is coming up.
async fn routed(desk: &Desk, visitor: &Visitor, product: Uuid) -> Result<Arc<Line>, Failure> {
    let line = desk.router.line_within(product, COMING_UP);
    let line = visitor.gone.unless(line).await.flatten();
    line.ok_or_else(|| worded(ErrorName::AccessDenied.into()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    AuthClient,
    SetProductConfig,
    GetEndpoint,
    ServiceReady,
    StartSession,
    UpdateSession,
    StopSession,
    Subscribe,
    Unsubscribe,
}

impl Call {
    fn named(method: &str) -> Option<Self> {
        Some(match method {
            "sess_authClient" => Self::AuthClient,
            "sess_setProductConfig" => Self::SetProductConfig,
            "sess_getEndpoint" => Self::GetEndpoint,
            "sess_serviceReady" => Self::ServiceReady,
            "sess_startSession" => Self::StartSession,
            "sess_updateSession" => Self::UpdateSession,
            "sess_stopSession" => Self::StopSession,
            "sess_subscribe" => Self::Subscribe,
            "sess_unsubscribe" => Self::Unsubscribe,
            _ => return None,
        })
    }

    /// What the core is asked; nothing for subscriptions.
    fn read(self, given: &mut Given) -> Result<Option<ModuleCall>, Failure> {
        Ok(Some(match self {
            Self::AuthClient => {
                let (client_key, password) = (given.next()?, Password(given.next()?));
                CoreRequest::AuthClient { client_key, password }.into()
            }
            Self::SetProductConfig => {
                let config: BTreeMap<String, String> = given.next()?;
                CoreRequest::SetProductConfig { config }.into()
            }
            Self::GetEndpoint => CoreRequest::GetAccess { client_key: given.next()? }.into(),
            Self::ServiceReady => CoreRequest::ServiceReady { client_key: given.next()? }.into(),
            Self::StartSession => AdapterCall::Start {
                client_key: given.next()?,
                client_address: given.next_or_empty()?,
                client_port: Some(given.next()?).filter(|port| *port != 0),
            }
            .into(),
            Self::UpdateSession => {
                AdapterCall::Update { client_key: given.next()?, amount: given.next()? }.into()
            }
            Self::StopSession => AdapterCall::Stop { client_key: given.next()? }.into(),
            Self::Subscribe | Self::Unsubscribe => return Ok(None),
        }))
    }
}

/// Has a call answered by the line's door. A module that is being replaced is no reason to refuse an
/// adapter, which would end: the call is made again by the door of the next generation.
async fn ask(
    desk: &Desk,
    visitor: &Visitor,
    mut line: Arc<Line>,
    call: ModuleCall,
) -> Result<Value, Failure> {
    let reply = loop {
        match line.door().ask(call.clone()).unless_gone(&visitor.gone).await {
            Err(error) if error.name == ErrorName::AccessDenied && line.is_over() => {
                line = routed(desk, visitor, line.caller().product).await?;
            }
            outcome => break outcome.map_err(worded)?,
        }
    };
    match &call {
        ModuleCall::Api(CoreRequest::ServiceReady { client_key })
        | ModuleCall::Adapter(AdapterCall::Start { client_key, .. }) => line.began(*client_key),
        ModuleCall::Adapter(AdapterCall::Stop { client_key }) => line.stopped(*client_key),
        _ => {}
    }
    match (reply, call) {
        (CoreReply::Access(access), ModuleCall::Api(CoreRequest::GetAccess { client_key })) => {
            endpoint(client_key, &access).map_err(worded)
        }
        (CoreReply::Offered(offered), _) => {
            let (started, view) = *offered;
            let mut offering = offering(&view, desk.api.role());
            // One more field, which existing adapters ignore.
            if let Some(credit) = started.credit {
                offering["credit"] = credit.into();
            }
            Ok(offering)
        }
        _ => Ok(Value::Null),
    }
}

async fn subscribe(
    desk: &Desk,
    visitor: &Visitor,
    mut line: Arc<Line>,
    effects: &mut Effects,
) -> Result<Value, Failure> {
    if visitor.way == Way::Asked {
        return Err(worded(ErrorName::Unsupported.into()));
    }
    let id = format!("0x{}", Uuid::new_v4().simple());
    let held = loop {
        match desk.join(visitor, &line, id.clone(), Style::Told, None).await {
            Ok(held) => break held,
            // The module has ended meanwhile: replaced, or with its host, which closes the connection.
            Err(_) if line.is_over() => {
                line = routed(desk, visitor, line.caller().product).await?;
            }
            Err(_) => return Err(worded(ErrorName::Internal.into())),
        }
    };
    effects.joined = Some(Joined { held, write: notification });
    Ok(json!(id))
}

fn notification(subscription: &Subscription, command: &Command) -> String {
    let result = match command.order {
        Order::Start(channel) => json!({ "channel": channel, "command": "start" }),
        Order::Stop(channel, _) => json!({ "channel": channel, "command": "stop" }),
        // Nobody who can only be told is given others.
        Order::Sessions | Order::Exercise(..) => Value::Null,
    };
    let params = json!({ "subscription": subscription.id(), "result": result });
    rpc::notification("sess_subscription", &params)
}

/// Parameters by their order.
struct Given {
    params: std::vec::IntoIter<Value>,
    at: usize,
}

impl Given {
    fn new(params: Vec<Value>) -> Self {
        Self { params: params.into_iter(), at: 0 }
    }

    fn next<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let at = self.at;
        self.at += 1;
        let missing = || Failure::params(format_args!("missing value for argument {at}"));
        let value = self.params.next().ok_or_else(missing)?;
        // What it is may be a secret, and is not repeated.
        serde_json::from_value(value)
            .map_err(|_| Failure::params(format_args!("invalid argument {at}")))
    }

    /// The same, where an empty text is nothing.
    fn next_or_empty<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        match self.params.as_slice().first() {
            Some(Value::String(text)) if text.is_empty() => self.next::<String>().map(|_| None),
            _ => self.next().map(Some),
        }
    }

    fn end(mut self) -> Result<(), Failure> {
        match self.params.next() {
            None => Ok(()),
            Some(_) => {
                let at = self.at;
                Err(Failure::params(format_args!("too many arguments, want at most {at}")))
            }
        }
    }
}

/// An error as these adapters know it: the stable text alone, and the number in it.
fn worded(error: ApiError) -> Failure {
    let message = format!("{} ({})", error.name.text(), error.number);
    Failure { code: CODE, message, data: None }
}

fn endpoint(channel: ClientKey, access: &AccessMessage) -> Result<Value, ApiError> {
    let message = serde_json::to_value(access).map_err(internal)?;
    let params = serde_json::to_vec(&access.additional_params).map_err(internal)?;
    let hash = json::hash(&message).map_err(internal)?;
    Ok(json!({
        "id": derived_id(&hash),
        "template": access.template_hash,
        "channel": channel,
        "hash": hash,
        "RawMsg": STANDARD.encode(message.to_string()),
        "paymentReceiverAddress": access.payment_receiver_address,
        "serviceEndpointAddress": access.service_endpoint_address,
        "username": access.username,
        "password": access.password,
        "additionalParams": STANDARD.encode(params),
        "countryStatus": "unknown",
    }))
}

/// Fields by the names that these adapters know; one that the offering does not have is null.
fn offering(view: &OfferingView, role: Role) -> Value {
    let field = |name: &str| view.message.get(name).cloned().unwrap_or_default();
    let param = |name: &str| {
        let params = view.message.get("additionalParams").and_then(Value::as_object);
        params.and_then(|params: &Map<String, Value>| params.get(name)).cloned()
    };
    let status = if view.withdrawn_at.is_some() { "removed" } else { "registered" };
    json!({
        "id": derived_id(&view.hash),
        "isLocal": role == Role::Agent,
        "ipType": param("ipType").unwrap_or_else(|| json!("")),
        "template": field("templateHash"),
        "product": field("product"),
        "hash": view.hash,
        "status": status,
        "agent": field("agentPublicKey"),
        "serviceName": field("serviceName"),
        "description": param("description"),
        "country": field("country"),
        "supply": field("supply"),
        "currentSupply": view.supply_left,
        "unitName": field("unitName"),
        "unitType": field("unitType"),
        "billingType": field("billingType"),
        "setupPrice": field("setupPrice"),
        "unitPrice": field("unitPrice"),
        "minUnits": field("minUnits"),
        "maxUnit": field("maxUnits"),
        "billingInterval": field("billingInterval"),
        "maxBillingUnitLag": field("maxBillingUnitLag"),
        "maxSuspendTime": field("maxSuspendTime"),
        "maxInactiveTimeSec": field("maxInactiveTime"),
        "freeUnits": field("freeUnits"),
        "additionalParams": field("additionalParams"),
    })
}

/// These adapters know things by UUIDs where we know them by hashes.
fn derived_id(hash: &str) -> Uuid {
    let digits = hash.get(..32).and_then(|digits| u128::from_str_radix(digits, 16).ok());
    uuid::Builder::from_custom_bytes(digits.unwrap_or_default().to_be_bytes()).into_uuid()
}

//! The JSON Schemas, one for each message, made from the types.

use privatix_modules::{manifest_file, problem::Problem, registry};
use privatix_operator::{trade, view};
use privatix_plugin_api::message::{self, CoreRequest, ModuleRequest};
use privatix_plugin_api::sdk::ShutdownReport;
use privatix_plugin_api::{Fault, json::MAX_INTEGER, manifest::Manifest};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use privatix_domain::{access, account, cheque, offering, order, present, time};

/// Every schema by its name, which has the part of the reference in front.
pub(crate) fn all() -> Vec<(String, Value)> {
    let named = service_api().into_iter().chain(package()).chain(exchange()).chain(rpc());
    named.chain(operator()).collect()
}

fn service_api() -> Vec<(String, Value)> {
    vec![
        of::<CoreRequest>("service-api/core-request", false),
        of::<ModuleRequest>("service-api/module-request", false),
        of::<message::Done>("service-api/done", false),
        of::<message::StatusReply>("service-api/status-reply", false),
        of::<message::SessionStarted>("service-api/session-started", false),
        of::<message::AccessMessage>("service-api/access-message", false),
        of::<message::ApiError>("service-api/api-error", false),
        of::<message::Started>("service-api/started", false),
        of::<message::Sessions>("service-api/sessions", false),
        of::<message::Health>("service-api/health", false),
        of::<message::Description>("service-api/description", false),
        of::<message::Cleaned>("service-api/cleaned", false),
        of::<message::Exercised>("service-api/exercised", false),
        of::<Fault>("service-api/fault", false),
        of::<message::HostInfo>("service-api/host-info", false),
        of::<ShutdownReport>("service-api/shutdown-report", false),
    ]
}

fn package() -> Vec<(String, Value)> {
    vec![
        of::<Manifest>("package/manifest", false),
        made("package/module-file", manifest_file::schema),
    ]
}

fn exchange() -> Vec<(String, Value)> {
    vec![
        of::<offering::Offering>("exchange/offering", true),
        of::<privatix_core::OfferingPage>("exchange/offering-page", false),
        of::<time::AgentTime>("exchange/time", true),
        of::<order::Order>("exchange/order", true),
        of::<order::OrderReply>("exchange/order-reply", true),
        of::<order::OrderRefusal>("exchange/order-refusal", true),
        of::<order::OrderCancel>("exchange/order-cancel", true),
        of::<order::ChannelRequest>("exchange/channel-request", true),
        signed(made("exchange/envelope", access::envelope_schema)),
        of::<account::Account>("exchange/statement", true),
        of::<cheque::Cheque>("exchange/cheque", true),
        of::<cheque::Receipt>("exchange/receipt", true),
        of::<cheque::Bundle>("exchange/cheque-bundle", false),
        of::<privatix_core::Refused>("exchange/refusal", false),
    ]
}

fn rpc() -> Vec<(String, Value)> {
    let mut generator = generator();
    let found = privatix_standalone::schemas(&mut generator).into_iter().map(|(name, _)| name);
    let names: Vec<&'static str> = found.collect();
    let only = |name: &'static str| {
        made(&format!("json-rpc/{name}"), move |generator: &mut SchemaGenerator| {
            let mut found = privatix_standalone::schemas(generator).into_iter();
            found.find(|(other, _)| *other == name).expect("it was named").1
        })
    };
    names.into_iter().map(only).collect()
}

fn operator() -> Vec<(String, Value)> {
    vec![
        of::<registry::ModuleView>("operator/module", false),
        of::<Problem>("operator/problem", false),
        of::<privatix_core::ProductView>("operator/product", false),
        of::<privatix_core::TemplateView>("operator/template", false),
        of::<view::Transfer>("operator/transfer", false),
        of::<privatix_core::NewToken>("operator/token", false),
        of::<privatix_core::IdentityView>("operator/identity", false),
        of::<privatix_core::Draft>("operator/offering-draft", false),
        of::<privatix_core::OfferingView>("operator/offering", false),
        of::<trade::Fetch>("operator/fetch", false),
        of::<trade::Fetched>("operator/fetched", false),
        of::<trade::NewOrder>("operator/new-order", false),
        of::<privatix_core::OrderView>("operator/order", false),
        of::<privatix_core::ChannelView>("operator/channel", false),
        of::<privatix_core::SessionView>("operator/session", false),
        of::<privatix_core::ChequeView>("operator/cheque", false),
        of::<present::Line>("operator/line", false),
    ]
}

fn of<T: JsonSchema>(name: &str, is_signed: bool) -> (String, Value) {
    let named = made(name, T::json_schema);
    if is_signed { signed(named) } else { named }
}

/// As messages are read: that is how other implementations have to write them.
fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().for_deserialize().into_generator()
}

fn made(name: &str, schema: impl FnOnce(&mut SchemaGenerator) -> Schema) -> (String, Value) {
    let mut generator = generator();
    let mut schema = schema(&mut generator).to_value();
    let mut definitions = generator.take_definitions(true);
    keep_used(&schema, &mut definitions);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = name.rsplit('/').next().unwrap_or(name).into();
    if !definitions.is_empty() {
        schema["$defs"] = definitions.into();
    }
    refine(&mut schema);
    (name.to_owned(), schema)
}

/// Only the definitions that the schema refers to, or that these refer to.
fn keep_used(schema: &Value, definitions: &mut Map<String, Value>) {
    let refers = |from: &Value, to: &str| from.to_string().contains(&format!("#/$defs/{to}\""));
    let mut used: Vec<String> = Vec::new();
    loop {
        let is_used = |name: &String| {
            refers(schema, name) || used.iter().any(|by| refers(&definitions[by], name))
        };
        let more: Vec<_> = definitions
            .keys()
            .filter(|name| !used.contains(name) && is_used(name))
            .cloned()
            .collect();
        if more.is_empty() {
            break;
        }
        used.extend(more);
    }
    definitions.retain(|name, _| used.contains(name));
}

/// What a signature adds to a message.
fn signed((name, mut schema): (String, Value)) -> (String, Value) {
    schema["properties"]["signature"] = json!({
        "description": "Ed25519 over `privatix/KIND/v1`, NUL and the canonical form without this field: 64 bytes in base64url without padding.",
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]{85}[AQgw]$",
    });
    let required = schema["required"].as_array_mut().expect("a signed message has fields");
    required.push("signature".into());
    (name, schema)
}

/// What holds of all messages and no type says: the range of integers, one spelling of UUIDs, and
/// descriptions that are not written for rustdoc.
fn refine(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(refine),
        Value::Object(members) => {
            if members.get("type").is_some_and(is_integer) {
                let most = match members.remove("format") {
                    Some(Value::String(format)) if format == "uint32" => u32::MAX.into(),
                    _ => MAX_INTEGER,
                };
                members.entry("minimum").or_insert_with(|| 0.into());
                members.entry("maximum").or_insert_with(|| most.into());
            }
            match members.get("format").and_then(Value::as_str) {
                Some("uuid") => {
                    let pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
                    members.insert("pattern".into(), pattern.into());
                }
                Some("ip") => {
                    members.remove("format");
                    members.insert("anyOf".into(), json!([{"format": "ipv4"}, {"format": "ipv6"}]));
                }
                _ => {}
            }
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = plain(text);
            }
            members.values_mut().for_each(refine);
        }
        _ => {}
    }
}

fn is_integer(kind: &Value) -> bool {
    match kind {
        Value::String(kind) => kind == "integer",
        Value::Array(kinds) => kinds.iter().any(|kind| kind == "integer"),
        _ => false,
    }
}

/// A description without links and paths of rustdoc, and in one line.
fn plain(text: &str) -> String {
    let mut text = text.replace("[`", "`").replace("`]", "`");
    while let Some(at) = text.find("::") {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let from = text[..at].rfind(|c| !word(c)).map_or(0, |before| before + 1);
        text.replace_range(from..at + 2, "");
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

//! How a message is shown to a person, as its template's UI schema says: in which order, under
//! which names, what is left out and what is masked. The dialect is that of react-jsonschema-form,
//! as far as a terminal has use for it. Names and values are texts of strangers: no character of
//! them can move a cursor or turn a line round. Absent here: columns, colours and widths.

mod escape;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::signed::SIGNATURE;
use super::template::{Template, TemplateKind};
pub use escape::{acts, clip, escaped};

/// Stands for a masked value, whatever its length.
pub const MASK: &str = "•••••";

/// One line for a person.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Line {
    /// What is shown, two spaces further in for every object around it.
    pub label: String,
    /// Empty above the lines of an object or a list.
    pub value: String,
    /// What the template's author says about it.
    pub help: Option<String>,
}

/// What the template calls its messages.
pub fn title(template: &Template) -> Option<String> {
    let root = Spot { schema: template.schema(), ui: template.ui_schema().unwrap_or(&Value::Null) };
    root.title(template.schema()).map(escaped)
}

/// The lines for a message, without its signature. Values that are to be masked are shown as
/// [`MASK`] unless `reveal`.
pub fn present(message: &Value, template: &Template, reveal: bool) -> Vec<Line> {
    let mut page = Page { template, reveal, lines: Vec::new() };
    let ui = template.ui_schema().unwrap_or(&Value::Null);
    let root = Spot { schema: resolve(template.schema(), template.schema()), ui };
    match message {
        Value::Object(members) => page.members(members, root, 0),
        other => page.line(0, "", scalar(other), root),
    }
    page.lines
}

struct Page<'a> {
    template: &'a Template,
    reveal: bool,
    lines: Vec<Line>,
}

/// What is said of one place in a message.
#[derive(Clone, Copy)]
struct Spot<'a> {
    schema: &'a Value,
    ui: &'a Value,
}

impl<'a> Page<'a> {
    fn members(&mut self, members: &Map<String, Value>, spot: Spot<'a>, depth: usize) {
        for key in ordered(members, spot) {
            let inner = Spot {
                schema: property(self.template.schema(), spot.schema, key),
                ui: &spot.ui[key],
            };
            // A signature is about the message, unless the template makes a field of it.
            if depth == 0 && key == SIGNATURE && inner.schema.is_null() {
                continue;
            }
            let name = inner.title(self.template.schema()).unwrap_or(key);
            self.value(&members[key], key, name, inner, depth);
        }
    }

    fn value(&mut self, value: &Value, key: &str, name: &str, spot: Spot<'a>, depth: usize) {
        let widget = spot.option("widget").and_then(Value::as_str);
        if widget == Some("hidden") {
            return;
        }
        let secret = widget == Some("password")
            || (widget.is_none() && depth == 0 && self.is_core_secret(key));
        if secret && !self.reveal {
            return self.line(depth, name, MASK.to_owned(), spot);
        }
        let schema = resolve(self.template.schema(), spot.schema);
        match value {
            // An object without members says nothing to a person.
            Value::Object(members) if members.is_empty() => {}
            Value::Object(members) => {
                self.line(depth, name, String::new(), spot);
                self.members(members, Spot { schema, ..spot }, depth + 1);
            }
            Value::Array(items) if items.iter().any(is_compound) => {
                self.line(depth, name, String::new(), spot);
                let ui = &spot.ui["items"];
                for (index, item) in items.iter().enumerate() {
                    let inner = Spot { schema: &schema["items"], ui };
                    self.value(item, "", &(index + 1).to_string(), inner, depth + 1);
                }
            }
            other => self.line(depth, name, scalar(other), spot),
        }
    }

    fn line(&mut self, depth: usize, name: &str, value: String, spot: Spot<'a>) {
        let label = "  ".repeat(depth) + &escaped(name);
        let help = spot.option("help").and_then(Value::as_str).map(escaped);
        self.lines.push(Line { label, value, help });
    }

    /// Masked also by a template that says nothing about it.
    fn is_core_secret(&self, key: &str) -> bool {
        self.template.kind() == TemplateKind::Access && key == "password"
    }
}

impl<'a> Spot<'a> {
    /// An option in either of its two spellings.
    fn option(self, name: &str) -> Option<&'a Value> {
        let short = self.ui.get(format!("ui:{name}"));
        short.or_else(|| self.ui.get("ui:options")?.get(name))
    }

    fn title(self, root: &'a Value) -> Option<&'a str> {
        let named = |value: Option<&'a Value>| value?.as_str().filter(|title| !title.is_empty());
        named(self.option("title"))
            .or_else(|| named(self.schema.get("title")))
            .or_else(|| named(resolve(root, self.schema).get("title")))
    }
}

/// The keys of an object in the order of `ui:order`. Those that it does not name take the place
/// of `*`, or the end: a message has nothing that is not shown because nobody thought of it.
fn ordered<'m>(members: &'m Map<String, Value>, spot: Spot<'_>) -> Vec<&'m str> {
    let order = spot.option("order").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut rest: Vec<&str> = members.keys().map(String::as_str).collect();
    let (mut keys, mut star) = (Vec::new(), None);
    for name in order.iter().filter_map(Value::as_str) {
        if name == "*" {
            star.get_or_insert(keys.len());
        } else if let Some(place) = rest.iter().position(|key| *key == name) {
            keys.push(rest.remove(place));
        }
    }
    let star = star.unwrap_or(keys.len());
    keys.splice(star..star, rest);
    keys
}

/// What a schema says of a member, or null.
fn property<'a>(root: &'a Value, schema: &'a Value, key: &str) -> &'a Value {
    let schema = resolve(root, schema);
    let named = schema.get("properties").and_then(|named| named.get(key));
    named.or_else(|| schema.get("additionalProperties")).unwrap_or(&Value::Null)
}

/// Follows references within the document. Registration refuses circles; the bound is for reading
/// this without knowing that.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..16 {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let target = reference.and_then(|text| text.strip_prefix('#'));
        match target.and_then(|pointer| root.pointer(pointer)) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

fn is_compound(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(scalar).collect::<Vec<_>>().join(", ")
        }
        Value::Array(_) | Value::Object(_) => "none".to_owned(),
        other => other.to_string(),
    }
}

//! One walk over every schema in a document, before anything else looks at it: references stay
//! inside, identifiers change no base, patterns suit the engine, and the whole, with every
//! reference replaced by what it points at, is finite and small.
//!
//! Only schemas are walked. A `$ref` inside `const`, `enum`, `default`, `examples` or an unknown
//! keyword is data, and one among `properties` is a name; what a reference points at is a schema
//! wherever it stands. The keywords are those of all drafts together: too strict in an older
//! draft, never too lax.

use std::collections::HashMap;

use jsonschema::Draft;
use serde_json::{Map, Value};

use super::{
    TemplateError, compile,
    patterns::Patterns,
    place::{MAX_POINTER_BYTES, Place, clip, pointer_bytes},
    reference,
    rewrite::Found,
};

/// How many schemas a document may have with its references replaced by their targets: what
/// validating one value costs at most.
const MAX_NODES: usize = 10_000;

/// How deeply these may be nested: what validating takes of the stack.
const MAX_NESTING: usize = 64;

/// Checks a schema and all schemas within, and says where they are.
pub(super) fn check(document: &Value, draft: Draft) -> Result<Found<'_>, TemplateError> {
    if pointer_bytes(document) > MAX_POINTER_BYTES {
        let reason = "long names above many schemas; shorten the names or nest less";
        return Err(too_complex(&Place::Root, reason));
    }
    let mut walk = Walk { document, draft, extents: HashMap::new(), patterns: Patterns::default() };
    walk.schema(document, &Place::Root, 0)?;
    let (translations, longest_text) = walk.patterns.into_parts();
    Ok(Found { schemas: walk.extents.into_keys().collect(), translations, longest_text })
}

struct Walk<'a> {
    document: &'a Value,
    draft: Draft,
    /// By address; `None` while the schema is being walked.
    extents: HashMap<*const Value, Option<Extent>>,
    patterns: Patterns<'a>,
}

/// How large a schema is with its references replaced by their targets.
#[derive(Clone, Copy)]
struct Extent {
    nodes: usize,
    nesting: usize,
}

impl Extent {
    const LEAF: Self = Self { nodes: 1, nesting: 0 };

    fn contain(&mut self, inner: Self) {
        self.nodes = self.nodes.saturating_add(inner.nodes);
        self.nesting = self.nesting.max(inner.nesting + 1);
    }
}

impl<'a> Walk<'a> {
    fn schema(
        &mut self,
        schema: &'a Value,
        at: &Place<'_>,
        depth: usize,
    ) -> Result<Extent, TemplateError> {
        let Some(keywords) = schema.as_object() else { return Ok(Extent::LEAF) };
        let address = std::ptr::from_ref(schema);
        match self.extents.get(&address) {
            Some(None) => return Err(too_complex(at, "this reference leads back to itself")),
            Some(Some(known)) if depth + known.nesting <= MAX_NESTING => return Ok(*known),
            None if depth <= MAX_NESTING => {}
            _ => return Err(too_complex(at, "schemas and references are nested over 64 deep")),
        }
        self.extents.insert(address, None);
        self.own_keywords(keywords, at)?;
        let extent = self.contents(keywords, at, depth + 1)?;
        self.extents.insert(address, Some(extent));
        Ok(extent)
    }

    /// The extent of a schema from those of its subschemas and of what it refers to.
    fn contents(
        &mut self,
        keywords: &'a Map<String, Value>,
        at: &Place<'_>,
        depth: usize,
    ) -> Result<Extent, TemplateError> {
        let mut extent = Extent::LEAF;
        let mut contain = |inner| {
            extent.contain(inner);
            if extent.nodes > MAX_NODES {
                return Err(too_complex(at, "with references followed, over 10000 schemas"));
            }
            Ok(())
        };
        for (keyword, value) in keywords {
            let at = Place::Key(at, keyword);
            match (Holds::under(keyword), value) {
                (Holds::Named, Value::Object(named)) => {
                    for (name, inner) in named {
                        contain(self.schema(inner, &Place::Key(&at, name), depth)?)?;
                    }
                }
                (Holds::Schemas, Value::Array(inner)) => {
                    for (index, inner) in inner.iter().enumerate() {
                        contain(self.schema(inner, &Place::Index(&at, index), depth)?)?;
                    }
                }
                (Holds::Schemas, inner) => contain(self.schema(inner, &at, depth)?)?,
                _ => {}
            }
        }
        if let Some(reference) = keywords.get("$ref") {
            let (target, pointer) = self.reference(reference, at)?;
            contain(self.schema(target, &Place::Target(pointer), depth)?)?;
        }
        Ok(extent)
    }

    fn reference(
        &self,
        reference: &'a Value,
        at: &Place<'_>,
    ) -> Result<(&'a Value, &'a str), TemplateError> {
        let refused = |reason| refused(at, "$ref", reference, reason);
        let text = reference.as_str().ok_or_else(|| refused("is not a string"))?;
        let target = reference::target(self.document, text).map_err(refused)?;
        Ok((target, text))
    }

    /// The keywords that count at this schema alone.
    fn own_keywords(
        &mut self,
        keywords: &'a Map<String, Value>,
        at: &Place<'_>,
    ) -> Result<(), TemplateError> {
        for keyword in ["$dynamicRef", "$recursiveRef"] {
            if let Some(value) = keywords.get(keyword) {
                let reason = "depends on where it is reached from; use $ref with #/json/pointer";
                return Err(refused(at, keyword, value, reason));
            }
        }
        if !at.is_root() {
            self.embedded(keywords, at)?;
        }
        if let Some(Value::String(pattern)) = keywords.get("pattern") {
            self.patterns.check(pattern, &Place::Key(at, "pattern"))?;
        }
        if let Some(Value::Object(named)) = keywords.get("patternProperties") {
            for pattern in named.keys() {
                self.patterns.check(pattern, &Place::Key(at, "patternProperties"))?;
            }
        }
        Ok(())
    }

    /// A schema within may be no document of its own: neither an address nor a draft.
    fn embedded(&self, keywords: &Map<String, Value>, at: &Place<'_>) -> Result<(), TemplateError> {
        let keyword = self.draft.id_keyword();
        if let Some(id) = keywords.get(keyword) {
            let anchor =
                self.draft <= Draft::Draft7 && id.as_str().is_some_and(|id| id.starts_with('#'));
            if !anchor {
                let reason = "changes what references are relative to; only the root may have it";
                return Err(refused(at, keyword, id, reason));
            }
        }
        match keywords.get("$schema") {
            Some(found) if compile::draft_of(found) != Some(self.draft) => {
                Err(compile::unknown_draft(at, found))
            }
            _ => Ok(()),
        }
    }
}

/// What a keyword's value holds.
enum Holds {
    /// A schema or an array of schemas.
    Schemas,
    /// An object of schemas by name.
    Named,
    /// No schemas.
    Data,
}

impl Holds {
    fn under(keyword: &str) -> Self {
        match keyword {
            "additionalItems"
            | "additionalProperties"
            | "allOf"
            | "anyOf"
            | "contains"
            | "contentSchema"
            | "else"
            | "if"
            | "items"
            | "not"
            | "oneOf"
            | "prefixItems"
            | "propertyNames"
            | "then"
            | "unevaluatedItems"
            | "unevaluatedProperties" => Self::Schemas,
            "$defs" | "definitions" | "dependencies" | "dependentSchemas" | "patternProperties"
            | "properties" => Self::Named,
            _ => Self::Data,
        }
    }
}

fn too_complex(at: &Place<'_>, reason: &str) -> TemplateError {
    TemplateError::TooComplex { place: at.pointer(), reason: reason.to_owned() }
}

fn refused(at: &Place<'_>, keyword: &str, value: &Value, reason: &'static str) -> TemplateError {
    let found = clip(&format!("{keyword} {value}"));
    TemplateError::RemoteReference { place: at.pointer(), found, reason }
}

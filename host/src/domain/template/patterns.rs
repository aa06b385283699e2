//! Patterns of strangers. They run in an engine whose time is linear in the text, so they can do
//! without look-around and back-references only, and their number and compiled size are bounded.
//! Anchors, classes and the rest keep their meaning of ECMA 262, which JSON Schema prescribes.

use std::collections::HashSet;

use jsonschema::{Draft, PatternOptions, Regex};
use serde_json::json;

use super::{
    TemplateError,
    place::{Place, clip},
};

/// How many different patterns one schema may have.
const MAX_PATTERNS: usize = 64;

/// The longest pattern in bytes.
const MAX_PATTERN_BYTES: usize = 1024;

/// How many bytes may be read to translate all patterns of a schema from ECMA 262: a pattern is
/// read again for every class escape in it.
const MAX_TRANSLATED_BYTES: usize = 100_000;

/// The largest compiled pattern, and the largest cache that matching it may use, in bytes.
const MAX_COMPILED_BYTES: usize = 256 * 1024;

/// The engine that every schema of a stranger is compiled with.
pub(super) fn engine() -> PatternOptions<Regex> {
    PatternOptions::regex().size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES)
}

/// The patterns of one schema, checked as they are met.
#[derive(Default)]
pub(super) struct Patterns<'a> {
    seen: HashSet<&'a str>,
    translated: usize,
}

impl<'a> Patterns<'a> {
    /// Checks one more pattern.
    pub(super) fn check(&mut self, pattern: &'a str, at: &Place<'_>) -> Result<(), TemplateError> {
        if !self.seen.insert(pattern) {
            return Ok(());
        }
        if pattern.len() <= MAX_PATTERN_BYTES {
            self.translated += pattern.len() * (1 + class_escapes(pattern));
        }
        let reason = if self.seen.len() > MAX_PATTERNS {
            "this is one more than the 64 different patterns allowed"
        } else if self.translated > MAX_TRANSLATED_BYTES {
            "too many escapes like \\d in long patterns; write classes like [0-9]"
        } else {
            return compiles(pattern, at);
        };
        Err(TemplateError::TooComplex { place: at.pointer(), reason: reason.to_owned() })
    }
}

fn compiles(pattern: &str, at: &Place<'_>) -> Result<(), TemplateError> {
    match fault(pattern) {
        None => Ok(()),
        Some(reason) => Err(TemplateError::UnsupportedPattern {
            place: at.pointer(),
            pattern: format!("\"{}\"", clip(pattern)),
            reason,
        }),
    }
}

/// What is wrong with a pattern, as the end of a sentence.
fn fault(pattern: &str) -> Option<&'static str> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Some("has more than 1024 bytes; shorten it");
    }
    let options = jsonschema::options().with_draft(Draft::Draft7).with_pattern_options(engine());
    if options.offline().build(&json!({ "pattern": pattern })).is_ok() {
        return None;
    }
    Some(if !is_regular_expression(pattern) {
        "is not a regular expression (ECMA 262); correct it"
    } else if ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|group| pattern.contains(group)) {
        "uses look-around, which cannot be matched in linear time; write it without"
    } else if has_back_reference(pattern) {
        "uses a back-reference, which cannot be matched in linear time; write it without"
    } else {
        "is too large when compiled, or uses something this engine lacks; repeat less in it, or \
         use minLength and maxLength"
    })
}

fn class_escapes(pattern: &str) -> usize {
    escaped(pattern).filter(|character| "dDwWsSc".contains(*character)).count()
}

fn has_back_reference(pattern: &str) -> bool {
    escaped(pattern).any(|character| matches!(character, '1'..='9' | 'k'))
}

/// The characters after a backslash.
fn escaped(pattern: &str) -> impl Iterator<Item = char> {
    let mut characters = pattern.chars();
    std::iter::from_fn(move || {
        characters.find(|character| *character == '\\')?;
        characters.next()
    })
}

fn is_regular_expression(pattern: &str) -> bool {
    jsonschema::options()
        .with_draft(Draft::Draft7)
        .should_validate_formats(true)
        .offline()
        .build(&json!({ "format": "regex" }))
        .is_ok_and(|validator| validator.is_valid(&json!(pattern)))
}

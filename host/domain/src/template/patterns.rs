//! Patterns of strangers. They run in an engine whose time is linear in the text, so they can do
//! without look-around and back-references only, and their number and compiled size are bounded.
//! What a pattern means is what ECMA 262 with the flag `u` says, which JSON Schema prescribes:
//! [`ecma`] writes each pattern anew for the engine.

mod ecma;
mod property;

use std::collections::HashMap;
use std::sync::LazyLock;

use jsonschema::{Draft, PatternOptions, Regex, Validator};
use regex_automata::{meta, nfa::thompson};
use serde_json::json;

use super::{
    TemplateError,
    place::{Place, clip},
};

/// How many different patterns one schema may have.
const MAX_PATTERNS: usize = 64;

/// The longest pattern in bytes.
const MAX_PATTERN_BYTES: usize = 1024;

/// How long all patterns of a schema may be together once they are written for the engine. One
/// class escape of two bytes may become 200.
const MAX_TRANSLATED_BYTES: usize = 256 * 1024;

/// The largest compiled pattern, and the largest cache that matching it may use, in bytes.
const MAX_COMPILED_BYTES: usize = 256 * 1024;

/// How many steps one match may take: the states of a compiled pattern, times the bytes of the text.
/// Each is some nanoseconds where the engine has to follow all states at once.
const MAX_STEPS: usize = 64 << 20;

/// The engine that every schema of a stranger is compiled with.
pub(super) fn engine() -> PatternOptions<Regex> {
    PatternOptions::regex().size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES)
}

/// The patterns of one schema, checked as they are met, each with what it is for the engine.
#[derive(Default)]
pub(super) struct Patterns<'a> {
    translations: HashMap<&'a str, String>,
    translated: usize,
    states: usize,
}

impl<'a> Patterns<'a> {
    /// Checks one more pattern.
    pub(super) fn check(&mut self, pattern: &'a str, at: &Place<'_>) -> Result<(), TemplateError> {
        if self.translations.contains_key(pattern) {
            return Ok(());
        }
        let (mut translation, states) = translation(pattern).map_err(|fault| {
            let pattern = format!("\"{}\"", clip(pattern));
            TemplateError::UnsupportedPattern {
                place: at.pointer(),
                pattern,
                reason: fault.reason(),
            }
        })?;
        // Two spellings of one pattern stay two names among `patternProperties`.
        while self.translations.values().any(|other| *other == translation) {
            translation.push_str("(?:)");
        }
        self.states = self.states.max(states);
        self.translated += translation.len();
        self.translations.insert(pattern, translation);
        let reason = if self.translations.len() > MAX_PATTERNS {
            "this is one more than the 64 different patterns allowed"
        } else if self.translated > MAX_TRANSLATED_BYTES {
            "too many escapes like \\S in long patterns; use fewer or shorter patterns"
        } else {
            return Ok(());
        };
        Err(TemplateError::TooComplex { place: at.pointer(), reason: reason.to_owned() })
    }

    /// What each pattern is for the engine; no two are the same. Then the most bytes that a text
    /// may have which is held against any of them.
    pub(super) fn into_parts(self) -> (HashMap<&'a str, String>, usize) {
        (self.translations, MAX_STEPS.checked_div(self.states).unwrap_or(usize::MAX))
    }
}

/// Why a pattern is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    TooLong,
    NotRegular,
    LookAround,
    BackReference,
    Flags,
    UnknownProperty,
    TooLarge,
}

impl Fault {
    /// The end of a sentence that begins with the pattern.
    fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "has more than 1024 bytes; shorten it",
            Self::NotRegular => {
                "is not a regular expression (ECMA 262 with the flag u, as JSON Schema says); \
                 correct it"
            }
            Self::LookAround => {
                "uses look-around, which cannot be matched in linear time; write it without"
            }
            Self::BackReference => {
                "uses a back-reference, which cannot be matched in linear time; write it without"
            }
            Self::Flags => "sets flags for a group; write both cases, as in [Aa]",
            Self::UnknownProperty => {
                "names a Unicode property that is not known; write it as ECMA 262 does, as in \
                 \\p{Lu} or \\p{Script=Greek}"
            }
            Self::TooLarge => {
                "is too large when compiled, or uses something this engine lacks; repeat less in \
                 it, or use minLength and maxLength"
            }
        }
    }
}

/// A pattern for the engine, and how many states it has there.
fn translation(pattern: &str) -> Result<(String, usize), Fault> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(Fault::TooLong);
    }
    if !is_regular_expression(pattern) {
        return Err(Fault::NotRegular);
    }
    let translation = ecma::translate(pattern)?;
    let limits = meta::Config::new()
        .nfa_size_limit(Some(MAX_COMPILED_BYTES))
        .hybrid_cache_capacity(MAX_COMPILED_BYTES);
    meta::Builder::new().configure(limits).build(&translation).map_err(|_| Fault::TooLarge)?;
    let states = thompson::NFA::new(&translation).map_err(|_| Fault::TooLarge)?.states().len();
    Ok((translation, states))
}

/// Whether a text has the syntax of ECMA 262 with the flag `u`. Beyond that, a backslash may stand
/// before any punctuation, as it may without the flag.
fn is_regular_expression(pattern: &str) -> bool {
    static SYNTAX: LazyLock<Option<Validator>> = LazyLock::new(|| {
        jsonschema::options()
            .with_draft(Draft::Draft7)
            .should_validate_formats(true)
            .offline()
            .build(&json!({ "format": "regex" }))
            .ok()
    });
    SYNTAX.as_ref().is_some_and(|syntax| syntax.is_valid(&json!(pattern)))
}

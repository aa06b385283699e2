//! The form every message and template has: strict JSON, its canonical bytes and its hash.
//!
//! Strict means: no duplicate keys, no fractions, integers from 0 to 2⁵³−1, bounded depth. Both
//! are refused *before* hashing, because a lenient parser keeps the last of two equal keys and a
//! canonicaliser folds large integers, so that two different texts would share one hash.
//!
//! Not here: what a template or a message has to contain.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

/// The largest integer a message may hold, 2⁵³−1: what every JSON implementation keeps exactly.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// How deeply arrays and objects may be nested.
pub const MAX_DEPTH: usize = 64;

/// Why a text is not an acceptable message or template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON at all.
    #[error("not valid JSON: {0}")]
    Invalid(String),
    /// An object has one key twice.
    #[error("the key {key:?} occurs twice in one object ({place})")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Line and column.
        place: String,
    },
    /// An integer above 2⁵³−1.
    #[error("a number is above 9007199254740991 ({place})")]
    NumberTooLarge {
        /// Line and column.
        place: String,
    },
    /// A fraction, an exponent or a negative number.
    #[error("{number} is not allowed ({place}): {}", advice(number))]
    NumberNotInteger {
        /// The number as it is written.
        number: String,
        /// Line and column.
        place: String,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels ({place})")]
    TooDeep {
        /// Line and column.
        place: String,
    },
}

/// Parses a text strictly (see the module's documentation).
///
/// # Errors
/// [`JsonError`] with the place of the first fault.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let mut fault = None;
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed = Strict { fault: &mut fault, depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| match fault {
        Some(Fault::NotInteger(number)) => {
            let number = number_before(text, &error).unwrap_or(number);
            Fault::NotInteger(number).at(&error)
        }
        Some(fault) => fault.at(&error),
        None => JsonError::Invalid(error.to_string()),
    })
}

/// The number that ends at a place, as it is written there: `10.0` is not 10.
fn number_before(text: &[u8], error: &serde_json::Error) -> Option<String> {
    let line = text.split(|byte| *byte == b'\n').nth(error.line().checked_sub(1)?)?;
    let of_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let upto = line.get(..error.column().min(line.len()))?;
    // The place may be that of the character after it.
    let end = upto.iter().rposition(of_number)? + 1;
    let start = upto[..end].iter().rposition(|byte| !of_number(byte)).map_or(0, |at| at + 1);
    // However long it is written, it is quoted in part.
    let number = upto.get(start..end.min(start + MAX_SHOWN))?;
    std::str::from_utf8(number).ok().map(str::to_owned)
}

/// What to write instead of a number that is no integer in range.
fn advice(number: &str) -> String {
    const RANGE: &str = "a number is a whole one from 0 to 9007199254740991";
    let written = if number.contains(['e', 'E']) { "an exponent" } else { "a fraction" };
    match number.parse::<f64>() {
        Ok(value) if value < 0.0 || number.starts_with('-') => format!("{RANGE}, without a sign"),
        Ok(value) if value.fract() == 0.0 && number.len() < MAX_SHOWN => {
            format!("numbers are written without {written}; write {value}")
        }
        _ => format!("{RANGE}, without {written}"),
    }
}

/// The RFC 8785 canonical bytes of a value.
///
/// # Errors
/// [`JsonError::Invalid`] if the value cannot be written, which no parsed value is.
pub fn canonical(value: &Value) -> Result<Vec<u8>, JsonError> {
    serde_json_canonicalizer::to_vec(value).map_err(|error| JsonError::Invalid(error.to_string()))
}

/// The hash of a message or template: lowercase hex SHA-256 of its canonical form.
///
/// # Errors
/// As [`canonical`].
pub fn hash(value: &Value) -> Result<String, JsonError> {
    Ok(hex(&Sha256::digest(canonical(value)?)))
}

/// Lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The longest number that an error quotes, in bytes.
const MAX_SHOWN: usize = 40;

/// What went wrong, noted beside serde's own error, which carries the place.
enum Fault {
    Duplicate(String),
    TooLarge,
    NotInteger(String),
    TooDeep,
}

impl Fault {
    fn at(self, error: &serde_json::Error) -> JsonError {
        let place = format!("line {} column {}", error.line(), error.column());
        match self {
            Self::Duplicate(key) => JsonError::DuplicateKey { key, place },
            Self::TooLarge => JsonError::NumberTooLarge { place },
            Self::NotInteger(number) => JsonError::NumberNotInteger { number, place },
            Self::TooDeep => JsonError::TooDeep { place },
        }
    }
}

struct Strict<'a> {
    fault: &'a mut Option<Fault>,
    depth: usize,
}

impl Strict<'_> {
    fn fail<T, E: serde::de::Error>(self, fault: Fault) -> Result<T, E> {
        *self.fault = Some(fault);
        Err(E::custom("refused"))
    }

    fn inner(&mut self) -> Strict<'_> {
        Strict { fault: self.fault, depth: self.depth + 1 }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > MAX_INTEGER {
            return self.fail(Fault::TooLarge);
        }
        Ok(Value::Number(Number::from(value)))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => self.fail(Fault::NotInteger(value.to_string())),
        }
    }

    /// Integers beyond u64 arrive here too, as whole floats of at least 2⁶⁴.
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if value >= 18_446_744_073_709_551_616.0 {
            return self.fail(Fault::TooLarge);
        }
        self.fail(Fault::NotInteger(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        if self.depth >= MAX_DEPTH {
            return self.fail(Fault::TooDeep);
        }
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.inner())? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        if self.depth >= MAX_DEPTH {
            return self.fail(Fault::TooDeep);
        }
        let mut object = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if object.contains_key(&key) {
                return self.fail(Fault::Duplicate(key)).map_err(A::Error::custom::<A::Error>);
            }
            let value = access.next_value_seed(self.inner())?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(error: &JsonError) -> &'static str {
        match error {
            JsonError::Invalid(_) => "invalid",
            JsonError::DuplicateKey { .. } => "duplicate key",
            JsonError::NumberTooLarge { .. } => "too large",
            JsonError::NumberNotInteger { .. } => "not an integer",
            JsonError::TooDeep { .. } => "too deep",
        }
    }

    fn check(text: &str, expected: &str) {
        let outcome = match parse(text.as_bytes()) {
            Ok(value) => value.to_string(),
            Err(error) => word(&error).to_owned(),
        };
        assert_eq!(outcome, expected, "{text}");
    }

    #[test]
    fn texts_and_what_becomes_of_them() {
        for (text, expected) in [
            (r#"{"b":1,"a":[true,null,"x"]}"#, r#"{"a":[true,null,"x"],"b":1}"#),
            ("9007199254740991", "9007199254740991"),
            ("0", "0"),
            ("9007199254740992", "too large"),
            ("18446744073709551615", "too large"),
            ("18446744073709551616", "too large"),
            ("1e300", "too large"),
            ("-1", "not an integer"),
            ("-0", "not an integer"),
            ("1.0", "not an integer"),
            ("0.5", "not an integer"),
            ("1e2", "not an integer"),
            (r#"{"a":1,"a":1}"#, "duplicate key"),
            (r#"{"x":{"a":1,"\u0061":2}}"#, "duplicate key"),
            (r#"[{"a":1},{"a":2}]"#, r#"[{"a":1},{"a":2}]"#),
            ("{} x", "invalid"),
            ("{", "invalid"),
            ("", "invalid"),
            ("\u{feff}{}", "invalid"),
            (r#""\ud800""#, "invalid"),
            ("NaN", "invalid"),
            ("{'a':1}", "invalid"),
            ("[1,]", "invalid"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn depth_is_bounded_and_deep_texts_do_not_overflow_the_stack() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        check(&nested(MAX_DEPTH + 1), "too deep");
        check(&nested(1_000_000), "too deep");
    }

    #[test]
    fn a_fault_names_its_place() {
        let error = parse(b"{\n  \"a\": 1,\n  \"a\": 2\n}").expect_err("duplicate");
        assert_eq!(error.to_string(), "the key \"a\" occurs twice in one object (line 3 column 5)");
    }

    #[test]
    fn hash_is_that_of_the_canonical_form() {
        // SHA-256 of the bytes {"a":1,"b":2}, from sha256sum.
        let known = "43258cff783fe7036d8a43033f830adfc60ec037382473548ac742b888292777";
        let value = parse(b"{ \"b\": 2, \"a\": 1 }").expect("valid");
        assert_eq!(canonical(&value).expect("canonical"), br#"{"a":1,"b":2}"#);
        assert_eq!(hash(&value).expect("hash"), known);
    }

    #[test]
    fn keys_are_ordered_by_utf16_units_as_rfc_8785_requires() {
        let value = parse("{\"\u{10000}\":1,\"\u{ffff}\":2}".as_bytes()).expect("valid");
        let text = String::from_utf8(canonical(&value).expect("canonical")).expect("UTF-8");
        assert_eq!(text, "{\"\u{10000}\":1,\"\u{ffff}\":2}");
    }

    #[test]
    fn numbers_are_quoted_as_written_with_what_to_write_instead() {
        for (text, expected) in [
            (
                "{\n \"unitPrice\": 10.0}",
                "10.0 is not allowed (line 2 column 18): numbers are written without a fraction; write 10",
            ),
            (
                "[1e2]",
                "1e2 is not allowed (line 1 column 4): numbers are written without an exponent; write 100",
            ),
            (
                "0.5",
                "0.5 is not allowed (line 1 column 3): a number is a whole one from 0 to \
                 9007199254740991, without a fraction",
            ),
            (
                "[0, -1 ]",
                "-1 is not allowed (line 1 column 6): a number is a whole one from 0 to \
                 9007199254740991, without a sign",
            ),
            (
                "-0",
                "-0 is not allowed (line 1 column 2): a number is a whole one from 0 to 9007199254740991, without a sign",
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).expect_err("refused").to_string(), expected);
        }
        let long = format!("[0.{}]", "1".repeat(1000));
        assert!(parse(long.as_bytes()).expect_err("refused").to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn canonical_form_is_a_fixed_point(keys in proptest::collection::btree_map(".*", 0..=MAX_INTEGER, 0..8)) {
            let value = serde_json::to_value(&keys).expect("serialisable");
            let once = canonical(&value).expect("canonical");
            let again = canonical(&parse(&once).expect("strict")).expect("canonical");
            prop_assert_eq!(once, again);
        }
    }
}

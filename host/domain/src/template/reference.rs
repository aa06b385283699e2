//! `$ref` within one document. Only `#` and `#/json/pointer` are references here; everything else
//! could name another document, or depends on identifiers and anchors that this host leaves alone.

use std::borrow::Cow;

use serde_json::Value;

/// What a reference points at.
///
/// # Errors
/// A sentence that continues "$ref …".
pub(super) fn target<'a>(document: &'a Value, reference: &str) -> Result<&'a Value, &'static str> {
    let Some(fragment) = reference.strip_prefix('#') else {
        return Err("does not begin with #; a template may refer only to places in itself");
    };
    if !fragment.is_empty() && !fragment.starts_with('/') {
        return Err("names an anchor; write the place as #/json/pointer");
    }
    let Some(pointer) = percent_decoded(fragment) else {
        return Err("is not percent-encoded as an address has to be");
    };
    match document.pointer(&pointer) {
        Some(target) if target.is_object() || target.is_boolean() => Ok(target),
        Some(_) => Err("points at something that is not a schema"),
        None => Err("points at nothing in this schema"),
    }
}

fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            decoded.push(byte);
            rest = after;
            continue;
        }
        let high = hex_digit(*after.first()?)?;
        let low = hex_digit(*after.get(1)?)?;
        decoded.push(high << 4 | low);
        rest = &after[2..];
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

//! Where in a schema or message something is, and how little of a stranger's text is repeated.
//! A place is a chain of borrowed steps, turned into a JSON pointer only when an error needs it,
//! so that walking a large schema copies no keys.

use serde_json::Value;

/// The most characters of a pointer, or of a quoted text, in an error.
const MAX_SHOWN: usize = 200;

/// How large [`pointer_bytes`] may be before it matters.
pub(super) const MAX_POINTER_BYTES: usize = 8 * 1024 * 1024;

/// A place in a schema.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// The schema itself.
    Root,
    /// A member of the object at a place.
    Key(&'a Place<'a>, &'a str),
    /// An item of the array at a place.
    Index(&'a Place<'a>, usize),
    /// The target of a reference, which is a pointer with its `#`.
    Target(&'a str),
}

impl Place<'_> {
    /// The JSON pointer, bounded.
    pub(super) fn pointer(&self) -> String {
        let mut steps = Vec::new();
        let mut place = self;
        loop {
            match place {
                Place::Root => break,
                Place::Target(reference) => {
                    steps.push(reference.trim_start_matches('#').to_owned());
                    break;
                }
                Place::Key(parent, key) => {
                    steps.push(format!("/{}", key.replace('~', "~0").replace('/', "~1")));
                    place = parent;
                }
                Place::Index(parent, index) => {
                    steps.push(format!("/{index}"));
                    place = parent;
                }
            }
        }
        steps.reverse();
        clip(&steps.concat())
    }

    pub(super) fn is_root(&self) -> bool {
        matches!(self, Place::Root)
    }
}

/// At most [`MAX_SHOWN`] characters of a text, control characters escaped: it may end up on a
/// terminal.
pub(super) fn clip(text: &str) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            shown.push('…');
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A pointer as a sentence begins with it.
pub(super) fn shown(pointer: &str) -> &str {
    if pointer.is_empty() { "(root)" } else { pointer }
}

/// The bytes of the pointers to all values within a value. A compiled schema holds them, and a
/// list of violations may: a long key above many values makes them far more than the text.
pub(super) fn pointer_bytes(value: &Value) -> usize {
    fn below(value: &Value, own: usize) -> usize {
        let inner: usize = match value {
            Value::Object(members) => {
                members.iter().map(|(key, inner)| below(inner, own + 1 + key.len())).sum()
            }
            // An index has a few digits.
            Value::Array(items) => items.iter().map(|inner| below(inner, own + 4)).sum(),
            _ => 0,
        };
        own + inner
    }
    below(value, 0)
}

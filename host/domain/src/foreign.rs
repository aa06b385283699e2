//! Codes as they travel: a host of another version, and another party, may know codes that this host
//! does not. Such a code is kept as the text that it is, and no message fails because of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::code::{Code, Retry};
use crate::present::escaped;

/// The most characters that are kept of a code that this host does not know.
pub const MAX_FOREIGN: usize = 64;

/// A code that this host knows, or one that it does not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AnyCode<C> {
    /// One of this version.
    Known(C),
    /// One of a newer version or of somebody else's.
    Foreign(Foreign),
}

/// A code that this host does not know: short, and no character of it does anything but be seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Foreign(String);

impl Foreign {
    fn new(text: &str) -> Self {
        let beginning: String = text.chars().take(MAX_FOREIGN + 1).collect();
        let mut shown = escaped(&beginning);
        if let Some((end, _)) = shown.char_indices().nth(MAX_FOREIGN) {
            let last = shown[..end].chars().next_back().map_or(0, char::len_utf8);
            shown.truncate(end - last);
            shown.push('…');
        }
        Self(shown)
    }
}

impl<C: FromStr> AnyCode<C> {
    /// The code of this name.
    pub fn of(name: &str) -> Self {
        name.parse().map_or_else(|_| Self::Foreign(Foreign::new(name)), Self::Known)
    }
}

impl<C: Copy + Into<&'static str>> AnyCode<C> {
    /// The code, if this host knows it.
    pub fn known(&self) -> Option<C> {
        match self {
            Self::Known(code) => Some(*code),
            Self::Foreign(_) => None,
        }
    }

    /// Whether it is one of these.
    pub fn is_one_of(&self, codes: &[C]) -> bool
    where
        C: PartialEq,
    {
        codes.iter().any(|code| self == code)
    }

    /// The name on the wire.
    pub fn code(&self) -> &str {
        match self {
            Self::Known(code) => (*code).into(),
            Self::Foreign(Foreign(name)) => name,
        }
    }
}

impl AnyCode<Code> {
    /// As [`Code::http_status`]; what this host does not know is a bad request.
    pub fn http_status(&self) -> u16 {
        self.known().map_or(400, Code::http_status)
    }

    /// As [`Code::operator_status`]; what this host does not know is a bad request.
    pub fn operator_status(&self) -> u16 {
        self.known().map_or(400, Code::operator_status)
    }

    /// As [`Code::retry`]. What this host does not know is not final for it.
    pub fn retry(&self) -> Retry {
        self.known().map_or(Retry::Later, Code::retry)
    }
}

impl<C> From<C> for AnyCode<C> {
    fn from(code: C) -> Self {
        Self::Known(code)
    }
}

impl<C: PartialEq> PartialEq<C> for AnyCode<C> {
    fn eq(&self, code: &C) -> bool {
        matches!(self, Self::Known(known) if known == code)
    }
}

impl<C: Copy + Into<&'static str>> fmt::Display for AnyCode<C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.code())
    }
}

impl<C: Copy + Into<&'static str>> Serialize for AnyCode<C> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.code())
    }
}

impl<'de, C: FromStr> Deserialize<'de> for AnyCode<C> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|name| Self::of(&name))
    }
}

#[cfg(test)]
mod tests;

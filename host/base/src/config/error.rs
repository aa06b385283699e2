//! Why a configuration is refused. Every message names the place, the key and what would do.
//!
//! Values are shown only where they are numbers or words from a fixed list: a module's settings
//! may hold secrets.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::FILE_NAME;
use super::file::MAX_BYTES;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// Line and column in characters, both from 1, where they are known.
        place: Option<(usize, usize)>,
    },
    /// An environment variable, by its name.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, place: Some((line, column)) } => {
                write!(out, "{}:{line}:{column}", path.display())
            }
            Self::File { path, place: None } => write!(out, "{}", path.display()),
            Self::Variable(name) => out.write_str(name),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The home directory's path cannot be made absolute.
    #[error("{path:?} cannot be the home directory")]
    Home {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no file.
    #[error(
        "there is no {path}; write one with `privatix init --role agent|client`",
        path = path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe or the like.
    #[error("{path} is not a regular file", path = path.display())]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },
    /// Larger than any configuration.
    #[error("{path} is larger than {MAX_BYTES} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not text.
    #[error("{path} is not UTF-8: see line {line}", path = path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line with the first byte that is not, from 1.
        line: usize,
    },
    /// The system gives no thread to parse the file on.
    #[error("cannot start a thread to read the configuration")]
    Thread(#[source] io::Error),
    /// Not TOML.
    #[error("{at}: not valid TOML: {reason}")]
    Syntax {
        /// Where.
        at: Origin,
        /// In the parser's words.
        reason: String,
    },
    /// The file has a key that means nothing.
    #[error("{at}: unknown key {key}{}", hint(nearest.as_deref()))]
    UnknownKey {
        /// Where.
        at: Origin,
        /// The key.
        key: String,
        /// The known key that may have been meant.
        nearest: Option<String>,
    },
    /// A variable names no key.
    #[error("{variable}: unknown variable{}", hint(nearest.as_deref()))]
    UnknownVariable {
        /// The variable.
        variable: String,
        /// The variable that may have been meant.
        nearest: Option<String>,
    },
    /// A variable names a whole section.
    #[error("{variable}: {key} is a section; set its keys one by one, as {variable}__KEY")]
    Section {
        /// The variable.
        variable: String,
        /// The section.
        key: String,
    },
    /// A variable names a key below one that has no keys.
    #[error("{variable}: {key} is {found}, so it has no keys")]
    NotASection {
        /// The variable.
        variable: String,
        /// What it goes through.
        key: String,
        /// What that is.
        found: &'static str,
    },
    /// A variable fits several keys that differ only in case, `-` and `_`.
    #[error("{variable}: could mean {first} or {second}; set it in {FILE_NAME}")]
    Ambiguous {
        /// The variable.
        variable: String,
        /// One of the keys.
        first: String,
        /// Another.
        second: String,
    },
    /// Two variables differ only in case.
    #[error("{first} and {second} both set {key}; unset one of them")]
    SetTwice {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// What both set.
        key: String,
    },
    /// A variable is not UTF-8.
    #[error("{variable}: its name or value is not UTF-8")]
    VariableNotUtf8 {
        /// The variable's name, as far as it is.
        variable: String,
    },
    /// The file does not say which side the host takes.
    #[error(
        "{path}: role is not set; write role = \"agent\" or role = \"client\"",
        path = path.display()
    )]
    NoRole {
        /// The file.
        path: PathBuf,
    },
    /// A value of the wrong type.
    #[error("{at}: {key} has to be {expected}, not {found}")]
    Kind {
        /// Where.
        at: Origin,
        /// The key.
        key: String,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A value of the right type that will not do.
    #[error("{at}: {key}: {reason}")]
    Value {
        /// Where.
        at: Origin,
        /// The key.
        key: String,
        /// What would do.
        reason: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default()
}

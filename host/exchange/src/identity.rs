//! The file that holds a host's identity: made once, readable by its owner alone.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use privatix_plugin_api::files;
use privatix_plugin_api::json::{self, JsonError};
use zeroize::Zeroizing;

use privatix_domain::identity::{Identity, IdentityError};

/// The file's name in the host's home directory.
pub const FILE_NAME: &str = "identity.json";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFileError {
    /// The file cannot be opened, read or written.
    #[error("{what} {path}")]
    Io {
        /// What was done.
        what: &'static str,
        /// To which file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is one already.
    #[error("{0} is there already; nothing was changed")]
    Exists(String),
    /// Others can read it.
    #[error("{path} has mode {mode:04o}; it holds secrets: chmod 600 {path}")]
    Open {
        /// Which file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Not JSON.
    #[error("{path} is no identity")]
    Json {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: JsonError,
    },
    /// JSON, but no identity.
    #[error("{path} is no identity")]
    Form {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// The system gives no randomness.
    #[error("no randomness to make keys of: {0}")]
    Entropy(getrandom::Error),
}

/// A new identity.
///
/// # Errors
/// [`IdentityFileError::Entropy`].
pub fn generate() -> Result<Identity, IdentityFileError> {
    let mut entropy = [0; 96];
    getrandom::fill(&mut entropy).map_err(IdentityFileError::Entropy)?;
    Ok(Identity::from_entropy(entropy))
}

/// Reads an identity from a file that nobody else can read.
///
/// # Errors
/// [`IdentityFileError`].
pub fn read(path: &Path) -> Result<Identity, IdentityFileError> {
    let shown = || path.display().to_string();
    let failed = |source| IdentityFileError::Io { what: "reading", path: shown(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityFileError::Open { path: shown(), mode });
    }
    let mut text = Vec::new();
    file.take(64 * 1024).read_to_end(&mut text).map_err(failed)?;
    let value =
        json::parse(&text).map_err(|source| IdentityFileError::Json { path: shown(), source })?;
    Identity::from_json(&value).map_err(|source| IdentityFileError::Form { path: shown(), source })
}

/// Writes an identity into a new file, mode 0600.
///
/// # Errors
/// [`IdentityFileError`]; a file that is there is not touched.
pub fn write(path: &Path, identity: &Identity) -> Result<(), IdentityFileError> {
    let shown = || path.display().to_string();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => IdentityFileError::Exists(shown()),
        _ => IdentityFileError::Io { what: "writing", path: shown(), source },
    };
    let text = Zeroizing::new(format!("{:#}\n", identity.to_json()));
    files::create(path, text.as_bytes()).map_err(failed)
}

/// Whether a file is the beginning of something that was not written to its end: it never was an
/// identity.
pub fn is_cut(path: &Path) -> bool {
    let Ok(text) = std::fs::read(path) else { return false };
    serde_json::from_slice::<serde_json::Value>(&text).is_err_and(|error| error.is_eof())
}

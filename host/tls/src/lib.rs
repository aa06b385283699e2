//! TLS between agents and clients: the certificate an agent shows, and whom a client believes.
//!
//! All cryptography is `ring`'s, named explicitly, so that nothing process-wide has to be set up.
//! TLS hides who trades with whom; what the parties believe of each other rests on their own
//! signatures in any case.

#![forbid(unsafe_code)]

mod certificate;
mod trust;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

pub use self::certificate::Handshake;
pub use self::certificate::{Certificate, Files};
pub use self::trust::explain;
pub use self::trust::{nobody, system};

/// Certificates and keys are far smaller, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What others may not do with a key: its group may read it, as `ssl-cert` does.
const KEY_IS_OPEN: u32 = 0o027;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("reading {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, or far too large.
    #[error("{0} is no file of at most {MAX_FILE} bytes")]
    NotAFile(String),
    /// A key that is no secret.
    #[error(
        "{path} has mode {mode:04o}; it holds a private key: chmod 600 {path} (or 640, for a group \
         that may read it)"
    )]
    Open {
        /// Which file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Damaged.
    #[error("{path} is not PEM")]
    Pem {
        /// Which file.
        path: String,
        /// Why not.
        #[source]
        source: pem::Error,
    },
    /// PEM of something else.
    #[error("{0} holds no certificate")]
    NoCertificate(String),
    /// No key, or one behind a password.
    #[error("{0} holds no private key, or one that is encrypted, for which nobody is asked")]
    NoKey(String),
    /// Not what it should be, or not fitting together.
    #[error("{path} cannot be used")]
    Unusable {
        /// Which file.
        path: String,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn read(path: &Path, forbidden: u32) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: shown(path), source };
    // Opening a pipe would wait for somebody to write.
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(TlsError::NotAFile(shown(path)));
    }
    let mode = meta.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(TlsError::Open { path: shown(path), mode });
    }
    let mut text = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// The certificates of a file, in its order; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path, 0)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|source| TlsError::Pem { path: shown(path), source })?;
    if all.is_empty() { Err(TlsError::NoCertificate(shown(path))) } else { Ok(all) }
}

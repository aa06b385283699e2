//! The certificate that an agent shows, and how a connection becomes a secret one.
//!
//! Certificates are renewed at night by somebody else: the files are looked at again and again, and
//! new ones are used for the next connection. Ones that cannot be used are said so, and the old
//! ones go on.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{KEY_IS_OPEN, TlsError, certificates, provider, read, shown};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How long a handshake may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// What every connection with TLS begins with: the type of a handshake record.
const TLS: u8 = 0x16;

/// Where certificate and key are, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The agent's certificate, and those between it and the root after it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    files: Files,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    own: CertificateDer<'static>,
    /// What the files were when they were read.
    stamp: Option<Stamp>,
}

/// Of both files; changes when one of them does, in whatever way.
type Stamp = [FileStamp; 2];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    file: (u64, u64),
    length: u64,
    /// Of the content, and of anything at all.
    changed: [(i64, i64); 2],
}

/// What a connection turned out to be.
pub enum Handshake {
    /// TLS, with its handshake done.
    Tls(Box<TlsStream<TcpStream>>),
    /// Something else, of which nothing has been read.
    Plain(TcpStream),
}

/// Why there was no handshake; whatever it is, it is the client's affair.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the TLS handshake took longer than {DEADLINE:?}")]
    Late,
    #[error("closed without a word")]
    Silent,
    #[error("the TLS handshake")]
    Failed(#[source] io::Error),
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], also where key and certificate are not of each other.
    pub fn load(files: Files) -> Result<Self, TlsError> {
        let current = RwLock::new(Current::load(&files)?);
        Ok(Self { files, current })
    }

    /// Whether it is good for a name or an address.
    pub fn covers(&self, host: &str) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let name = ServerName::try_from(host.trim_matches(['[', ']']));
        let parsed = ParsedCertificate::try_from(&current.own);
        name.ok()
            .zip(parsed.ok())
            .is_some_and(|(name, parsed)| verify_server_name(&parsed, &name).is_ok())
    }

    /// Uses new files as they come, for ever.
    pub async fn follow(&self) {
        let mut last: Option<String> = None;
        loop {
            sleep(LOOK).await;
            let files = self.files.clone();
            let known = self.current.read().unwrap_or_else(PoisonError::into_inner).stamp;
            let retry = last.is_some();
            let looked = tokio::task::spawn_blocking(move || {
                (stamp(&files) != known || retry).then(|| Current::load(&files))
            });
            match looked.await {
                Ok(Some(Ok(new))) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                    tracing::info!(cert = %self.files.cert.display(), "a new certificate is used");
                    last = None;
                }
                Ok(Some(Err(error))) => {
                    let error = privatix_plugin_api::chain(&error);
                    if last.as_ref() != Some(&error) {
                        tracing::error!(error, "the new certificate is not used; the old one is");
                    }
                    last = Some(error);
                }
                // Nothing new; or this host is ending.
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// Makes a connection secret, in a limited time.
    pub async fn accept(&self, stream: TcpStream) -> Result<Handshake, HandshakeError> {
        let shaken = timeout(DEADLINE, self.shake(stream)).await;
        shaken.unwrap_or(Err(HandshakeError::Late))
    }

    async fn shake(&self, stream: TcpStream) -> Result<Handshake, HandshakeError> {
        let mut first = [0];
        match stream.peek(&mut first).await.map_err(HandshakeError::Failed)? {
            0 => return Err(HandshakeError::Silent),
            _ if first[0] != TLS => return Ok(Handshake::Plain(stream)),
            _ => {}
        }
        let config = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&current.config)
        };
        let shaken = TlsAcceptor::from(config).accept(stream).await;
        shaken.map(|stream| Handshake::Tls(Box::new(stream))).map_err(HandshakeError::Failed)
    }
}

impl Current {
    fn load(files: &Files) -> Result<Self, TlsError> {
        // Before reading: what changes meanwhile is seen the next time.
        let stamp = stamp(files);
        let chain = certificates(&files.cert)?;
        let key = key(&files.key)?;
        let unusable = |source| TlsError::Unusable {
            // A certificate is looked at first, and then whether the key is its.
            path: format!("{} with {}", shown(&files.cert), shown(&files.key)),
            source,
        };
        let own = chain.first().cloned().ok_or(TlsError::NoCertificate(shown(&files.cert)))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), own, stamp })
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path, KEY_IS_OPEN)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::NoKey(shown(path)),
        source => TlsError::Pem { path: shown(path), source },
    })
}

/// Of the files themselves, where there are links to them.
fn stamp(files: &Files) -> Option<Stamp> {
    let of = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        let changed = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
        Some(FileStamp { file: (meta.dev(), meta.ino()), length: meta.len(), changed })
    };
    Some([of(&files.cert)?, of(&files.key)?])
}

//! Whom a client believes: the authorities of its system, as its other programs do, and those of
//! `client.ca_file`.

use std::error::Error;
use std::io;
use std::path::Path;

use rustls::{CertificateError, ClientConfig, InvalidMessage, RootCertStore};

use super::{TlsError, certificates, provider, shown};

/// The system's authorities, and those of a file.
///
/// # Errors
/// [`TlsError`] for the file. What is wrong with the system's is logged, because agents without
/// TLS are reached in any case.
pub fn system(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::warn!(
            error = privatix_plugin_api::chain(&error),
            "a certificate of the system was not read"
        );
    }
    roots.add_parsable_certificates(found.certs);
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|source| TlsError::Unusable { path: shown(path), source })?;
        }
    }
    if roots.is_empty() {
        tracing::warn!(
            "this system knows no certificate authorities, so no agent with https is believed; \
             install ca-certificates, or set client.ca_file"
        );
    }
    with(roots)
}

/// Nobody at all, for who makes no calls.
///
/// # Errors
/// None in this build.
pub fn nobody() -> Result<ClientConfig, TlsError> {
    with(RootCertStore::empty())
}

fn with(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let config =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(|source| TlsError::Unusable { path: "TLS".to_owned(), source })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Why a call failed, where TLS is the reason.
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    let error = loop {
        let error = cause?;
        match error.downcast_ref::<rustls::Error>() {
            Some(error) => break error,
            None => cause = below(error),
        }
    };
    Some(match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "what answers there does not speak TLS; is its URL http:// perhaps?".to_owned(),
        other => other.to_string(),
    })
}

/// What an error was made of, which an I/O error hides from a caller that asks for its source.
fn below<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as _),
        None => error.source(),
    }
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "its certificate is not for this name".to_owned()
        }
        // The others: an authority of the same name is known, but it is another one.
        E::UnknownIssuer
        | E::BadSignature
        | E::UnsupportedSignatureAlgorithmContext { .. }
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its certificate is of no authority that is known here; a private one \
                             is set as client.ca_file"
                .to_owned()
        }
        other => format!("its certificate is not valid: {other}"),
    }
}

//! The agent's own certification: made on the first start, kept in the data directory.
//!
//! The CA signs nothing but the server's certificate, which is made anew at every start and never
//! leaves this machine with its key. Clients are told the CA's certificate and the key of
//! `tls-crypt`; they log in with the credentials of their channel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

/// The name in the server's certificate, which clients insist on.
pub(crate) const SERVER_NAME: &str = "privatix-vpn-server";
const CA_NAME: &str = "privatix VPN CA";

/// Certificates are trusted because a signed access message brought them, not for a time.
const FIRST_YEAR: i32 = 2020;
const LAST_YEAR: i32 = 2120;

/// The size of a static key of OpenVPN's.
const STATIC_KEY: usize = 256;

/// What the server is run with. Paths are of files that only the owner can read.
#[derive(Debug)]
pub(crate) struct Pki {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) tls_crypt: PathBuf,
    /// What clients are told.
    pub(crate) ca_text: String,
    pub(crate) tls_crypt_text: String,
}

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    #[error("the file {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{what}")]
    Certificate {
        what: &'static str,
        #[source]
        source: rcgen::Error,
    },
    #[error("{} is no key of tls-crypt", .0.display())]
    NoStaticKey(PathBuf),
    #[error("the system has no random numbers")]
    Random(#[source] getrandom::Error),
}

impl Pki {
    /// Reads what is there and makes what is not.
    pub(crate) fn open(directory: &Path) -> Result<Self, PkiError> {
        fs::create_dir_all(directory).map_err(at(directory))?;
        let path = |name: &str| directory.join(name);
        let (ca_key, ca) = (path("ca.key"), path("ca.crt"));
        let key = keep(&ca_key, || KeyPair::generate().map(|key| key.serialize_pem()))?;
        let key = KeyPair::from_pem(&key).map_err(step("reading the CA's key"))?;
        let params = ca_params();
        let ca_text = keep(&ca, || params.self_signed(&key).map(|made| made.pem()))?;
        let issuer = Issuer::new(params, key);
        let server = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let server = server.map_err(step("making the server's key"))?;
        let made = server_params().and_then(|params| params.signed_by(&server, &issuer));
        let made = made.map_err(step("making the server's certificate"))?;
        let (certificate, key) = (path("server.crt"), path("server.key"));
        write(&certificate, &made.pem())?;
        write(&key, &server.serialize_pem())?;
        let tls_crypt = path("tls-crypt.key");
        if !tls_crypt.exists() {
            write(&tls_crypt, &static_key()?)?;
        }
        let tls_crypt_text = fs::read_to_string(&tls_crypt).map_err(at(&tls_crypt))?;
        if !is_static_key(&tls_crypt_text) {
            return Err(PkiError::NoStaticKey(tls_crypt));
        }
        Ok(Self { ca, certificate, key, tls_crypt, ca_text, tls_crypt_text })
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(FIRST_YEAR, 1, 1);
    params.not_after = date_time_ymd(LAST_YEAR, 1, 1);
    params
}

fn server_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(FIRST_YEAR, 1, 1);
    params.not_after = date_time_ymd(LAST_YEAR, 1, 1);
    Ok(params)
}

/// A file's text; made and kept if there is none.
fn keep(
    path: &Path,
    make: impl FnOnce() -> Result<String, rcgen::Error>,
) -> Result<String, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = make().map_err(step("making the CA"))?;
            write(path, &text)?;
            Ok(text)
        }
        Err(source) => Err(PkiError::File { path: path.to_owned(), source }),
    }
}

/// What is read back later is whole.
fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    privatix_plugin_api::files::replace(path, text.as_bytes()).map_err(at(path))
}

/// A key in the form of `openvpn --genkey secret`.
fn static_key() -> Result<String, PkiError> {
    let mut key = [0; STATIC_KEY];
    getrandom::fill(&mut key).map_err(PkiError::Random)?;
    let lines: Vec<String> = key.chunks(16).map(privatix_plugin_api::json::hex).collect();
    Ok(format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")))
}

const BEGIN: &str = "-----BEGIN OpenVPN Static key V1-----";
const END: &str = "-----END OpenVPN Static key V1-----";

/// Whether a text is a static key and nothing else: it becomes part of a configuration.
pub(crate) fn is_static_key(text: &str) -> bool {
    let inner = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    inner.is_some_and(|inner| {
        let digits: String = inner.split_whitespace().collect();
        digits.len() == STATIC_KEY * 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Whether a text is a certificate in PEM and nothing else.
pub(crate) fn is_certificate(text: &str) -> bool {
    let inner = text.trim().strip_prefix("-----BEGIN CERTIFICATE-----");
    let inner = inner.and_then(|rest| rest.strip_suffix("-----END CERTIFICATE-----"));
    inner.is_some_and(|inner| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"+/=\r\n".contains(&b);
        inner.len() > 100 && inner.bytes().all(known)
    })
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { path, source }
}

fn step(what: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { what, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_nobody_else_can_read_the_keys() {
        let home = tempfile::tempdir().expect("a directory");
        let first = Pki::open(&home.path().join("pki")).expect("made");
        for path in [home.path().join("pki/ca.key"), first.key.clone(), first.tls_crypt.clone()] {
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        assert!(is_certificate(&first.ca_text), "{}", first.ca_text);
        let certificate = fs::read_to_string(&first.certificate).expect("there");
        let again = Pki::open(&home.path().join("pki")).expect("read");
        assert_eq!(again.ca_text, first.ca_text);
        assert_eq!(again.tls_crypt_text, first.tls_crypt_text);
        assert_ne!(fs::read_to_string(&first.certificate).expect("there"), certificate);
    }

    #[test]
    fn what_is_damaged_is_not_replaced() {
        for name in ["ca.key", "tls-crypt.key"] {
            let home = tempfile::tempdir().expect("a directory");
            let first = Pki::open(home.path()).expect("made");
            fs::write(home.path().join(name), "x").expect("written");
            Pki::open(home.path()).expect_err(name);
            assert_eq!(fs::read_to_string(home.path().join(name)).expect("there"), "x");
            drop(first);
        }
    }

    #[test]
    fn what_goes_into_a_configuration() {
        let key = static_key().expect("random");
        assert!(is_static_key(&key));
        let evil =
            key.replace(END, "</tls-crypt>\nup /bin/sh\n-----END OpenVPN Static key V1-----");
        assert!(!is_static_key(&evil));
        assert!(!is_static_key(""));
        let body = "A".repeat(200);
        let pem = |body: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        assert!(is_certificate(&pem(&body)));
        assert!(!is_certificate(&pem(&format!("{body}\n</ca>\nup x"))));
        assert!(!is_certificate(&body));
    }
}

//! Beyond loopback: only with a certificate, and then by nothing else.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use privatix_modules::registry::State;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::program::{Described, post, token};
use crate::support::trade::free_port;
use crate::support::{Node, PATIENCE};

#[test]
fn with_a_certificate_it_listens_anywhere_and_speaks_nothing_but_tls() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("signed");
    let (cert, secret) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    fs::write(&cert, certificate.pem()).expect("written");
    fs::write(&secret, key.serialize_pem()).expect("written");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("set");
    let port = free_port();
    let mut node = Node::stopped("agent", "");
    node.configure(&format!(
        "[standalone]\nenabled = true\nlisten = \"0.0.0.0:{port}\"\ntls_cert = {:?}\n\
         tls_key = {:?}\n",
        cert.display(),
        secret.display()
    ));
    node.start();
    Described::named("files").drop_into(&node.plugins());
    node.wait_state("files", State::Running);
    let token = token(&node, "files");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"service_configuration"}"#;
    // By mistake without TLS: said, not served.
    let (status, body) = post(address, Some(&token), call);
    assert_eq!(status, 400);
    assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains("TLS")), "{body}");

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate.der().to_vec())).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut stream = StreamOwned::new(connection, stream);
    let request = format!(
        "POST /http HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{call}",
        call.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    // Some end without the word that it is the end.
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("\"name\":\"files\""), "{answer}");
}

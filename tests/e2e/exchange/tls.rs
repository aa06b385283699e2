//! TLS between a real agent and its clients: who is believed, files that will not do, certificates
//! that change under way, and handshakes that come to nothing.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use privatix_core::IdentityView;
use privatix_exchange::peer::{Peer, PeerError};
use privatix_plugin_api::message::Status;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::json;
use tempfile::TempDir;

use super::wire::{ask, closes, connect, raw};
use crate::support::trade::free_port;
use crate::support::{Node, Package, Pair, wait_for};

/// An authority of the test's own, and the files of whom it vouches for.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let root = params.self_signed(&key).expect("signed");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("ca.pem"), root.pem()).expect("written");
        Self { directory, issuer: Issuer::new(params, key) }
    }

    fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate for a name, with some parameters changed, and its key.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("parameters");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// Puts both where the agent looks for them, each whole at once.
    fn install(&self, (certificate, key): &(String, String)) {
        for (name, text, mode) in [("agent.pem", certificate, 0o644), ("agent.key", key, 0o600)] {
            let part = self.path(&format!("{name}.part"));
            fs::write(&part, text).expect("written");
            fs::set_permissions(&part, Permissions::from_mode(mode)).expect("set");
            fs::rename(part, self.path(name)).expect("renamed");
        }
    }

    /// What an agent is told of them.
    fn configuration(&self) -> String {
        let (cert, key) = (self.path("agent.pem"), self.path("agent.key"));
        format!("[exchange]\ntls_cert = {:?}\ntls_key = {:?}\n", cert.display(), key.display())
    }

    /// Calls agents as a client with this authority does.
    fn peer(&self) -> Peer {
        Peer::new(privatix_tls::system(Some(&self.ca())).expect("read")).expect("a caller")
    }
}

fn offerings(peer: &Peer, url: &str) -> Result<(), PeerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(peer.offerings(url)).map(drop)
}

fn address(node: &Node) -> SocketAddr {
    let identity: IdentityView = node.get("/v1/identity").expect("an identity");
    let url = identity.exchange.expect("a URL");
    url.strip_prefix("https://").expect("https").parse().expect("an address")
}

#[test]
fn two_nodes_trade_in_secret_and_a_new_certificate_is_used() {
    let authority = Authority::new("one");
    authority.issue_and_install("127.0.0.1");
    let package = Package::echo();
    let agent = format!("[agent]\norders = \"open\"\n{}", authority.configuration());
    let client = format!("[client]\nca_file = {:?}\n", authority.ca().display());
    let pair = Pair::configured(&package, &agent, &client);
    let address = address(&pair.agent);
    let offering = pair.offer(&package);
    let channel = pair.order(&offering);
    pair.client.wait_channel(channel, Status::Active);
    let first = shown(address, &authority.ca());

    // What cannot be used is not, and the old one goes on: a key of another certificate first.
    let next = authority.issue("127.0.0.1", |_| {});
    fs::write(authority.path("agent.key"), &next.1).expect("written");
    wait_for("a word on it", || {
        pair.agent.log().contains("the new certificate is not used").then_some(())
    });
    assert_eq!(shown(address, &authority.ca()), first);
    fs::write(authority.path("agent.pem"), &next.0).expect("written");
    wait_for("the new certificate", || (shown(address, &authority.ca()) != first).then_some(()));
    let channel = pair.order(&offering);
    pair.client.wait_channel(channel, Status::Active);

    // One of another authority: the client says so, and goes on when it is mended.
    let other = Authority::new("another").issue("127.0.0.1", |_| {});
    authority.install(&other);
    let order = json!({ "offering": offering, "deposit": null, "hold": false });
    let url = format!("https://{address}");
    wait_for("a refusal", || {
        let error = offerings(&authority.peer(), &url).err()?;
        error.to_string().contains("of no authority that is known").then_some(())
    });
    let order: privatix_core::OrderView = pair.client.post("/v1/orders", &order).expect("made");
    assert_eq!(order.state, "waiting");
    authority.install(&next);
    let channel = pair.accepted(&order);
    pair.client.wait_channel(channel, Status::Active);
}

impl Authority {
    fn issue_and_install(&self, name: &str) {
        self.install(&self.issue(name, |_| {}));
    }
}

/// The certificate that is shown to who shakes hands.
fn shown(address: SocketAddr, ca: &Path) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca).expect("PEM") {
        roots.add(root.expect("a certificate")).expect("added");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::from(address.ip());
    let mut secret = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut stream = connect(address);
    secret.complete_io(&mut stream).expect("a handshake");
    secret.peer_certificates().expect("certificates")[0].to_vec()
}

#[test]
fn who_is_not_believed() {
    let authority = Authority::new("one");
    let stranger = Authority::new("another");
    let (here, there) = ("127.0.0.1", "agent.example");
    let old = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let young = |params: &mut CertificateParams| params.not_before = date_time_ymd(2090, 1, 1);
    let root = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    for (name, files, expected) in [
        ("good", authority.issue(here, |_| {}), None),
        ("another's", stranger.issue(here, |_| {}), Some("of no authority that is known here")),
        ("another name", authority.issue(there, |_| {}), Some("is not for this name")),
        ("old", authority.issue(here, old), Some("has expired")),
        ("young", authority.issue(here, young), Some("is not valid yet")),
        ("an authority", authority.issue(here, root), Some("is not valid")),
    ] {
        authority.install(&files);
        let node = Node::configured("agent", &authority.configuration());
        let address = address(&node);
        let found = offerings(&authority.peer(), &format!("https://{address}"));
        match expected {
            None => found.expect(name),
            Some(expected) => {
                let error = found.expect_err(name).to_string();
                assert!(error.contains(expected), "{name}: {error}");
            }
        }
        let warned = node.log().contains("exchange.tls_cert is not for this name");
        assert_eq!(warned, name == "another name", "{name}");
        if name == "good" {
            // Without TLS, where it is spoken.
            let error = offerings(&authority.peer(), &format!("http://{address}"));
            let error = error.expect_err("refused").to_string();
            assert!(error.contains("TlsRequired"), "{error}");
            let found = ask(address, "POST", "/v1/orders", b"{}");
            assert_eq!(found.word(), "400 TlsRequired");
            // By a client that knows only its system's authorities.
            let peer = Peer::new(privatix_tls::system(None).expect("read")).expect("a caller");
            let error = offerings(&peer, &format!("https://{address}")).expect_err("refused");
            assert!(error.to_string().contains("client.ca_file"), "{error}");
        }
    }
}

#[test]
fn tls_where_none_is_spoken() {
    let node = Node::agent();
    let identity: IdentityView = node.get("/v1/identity").expect("an identity");
    let url = identity.exchange.expect("a URL").replace("http://", "https://");
    let error = offerings(&Authority::new("one").peer(), &url).expect_err("refused").to_string();
    assert!(error.contains("does not speak TLS"), "{error}");
    // And where nobody answers at all.
    let port = free_port();
    let error = offerings(&Authority::new("one").peer(), &format!("https://127.0.0.1:{port}"));
    let error = error.expect_err("refused");
    assert!(matches!(error, PeerError::Unreached { .. }), "{error}");
}

#[test]
fn files_that_will_not_do() {
    let authority = Authority::new("one");
    let good = authority.issue("127.0.0.1", |_| {});
    let other = authority.issue("127.0.0.1", |_| {});
    let both = authority.configuration();
    let check = |name: &str, configuration: &str, expected: &str| {
        let node = Node::stopped("agent", configuration);
        let output = node.privatix(&["run"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains(expected), "{name}: {last}");
    };
    let put = |name: &str, text: &str| fs::write(authority.path(name), text).expect("written");
    let cert = authority.path("agent.pem");

    check("nothing there", &both, "agent.pem: No such file");
    authority.install(&good);
    fs::remove_file(authority.path("agent.key")).expect("removed");
    check("no key", &both, "agent.key: No such file");
    authority.install(&good);
    let open = Permissions::from_mode(0o644);
    fs::set_permissions(authority.path("agent.key"), open).expect("set");
    check("an open key", &both, "mode 0644; it holds a private key: chmod 600");
    authority.install(&(good.0.clone(), other.1.clone()));
    check("another's key", &both, "cannot be used");
    authority.install(&(good.1.clone(), good.0.clone()));
    check("the wrong way round", &both, "agent.pem holds no certificate");
    authority.install(&good);
    put("agent.key", &good.1.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    check("a key with a password", &both, "or one that is encrypted");
    authority.install(&good);
    put("agent.pem", &good.0[..good.0.len() / 2]);
    check("half a certificate", &both, "agent.pem is not PEM");
    put("agent.pem", "");
    check("an empty file", &both, "agent.pem holds no certificate");
    put("agent.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    check("no certificate", &both, "cannot be used");
    fs::remove_file(&cert).expect("removed");
    fs::create_dir(&cert).expect("made");
    check("a directory", &both, "agent.pem is no file");
    fs::remove_dir(&cert).expect("removed");

    authority.install(&good);
    let with_url = format!("{both}url = \"http://agent.example\"\n");
    check("a URL without TLS", &with_url, "has to begin with https://");
    let alone = format!("[exchange]\ntls_cert = {:?}\n", cert.display());
    check("without a key", &alone, "exchange.tls_key is needed");
    let client = "[client]\nca_file = \"nowhere.pem\"\n";
    let node = Node::stopped("client", client);
    let output = node.privatix(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("client.ca_file") && said.contains("nowhere.pem"), "{said}");
}

/// The limit of a handshake is 10 s; how much later is still in time on a machine with other
/// things to do.
const SLACK: Duration = Duration::from_secs(25);

#[test]
fn handshakes_that_come_to_nothing_harm_nobody() {
    let authority = Authority::new("one");
    authority.issue_and_install("127.0.0.1");
    let node = Node::configured("agent", &authority.configuration());
    let address = address(&node);
    let begun = |bytes: &[u8]| {
        let mut stream = connect(address);
        stream.write_all(bytes).expect("sent");
        stream
    };
    let hello = hello();
    // Of a record that never comes, of a hello that stops in the middle, of one without an end.
    let beginnings: [&[u8]; 4] = [b"", b"\x16", &hello[..hello.len() / 2], &hello];
    let half: Vec<TcpStream> = beginnings.into_iter().map(begun).collect();
    let good = || offerings(&authority.peer(), &format!("https://{address}")).expect("answered");
    good();
    let mut noise = vec![0x16, 3, 1, 0x3f, 0xff];
    noise.extend((0..0x3fff).map(|number: u32| (number % 251) as u8));
    for bytes in [&noise[..], b"\x16\x03\x01\xff\xff", b"\x16\0\0\0\0\0\0", b"\x16GET / HTTP/1.1"] {
        let mut stream = begun(bytes);
        let closed = closes_after_an_alert(&mut stream);
        assert!(closed, "{:?}", &bytes[..5]);
        good();
    }
    assert!(raw(address, b"hello\r\n\r\n").is_none_or(|answer| answer.status == 400));
    for mut stream in half {
        assert!(closes_after_an_alert(&mut stream));
    }
    good();
}

/// What a client says first.
fn hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("agent.example").expect("a name");
    let mut secret = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut bytes = Vec::new();
    secret.write_tls(&mut bytes).expect("written");
    bytes
}

/// The other side may say what is wrong, or shake hands as far as it can, but then it goes.
fn closes_after_an_alert(stream: &mut TcpStream) -> bool {
    (0..16).any(|_| closes(stream, SLACK))
}

#[test]
fn an_agent_behind_a_proxy_may_have_an_https_url() {
    let node = Node::configured("agent", "[exchange]\nurl = \"https://agent.example/\"\n");
    let identity: IdentityView = node.get("/v1/identity").expect("an identity");
    assert_eq!(identity.exchange.as_deref(), Some("https://agent.example"));
}

/// An address beyond its share is turned away; another is not.
#[test]
fn an_address_has_so_many_connections() {
    let limits = "[exchange]\nlisten = \"0.0.0.0:0\"\nurl = \"http://a\"\n\
                  connections_per_address = 3\n";
    // The port is known from the log alone, since the URL is another.
    let port = free_port();
    let node = Node::configured("agent", &limits.replace(":0\"", &format!(":{port}\"")));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
    // Whether the first ones have been taken in shows in what becomes of further ones.
    let mut further = connect(address);
    assert!(closes(&mut further, SLACK));
    assert!(raw(address, b"GET /v1/offerings HTTP/1.0\r\n\r\n").is_none());
    let other = from([127, 0, 0, 2], address);
    assert_eq!(other, Some(200));
    drop(held.pop());
    wait_for("a place again", || {
        let answer =
            raw(address, b"GET /v1/offerings HTTP/1.1\r\nConnection: close\r\nHost: a\r\n\r\n");
        answer.filter(|answer| answer.status == 200)
    });
    drop((held, node));
}

/// The status of an answer to a request that comes from another address.
fn from(source: [u8; 4], to: SocketAddr) -> Option<u16> {
    use std::io::Read;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let stream = runtime.expect("a runtime").block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((source, 0))).expect("bound");
        socket.connect(to).await.expect("connected").into_std().expect("a stream")
    });
    stream.set_nonblocking(false).expect("set");
    let mut stream = stream;
    let request = b"GET /v1/offerings HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

//! From files to a module that waits for its program.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use privatix_modules::registry::State;
use serde_json::{Value, json};

use crate::support::module::place;
use crate::support::program::{Described, Station, listening};
use crate::support::refusal::told;
use crate::support::{Node, Package, wait_for};

#[test]
fn it_is_taken_up_once_all_of_it_is_there_and_shown_as_not_connected() {
    let (node, _) = listening("agent", "");
    let module = Described::named("files");
    let part = |name: &str, bytes: &[u8]| place(&node.plugins(), &format!("files.{name}"), bytes);
    part("access.json", &module.access);
    node.wait_problem("files", State::Incomplete, "LibraryMissing");
    part("module.json", module.manifest.to_string().as_bytes());
    node.wait_problem("files", State::Incomplete, "TemplateMissing");
    part("offering.json", &module.offering);
    let view = node.wait_state("files", State::Running);
    assert!(!view.connection.expect("a connection").connected);
    assert!(view.version.expect("a version").standalone);
    let shown = |command: &str| {
        let output =
            node.privatix(&["module", command, "files"][..2 + usize::from(command != "list")]);
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(shown("list").contains("not connected for"), "{}", shown("list"));
    let text = shown("show");
    assert!(text.contains("program            not connected for"), "{text}");
    assert!(text.contains("manifest           ") && !text.contains("sealed"), "{text}");
    let products: Vec<Value> = node.get("/v1/products").expect("listed");
    assert_eq!(products[0]["name"], "files");
}

/// How a good package is spoilt.
type Spoil = fn(&mut Described);

#[test]
fn packages_that_are_refused_and_why() {
    let rows: &[(&str, &str, Spoil)] = &[
        ("a", "BadManifest", |module| module.manifest = json!([])),
        ("b", "BadManifest", |module| module.manifest["roles"] = json!(["broker"])),
        ("c", "BadManifest", |module| module.manifest["colour"] = json!("blue")),
        ("d", "NameMismatch", |module| module.manifest["name"] = json!("other")),
        ("e", "ApiTooNew", |module| module.manifest["serviceApi"] = json!({"min": 9, "max": 9})),
        ("f", "RoleUnsupported", |module| module.manifest["roles"] = json!(["client"])),
        ("g", "TemplateHashMismatch", |module| {
            module.manifest["templates"] = json!({ "access": "a".repeat(64) });
        }),
        ("h", "TemplateHashMismatch", |module| {
            module.manifest["templates"] = json!({ "offering": "a".repeat(64) });
        }),
        ("i", "InvalidJson", |module| module.access = b"{".to_vec()),
        ("j", "DuplicateProduct", |module| {
            module.manifest["productId"] = Described::named("good").manifest["productId"].clone();
        }),
        ("k", "BadConfiguration", |module| {
            module.manifest["configSchema"] =
                json!({ "type": "object", "required": ["port"], "properties": { "port": {} } });
        }),
        ("l", "BadManifest", |module| module.manifest["configSchema"] = json!({ "type": "no" })),
    ];
    let (node, _) = listening("agent", "[modules.settled]\nport = 7\n");
    Described::named("good").drop_into(&node.plugins());
    node.wait_state("good", State::Running);
    for (name, _, spoil) in rows {
        let mut module = Described::named(name);
        spoil(&mut module);
        module.drop_into(&node.plugins());
    }
    for (name, code, _) in rows {
        let view = node.wait_problem(name, State::Refused, code);
        told(&node, &view);
    }
    // Settings that are not taken, and settings that are.
    Described::named("settled").drop_into(&node.plugins());
    node.wait_problem("settled", State::Refused, "BadConfiguration");
    let schema = json!({ "type": "object", "properties": { "port": { "type": "integer" } } });
    let module = Described::named("settled").with("configSchema", schema);
    module.drop_into(&node.plugins());
    node.wait_state("settled", State::Running);
    // A file that others can write.
    let path = node.plugins().join("open.module.json");
    let open = Described::named("open");
    open.drop_into(&node.plugins());
    node.wait_state("open", State::Running);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("set");
    node.wait("open", "doubted", |view| {
        let problem = view.candidate.as_ref().and_then(|candidate| candidate.problem.as_ref());
        view.state == State::Running && problem.is_some_and(|p| p.code.code() == "WritableByOthers")
    });
    // Mended ones run.
    for (name, code, _) in rows.iter().filter(|(_, code, _)| *code != "BadManifest") {
        Described::named(name).drop_into(&node.plugins());
        let view = node.wait_state(name, State::Running);
        assert_eq!(view.problem, None, "{name} after {code}");
    }
}

#[test]
fn a_library_and_a_manifest_of_one_name_are_refused() {
    let (node, _) = listening("agent", "");
    let package = Package::echo();
    package.drop_into(&node.plugins());
    node.wait_state("echo", State::Running);
    let manifest = Described::named("echo");
    manifest.drop_manifest(&node.plugins());
    node.wait("echo", "doubted", |view| {
        let problem = view.candidate.as_ref().and_then(|candidate| candidate.problem.as_ref());
        view.state == State::Running && problem.is_some_and(|p| p.code.code() == "AmbiguousModule")
    });
    fs::remove_file(node.plugins().join("libecho.so")).expect("removed");
    // What is left is a module of another kind with another product.
    let view = node.wait("echo", "standalone", |view| {
        view.state == State::Running && view.version.as_ref().is_some_and(|v| v.standalone)
    });
    assert!(view.connection.is_some());
}

#[test]
fn a_node_that_does_not_listen_says_so() {
    let node = Node::agent();
    Described::named("files").drop_into(&node.plugins());
    let view = node.wait_problem("files", State::Refused, "StandaloneOff");
    told(&node, &view);
    assert!(view.problem.expect("a problem").mend.contains("[standalone]"));
}

#[test]
fn nobody_listens_beyond_loopback_without_a_certificate() {
    let node = Node::stopped("agent", "[standalone]\nenabled = true\nlisten = \"0.0.0.0:0\"\n");
    let output = node.privatix(&["run"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("not loopback") && error.contains("standalone.tls_cert"), "{error}");
}

#[test]
fn a_changed_manifest_takes_its_place_and_a_removed_one_ends_it() {
    let station = Station::new("agent");
    let mut wire = station.connect();
    let subscribed = wire.call("service_subscribe", json!({ "serving": [] })).expect("subscribed");
    assert!(subscribed["subscription"].is_string());
    station.node.wait("files", "connected", |view| view.connection.is_some_and(|c| c.connected));

    let next = station.module.clone().with("version", json!("2.0.0"));
    next.drop_manifest(&station.node.plugins());
    let view = station.node.wait_version("files", "2.0.0");
    assert_eq!((view.problem, view.candidate), (None, None));
    assert_eq!(wire.closed(), 1012);
    // The token goes on to be its own.
    let mut wire = station.connect();
    let card = wire.call("service_configuration", json!({})).expect("answered");
    assert_eq!((card["name"].as_str(), card["role"].as_str()), (Some("files"), Some("agent")));
    wire.call("service_subscribe", json!({})).expect("subscribed");

    // While the new one is broken, the old one goes on.
    place(&station.node.plugins(), "files.module.json", b"{");
    station
        .node
        .wait("files", "doubted", |view| view.state == State::Running && view.candidate.is_some());
    wire.call("service_configuration", json!({})).expect("answered");
    next.drop_manifest(&station.node.plugins());
    station.node.wait("files", "well", |view| view.candidate.is_none());
    wire.call("service_configuration", json!({})).expect("never interrupted");

    fs::remove_file(station.node.plugins().join("files.module.json")).expect("removed");
    let view = station.node.wait_state("files", State::Removed);
    assert_eq!(view.connection, None);
    assert_eq!(wire.closed(), 1012);
    let refusal = wait_for("a refusal", || station.call("service_configuration", json!({})).err());
    assert_eq!(refusal.name.as_deref(), Some("AccessDenied"));
}

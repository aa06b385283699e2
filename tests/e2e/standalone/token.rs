//! What a program shows to be the module of its product.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::Package;
use crate::support::module::find;
use crate::support::program::{Station, Wire, token};

/// Every file below a directory that has a text in it.
fn files_with(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| find(&bytes, text.as_bytes()).is_some()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn it_is_shown_once_kept_as_a_hash_and_void_when_there_is_a_new_one() {
    let mut station = Station::with(
        "agent",
        crate::support::program::Described::named("files"),
        "[log]\nlevel = \"trace\"\n",
    );
    let first = station.token.clone();
    assert_eq!(first.len(), 43, "256 bits");
    let mut old = station.connect();
    old.call("service_configuration", json!({})).expect("answered");
    old.call("service_subscribe", json!({})).expect("subscribed");
    // Shown in every way, rightly and wrongly, with the log at its most talkative.
    let mut adapter = station.bare();
    let product = station.module.product();
    let key = uuid::Uuid::new_v4();
    for params in [json!([product, first, key]), json!([product, [first], key])] {
        adapter.call("sess_serviceReady", params).expect_err("no such channel");
    }
    station.post(Some(&format!("{first}x")), "{}");
    station.post(Some(&first), "{");

    let second = token(&station.node, "files");
    assert_ne!(first, second);
    assert_eq!(old.closed(), 4001);
    assert_eq!(adapter.closed(), 4001);
    assert_eq!(Wire::connect(station.address, Some(&first)).err(), Some(401));
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "service_configuration" }).to_string();
    let (status, body) = station.post(Some(&first), &call);
    assert_eq!((status, body["error"]["code"].as_i64()), (401, Some(1_236_224)), "{body}");
    station.token = second.clone();
    station.call("service_configuration", json!({})).expect("answered");

    station.node.kill();
    station.node.start();
    station.node.wait_state("files", privatix_modules::registry::State::Running);
    station.call("service_configuration", json!({})).expect("answered after a restart");
    for secret in [first, second] {
        assert_eq!(files_with(station.node.home(), &secret), Vec::<String>::new());
    }
}

#[test]
fn only_a_standalone_module_has_one() {
    let station = Station::new("agent");
    station.node.run(&Package::echo());
    for (name, expected) in [("echo", "NotStandalone"), ("nobody", "NotFound")] {
        let output = station.node.privatix(&["module", "token", name]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(expected) && output.stdout.is_empty(), "{error}");
    }
}

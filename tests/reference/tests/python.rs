//! A second implementation, in Python, reproduces every value of the vectors; and it would notice if
//! one were another.

#![allow(clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use privatix_reference::{directory, repository};
use serde_json::{Value, json};

fn reference(vectors: &Path) -> Output {
    let program = repository().join("tests/reference/python/reference.py");
    // Without writing compiled files beside the sources.
    Command::new("python3").arg("-B").arg(program).arg(vectors).output().expect("python3 runs")
}

#[test]
fn second_implementation_in_python_reproduces_every_vector() {
    let output = reference(&directory().join("vectors"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let compared: usize = text.split(' ').next().expect("a number").parse().expect("a number");
    assert!(compared >= 300, "{text}");
}

#[test]
fn second_implementation_in_python_notices_an_altered_vector() {
    let sources = directory().join("vectors");
    for (file, changes) in [
        (
            "canonical",
            vec![
                ("/accepted/7/canonical", json!("{\"b\":2,\"a\":1}")),
                ("/accepted/9/sha256", json!("0".repeat(64))),
                ("/refused/0/code", Value::Null),
                ("/templates/0/document/uiSchema", json!({})),
            ],
        ),
        (
            "keys",
            vec![
                ("/parties/0/fingerprint", json!("0".repeat(64))),
                ("/parties/1/sealingSecret", json!("01".repeat(32))),
                ("/passwords/0/order", json!("0".repeat(64))),
            ],
        ),
        (
            "messages",
            vec![
                ("/signed/0/hash", json!("0".repeat(64))),
                ("/signed/3/message/code", json!("Other")),
                ("/signed/12/signedBytes", json!("00")),
            ],
        ),
        (
            "orders",
            vec![
                ("/orders/0/message/deposit", json!(0)),
                ("/requests/2/code", Value::Null),
                ("/times/1/ahead", json!(120)),
            ],
        ),
        (
            "envelopes",
            vec![
                ("/sealed/0/ikmE", json!("00".repeat(32))),
                ("/sealed/0/message/password", json!("x")),
                ("/checks/0/code", json!("InvalidAccess")),
            ],
        ),
        ("statements", vec![("/checks/4/code", Value::Null)]),
        ("cheques", vec![("/expect/paid", json!(2000)), ("/bundles/0/proves/balance", json!(1))]),
        ("money", vec![("/costs/3/cost", json!(1)), ("/leastDeposits/0/leastDeposit", json!(1))]),
    ] {
        let copy = tempfile::tempdir().expect("a directory");
        for entry in fs::read_dir(&sources).expect("a directory") {
            let path = entry.expect("an entry").path();
            fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("copied");
        }
        let path = copy.path().join(format!("{file}.json"));
        let mut vectors: Value =
            serde_json::from_slice(&fs::read(&path).expect("text")).expect("JSON");
        for (place, other) in &changes {
            let found = vectors.pointer_mut(place);
            *found.unwrap_or_else(|| panic!("{file} has no {place}")) = other.clone();
        }
        fs::write(&path, vectors.to_string()).expect("written");
        let output = reference(copy.path());
        let text = String::from_utf8_lossy(&output.stdout);
        let noticed = text.lines().filter(|line| line.contains(": here ")).count();
        assert!(!output.status.success() && noticed >= changes.len(), "{file}: {text}");
    }
}

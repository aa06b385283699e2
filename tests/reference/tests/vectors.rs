//! The host's own functions, fed with the vectors as they are in the files. (Which codes they give is
//! compared by making the files again: `written.rs`.)

#![allow(clippy::expect_used)]

use std::fs;

use privatix_domain::code::Code;
use privatix_domain::identity::{Identity, PublicKey};
use privatix_domain::signed::{self, Kind};
use privatix_plugin_api::json;
use privatix_reference::directory;
use serde_json::Value;

fn read(file: &str) -> Value {
    let text = fs::read(directory().join(format!("vectors/{file}.json"))).expect(file);
    json::parse(&text).expect("vectors have the form of messages")
}

fn cases<'v>(vectors: &'v Value, group: &str) -> &'v [Value] {
    let cases = vectors[group].as_array().expect(group);
    assert!(!cases.is_empty(), "{group}");
    cases
}

fn text<'v>(case: &'v Value, field: &str) -> &'v str {
    case[field].as_str().expect(field)
}

#[test]
fn texts_have_the_canonical_form_and_hash_that_is_written() {
    let vectors = read("canonical");
    for case in cases(&vectors, "accepted") {
        let value = json::parse(text(case, "text").as_bytes()).expect("accepted");
        let canonical = json::canonical(&value).expect("canonical");
        assert_eq!(canonical, text(case, "canonical").as_bytes());
        assert_eq!(json::hash(&value).expect("a hash"), text(case, "sha256"));
        assert_eq!(json::parse(&canonical), Ok(value));
    }
    for case in cases(&vectors, "refused").iter().filter(|case| case["text"].is_string()) {
        let error = json::parse(text(case, "text").as_bytes()).expect_err("refused");
        assert_eq!(Code::from(&error).code(), text(case, "code"), "{case}");
    }
}

#[test]
fn identity_files_are_read_and_have_the_keys_that_are_written() {
    let vectors = read("keys");
    let parties = cases(&vectors, "parties");
    let identity = |name: &str| {
        let party = parties.iter().find(|party| party["name"] == name).expect(name);
        Identity::from_json(&party["identityFile"]).expect("an identity")
    };
    for party in parties {
        let public = identity(text(party, "name")).public();
        assert_eq!(public.signing.to_string(), text(party, "signingKey"));
        assert_eq!(public.sealing.to_string(), text(party, "sealingKey"));
        assert_eq!(public.signing.fingerprint(), text(party, "fingerprint"));
    }
    for case in cases(&vectors, "passwords") {
        let channel = text(case, "channel").parse().expect("a UUID");
        let password = identity(text(case, "agent")).password(channel, text(case, "order"));
        assert_eq!(password.0, text(case, "password"));
    }
}

#[test]
fn signatures_are_of_their_kind_and_signer_alone() {
    let (keys, vectors) = (read("keys"), read("messages"));
    let key = |name: &str| -> PublicKey {
        let party = cases(&keys, "parties").iter().find(|party| party["name"] == name);
        text(party.expect(name), "signingKey").parse().expect("a key")
    };
    for case in cases(&vectors, "signed") {
        for kind in Kind::ALL {
            for name in ["agent", "client", "stranger"] {
                let right = kind.as_str() == text(case, "kind") && name == text(case, "signer");
                let verified = signed::verify(kind, &case["message"], &key(name)).is_ok();
                assert_eq!(verified, right, "{} as {kind} by {name}", text(case, "kind"));
            }
        }
    }
    for case in cases(&vectors, "refused") {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == text(case, "kind"));
        let key = key(text(case, "signer"));
        let verified = signed::verify(kind.expect("a kind"), &case["message"], &key);
        assert!(verified.is_err(), "{}", text(case, "why"));
    }
}

#[test]
fn there_is_a_signed_message_of_every_kind() {
    let vectors = read("messages");
    let kinds: Vec<_> = cases(&vectors, "signed").iter().map(|case| text(case, "kind")).collect();
    assert_eq!(kinds, Kind::ALL.map(Kind::as_str));
}

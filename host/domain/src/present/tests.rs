//! What people see of a message, as lines of `label | value`.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const ACCESS: &str = include_str!("../../../../templates/vpn.access.json");
const OFFERING: &str = include_str!("../../../../templates/vpn.offering.json");

/// The repository's access template with another UI schema.
fn with_ui(ui: Value) -> Template {
    let mut document: Value = serde_json::from_str(ACCESS).expect("JSON");
    document["uiSchema"] = ui;
    parsed(TemplateKind::Access, &document.to_string())
}

fn parsed(kind: TemplateKind, text: &str) -> Template {
    Template::parse(kind, text.as_bytes()).expect("a template")
}

fn page(message: &Value, template: &Template, reveal: bool) -> Vec<String> {
    let lines = present(message, template, reveal).into_iter();
    lines.map(|line| format!("{} | {}", line.label, line.value).trim_end().to_owned()).collect()
}

fn check(ui: Value, message: Value, expected: &[&str]) {
    assert_eq!(page(&message, &with_ui(ui.clone()), false), expected, "{ui} {message}");
}

#[test]
fn an_access_message() {
    let template = parsed(TemplateKind::Access, ACCESS);
    let message = json!({
        "templateHash": "ab", "nonce": "n", "username": "u", "password": "secret",
        "paymentReceiverAddress": "https://a", "serviceEndpointAddress": "192.0.2.1",
        "additionalParams": {"port": "1194", "ca": "-----BEGIN\nx"}, "extra": true,
    });
    let mut expected = vec![
        "VPN server | 192.0.2.1",
        "User name | u",
        "Password | •••••",
        "Connection parameters |",
        r"  ca | -----BEGIN\nx",
        "  port | 1194",
        "Payments go to | https://a",
        "extra | true",
    ];
    assert_eq!(page(&message, &template, false), expected);
    expected[2] = "Password | secret";
    assert_eq!(page(&message, &template, true), expected);
    assert_eq!(title(&template).as_deref(), Some("VPN access"));
    let lines = present(&message, &template, false);
    assert_eq!(lines[1].help.as_deref(), Some("The channel's id."));
    assert_eq!(lines[7].help, None);
}

#[test]
fn an_offering_with_its_signature() {
    let template = parsed(TemplateKind::Offering, OFFERING);
    let message = json!({
        "serviceName": "VPN", "country": "DE", "nonce": "hidden", "signature": "not shown",
        "additionalParams": {"minUploadSpeed": 1, "maxDownloadSpeed": 2, "other": 3},
    });
    let expected = [
        "Service | VPN",
        "Country | DE",
        "Speed |",
        "  Download at most | 2",
        "  Upload at least | 1",
        "  other | 3",
    ];
    assert_eq!(page(&message, &template, false), expected);
}

#[test]
fn order() {
    let message = json!({"a": 1, "b": 2, "c": 3});
    for (order, expected) in [
        (json!(["c", "*", "a"]), ["c | 3", "b | 2", "a | 1"]),
        (json!(["*", "a"]), ["b | 2", "c | 3", "a | 1"]),
        (json!(["b"]), ["b | 2", "a | 1", "c | 3"]),
        (json!(["b", "x", "b", "*", "*"]), ["b | 2", "a | 1", "c | 3"]),
        (json!([]), ["a | 1", "b | 2", "c | 3"]),
        (json!("b"), ["a | 1", "b | 2", "c | 3"]),
        (json!([1, null, "c"]), ["c | 3", "a | 1", "b | 2"]),
    ] {
        check(json!({"ui:order": order}), message.clone(), &expected);
    }
}

#[test]
fn names() {
    let message = json!({"nonce": "x"});
    for (ui, expected) in [
        (json!({"nonce": {"ui:title": "N"}}), "N | x"),
        (json!({"nonce": {"ui:options": {"title": "N"}}}), "N | x"),
        (json!({"nonce": {"ui:title": ""}}), "nonce | x"),
        (json!({"nonce": {"ui:title": 1}}), "nonce | x"),
        (json!({"nonce": "what?"}), "nonce | x"),
        (json!({}), "nonce | x"),
    ] {
        check(ui, message.clone(), &[expected]);
    }
    // From the schema, and from what it refers to.
    check(json!({}), json!({"templateHash": "x"}), &["access template hash | x"]);
    let mut document: Value = serde_json::from_str(ACCESS).expect("JSON");
    document["schema"]["definitions"]["uuid"]["title"] = json!("Referred");
    let template = parsed(TemplateKind::Access, &document["schema"].to_string());
    assert_eq!(page(&json!({"username": "x"}), &template, false), ["Referred | x"]);
}

#[test]
fn widgets() {
    for (ui, message, expected) in [
        (json!({"a": {"ui:widget": "hidden"}}), json!({"a": {"b": 1}, "c": 2}), &["c | 2"][..]),
        (json!({"a": {"b": {"ui:widget": "hidden"}}}), json!({"a": {"b": 1}}), &["a |"]),
        (json!({"a": {"ui:widget": "password"}}), json!({"a": {"b": 1}}), &["a | •••••"]),
        (json!({"a": {"ui:widget": "password"}}), json!({"a": ""}), &["a | •••••"]),
        (json!({"a": {"ui:options": {"widget": "password"}}}), json!({"a": 1}), &["a | •••••"]),
        (json!({"a": {"ui:widget": "radio"}}), json!({"a": 1}), &["a | 1"]),
        // A secret of the core is one also where the template forgets to say so.
        (json!({}), json!({"password": "x"}), &["password | •••••"]),
        (json!({"password": {"ui:widget": "text"}}), json!({"password": "x"}), &["password | x"]),
        (json!({}), json!({"a": {"password": "x"}}), &["a |", "  password | x"]),
    ] {
        check(ui, message, expected);
    }
}

#[test]
fn values() {
    for (value, expected) in [
        (json!("x"), &["a | x"][..]),
        (json!(7), &["a | 7"]),
        (json!(false), &["a | false"]),
        (json!(null), &["a | null"]),
        (json!(["x", 1]), &["a | x, 1"]),
        (json!([]), &["a | none"]),
        (json!({}), &[]),
        (json!({"b": {"c": 1}}), &["a |", "  b |", "    c | 1"]),
        (json!([{"b": 1}, 2]), &["a |", "  1 |", "    b | 1", "  2 | 2"]),
    ] {
        check(json!({}), json!({"a": value}), expected);
    }
    check(json!({}), json!("x"), &[" | x"]);
}

#[test]
fn what_would_move_a_cursor_is_escaped() {
    let text = "\u{1b}[2J\u{7}\u{9b}\r\n\u{202e}\u{2066}\u{200b}\u{7f}ä€";
    let shown = r"\u{1b}[2J\u{7}\u{9b}\r\n\u{202e}\u{2066}\u{200b}\u{7f}ä€";
    check(json!({}), json!({text: text}), &[&format!("{shown} | {shown}")]);
    let template = with_ui(json!({"a": {"ui:title": text, "ui:help": text}, "ui:title": text}));
    let lines = present(&json!({"a": 1}), &template, false);
    assert_eq!((lines[0].label.as_str(), lines[0].help.as_deref()), (shown, Some(shown)));
    assert_eq!(title(&template).as_deref(), Some(shown));
}

#[test]
fn a_clipped_text_says_so() {
    assert_eq!(clip(&"ä".repeat(200)), "ä".repeat(200));
    assert_eq!(clip(&"ä".repeat(201)), "ä".repeat(200) + "…");
}

proptest! {
    // Compiling a template takes a while.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_member_is_shown_once(
        keys in prop::collection::btree_set("[a-d]{1,2}", 0..6),
        order in prop::collection::vec("[a-d]{1,2}|[*]", 0..6),
    ) {
        let message: Map<_, _> = keys.iter().map(|key| (key.clone(), json!(1))).collect();
        let template = with_ui(json!({"ui:order": order}));
        let lines = present(&Value::Object(message), &template, false);
        let mut shown: Vec<_> = lines.into_iter().map(|line| line.label).collect();
        shown.sort();
        prop_assert_eq!(shown, keys.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn nothing_shown_acts(text in ".*") {
        let shown = escaped(&text);
        prop_assert!(!shown.chars().any(char::is_control), "{}", shown);
    }
}

//! The form of messages: which texts are accepted, their canonical bytes and hashes.

use privatix_domain::code::Code;
use privatix_plugin_api::json::{self, MAX_DEPTH};
use serde_json::{Value, json};

use super::templates;

pub(super) fn file() -> Value {
    json!({
        "about": "Texts as UTF-8, and what a reader makes of them: the canonical form (RFC 8785) and \
                  its SHA-256, or the code of the refusal. A text that is no UTF-8 is in `hex`.",
        "accepted": accepted(),
        "refused": refused(),
        "templates": templates::vectors(),
    })
}

fn accepted() -> Vec<Value> {
    let nested = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
    let texts = [
        "{}",
        " [ ]\t\r\n",
        "0",
        "9007199254740991",
        "true",
        "null",
        "\"\"",
        r#"{ "b": 2, "a": 1 }"#,
        r#"{"a":[true,false,null,"x",{"z":0,"y":""}]}"#,
        // Keys are sorted by UTF-16 units: U+10000 comes before U+FFFF.
        "{\"\u{ffff}\":1,\"\u{10000}\":2,\"\u{e000}\":3,\"é\":4,\"e\":5}",
        // Escapes: what may be written as it is, is.
        r#""\u0000\u0001\b\t\n\u000b\f\r\u001f \" \\ \/ \u007f \u0080 \u20ac \ud83d\ude00""#,
        "\"\u{7f}\u{80}\u{2028}\u{2029}\u{feff}\"",
        "[{\"a\":1},{\"a\":2}]",
        // Not normalised: these are two keys.
        "{\"\u{e9}\":1,\"e\u{301}\":2}",
        r#"{"":{"":{"":[]}}}"#,
        &nested,
    ];
    let made = |text: &str| {
        let value = json::parse(text.as_bytes()).expect("accepted");
        let canonical = json::canonical(&value).expect("it has a canonical form");
        json!({
            "text": text,
            "canonical": String::from_utf8(canonical).expect("UTF-8"),
            "sha256": json::hash(&value).expect("it has a hash"),
        })
    };
    texts.into_iter().map(made).collect()
}

fn refused() -> Vec<Value> {
    let nested = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
    let texts = [
        "",
        " ",
        "{",
        "{} x",
        "{}{}",
        "[1,]",
        "{\"a\":1,}",
        "{'a':1}",
        "{a:1}",
        "// c\n{}",
        "NaN",
        "Infinity",
        "True",
        "01",
        "+1",
        ".5",
        "1.",
        "0x10",
        "\u{feff}{}",
        "\"\u{1}\"",
        "\"\n\"",
        r#""\x""#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"x":[{"a":{},"a":{}}]}"#,
        "9007199254740992",
        "18446744073709551616",
        "123456789012345678901234567890",
        "[-1]",
        "-0",
        "1.0",
        "0.5",
        "1e2",
        "1E-2",
        &nested,
    ];
    let made = |text: &str| {
        let error = json::parse(text.as_bytes()).expect_err(text);
        json!({ "text": text, "code": Code::from(&error).code() })
    };
    let bytes = [&b"\"\xff\""[..], b"\"\xc3\x28\"", b"\"\xed\xa0\x80\"", b"\xff\xfe{\x00}\x00"];
    let of_bytes = |bytes: &[u8]| {
        let error = json::parse(bytes).expect_err("no UTF-8");
        json!({ "hex": json::hex(bytes), "code": Code::from(&error).code() })
    };
    texts.into_iter().map(made).chain(bytes.into_iter().map(of_bytes)).collect()
}

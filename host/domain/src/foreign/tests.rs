//! Codes by their names, and codes of hosts that know more.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::present::acts;

fn of(name: &str) -> AnyCode<Code> {
    AnyCode::of(name)
}

#[test]
fn every_code_keeps_its_name_through_json() {
    for code in Code::ALL {
        let text = serde_json::to_string(&AnyCode::Known(*code)).expect("JSON");
        assert_eq!(text, format!("{:?}", code.code()));
        let read: AnyCode<Code> = serde_json::from_str(&text).expect("a code");
        assert_eq!((read.known(), read.to_string()), (Some(*code), code.to_string()));
        assert!(read == *code && read.is_one_of(&[*code]));
    }
}

#[test]
fn statuses_and_retry_of_every_code_are_those_of_its_foreign_spelling_only_if_it_is_known() {
    for code in Code::ALL {
        let known = of(code.code());
        assert_eq!(known.http_status(), code.http_status(), "{code}");
        assert_eq!(known.operator_status(), code.operator_status(), "{code}");
        assert_eq!(known.retry(), code.retry(), "{code}");
        let foreign = of(&code.code().to_lowercase());
        assert_eq!((foreign.http_status(), foreign.operator_status()), (400, 400), "{code}");
        assert_eq!((foreign.known(), foreign.retry()), (None, Retry::Later), "{code}");
        assert!(foreign != *code && !foreign.is_one_of(Code::ALL), "{code}");
    }
}

#[test]
fn foreign_codes_are_kept_short_and_harmless() {
    let long = "x".repeat(1_000_000);
    let cut = format!("{}…", "x".repeat(MAX_FOREIGN - 1));
    for (name, expected) in [
        ("OutOfTea", "OutOfTea"),
        ("", ""),
        (" Internal", " Internal"),
        ("internal", "internal"),
        ("\u{1b}[2J", r"\u{1b}[2J"),
        ("Inter\u{202e}nal", r"Inter\u{202e}nal"),
        ("a\nb", r"a\nb"),
        (&long[..MAX_FOREIGN], &long[..MAX_FOREIGN]),
        (&long[..=MAX_FOREIGN], &cut),
        (&long, &cut),
    ] {
        let code = of(name);
        assert!(code.known().is_none(), "{expected}");
        assert_eq!(code.code(), expected);
        assert_eq!(json!(code), json!(expected));
    }
}

#[test]
fn only_a_text_is_a_code() {
    for value in [json!(null), json!(1), json!(["Internal"]), json!({"Known": "Internal"})] {
        assert!(serde_json::from_value::<AnyCode<Code>>(value.clone()).is_err(), "{value}");
    }
}

proptest! {
    /// A host passes a code on to another, which sees the same one.
    #[test]
    fn any_name_is_bounded_and_comes_through_a_second_host_unchanged(name in any::<String>()) {
        let code = of(&name);
        prop_assert!(code.code().chars().count() <= MAX_FOREIGN);
        prop_assert!(!code.code().chars().any(acts));
        prop_assert_eq!(of(code.code()), code);
    }
}

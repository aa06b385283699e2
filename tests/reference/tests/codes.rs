//! The page of codes is compared with the code: each code is in it, with its number and status, and it
//! has no other.

#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use privatix_domain::code::{Code, Retry};
use privatix_modules::problem;
use privatix_plugin_api::FaultKind;
use privatix_plugin_api::message::ErrorName;
use privatix_reference::{directory, repository};
use privatix_store::Fault;
use serde_json::{Value, json};

/// The rows of a section's first table: cells without the first line and the line below it.
fn table(section: &str) -> Vec<Vec<String>> {
    tables(section).swap_remove(0)
}

fn tables(section: &str) -> Vec<Vec<Vec<String>>> {
    let page = fs::read_to_string(directory().join("codes.md")).expect("the page");
    let (_, rest) = page.split_once(&format!("\n## {section}\n")).expect(section);
    let text = rest.split("\n## ").next().unwrap_or_default();
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut tables = Vec::new();
    for block in text.split("\n\n") {
        let rows: Vec<_> = block.lines().filter(|line| line.starts_with('|')).map(cells).collect();
        if rows.len() > 2 {
            tables.push(rows[2..].to_vec());
        }
    }
    tables
}

/// The codes that a cell names: words in backticks.
fn codes(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

const REFUSALS: [&str; 4] = [
    "Refusals of the exchange",
    "Refusals of an agent's messages",
    "Refusals of the operator's requests",
    "Form and templates",
];

#[test]
fn errors_of_the_service_api_are_listed_with_number_and_text() {
    let listed: Vec<_> = table("Errors of the Service API")
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone(), row[2].clone()))
        .collect();
    let known = ErrorName::ALL.map(|name| {
        assert_eq!(json!(name), name.to_string());
        (name.to_string(), name.number().to_string(), name.text().to_owned())
    });
    assert_eq!(listed, known);
}

#[test]
fn faults_are_listed() {
    let listed: Vec<_> = table("Faults of modules").into_iter().map(|row| row[0].clone()).collect();
    let known = FaultKind::ALL.map(|kind| format!("`{kind}`"));
    assert_eq!(listed, known);
}

#[test]
fn problems_of_packages_are_listed_with_their_meaning() {
    let own = table("Problems of packages").into_iter().map(|row| (codes(&row[0]), row[1].clone()));
    let listed: Vec<_> = own.map(|(codes, meaning)| (codes.concat(), meaning)).collect();
    let of_templates: BTreeSet<_> =
        table("Form and templates").iter().flat_map(|row| codes(&row[0])).collect();
    let (templates, known): (Vec<problem::Code>, Vec<problem::Code>) =
        problem::Code::ALL.iter().copied().partition(|code| of_templates.contains(code.code()));
    let known: Vec<_> =
        known.iter().map(|code| (code.code().to_owned(), code.meaning().to_owned())).collect();
    assert_eq!(listed, known);
    assert_eq!(
        templates.iter().map(|code| code.to_string()).collect::<BTreeSet<_>>(),
        of_templates
    );
}

#[test]
fn faults_of_the_database_are_listed() {
    let rows = table("Faults of the database");
    let listed: Vec<_> = rows.iter().flat_map(|row| codes(&row[0])).collect();
    assert_eq!(listed, Fault::ALL.iter().map(|fault| fault.code()).collect::<Vec<_>>());
}

#[test]
fn every_refusal_is_listed_and_no_other() {
    let listed: BTreeSet<_> =
        REFUSALS.iter().flat_map(|section| table(section)).flat_map(|row| codes(&row[0])).collect();
    let known: BTreeSet<_> = Code::ALL.iter().map(Code::to_string).collect();
    let missing: Vec<_> = known.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}; unknown: {unknown:?}");
}

#[test]
fn every_row_says_what_it_means_and_what_to_do() {
    for section in REFUSALS.into_iter().chain(["Errors of the Service API", "Problems of packages"])
    {
        for row in table(section) {
            assert!(row.iter().rev().take(2).all(|cell| cell.ends_with('.')), "{section}: {row:?}");
            assert!(!codes(&row[0]).is_empty(), "{section}: {row:?}");
        }
    }
}

/// What is final is signed, and what passes is not.
#[test]
fn refusals_of_orders_pass_where_the_page_says_so() {
    let mut passing = 0;
    for row in table("Refusals of the exchange") {
        for code in codes(&row[0]) {
            let retry = known(&code).retry();
            assert_eq!(retry == Retry::Later, row[2] == "passes", "{code}");
            assert!(row[2] != "signed" || retry == Retry::Never, "{code}");
            passing += usize::from(retry == Retry::Later);
            assert!(["passes", "signed", ""].contains(&row[2].as_str()), "{code}");
        }
    }
    assert_eq!(passing, 9);
}

#[test]
fn statuses_of_the_exchange_are_those_of_its_server() {
    let mut listed = BTreeSet::new();
    for row in table("Refusals of the exchange") {
        for code in codes(&row[0]) {
            assert_eq!(row[1], known(&code).http_status().to_string(), "{code}");
            listed.insert(code);
        }
    }
    // A code with a status of its own is one that an agent answers with.
    for code in Code::ALL.iter().filter(|code| code.http_status() != 400) {
        assert!(listed.contains(code.code()), "{code}");
    }
}

#[test]
fn statuses_of_the_operators_api_are_those_that_the_page_names() {
    let page = fs::read_to_string(directory().join("codes.md")).expect("the page");
    let (_, rest) = page.split_once("HTTP status: 404 for ").expect("the statuses");
    let (not_found, rest) = rest.split_once(", 500 for ").expect("another status");
    let (failed, _) = rest.split_once(", else 400").expect("the rest");
    for code in Code::ALL {
        let named = |text: &str| codes(text).iter().any(|name| name == code.code());
        let expected = match (named(not_found), named(failed)) {
            (true, _) => 404,
            (_, true) => 500,
            _ => 400,
        };
        assert_eq!(code.operator_status(), expected, "{code}");
    }
}

fn known(code: &str) -> Code {
    code.parse().expect("a code")
}

#[test]
fn codes_of_json_rpc_are_listed() {
    let listed: BTreeSet<String> =
        tables("JSON-RPC").into_iter().flatten().map(|row| row[0].clone()).collect();
    let rpc = source_of(&|text| text.contains("fn too_much()"));
    let adapter = source_of(&|text| text.contains("\"sess_stopSession\" =>"));
    let socket = source_of(&|text| text.contains("const VOID_TOKEN"));
    let mut found = 0;
    for source in [rpc, adapter, socket] {
        for word in source.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))) {
            let is_code = (word.starts_with("-32") && word.len() == 6)
                || (word.starts_with("400") && word.len() == 4);
            if is_code {
                assert!(listed.contains(word), "{word}");
                found += 1;
            }
        }
    }
    assert!(found >= 7, "{found}");
}

/// The one source of the host for which this is true.
fn source_of(is_it: &dyn Fn(&str) -> bool) -> String {
    let mut found: Vec<_> = sources().into_iter().filter(|text| is_it(text)).collect();
    assert_eq!(found.len(), 1);
    found.swap_remove(0)
}

/// The sources of the host and of `plugin-api`, without tests.
fn sources() -> Vec<String> {
    let mut found = Vec::new();
    for part in ["host", "plugin-api/src"] {
        read(&repository().join(part), &mut found);
    }
    found
}

fn read(below: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(below).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("test") || name == "target" {
            continue;
        }
        if path.is_dir() {
            read(&path, into);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("text");
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            into.push(text.to_owned());
        }
    }
}

#[test]
fn codes_of_the_vectors_are_listed() {
    let listed: BTreeSet<_> =
        REFUSALS.iter().flat_map(|section| table(section)).flat_map(|row| codes(&row[0])).collect();
    fn look(value: &Value, listed: &BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                // Not that of a message, which may be of a newer agent.
                if let (Some(Value::String(code)), Some(_)) =
                    (members.get("code"), members.get("why"))
                {
                    assert!(listed.contains(code), "{code}");
                }
                members.values().for_each(|value| look(value, listed));
            }
            Value::Array(items) => items.iter().for_each(|value| look(value, listed)),
            _ => {}
        }
    }
    for entry in fs::read_dir(directory().join("vectors")).expect("a directory") {
        let text = fs::read(entry.expect("an entry").path()).expect("text");
        look(&serde_json::from_slice(&text).expect("JSON"), &listed);
    }
}

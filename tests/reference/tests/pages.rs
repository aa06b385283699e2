//! The pages name what there is: links lead somewhere, and every schema, request and method is listed.

#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use privatix_plugin_api::message::{CoreRequest, ModuleRequest};
use privatix_reference::{directory, repository};
use schemars::schema_for;
use serde_json::Value;

fn pages() -> Vec<(PathBuf, String)> {
    pages_in(&directory())
}

fn pages_in(directory: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), fs::read_to_string(&path).expect("text"))).collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(directory().join(name)).expect(name)
}

/// The targets of the links of a page.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// The anchors of a page, as a forge makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut count = 0;
    let others = [repository(), repository().join("docs")];
    for (path, text) in pages().into_iter().chain(others.iter().flat_map(|other| pages_in(other))) {
        for link in links(&text).into_iter().filter(|link| !link.starts_with("http")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let beside = path.parent().expect("a directory");
            let target = if file.is_empty() { path.clone() } else { beside.join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).expect("text");
                assert!(anchors(&text).contains(anchor), "{}: {link}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn every_schema_and_every_vector_file_is_named_by_a_page() {
    let all: String = pages().into_iter().map(|(_, text)| text).collect();
    for part in fs::read_dir(directory().join("schemas")).expect("a directory") {
        let part = part.expect("an entry").path();
        for file in fs::read_dir(&part).expect("a directory") {
            let path = file.expect("an entry").path();
            let link = path.strip_prefix(directory()).expect("below").display().to_string();
            assert!(all.contains(&format!("]({link})")), "{link}");
        }
    }
    for file in fs::read_dir(directory().join("vectors")).expect("a directory") {
        let name = file.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(page("README.md").contains(&format!("`{name}`")), "{name}");
    }
}

/// The paths of the routes of a crate of the host, as its sources have them.
fn routes(of: &str) -> BTreeSet<String> {
    let mut sources = Vec::new();
    read(&repository().join("host").join(of), &mut sources);
    let routes = sources.iter().flat_map(|text| text.split(".route(").skip(1));
    let paths = routes.filter_map(|rest| rest.split('"').nth(1));
    paths.filter(|path| path.starts_with("/v1/")).map(str::to_owned).collect()
}

fn read(below: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(below).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(fs::read_to_string(&path).expect("text"));
        }
    }
}

/// The paths that a page's table of requests has, without queries.
fn listed(text: &str) -> BTreeSet<String> {
    let mut listed = BTreeSet::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let first = row.split('|').next().unwrap_or_default();
        let mut base = String::new();
        for request in first.split("`, `") {
            let path = request.trim_end_matches(['`', ' ']).rsplit(' ').next().unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default();
            let path = match path.strip_prefix("…/") {
                Some(last) => {
                    let (upto, _) = base.rsplit_once('/').expect("a path before");
                    format!("{upto}/{last}")
                }
                None => path.to_owned(),
            };
            base.clone_from(&path);
            listed.insert(path);
        }
    }
    listed.retain(|path| path.starts_with("/v1/"));
    listed
}

#[test]
fn requests_of_the_exchange_are_those_of_its_server() {
    let known = routes("exchange");
    assert_eq!(listed(&page("exchange.md")), known);
}

#[test]
fn requests_of_the_operators_api_are_those_of_its_server() {
    let known: BTreeSet<String> = routes("operator")
        .into_iter()
        .map(|path| match path {
            path if path.contains("/products/") => path.replace("{id}", "UUID"),
            path => path.replace("{name}", "NAME").replace("{hash}", "HASH").replace("{id}", "ID"),
        })
        .collect();
    assert_eq!(listed(&page("operator-api.md")), known);
}

/// The names of calls, as their schema has them.
fn calls(schema: &Value) -> BTreeSet<String> {
    let variants = schema["oneOf"].as_array().expect("an enum");
    let name = |variant: &Value| variant["properties"]["call"]["const"].as_str().map(str::to_owned);
    variants.iter().filter_map(name).collect()
}

#[test]
fn calls_and_commands_of_the_service_api_are_listed() {
    let page = page("service-api.md");
    let rows = |section: &str| -> BTreeSet<String> {
        let text = page.split(section).nth(1).expect(section).split("\n## ").next().expect("text");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| row.split('`').next())
            .filter(|word| *word != "call")
            .map(str::to_owned)
            .collect()
    };
    let core = calls(schema_for!(CoreRequest).as_value());
    assert_eq!(rows("\n## Calls of a module\n"), core);
    assert_eq!(rows("\n## Commands to a module\n"), calls(schema_for!(ModuleRequest).as_value()));
    // Each call is one of our spelling, too.
    let rpc = self::page("json-rpc.md");
    for call in core {
        assert!(rpc.contains(&format!("`service_{call}`")), "{call}");
    }
}

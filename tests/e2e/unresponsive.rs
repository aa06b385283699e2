//! A host whose process is there and does nothing: nobody waits for it for ever.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use privatix_plugin_api::message::Status;
use serde_json::json;

use crate::faults::said;
use crate::support::node::signal;
use crate::support::trade::{draft, free_port};
use crate::support::{Node, Package, Pair};

/// What is not asked of a host.
const ALONE: [&str; 9] = [
    "init",
    "run",
    "completions",
    "check",
    "module cleanup",
    "module new",
    "module seal",
    "cheque verify",
    "help",
];

/// A command of one of the two hosts, with what it may be answered once the host runs: exit status 0,
/// or this refusal.
type Case<'a> = (&'a Node, Vec<&'a str>, &'static str);

#[test]
fn every_command_gives_up_on_a_host_that_is_stopped_and_works_once_it_runs_again() {
    let package = Package::faulty("good");
    let pair = Pair::configured(&package, "[agent]\norders = \"open\"\n", "");
    let offering = pair.offer(&package);
    let channel = pair.order(&offering).to_string();
    pair.client.wait_channel(channel.parse().expect("an id"), Status::Active);
    let orders: Vec<serde_json::Value> = pair.client.get("/v1/orders").expect("listed");
    let order = orders[0]["hash"].as_str().expect("a hash");
    let agent = pair.agent_identity();
    let url = agent.exchange.clone().expect("an address");
    let manifest = package.manifest();
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let product = text(&manifest["productId"]);
    let template = text(&manifest["templates"]["access"]);
    let fields = pair.agent.home().join("fields.json");
    std::fs::write(&fields, draft(&package, json!({}))["fields"].to_string()).expect("written");
    let fields = fields.to_str().expect("a path");
    let nowhere = format!("http://127.0.0.1:{}", free_port());

    let (a, c) = (&pair.agent, &pair.client);
    let print = agent.fingerprint.as_str();
    #[rustfmt::skip]
    let cases: Vec<Case<'_>> = vec![
        (a, vec!["identity"], ""),
        (a, vec!["module", "list"], ""),
        (a, vec!["module", "show", "good"], ""),
        (a, vec!["module", "explain", "good"], ""),
        (a, vec!["module", "token", "good"], "library"),
        (a, vec!["module", "enable", "good"], ""),
        (a, vec!["module", "release", "good"], "NotFound"),
        (c, vec!["module", "disable", "none"], "NotFound"),
        (a, vec!["product", "list"], ""),
        (a, vec!["product", "transfer", &product, "good"], ""),
        (a, vec!["template", "list"], ""),
        (a, vec!["template", "show", &template], ""),
        (a, vec!["offering", "list"], ""),
        (a, vec!["offering", "show", &offering], ""),
        (a, vec!["offering", "create", "good", "--fields", fields], ""),
        (a, vec!["offering", "withdraw", &offering], ""),
        (c, vec!["offering", "fetch", &url, "--agent", print], ""),
        (c, vec!["offering", "fetch", &nowhere], "NotFetched"),
        (c, vec!["order", &offering, "--no-wait"], ""),
        (c, vec!["order", &offering, "--wait", "1"], ""),
        (a, vec!["order", "list"], ""),
        (a, vec!["order", "show", order], ""),
        (a, vec!["order", "accept", order], "BadStatus"),
        (a, vec!["order", "reject", order], "BadStatus"),
        (c, vec!["order", "cancel", order, "--wait", "1"], "BadStatus"),
        (a, vec!["channel", "list"], ""),
        (a, vec!["channel", "show", &channel], ""),
        (c, vec!["channel", "access", &channel], ""),
        (c, vec!["channel", "suspend", &channel], ""),
        (c, vec!["channel", "resume", &channel], ""),
        (c, vec!["channel", "terminate", &channel], ""),
        (a, vec!["session", "list", &channel], ""),
        (a, vec!["cheque", "list"], ""),
        (a, vec!["cheque", "export"], ""),
    ];
    let named: BTreeSet<&str> = ALONE.into_iter().collect();
    for command in commands(a) {
        let words: Vec<&str> = command.split(' ').collect();
        let tried = cases.iter().any(|(_, arguments, _)| arguments.starts_with(&words));
        assert!(tried || named.contains(command.as_str()), "{command} is not tried");
    }

    for node in [a, c] {
        signal(node.pid(), Signal::SIGSTOP);
    }
    // All at once: each waits for as long as it does for the slowest host.
    let waiting: Vec<Child> =
        cases.iter().map(|(node, arguments, _)| begin(node, arguments)).collect();
    for (child, (_, arguments, _)) in waiting.into_iter().zip(&cases) {
        let output = child.wait_with_output().expect("ended");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("the host does not answer"), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {text}");
    }
    for node in [a, c] {
        signal(node.pid(), Signal::SIGCONT);
    }
    for (node, arguments, refusal) in &cases {
        let output = node.privatix(arguments);
        let text = said(&output);
        // What was asked for before may have been done in the meantime.
        let done = output.status.success()
            || ["BadStatus", "OfferingWithdrawn"].iter().any(|code| text.contains(code));
        let refused = !refusal.is_empty() && text.contains(refusal);
        assert!(done || refused, "{arguments:?}: {text}");
    }
}

fn begin(node: &Node, arguments: &[&str]) -> Child {
    let mut command = node.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
}

/// All commands that there are, as `noun verb` or `noun`.
fn commands(node: &Node) -> Vec<String> {
    let listed = |words: &[&str]| -> Vec<String> {
        let output = node.privatix(&[words, &["--help"]].concat());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let Some((_, rest)) = text.split_once("Commands:\n") else { return Vec::new() };
        let list = rest.split("\n\n").next().unwrap_or_default();
        list.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
    };
    let nouns = listed(&[]);
    assert!(nouns.len() > 8, "{nouns:?}");
    let verbs = |noun: &String| {
        let verbs = listed(&[noun]);
        let whole =
            verbs.iter().filter(|verb| *verb != "help").map(|verb| format!("{noun} {verb}"));
        if verbs.is_empty() { vec![noun.clone()] } else { whole.collect() }
    };
    nouns.iter().filter(|noun| *noun != "help").flat_map(verbs).collect()
}

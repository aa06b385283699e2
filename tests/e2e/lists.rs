//! Lists of a long history: in pages, by status, all of it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::faults::said;
use crate::support::{Database, Node, Package, wait_for};

/// More than a page has.
const COUNT: u64 = 1203;
const PAGE: usize = 1000;

/// A list: its command, the name of an entry, a status and how many have that.
struct List {
    command: Vec<String>,
    key: &'static str,
    status: &'static str,
    with_status: usize,
    /// All in the order in which they are shown.
    all: Vec<String>,
}

impl List {
    fn run(&self, node: &Node, options: &[&str]) -> (Vec<String>, String) {
        let mut arguments: Vec<&str> = self.command.iter().map(String::as_str).collect();
        arguments.push("--json");
        arguments.extend(options);
        let output = node.privatix(&arguments);
        let note = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{arguments:?}: {note}");
        let entries: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
        let key = |entry: &Value| entry[self.key].as_str().expect("a name").to_owned();
        (entries.iter().map(key).collect(), note)
    }

    /// What is to be shown, and whether there is more.
    fn check(&self, node: &Node, options: &[&str], expected: &[String], more: bool) {
        let (shown, note) = self.run(node, options);
        assert_eq!(shown, expected, "{:?} {options:?}", self.command);
        assert_eq!(note.contains("there are more: --after"), more, "{options:?}: {note}");
        let last = expected.last().filter(|_| more);
        assert!(last.is_none_or(|last| note.contains(last.as_str())), "{options:?}: {note}");
    }

    fn refused(&self, node: &Node, options: &[&str], code: i32, expected: &str) {
        let mut arguments: Vec<&str> = self.command.iter().map(String::as_str).collect();
        arguments.extend(options);
        let output = node.privatix(&arguments);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}

#[test]
fn lists_are_read_in_pages_by_status_and_as_a_whole() {
    let package = Package::faulty("good");
    let mut node = Node::agent();
    node.run(&package);
    assert!(node.stop().success());
    let database = Database::of(&node);
    let channels = database.history(&package, COUNT, 1);
    let sessions = 1005;
    let much_used = database.history(&package, 1, sessions)[0];
    let session_ids: Vec<String> =
        database.sessions(much_used).iter().map(|session| session.id.to_string()).collect();
    assert_eq!(session_ids.len(), usize::try_from(sessions).expect("small"));
    node.start();

    // The one with many sessions is as old as the second newest of the others.
    let names: Vec<Value> =
        serde_json::from_slice(&node.privatix(&["channel", "list", "--json", "--all"]).stdout)
            .expect("JSON");
    let ids: Vec<String> =
        names.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect();
    let whole: BTreeSet<&String> = ids.iter().collect();
    assert_eq!((ids.len(), whole.len()), (channels.len() + 1, channels.len() + 1));
    let newest_first = ids.iter().position(|id| *id == channels[0].to_string());
    assert_eq!(newest_first, Some(channels.len()), "the oldest is last");
    let prefixed = |prefix: &str| ids.iter().map(|id| format!("{prefix} {id}")).collect::<Vec<_>>();

    let all = ids.len();
    let list = |noun: &str, key, status, with_status, all: Vec<String>| List {
        command: [noun, "list"].map(str::to_owned).to_vec(),
        key,
        status,
        with_status,
        all,
    };
    let odd = usize::try_from(COUNT / 2).expect("small");
    let mut lists = vec![
        list("channel", "id", "terminated", all, ids.clone()),
        list("order", "hash", "accepted", odd, prefixed("order")),
        list("offering", "hash", "open", odd, prefixed("offering")),
        list("cheque", "channel", "acknowledged", odd, ids.clone()),
    ];
    lists.push(List {
        command: ["session", "list", &much_used.to_string()].map(str::to_owned).to_vec(),
        key: "id",
        status: "closed",
        with_status: session_ids.len(),
        all: session_ids,
    });
    for list in &lists {
        let (all, three) = (&list.all, &list.all[2]);
        list.check(&node, &[], &all[..PAGE], true);
        list.check(&node, &["--all"], all, false);
        list.check(&node, &["--limit", "3"], &all[..3], true);
        list.check(&node, &["--limit", "3", "--after", three], &all[3..6], true);
        list.check(&node, &["--after", &all[all.len() - 2]], &all[all.len() - 1..], false);
        list.check(&node, &["--limit", &all.len().to_string()], all, false);
        list.check(&node, &["--limit", "1002"], &all[..1002], true);
        let (found, _) = list.run(&node, &["--all", "--status", list.status]);
        assert_eq!(found.len(), list.with_status, "{:?}", list.command);
        let two: Vec<String> = found.iter().take(2).cloned().collect();
        list.check(&node, &["--status", list.status, "--limit", "2"], &two, found.len() > 2);
        let rest = ["--status", list.status, "--after", &two[1], "--limit", "1"];
        list.check(&node, &rest, &found[2..3], true);
        list.refused(&node, &["--status", "lost"], 1, list.status);
        list.refused(&node, &["--limit", "0"], 2, "--limit");
        list.refused(&node, &["--limit", "1", "--all"], 2, "--all");
        let nowhere = uuid::Uuid::from_u128(0xffff << 112).to_string();
        if list.key != "id" || list.command[0] != "session" {
            list.refused(&node, &["--after", &nowhere], 1, &nowhere);
        }
    }

    // All of them, although a page has a hundred.
    let file = node.home().join("cheques.json");
    let export = ["cheque", "export", "--out", file.to_str().expect("UTF-8")];
    let output = node.privatix(&export);
    assert!(output.status.success(), "{output:?}");
    let written = fs::read(&file).expect("read");
    let bundles: Vec<Value> = serde_json::from_slice(&written).expect("JSON");
    let exported: BTreeSet<String> = bundles
        .iter()
        .map(|bundle| bundle["cheque"]["channel"].as_str().expect("a channel").to_owned())
        .collect();
    assert_eq!(bundles.len(), all);
    assert_eq!(exported, ids.into_iter().collect());
    assert_eq!(node.privatix(&["cheque", "export"]).stdout, written, "the same on standard output");
    let pretty = serde_json::to_string_pretty(&bundles).expect("JSON") + "\n";
    assert_eq!(String::from_utf8(written).expect("UTF-8"), pretty);
}

/// As a host leaves them that was killed just after they ended.
#[test]
fn agent_settles_channels_that_ended_before_it_was_killed() {
    let package = Package::faulty("good");
    let mut node = Node::agent();
    node.run(&package);
    assert!(node.stop().success());
    let database = Database::of(&node);
    let channels = database.history(&package, 3, 1);
    assert!(channels.iter().all(|channel| !database.is_settled(*channel)));
    node.start();
    for channel in channels {
        wait_for("the channel to be settled", || database.is_settled(channel).then_some(()));
    }
}

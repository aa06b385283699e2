//! A new version in the place of a running one.

use std::fs;

use privatix_modules::registry::State;
use privatix_plugin_api::message::ClientKey;

use crate::support::{Database, Node, Package, wait_for};

/// A host with one module that serves one channel.
fn serving(package: &Package, configuration: &str) -> (Node, Database, ClientKey) {
    let mut node = Node::configured("agent", configuration);
    node.run(package);
    let database = Database::of(&node);
    let channel = database.channel(package);
    node.stop();
    node.start();
    node.wait_state(&package.name, State::Running);
    wait_for("a session with usage", || {
        database.sessions(channel).first().filter(|session| session.account.usage > 3).cloned()
    });
    assert!(!node.log().contains("the offering cannot be read"), "the test's channels are whole");
    (node, database, channel)
}

#[test]
fn a_new_version_takes_over_and_no_usage_is_lost() {
    let package = Package::faulty("good");
    let (node, database, channel) = serving(&package, "");
    package.clone().version("0.2.0").drop_into(&node.plugins());
    let view = node.wait_version("good", "0.2.0");
    assert_eq!(view.candidate, None);
    // The old generation closed its session with its last report; the new one opened another.
    let sessions = wait_for("the new generation's session", || {
        let sessions = database.sessions(channel);
        (sessions.len() == 2).then_some(sessions)
    });
    let (last, before) = sessions.split_last().unwrap();
    assert_eq!(last.stopped_at, None);
    for session in before {
        assert!(session.stopped_at.is_some() && session.account.usage > 3, "{session:?}");
    }
}

/// What a broken new version leads to: the old one runs again and goes on being used.
fn rolled_back(new: Package, code: &str, state: State) {
    rolled_back_to(Package::faulty("good"), new, code, state);
}

fn rolled_back_to(old: Package, new: Package, code: &str, state: State) {
    let timeouts = "[module_timeouts]\ncreate = 1\nconfigure = 1\nstart = 1\nshutdown = 1\n";
    let (mut node, database, channel) = serving(&old, timeouts);
    let before = database.sessions(channel).len();
    new.drop_into(&node.plugins());
    let view = node.wait("good", "back on the old version", |view| {
        let candidate = view.candidate.as_ref().and_then(|candidate| candidate.problem.as_ref());
        view.state == State::Running && candidate.is_some_and(|problem| problem.code.code() == code)
    });
    let candidate = view.candidate.expect("a candidate");
    assert_eq!(view.version.expect("a version").version, "0.1.0");
    assert_eq!(
        (candidate.state, candidate.version.expect("known").version.as_str()),
        (state, "0.2.0")
    );
    assert!(node.alive());
    wait_for("usage by the old version", || {
        let sessions = database.sessions(channel);
        let last = sessions.last()?;
        (sessions.len() > before && last.stopped_at.is_none() && last.account.usage > 3)
            .then_some(())
    });
    // What did not come up can be put right: the next version does.
    old.version("0.3.0").drop_into(&node.plugins());
    assert_eq!(node.wait_version("good", "0.3.0").candidate, None);
}

fn broken(fault: &str) -> Package {
    Package::faulty("good").version("0.2.0").with_fault(fault)
}

#[test]
fn a_version_that_panics_in_create_is_rolled_back() {
    rolled_back(broken("create-panics"), "CreatePanicked", State::Failed);
}

#[test]
fn a_version_that_hangs_in_create_is_rolled_back() {
    rolled_back(broken("create-hangs"), "CreateTimedOut", State::Failed);
}

#[test]
fn a_version_that_fails_to_configure_is_rolled_back() {
    rolled_back(broken("configure-fails"), "ConfigureFailed", State::Failed);
}

#[test]
fn a_version_that_fails_to_start_a_served_channel_is_rolled_back() {
    rolled_back(broken("start-fails"), "StartFailed", State::Failed);
}

#[test]
fn a_version_that_fails_to_start_a_channel_is_rolled_back_to_one_that_does_not_say_what_it_serves()
{
    let old = Package::faulty("good").with_fault("sessions-panics");
    rolled_back_to(old, broken("start-fails"), "StartFailed", State::Failed);
}

#[test]
fn a_version_that_panics_in_start_is_rolled_back() {
    rolled_back(broken("start-panics"), "StartPanicked", State::Failed);
}

#[test]
fn a_version_that_hangs_in_start_is_rolled_back() {
    rolled_back(broken("start-hangs"), "StartTimedOut", State::Failed);
}

#[test]
fn a_version_that_blocks_its_thread_in_start_is_rolled_back() {
    rolled_back(broken("start-blocks"), "StartTimedOut", State::Failed);
}

#[test]
fn a_version_that_cannot_be_loaded_leaves_the_running_one_alone() {
    let old = Package::faulty("good");
    let (node, database, channel) = serving(&old, "");
    let mut new = Package::wrong_layout();
    new.name = "good".into();
    let (access, offering) = (new.access.clone(), new.offering.clone());
    let product = old.manifest()["productId"].clone();
    let new = new.with_manifest(|manifest| {
        manifest["name"] = "good".into();
        manifest["productId"] = product;
    });
    let sessions = database.sessions(channel);
    Package { access, offering, ..new }.drop_into(&node.plugins());
    // The templates come first, and for a moment do not match the old library.
    let view = node.wait("good", "running beside a refused one", |view| {
        let candidate = view.candidate.as_ref().and_then(|candidate| candidate.problem.as_ref());
        candidate.is_some_and(|problem| problem.code.code() == "LayoutMismatch")
    });
    let candidate = view.candidate.expect("a candidate");
    assert_eq!((view.state, candidate.state), (State::Running, State::Refused));
    assert_eq!(view.generations, 1, "the running version was not touched");
    assert_eq!(database.sessions(channel).len(), sessions.len());
}

#[test]
fn an_inconsistent_set_is_waited_for_while_the_old_version_runs() {
    let old = Package::faulty("good");
    let (node, _database, _channel) = serving(&old, "");
    let title = String::from_utf8(old.access.clone()).unwrap().replacen(
        "\"title\"",
        "\"x-note\": 1, \"title\"",
        1,
    );
    let new = old.clone().version("0.2.0").with_access(&title);
    crate::support::module::place(&node.plugins(), &new.library_name(), &new.library);
    let view = node.wait("good", "waiting for the template", |view| view.candidate.is_some());
    let problem = view.candidate.and_then(|candidate| candidate.problem).expect("a problem");
    assert_eq!((view.state, problem.code.code()), (State::Running, "TemplateHashMismatch"));
    crate::support::module::place(&node.plugins(), &new.access_name(), &new.access);
    node.wait_version("good", "0.2.0");
}

#[test]
fn a_library_that_is_gone_for_a_moment_was_not_removed() {
    let package = Package::faulty("good");
    let node = Node::agent();
    node.run(&package);
    let library = node.plugins().join(package.library_name());
    let elsewhere = node.plugins().join(".elsewhere");
    for _ in 0..5 {
        fs::rename(&library, &elsewhere).unwrap();
        let seen = fs::metadata(&library);
        assert!(seen.is_err());
        fs::rename(&elsewhere, &library).unwrap();
    }
    fs::remove_file(&library).unwrap();
    package.clone().version("0.2.0").drop_into(&node.plugins());
    let view = node.wait_version("good", "0.2.0");
    assert_eq!(view.generations, 2);
    fs::remove_file(&library).unwrap();
    node.wait_state("good", State::Removed);
}

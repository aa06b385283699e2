//! Packages in which nothing is wrong until they are brought up: the module breaks, or the host
//! cannot do its part. Modules that run already notice nothing, and what is left behind is shown.

use std::fs;

use privatix_modules::registry::State;

use crate::support::module::place;
use crate::support::refusal::{told, untouched};
use crate::support::{Database, Node, Package, wait_for};

/// How long a module may take in these tests, in seconds: those that are well get by with it on a
/// busy machine too.
const TIMEOUTS: &str = "[module_timeouts]\ncreate = 3\nconfigure = 2\nstart = 4\nshutdown = 1\n";

#[test]
fn modules_that_break_when_they_come_up() {
    // Fault, code, and how many threads it leaves to the process.
    let rows = [
        ("create-panics", "CreatePanicked", 0),
        ("create-fails", "CreateFailed", 0),
        ("create-hangs", "CreateTimedOut", 1),
        ("configure-panics", "ConfigurePanicked", 0),
        ("configure-fails", "ConfigureFailed", 0),
        ("configure-hangs", "ConfigureTimedOut", 0),
        ("start-panics", "StartPanicked", 0),
        ("start-hangs", "StartTimedOut", 0),
        ("start-blocks", "StartTimedOut", 1),
    ];
    // By its own name, which is no fault's, each module is well.
    let named = |fault: &str| Package::faulty(&format!("x-{fault}"));
    let good = Package::faulty("good");
    let mut node = Node::configured("agent", TIMEOUTS);
    node.run(&good);
    for (fault, ..) in rows {
        node.run(&named(fault));
    }
    let database = Database::of(&node);
    let served = database.channel(&good);
    for (fault, ..) in rows {
        database.channel(&named(fault));
    }
    node.stop();
    for (fault, ..) in rows {
        named(fault).with_fault(fault).drop_into(&node.plugins());
    }
    node.start();
    for (fault, code, threads) in rows {
        let name = format!("x-{fault}");
        let view = node.wait_problem(&name, State::Failed, code);
        told(&node, &view);
        assert_eq!(view.abandoned_threads, threads, "{fault}");
    }
    let usage = || database.sessions(served).last().map_or(0, |session| session.account.usage);
    let before = usage();
    wait_for("more usage by the good module", || (usage() > before).then_some(()));
    untouched(&mut node);
    // The library alone: with every other file that changes, the broken one is tried again.
    for (fault, ..) in rows {
        let package = named(fault);
        place(&node.plugins(), &package.library_name(), &package.library);
    }
    for (fault, _, threads) in rows {
        let view = node.wait_state(&format!("x-{fault}"), State::Running);
        assert_eq!((view.problem, view.abandoned_threads), (None, threads), "{fault}");
    }
    untouched(&mut node);
}

#[test]
fn a_channel_that_a_module_refuses_to_start_is_that_channels_fault() {
    let package = Package::faulty("choosy");
    let mut node = Node::agent();
    node.run(&package);
    Database::of(&node).channel(&package);
    node.stop();
    package.with_fault("start-fails").drop_into(&node.plugins());
    node.start();
    node.wait_state("choosy", State::Running);
}

#[test]
fn what_a_failed_module_left_is_shown_after_its_files_are_gone() {
    let node = Node::configured("agent", TIMEOUTS);
    let package = Package::faulty("stuck").with_fault("create-hangs");
    package.drop_into(&node.plugins());
    node.wait_problem("stuck", State::Failed, "CreateTimedOut");
    for name in [package.library_name(), package.access_name(), package.offering_name()] {
        fs::remove_file(node.plugins().join(name)).unwrap();
    }
    let view = node.wait_state("stuck", State::Removed);
    assert_eq!((view.problem, view.abandoned_threads), (None, 1));
}

#[test]
fn a_module_that_neither_version_comes_up_of_holds_no_product_id() {
    // Neither can be configured once the directory of their marker is gone.
    let mut node = Node::stopped("agent", TIMEOUTS);
    let markers = node.home().join("markers");
    fs::create_dir(&markers).unwrap();
    let marker = markers.join("marker");
    node.configure(&format!("[modules.lost]\nwrite_marker = {:?}\n", marker.to_str().unwrap()));
    node.start();
    let package = Package::faulty("lost");
    let product = package.manifest()["productId"].clone();
    node.run(&package);
    fs::remove_dir_all(&markers).unwrap();
    // The library alone: a template that is seen later would have it tried once more.
    let new = package.clone().version("0.2.0");
    place(&node.plugins(), &new.library_name(), &new.library);
    node.wait_problem("lost", State::Failed, "ConfigureFailed");
    let lost = node.wait("lost", "without a new version", |view| view.candidate.is_some());
    let candidate = lost.candidate.as_ref().and_then(|candidate| candidate.problem.as_ref());
    assert_eq!(candidate.map(|problem| problem.code.code()), Some("ConfigureFailed"));
    let id = product.as_str().expect("an id").to_owned();
    let heir = Package::faulty("heir").with_manifest(|all| all["productId"] = product);
    heir.drop_into(&node.plugins());
    // It has it until the operator says otherwise.
    let view = node.wait_problem("heir", State::Refused, "DuplicateProduct");
    assert!(view.problem.unwrap().mend.contains(&format!("product transfer {id} heir")));
    let output = node.privatix(&["product", "transfer", &id, "heir"]);
    assert!(output.status.success(), "{output:?}");
    node.wait_state("heir", State::Running);
    // It was not for its next try that the id became free.
    assert_eq!(node.module("lost"), Some(lost));
}

#[test]
fn a_package_that_the_host_could_not_take_in_is_taken_in_later() {
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    let cache = node.home().join("cache");
    fs::rename(&cache, node.home().join("away")).unwrap();
    let package = Package::faulty("late");
    package.drop_into(&node.plugins());
    let view = node.wait_problem("late", State::Failed, "HostFailed");
    told(&node, &view);
    fs::rename(node.home().join("away"), &cache).unwrap();
    node.wait_state("late", State::Running);
    untouched(&mut node);
}

//! Modules that end the host: it dies once, and from then on the others serve without them. And what
//! the operator can say of modules while no host runs.

use std::process::Output;

use privatix_modules::registry::State;

use crate::support::module::place;
use crate::support::refusal::told;
use crate::support::{Database, Node, Package, wait_for};

fn success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Restarts the host; the good module serves each time.
fn restarts(node: &mut Node) {
    for _ in 0..5 {
        node.stop();
        node.start();
        node.wait_state("good", State::Running);
    }
}

#[test]
fn library_that_ends_the_host_as_it_comes_up_is_set_aside_after_one_death() {
    let faults = [
        "create-aborts",
        "create-exits",
        "configure-aborts",
        "configure-exits",
        "start-aborts",
        "start-exits",
        "start-segfaults",
    ];
    let named = |fault: &str| Package::faulty(&format!("x-{fault}"));
    let (mut node, good) = (Node::agent(), Package::faulty("good"));
    node.run(&good);
    for fault in faults {
        node.run(&named(fault));
    }
    let database = Database::of(&node);
    let served = database.channel(&good);
    for fault in faults {
        database.channel(&named(fault));
    }
    node.stop();
    for fault in faults {
        let (name, bad) = (format!("x-{fault}"), named(fault).with_fault(fault));
        place(&node.plugins(), &bad.library_name(), &bad.library);
        let status = node.run_to_the_end();
        assert!(!status.success(), "{fault}: {status}");
        node.start();
        let view = node.wait_problem(&name, State::Refused, "Quarantined");
        told(&node, &view);
        let problem = view.problem.expect("a reason");
        let step = if fault.starts_with("create") { "load and create" } else { &fault[..5] };
        assert!(problem.found.contains(&name) && problem.found.contains(step), "{problem:?}");
        assert!(problem.mend.contains(&format!("module release {name}")), "{problem:?}");
        assert!(node.log().contains(&problem.found), "the log says the same");
        node.wait_state("good", State::Running);
        database.wait_used(served);
        let lines = node.log().lines().filter(|line| line.contains(&problem.found)).count();
        assert!(lines < 10, "it waits, and is not looked at again and again: {lines}");
        node.stop();
    }
    node.start();
    restarts(&mut node);
    for fault in faults {
        node.wait_problem(&format!("x-{fault}"), State::Refused, "Quarantined");
        // Another library is another matter.
        let package = named(fault);
        place(&node.plugins(), &package.library_name(), &package.library);
        node.wait_state(&package.name, State::Running);
    }
}

#[test]
fn library_that_ran_before_and_ends_the_host_now_is_set_aside_until_released() {
    let (good, bad) = (Package::faulty("good"), Package::faulty("turned"));
    let mut node = Node::agent();
    node.run(&good);
    node.run(&bad);
    Database::of(&node).channel(&bad);
    Database::of(&node).channel(&good);
    node.stop();
    node.configure("[modules.turned]\nfault = \"start-exits\"\n");
    assert_eq!(node.run_to_the_end().code(), Some(70), "exit(0) is no clean end");
    node.start();
    node.wait_problem("turned", State::Refused, "Quarantined");
    restarts(&mut node);
    node.stop();
    node.configure("[modules.turned]\nfault = \"none\"\n");
    node.start();
    node.wait_problem("turned", State::Refused, "Quarantined");
    success(&node.privatix(&["module", "release", "turned"]));
    node.wait_state("turned", State::Running);
    let again = node.privatix(&["module", "release", "turned"]);
    assert_eq!(again.status.code(), Some(1), "nothing is set aside: {again:?}");
}

#[test]
fn service_whose_configuration_is_refused_is_not_to_be_restarted() {
    let node = Node::stopped("agent", "shutdown_timout = 3\n");
    let unit = include_str!("../../packaging/privatix.service");
    assert!(unit.contains("\nRestart=always\n"), "exit(0) in a module is no end of the service");
    let run = |command: &mut std::process::Command| command.output().expect("run").status.code();
    assert_eq!(run(&mut node.command(&["run"])), Some(1));
    let status = run(node.command(&["run"]).env("NOTIFY_SOCKET", "/nowhere")).expect("a status");
    assert!(unit.contains(&format!("\nRestartPreventExitStatus={status}\n")), "{status}");
}

#[test]
fn killed_host_says_nothing_against_a_library_that_ran_before() {
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    Database::of(&node).channel(&Package::faulty("good"));
    node.stop();
    node.configure("[modules.good]\nfault = \"start-hangs\"\n");
    node.start();
    wait_for("a start under way", || {
        (node.module("good").is_some_and(|view| view.state == State::Starting)).then_some(())
    });
    node.kill();
    node.configure("[modules.good]\nfault = \"none\"\n");
    node.start();
    node.wait_state("good", State::Running);
}

#[test]
fn library_that_never_ran_is_set_aside_if_the_host_dies_over_it() {
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    Package::faulty("fresh").with_fault("create-hangs").drop_into(&node.plugins());
    node.wait_state("fresh", State::Starting);
    wait_for("a note", || node.log().contains("fresh").then_some(()));
    node.wait("fresh", "being created", |view| view.generations > 0);
    node.kill();
    node.start();
    node.wait_problem("fresh", State::Refused, "Quarantined");
    node.wait_state("good", State::Running);
}

#[test]
fn module_that_ends_the_host_again_and_again_while_it_serves_is_set_aside() {
    let mut node = Node::stopped("agent", "health_interval = 1\n");
    let bad = Package::faulty("weak").with_fault("health-aborts");
    bad.drop_into(&node.plugins());
    Package::faulty("good").drop_into(&node.plugins());
    for _ in 0..3 {
        assert!(!node.run_to_the_end().success());
    }
    node.start();
    let view = node.wait_problem("weak", State::Refused, "Quarantined");
    assert!(view.problem.expect("a reason").found.contains("3 times"));
    node.wait_state("good", State::Running);
}

#[test]
fn module_can_be_switched_off_and_on_with_and_without_a_host() {
    let mut node = Node::agent();
    let package = Package::faulty("good");
    node.run(&package);
    success(&node.privatix(&["module", "disable", "good"]));
    let view = node.wait_problem("good", State::Refused, "Disabled");
    told(&node, &view);
    node.stop();
    node.start();
    node.wait_problem("good", State::Refused, "Disabled");
    // Other files change nothing about it.
    package.clone().version("0.2.0").drop_into(&node.plugins());
    Package::faulty("other").drop_into(&node.plugins());
    node.wait_state("other", State::Running);
    assert_eq!(node.module("good").map(|view| view.state), Some(State::Refused));
    success(&node.privatix(&["module", "enable", "good"]));
    node.wait_version("good", "0.2.0");
    node.stop();
    success(&node.privatix(&["module", "disable", "good"]));
    assert_eq!(node.privatix(&["module", "disable", "nobody"]).status.code(), Some(1));
    node.start();
    let view = node.wait_problem("good", State::Refused, "Disabled");
    assert_eq!(view.generations, 0, "it was not loaded");
    node.stop();
    success(&node.privatix(&["module", "enable", "good"]));
    node.start();
    node.wait_state("good", State::Running);
}

#[test]
fn product_belongs_to_the_module_that_had_it_first_until_the_operator_says_otherwise() {
    let (owner, mut node) = (Package::faulty("owner"), Node::agent());
    let product = owner.manifest()["productId"].clone();
    let id = product.as_str().expect("an id").to_owned();
    // Before it in the alphabet, and so often first to be looked at.
    let other = Package::faulty("another").with_manifest(|all| all["productId"] = product);
    node.run(&owner);
    other.drop_into(&node.plugins());
    for _ in 0..3 {
        let view = node.wait_problem("another", State::Refused, "DuplicateProduct");
        told(&node, &view);
        node.wait_state("owner", State::Running);
        node.stop();
        node.start();
    }
    // Not even while the owner is away.
    std::fs::remove_file(node.plugins().join(owner.library_name())).unwrap();
    node.wait("owner", "gone", |view| view.state != State::Running);
    node.stop();
    node.start();
    node.wait_problem("another", State::Refused, "DuplicateProduct");
    place(&node.plugins(), &owner.library_name(), &owner.library);
    node.wait_state("owner", State::Running);
    success(&node.privatix(&["product", "transfer", &id, "another"]));
    node.wait_state("another", State::Running);
    node.wait_problem("owner", State::Refused, "DuplicateProduct");
    node.stop();
    success(&node.privatix(&["product", "transfer", &id, "owner"]));
    node.start();
    node.wait_state("owner", State::Running);
    node.wait_problem("another", State::Refused, "DuplicateProduct");
}

//! The test of the conformance kit: modules that do one thing wrong, each caught by the case meant
//! for it and by nothing that this case needs.
//!
//! Each is checked with its case and all that the case needs. With `PRIVATIX_CONFORMANCE=group` it
//! is the group of the case (some minutes), and with `whole` the whole required set, which takes half
//! an hour; a fault may then show in further cases, but nowhere before its own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::module::{libraries, place, repository};
use crate::support::node::signal;
use crate::support::{Package, wait_for};

/// What `check` says of a module.
struct Report {
    cases: Vec<(String, String, String)>,
    success: bool,
    text: String,
}

impl Report {
    /// The cases that failed, crashed or took too long.
    fn failures(&self) -> Vec<(&str, &str)> {
        let is_failure = |outcome: &str| ["failed", "crashed", "timed out"].contains(&outcome);
        let failed = self.cases.iter().filter(|(_, outcome, _)| is_failure(outcome));
        failed.map(|(id, outcome, _)| (id.as_str(), outcome.as_str())).collect()
    }

    fn outcome(&self, id: &str) -> &str {
        let found = self.cases.iter().find(|(known, ..)| known == id);
        found.map_or("absent", |(_, outcome, _)| outcome.as_str())
    }
}

/// Runs `privatix check` on a library.
fn check(library: &Path, options: &[&str]) -> Report {
    let mut command = Command::new(env!("CARGO_BIN_EXE_privatix"));
    command.arg("check");
    report(command, library, options)
}

/// What the kit says of a library, by whichever command.
fn report(mut command: Command, library: &Path, options: &[&str]) -> Report {
    command.arg(library).args(["--json", "--seed", "7"]).args(options);
    let output = command.output().expect("privatix runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let value: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
    let word = |case: &Value, key: &str| case[key].as_str().unwrap_or_default().to_owned();
    let cases = value["cases"].as_array().expect("cases").iter();
    let cases = cases.map(|case| (word(case, "id"), word(case, "outcome"), word(case, "why")));
    Report { cases: cases.collect(), success: output.status.success(), text }
}

const SETTINGS: &str = "[agent]\nreport_ms = 50\n[client]\nreport_ms = 50\n";

/// Has a package checked, and expects one case to fail in this way.
fn caught(fault: &str, package: &Package, prepare: impl Fn(&Path), id: &str, outcome: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    package.drop_into(directory.path());
    place(directory.path(), &format!("{}.check.toml", package.name), SETTINGS.as_bytes());
    prepare(directory.path());
    let library = directory.path().join(package.library_name());
    let (group, _) = id.split_once('.').expect("a group");
    let extent = std::env::var("PRIVATIX_CONFORMANCE").unwrap_or_default();
    let report = match extent.as_str() {
        "" => check(&library, &["--only", id]),
        "group" => check(&library, &["--only", group]),
        "whole" => check(&library, &[]),
        other => panic!("PRIVATIX_CONFORMANCE is {other:?}"),
    };
    let failures = report.failures();
    if extent.is_empty() {
        assert_eq!(failures, [(id, outcome)], "{fault}: {}", report.text);
    } else {
        assert_eq!(failures.first(), Some(&(id, outcome)), "{fault}: {}", report.text);
    }
    assert!(!report.success, "{fault}: the exit status says that it conforms");
}

/// The faults of `tests/modules/wayward`, by the name that is written into the library.
fn faults(rows: &[(&str, &str, &str)]) {
    for (fault, id, outcome) in rows {
        caught(fault, &Package::wayward(fault), |_| {}, id, outcome);
    }
}

/// The whole required set, on the module that others are measured by.
#[test]
fn the_proxy_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    let library = libraries().join("libproxy.so");
    let junit = directory.path().join("report.xml");
    let [templates, settings] = sources("proxy");
    let places = ["--templates", &templates, "--settings", &settings];
    let report = check(&library, &[&places[..], &["--junit", path(&junit)]].concat());
    assert!(report.success && report.failures().is_empty(), "{}", report.text);
    let unsure = report.cases.iter().filter(|(_, outcome, _)| outcome != "passed");
    assert_eq!(unsure.count(), 0, "{}", report.text);
    assert!(report.cases.len() >= 60, "{} cases", report.cases.len());
    let xml = std::fs::read_to_string(junit).expect("written");
    assert!(xml.contains("<testsuites") && xml.contains("lifecycle.start-again"), "{xml}");
    assert!(xml.contains(&format!("tests=\"{}\"", report.cases.len())), "each once: {xml}");
    assert_eq!(xml.matches("<testsuite name=\"package\"").count(), 1, "{xml}");
}

/// Where the repository has the templates of a module, and what it is checked with.
fn sources(name: &str) -> [String; 2] {
    let templates = repository().join("templates");
    let settings = templates.join(format!("{name}.check.toml"));
    [path(&templates).to_owned(), path(&settings).to_owned()]
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A module that has real work to do for each command: what it does to the machine has to be undone
/// just as often. Usage, it cannot make where both of its ends are one machine.
#[test]
fn vpn_conforms_where_nothing_uses_it() {
    let [templates, settings] = sources("vpn");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    command.args([env!("CARGO_BIN_EXE_privatix"), "check"]);
    let options = ["--only", "lifecycle.created-again", "--only", "commands.chance"];
    let places = ["--templates", &templates, "--settings", &settings];
    let report = report(command, &libraries().join("libvpn.so"), &[options, places].concat());
    assert!(report.success && report.failures().is_empty(), "{}", report.text);
    for id in ["lifecycle.created-again", "commands.chance"] {
        assert_eq!(report.outcome(id), "passed", "{}", report.text);
    }
}

#[test]
fn packages_that_a_host_would_refuse() {
    let package = || Package::wayward("none");
    let manifest = |change: fn(&mut Value)| package().with_manifest(change);
    let access = |change: fn(&mut Value)| {
        let package = package();
        let mut template: Value = serde_json::from_slice(&package.access).expect("JSON");
        change(&mut template);
        package.with_access(&template.to_string())
    };
    let rows: Vec<(&str, Package, &str)> = vec![
        ("text", package().with_library(|all| *all = b"#!/bin/sh\n".to_vec()), "package.elf"),
        ("cut-off", package().with_library(|all| all.truncate(all.len() / 2)), "package.elf"),
        ("machine", package().with_library(|all| all[18] = 8), "package.machine"),
        ("executable", package().with_library(|all| all[16] = 2), "package.machine"),
        ("no-json", package().with_manifest_text(b"{\"name\":"), "manifest.valid"),
        ("bad-id", manifest(|all| all["productId"] = "1".into()), "manifest.valid"),
        ("altered", manifest(|all| all["seal"] = "1".repeat(64).into()), "manifest.seal"),
        ("misnamed", manifest(|all| all["name"] = "other".into()), "manifest.name"),
        (
            "too-new",
            manifest(|all| all["serviceApi"] = json!({"min": 2, "max": 3})),
            "manifest.api",
        ),
        ("abort", manifest(|all| all["panic"] = "abort".into()), "manifest.panic"),
        (
            "strict-settings",
            manifest(|all| all["configSchema"] = json!({"type": "object", "maxProperties": 0})),
            "manifest.settings",
        ),
        (
            "twice",
            {
                let text = String::from_utf8(package().access).expect("UTF-8");
                package().with_access(&text.replacen('{', "{\"uiSchema\": {},", 1))
            },
            "templates.access-json",
        ),
        (
            "schema",
            access(|all| all["schema"]["properties"]["x"] = json!({"minLength": "three"})),
            "templates.access-schema",
        ),
        (
            "web",
            access(|all| {
                all["schema"]["properties"]["x"] = json!({"$ref": "http://example.com/a"})
            }),
            "templates.access-references",
        ),
        (
            "typed",
            access(|all| all["schema"]["properties"]["password"] = json!({"type": "integer"})),
            "templates.access-fields",
        ),
        (
            "wrong-hash",
            {
                let mut package = package();
                package.access.push(b'\n');
                let text = String::from_utf8(package.access).expect("UTF-8");
                package.access = text.replace("wayward access", "another access").into_bytes();
                package
            },
            "templates.hash",
        ),
    ];
    for (fault, package, id) in &rows {
        caught(fault, package, |_| {}, id, "failed");
    }
    let remove = |directory: &Path| {
        std::fs::remove_file(directory.join("wayward.access.json")).expect("removed");
    };
    caught("no-access", &package(), remove, "package.files", "failed");
    let open = |directory: &Path| {
        let mode = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(directory.join("libwayward.so"), mode).expect("changed");
    };
    caught("writable", &package(), open, "package.mode", "failed");
    let other = Package::wrong_layout();
    let layout = Package {
        library: other.library,
        access: other.access,
        offering: other.offering,
        name: other.name,
    };
    let bare = |directory: &Path| {
        std::fs::remove_file(directory.join("wrong_layout.check.toml")).expect("removed");
    };
    caught("layout", &layout, bare, "abi.layout", "failed");
}

#[test]
fn faults_of_creating_and_configuring() {
    faults(&[
        ("create-panics", "abi.create", "failed"),
        ("create-fails", "abi.create", "failed"),
        ("create-aborts", "abi.create", "crashed"),
        ("create-exits", "abi.create", "crashed"),
        ("create-segfaults", "abi.create", "crashed"),
        ("create-overflows", "abi.create", "crashed"),
        ("create-loops", "abi.create", "failed"),
        ("create-listens", "abi.create-quiet", "failed"),
        ("exit-hangs", "abi.load", "failed"),
    ]);
}

#[test]
fn faults_of_configuring() {
    faults(&[
        ("configure-panics", "lifecycle.configure", "failed"),
        ("configure-hangs", "lifecycle.configure", "failed"),
        ("configure-exits", "lifecycle.configure", "crashed"),
        ("unwraps-settings", "lifecycle.wrong-settings", "failed"),
        ("says-no-config", "lifecycle.product-config", "failed"),
    ]);
}

#[test]
fn faults_of_single_calls() {
    faults(&[
        ("health-panics", "lifecycle.health", "failed"),
        ("health-unhealthy", "lifecycle.health", "failed"),
        ("serves-nobody-known", "lifecycle.idle", "failed"),
        ("describe-panics", "lifecycle.describe", "failed"),
        ("shutdown-panics", "lifecycle.shutdown-idle", "failed"),
        ("shutdown-blocks", "lifecycle.shutdown-idle", "failed"),
    ]);
}

#[test]
fn faults_of_starting() {
    faults(&[
        ("start-panics", "lifecycle.start", "failed"),
        ("start-exits", "lifecycle.start", "crashed"),
        ("start-fails", "lifecycle.start", "failed"),
        ("start-hangs", "lifecycle.start", "failed"),
        ("start-again-fails", "lifecycle.start-again", "failed"),
        ("start-unheld", "commands.overtaken", "failed"),
        ("unwraps-access", "client.no-access", "failed"),
        ("names-nobody", "agent.session", "failed"),
    ]);
}

#[test]
fn faults_of_stopping() {
    faults(&[
        ("stop-panics", "lifecycle.stop-unstarted", "failed"),
        ("stop-unknown-fails", "lifecycle.stop-unstarted", "failed"),
        ("forgets-stop", "lifecycle.stop", "failed"),
        ("forgets-stop-session", "lifecycle.stop", "failed"),
        ("sessions-panics", "lifecycle.configure", "failed"),
        ("shutdown-forgets", "lifecycle.shutdown-live", "failed"),
    ]);
}

#[test]
fn faults_that_cost_money() {
    faults(&[
        ("reports-nothing", "together.usage", "failed"),
        ("usage-doubled", "together.agree", "failed"),
        ("increments-unsaid", "usage.kind", "failed"),
        ("usage-falls", "usage.rising", "failed"),
        ("forgets-last-report", "usage.at-stop", "failed"),
        ("gives-up-at-stop", "usage.refused", "failed"),
    ]);
}

#[test]
fn faults_that_give_service_away() {
    faults(&[
        ("lets-everybody-in", "agent.asks", "failed"),
        ("ignores-status", "status.update-suspending", "failed"),
        ("ignores-start-status", "status.start-suspending", "failed"),
        ("ignores-the-answer", "agent.wrong-password", "failed"),
        ("ignores-credit", "usage.credit", "failed"),
        ("credit-by-buffer", "usage.credit", "failed"),
        ("waits-without-asking", "usage.credit", "failed"),
    ]);
}

#[test]
fn faults_that_tell_secrets() {
    faults(&[
        ("password-logged", "secrets.log", "failed"),
        ("password-printed", "secrets.log", "failed"),
        ("password-on-disk", "secrets.files", "failed"),
        ("password-described", "secrets.words", "failed"),
    ]);
}

#[test]
fn faults_that_leave_something_behind() {
    faults(&[
        ("stop-leaks-thread", "leaks.channels", "failed"),
        ("stop-leaks-file", "leaks.channels", "failed"),
        ("stop-leaks-memory", "leaks.channels", "failed"),
        ("shutdown-leaks-port", "leaks.ports", "failed"),
        ("stop-forks", "leaks.processes", "failed"),
        ("stop-daemonises", "leaks.processes", "failed"),
    ]);
}

#[test]
fn faults_that_change_the_host() {
    faults(&[
        ("start-ignores-sigterm", "host.signals", "failed"),
        ("start-changes-directory", "host.directory", "failed"),
        ("start-changes-umask", "host.umask", "failed"),
        ("start-spawns-panic", "host.panics", "failed"),
        ("start-prints-megabytes", "host.output", "failed"),
        ("session-error-is-final", "host.session-again", "failed"),
    ]);
}

/// Checks one of the faults of `tests/modules/wayward` with some options.
fn checked(fault: &str, options: &[&str]) -> (Report, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let package = Package::wayward(fault);
    package.drop_into(directory.path());
    place(directory.path(), "wayward.check.toml", SETTINGS.as_bytes());
    let library = directory.path().join(package.library_name());
    let mut command = Command::new(env!("CARGO_BIN_EXE_privatix"));
    let command = command.arg("check").arg(&library).args(["--seed", "7"]).args(options);
    let text = command.output().expect("runs").stdout;
    (check(&library, options), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn stop_answered_late_passes() {
    let options = ["--only", "together.terminate", "--only", "together.terminate-by-client"];
    let (report, _) = checked("stop-answers-late", &options);
    assert!(report.success && report.failures().is_empty(), "{}", report.text);
}

#[test]
fn left_out_cases_are_named_and_the_module_conforms_in_part() {
    let options = ["--only", "lifecycle.stop-again", "--skip", "lifecycle.stop"];
    let (report, text) = checked("none", &options);
    assert!(report.success, "{}", report.text);
    assert_eq!(report.outcome("lifecycle.stop"), "skipped", "{}", report.text);
    let value: Value = serde_json::from_str(&report.text).expect("JSON");
    assert_eq!(value["inPart"], true, "{value}");
    let open = value["notLookedAt"].as_array().expect("a list");
    assert!(open.contains(&json!("lifecycle.stop")), "{value}");
    assert!(text.contains("wayward conforms in part ("), "{text}");
    assert!(text.contains("left out by --skip"), "{text}");
    let (whole, text) = checked("none", &["--only", "lifecycle.configure"]);
    let value: Value = serde_json::from_str(&whole.text).expect("JSON");
    assert_eq!(value["inPart"], false, "{value}");
    assert!(text.contains("wayward conforms: "), "{text}");
}

#[test]
fn advice_fits_what_was_found() {
    let advice = |fault: &str, id: &str| {
        let (report, _) = checked(fault, &["--only", id]);
        let value: Value = serde_json::from_str(&report.text).expect("JSON");
        let mut cases = value["cases"].as_array().expect("cases").iter();
        let case = cases.rfind(|case| case["id"] == id).cloned().expect("the case");
        format!("{} | {}", case["why"].as_str().unwrap_or_default(), case["mend"])
    };
    let crash = advice("create-segfaults", "abi.create");
    assert!(crash.contains("SIGSEGV") && crash.contains("find what ends the process"), "{crash}");
}

#[test]
fn amounts_of_exercise_are_stated() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_privatix"));
    let output = command.args(["check", "--list"]).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("`exercise` is asked for 1, 1000, 100000, 2000000 smallest units"),
        "{text}"
    );
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let room = directory.path().join("tmp");
    std::fs::create_dir(&room).expect("made");
    // Its create never returns.
    let package = Package::wayward("create-loops");
    package.drop_into(directory.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_privatix"));
    command.arg("check").arg(directory.path().join(package.library_name()));
    command.args(["--only", "abi.create"]).env("TMPDIR", &room);
    let mut check = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    let cases = || std::fs::read_dir(std::fs::read_dir(&room).ok()?.next()?.ok()?.path()).ok();
    wait_for("the case to begin", || {
        cases()?.flatten().any(|entry| entry.file_name() == "abi.create").then_some(())
    });
    signal(check.id(), Signal::SIGTERM);
    let status = check.wait().expect("waited");
    assert_eq!(status.code(), Some(128 + 15));
    assert_eq!(std::fs::read_dir(&room).expect("there").count(), 0);
}

#[test]
fn the_catalogue_is_listed_and_what_cannot_be_checked_is_said() {
    let privatix = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_privatix")).args(arguments).output();
        let output = output.expect("privatix runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8"))
    };
    let (code, text) = privatix(&["check", "--list"]);
    assert!(code == Some(0) && text.contains("usage.thousand-sessions (thorough)"), "{text}");
    let (code, text) = privatix(&["check", "--list", "--json"]);
    let listed: Value = serde_json::from_str(&text).expect("JSON");
    assert!(code == Some(0) && listed.as_array().expect("a list").len() > 100);
    for (arguments, status, part) in [
        (&["check"][..], 2, "LIBRARY"),
        (&["check", "/nowhere/libx.so"], 1, "/nowhere/libx.so cannot be read"),
        (&["check", "/etc/hostname"], 1, "has to be libNAME.so"),
        (&["check", "--list", "--only", "nothing"], 2, "\"nothing\""),
        (&["check", "libx.so", "--", "program"], 2, "--standalone"),
    ] {
        let (code, text) = privatix(arguments);
        assert!(code == Some(status) && text.contains(part), "{arguments:?}: {code:?} {text}");
    }
}

#[test]
fn a_case_that_is_asked_for_runs_with_what_it_needs() {
    let directory = tempfile::tempdir().expect("a directory");
    Package::wayward("start-panics").drop_into(directory.path());
    let library = directory.path().join("libwayward.so");
    let report = check(&library, &["--only", "lifecycle.stop"]);
    assert_eq!(report.outcome("lifecycle.start"), "failed");
    assert_eq!(report.outcome("lifecycle.stop"), "skipped");
    assert_eq!(report.outcome("lifecycle.health"), "absent");
    assert!(report.text.contains("needs lifecycle.start, which failed"), "{}", report.text);
}

#[test]
fn a_module_for_one_side_alone_is_checked_as_far_as_that_goes() {
    for (role, passed, skipped) in [
        ("agent", "leaks.generations", Some("client.access")),
        // Its channels would need an agent to be served by.
        ("client", "lifecycle.shutdown-idle", None),
    ] {
        let package = Package::wayward("none").with_manifest(|all| all["roles"] = json!([role]));
        let directory = tempfile::tempdir().expect("a directory");
        package.drop_into(directory.path());
        let settings = format!("[{role}]\nreport_ms = 50\n");
        place(directory.path(), "wayward.check.toml", settings.as_bytes());
        let library = directory.path().join(package.library_name());
        let only: Vec<&str> = ["--only", passed]
            .into_iter()
            .chain(skipped.into_iter().flat_map(|id| ["--only", id]))
            .collect();
        let report = check(&library, &only);
        assert!(report.success, "{role}: {}", report.text);
        assert_eq!(report.outcome(passed), "passed", "{role}: {}", report.text);
        if let Some(id) = skipped {
            assert_eq!(report.outcome(id), "skipped", "{role}: {}", report.text);
        }
    }
}

/// The kit speaks to a module as a host does, so it has to get on with one that knows less.
#[test]
fn a_module_built_with_an_older_plugin_api_is_checked() {
    let package = crate::compatibility::OLDER.build();
    let directory = tempfile::tempdir().expect("a directory");
    package.drop_into(directory.path());
    let library = directory.path().join(package.library_name());
    let report = check(&library, &["--only", "abi", "--only", "lifecycle.health"]);
    assert!(report.success, "{}", report.text);
    assert_eq!(report.outcome("abi.unknown-command"), "passed", "{}", report.text);
    assert_eq!(report.outcome("lifecycle.health"), "skipped", "{}", report.text);
}

#[test]
fn a_crates_own_cases_run_beside_those_of_the_kit() {
    let directory = tempfile::tempdir().expect("a directory");
    Package::wayward("none").drop_into(directory.path());
    place(directory.path(), "wayward.check.toml", SETTINGS.as_bytes());
    let library = directory.path().join("libwayward.so");
    let binaries = Path::new(env!("CARGO_BIN_EXE_privatix")).parent().expect("a directory");
    let command = || Command::new(binaries.join("examples/own_cases"));
    let places = ["--templates", directory.path().to_str().expect("UTF-8")];
    let options = [&["--only", "own"][..], &places].concat();
    let report = report(command(), &library, &options);
    assert_eq!(report.outcome("own.little"), "passed", "{}", report.text);
    assert_eq!(report.failures(), [("own.too-much", "failed")], "{}", report.text);
    assert_eq!(report.outcome("lifecycle.start"), "passed", "{}", report.text);
    assert_eq!(report.outcome("usage.rising"), "absent", "{}", report.text);
    assert!(!report.success);
}

//! What the operator types and reads: every command, its exit status (0, 1 refused with the
//! reason, 2 usage), and how the host's process gets on with what is around it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};

use privatix_modules::registry::State;
use serde_json::Value;

use crate::support::{Node, Package, wait_for};

/// Runs a command and checks its exit status; both outputs together.
fn check(node: &Node, arguments: &[&str], code: i32, expected: &[&str]) -> String {
    let output = node.privatix(arguments);
    let (out, err) = texts(&output);
    let said = format!("{out}{err}");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for part in expected {
        assert!(said.contains(part), "{arguments:?}: {part:?} is missing in {said}");
    }
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    // The reason goes where it does not end up in a pipe; an answer where it does.
    let silent = if code == 0 { err } else { out };
    assert_eq!(silent, "", "{arguments:?}");
    said
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

/// The answer of a command as JSON.
fn json(node: &Node, arguments: &[&str]) -> Value {
    let text = check(node, arguments, 0, &[]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// A host with a module that runs and one that is refused.
fn node() -> Node {
    let node = Node::agent();
    node.run(&Package::faulty("good"));
    // Its library says that it is another module's.
    let misnamed = Package { name: "misnamed".into(), ..Package::echo() };
    misnamed.drop_into(&node.plugins());
    node.wait_problem("misnamed", State::Refused, "NameMismatch");
    node
}

#[test]
fn init_makes_a_node_once() {
    let node = Node::stopped("agent", "");
    let path = node.home().join("privatix.toml");
    let mode = |path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&node.plugins())), (0o600, 0o700));
    let before = fs::read(&path).expect("readable");
    check(&node, &["init", "--role", "client"], 1, &["exists already; nothing was changed"]);
    assert_eq!(fs::read(&path).expect("readable"), before);
    check(&node, &["init", "--role", "broker"], 2, &["broker", "agent", "client"]);
    check(&node, &["init"], 2, &["--role"]);

    fs::remove_file(&path).expect("removed");
    check(&node, &["init", "--role", "client"], 0, &["Created a client host in", "To start it"]);
    assert!(fs::read_to_string(&path).expect("readable").contains("role = \"client\""));
}

#[test]
fn a_home_without_a_node_is_told_from_one_that_does_not_run() {
    let node = Node::stopped("agent", "");
    let asking: [&[&str]; 5] = [
        &["module", "list"],
        &["module", "show", "good"],
        &["product", "list"],
        &["template", "list"],
        &["template", "show", "ab"],
    ];
    for arguments in asking {
        check(&node, arguments, 1, &["no host is running here", "start it with: privatix run"]);
    }
    fs::remove_file(node.home().join("privatix.toml")).expect("removed");
    for arguments in asking.into_iter().chain([&["run"][..]]) {
        check(&node, arguments, 1, &["there is no ", "privatix.toml", "privatix init --role"]);
    }
}

#[test]
fn a_broken_configuration_is_refused_and_the_place_named() {
    let node = Node::stopped("agent", "");
    let path = node.home().join("privatix.toml");
    let default = fs::read_to_string(&path).expect("readable");
    for (addition, expected) in [
        (
            "shutdown_timout = 3\n",
            "privatix.toml:1:1: unknown key shutdown_timout; did you mean shutdown_timeout?",
        ),
        ("rescan_interval = 0\n", "rescan_interval"),
        ("[[[\n", "privatix.toml:1:"),
    ] {
        let without: String = default
            .lines()
            .filter(|line| !line.starts_with("rescan"))
            .fold(String::new(), |text, line| text + line + "\n");
        fs::write(&path, format!("{addition}{without}")).expect("written");
        for arguments in [&["run"][..], &["module", "list"]] {
            check(&node, arguments, 1, &[expected]);
        }
    }
    let level = default.replace("level = \"info\"", "level = \"inof\"");
    assert_ne!(level, default);
    fs::write(&path, level).expect("written");
    check(&node, &["run"], 1, &["log.level", "\"inof\" is not one of off, error"]);
}

#[test]
fn variables_override_the_file_and_unknown_ones_are_refused() {
    let mut node = Node::stopped("agent", "");
    for (variable, value, expected) in [
        ("PRIVATIX_LOG__FORMT", "json", "did you mean PRIVATIX_LOG__FORMAT?"),
        ("PRIVATIX_LOG__FORMAT", "yaml", "PRIVATIX_LOG__FORMAT: log.format"),
        ("PRIVATIX_SHUTDOWN_TIMEOUT", "soon", "PRIVATIX_SHUTDOWN_TIMEOUT"),
        ("PRIVATIX_LOG", "json", "is a section"),
    ] {
        let output = node.command(&["run"]).env(variable, value).output().expect("run");
        let (_, said) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{variable}: {said}");
        assert!(said.contains(expected), "{variable}: {said}");
    }
    node.start_with(|command| {
        command.env("PRIVATIX_LOG__FORMAT", "json");
    });
    node.run(&Package::faulty("good"));
    assert!(node.stop().success());
    let log = node.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let running = |line: &Value| line["fields"]["module"] == "good" && line["level"] == "INFO";
    assert!(lines.iter().any(running), "{log}");
}

#[test]
fn modules_are_listed_shown_and_explained() {
    let node = node();
    check(&node, &["module", "list"], 0, &["NAME", "good", "running", "misnamed", "NameMismatch"]);
    check(&node, &["module", "show", "good"], 0, &["running", "version", "0.1.0", "sealed"]);
    check(&node, &["module", "explain", "good"], 0, &["good is running."]);
    check(
        &node,
        &["module", "explain", "misnamed"],
        0,
        &["misnamed is refused.", "NameMismatch", "found", "required", "to mend", "echo"],
    );

    let listed = json(&node, &["module", "list", "--json"]);
    let names: Vec<_> =
        listed.as_array().expect("a list").iter().map(|view| &view["name"]).collect();
    assert_eq!(names, ["good", "misnamed"]);
    for command in ["show", "explain"] {
        let view = json(&node, &["--json", "module", command, "misnamed"]);
        assert_eq!(view["state"], "refused", "{command}");
        for part in ["code", "found", "required", "mend"] {
            assert!(view["problem"][part].is_string(), "{command}: no {part} in {view}");
        }
    }

    for name in ["nobody", "", "../modules", "a b", "good?x", "%2e%2e", "ä"] {
        for command in ["show", "explain"] {
            check(&node, &["module", command, name], 1, &["privatix: "]);
        }
    }
    check(&node, &["module", "show", "nobody"], 1, &["no module is called \"nobody\""]);
}

#[test]
fn products_and_templates_are_listed_and_shown() {
    let node = node();
    check(&node, &["product", "list"], 0, &["NAME", "good", "agent", "0.1.0"]);
    let products = json(&node, &["product", "list", "--json"]);
    assert_eq!(products.as_array().map(Vec::len), Some(1), "a refused module has no product");
    let product = &products[0];
    let package = Package::faulty("good");
    assert_eq!(product["accessTemplate"], package.manifest()["templates"]["access"]);
    assert_eq!(product["id"], package.manifest()["productId"]);

    check(&node, &["template", "list"], 0, &["HASH", "access", "offering"]);
    let templates = json(&node, &["template", "list", "--json"]);
    assert_eq!(templates.as_array().map(Vec::len), Some(2), "{templates}");
    let access = product["accessTemplate"].as_str().expect("a hash");
    let document: Value = serde_json::from_slice(&package.access).expect("JSON");
    for prefix in [access, &access[..16], &access[..16].to_uppercase()] {
        assert_eq!(json(&node, &["template", "show", prefix]), document, "{prefix}");
    }
    let shown = json(&node, &["template", "show", access, "--json"]);
    assert_eq!((&shown["hash"], &shown["document"]), (&product["accessTemplate"], &document));
}

#[test]
fn a_template_that_is_not_named_clearly_is_refused() {
    let node = Node::agent();
    // An access template whose hash begins as the offering template's does.
    let package = Package::faulty("good");
    let begins = |package: &Package, kind: &str| {
        package.manifest()["templates"][kind].as_str().expect("a hash")[..1].to_owned()
    };
    let text = String::from_utf8(package.access.clone()).expect("UTF-8");
    let both = begins(&package, "offering");
    let alike = (0..10_000).map(|number| {
        let changed = text.replacen("\"title\"", &format!("\"x-note\": {number}, \"title\""), 1);
        package.clone().with_access(&changed)
    });
    let alike = alike.into_iter().find(|package| begins(package, "access") == both);
    node.run(&alike.expect("one in sixteen"));
    check(&node, &["template", "show", &both], 1, &["2 templates begin with"]);
    let neither = if both == "0" { "f" } else { "0" };
    check(&node, &["template", "show", neither], 1, &["no template's hash begins with"]);
    for prefix in ["", "xyz", "ab/..", "0x1", "ab "] {
        check(&node, &["template", "show", prefix], 1, &["no beginning of a template's hash"]);
    }
}

#[test]
fn misuse_is_answered_with_the_usage() {
    let node = Node::stopped("agent", "");
    let cases: [&[&str]; 12] = [
        &[],
        &["modul"],
        &["module"],
        &["module", "lst"],
        &["module", "show"],
        &["module", "show", "a", "b"],
        &["module", "seal"],
        &["product"],
        &["template", "show"],
        &["run", "fast"],
        &["completions", "cobol"],
        &["--colour", "run"],
    ];
    for arguments in cases {
        check(&node, arguments, 2, &["--help"]);
    }
    check(&node, &["--help"], 0, &["Usage: privatix", "module", "template", "completions"]);
    check(&node, &["--version"], 0, &["privatix 0.1.0"]);
    for shell in ["bash", "zsh", "fish"] {
        check(&node, &["completions", shell], 0, &["privatix", "module"]);
    }
}

#[test]
fn internal_subcommands_are_not_shown() {
    let node = Node::stopped("agent", "");
    let mut said = check(&node, &["--help"], 0, &[]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        said += &check(&node, &["completions", shell], 0, &["privatix", "module"]);
    }
    // Mistyped, so that the command line suggests what is similar.
    for mistyped in ["probe-modul", "probe", "conformance-cas", "conformance"] {
        let answer = check(&node, &[mistyped], 2, &["unrecognized subcommand"]);
        said += &answer.replace(&format!("'{mistyped}'"), "");
    }
    for internal in ["probe-module", "conformance-case"] {
        assert!(!said.contains(internal), "{internal}: {said}");
    }
}

#[test]
fn help_of_check_says_what_it_does() {
    let node = Node::stopped("agent", "");
    for arguments in [&["--help"][..], &["check", "--help"], &["help", "check"]] {
        let help = check(&node, arguments, 0, &["Check whether a module will work in every host"]);
        assert!(!help.contains("What can be asked for"), "{help}");
    }
}

/// The end of a pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let node = node();
    let cases: [(&[&str], i32); 7] = [
        (&["module", "list"], 0),
        (&["module", "list", "--json"], 0),
        (&["template", "list"], 0),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
        (&["module", "show", "nobody"], 1),
        (&["nonsense"], 2),
    ];
    for (arguments, code) in cases {
        for (out, err) in
            [(closed(), Stdio::piped()), (Stdio::null(), closed()), (closed(), closed())]
        {
            let mut child = node.command(arguments).stdout(out).stderr(err).spawn().expect("run");
            let mut said = String::new();
            if let Some(mut err) = child.stderr.take() {
                err.read_to_string(&mut said).expect("UTF-8");
            }
            let status = child.wait().expect("waitable");
            assert_eq!(status.code(), Some(code), "{arguments:?}: {status}: {said}");
            assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn a_host_whose_log_nobody_reads_goes_on() {
    let mut node = Node::stopped("agent", "[log]\nlevel = \"trace\"\n");
    node.start_with(|command| {
        command.stderr(closed());
    });
    node.run(&Package::faulty("good"));
    // One that says much from threads of its own.
    node.run(&Package::faulty("logs-much"));
    assert!(node.alive());
    assert!(node.stop().success());
}

#[test]
fn the_operators_socket_is_its_owners_alone_and_goes_with_the_host() {
    let mut node = Node::agent();
    let socket = node.home().join("privatix.sock");
    let mode = fs::metadata(&socket).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(node.stop().success());
    assert!(!socket.exists());
}

#[test]
fn the_service_manager_is_kept_informed() {
    let mut node = Node::stopped("agent", "");
    let path = node.home().join("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("bound");
    manager.set_read_timeout(Some(crate::support::PATIENCE)).expect("set");
    let hear = |expected: &str| {
        wait_for(expected, || {
            let mut bytes = [0; 256];
            let length = manager.recv(&mut bytes).expect("told something");
            let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
            said.lines().any(|line| line == expected).then_some(())
        });
    };
    node.start_with(|command: &mut Command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    hear("READY=1");
    hear("WATCHDOG=1");
    node.terminate();
    hear("STOPPING=1");
    assert!(node.ended().success());
}

#[test]
fn a_library_is_sealed_whole_or_not_at_all() {
    let node = Node::agent();
    let package = Package::faulty("good");
    let place = node.home().join("libgood.so");
    let shown = place.display().to_string();
    for (bytes, expected) in [
        (&b"no library"[..], "a file that begins with"),
        (&b""[..], "a file of 0 bytes"),
        (&package.library[..5000], "end of the file"),
        (&fs::read(env!("CARGO_BIN_EXE_privatix")).expect("readable"), "no section"),
    ] {
        fs::write(&place, bytes).expect("written");
        check(&node, &["module", "seal", &shown], 1, &[expected]);
        assert!(fs::read(&place).expect("readable") == bytes, "{expected}: it was changed");
    }
    check(&node, &["module", "seal", &format!("{shown}.gone")], 1, &["reading", ".gone"]);

    fs::write(&place, &package.library).expect("written");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o640)).expect("set");
    check(&node, &["module", "seal", &shown], 0, &["sealed"]);
    let mode = fs::metadata(&place).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let sealed = Package { library: fs::read(&place).expect("readable"), ..package };
    assert!(node.run(&sealed).version.expect("a version").sealed);
    let remains: Vec<_> = fs::read_dir(node.home())
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".tmp"))
        .collect();
    assert!(remains.is_empty(), "{remains:?}");
}

//! Bad days: a disk that takes nothing, files that are not the host's, interruptions. When the fault is
//! over, everything works again without a restart.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use privatix_modules::registry::{ModuleView, State};

use serde_json::{Value, json};

use crate::support::trade::draft;
use crate::support::{Database, Misfortune, Node, Package, Pair, wait_for};

/// Somebody else.
const NOBODY: u32 = 65534;

pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// From now on, no file of the host's grows beyond the write-ahead log as it is.
pub(crate) fn fill_disk(node: &Node) {
    let log = fs::metadata(node.home().join("state.db-wal")).expect("a log").len();
    limit(node, &log.to_string());
}

pub(crate) fn empty_disk(node: &Node) {
    limit(node, "unlimited");
}

fn limit(node: &Node, bytes: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &node.pid().to_string(), &format!("--fsize={bytes}:unlimited")]);
    assert!(command.status().expect("prlimit").success());
}

pub(crate) fn good(node: &Node) -> Option<ModuleView> {
    node.module("good")
}

pub(crate) fn wait_trouble(node: &Node) {
    wait_for("the fault to be seen", || good(node)?.database);
}

pub(crate) fn wait_works(node: &Node) {
    wait_for("the database to work", || good(node)?.database.is_none().then_some(()));
}

#[test]
fn after_a_disk_that_took_nothing_everything_works_again() {
    let package = Package::faulty("good");
    let agent = "[agent]\norders = \"open\"\nservice_endpoint_address = \"192.0.2.1\"\n";
    let mut pair = Pair::configured(&package, agent, "");
    let offering = pair.offer(&package);
    let channel = pair.order(&offering);
    let database = Database::of(&pair.agent);
    database.wait_used(channel);

    let node = &pair.agent;
    fill_disk(node);
    wait_trouble(node);
    let view = good(node).expect("a module");
    assert!(!view.health.clone().unwrap_or_default().contains("healthy"), "{view:?}");
    for arguments in
        [&["module", "list"][..], &["module", "list", "--json"], &["module", "show", "good"]]
    {
        let said = said(&node.privatix(arguments));
        assert!(said.contains("database cannot be written"), "{arguments:?}: {said}");
        assert!(!said.contains("healthy"), "{arguments:?}: {said}");
    }
    // All connections have met the fault by then.
    wait_for("many writes to fail", || {
        good(node)?.database.is_some_and(|trouble| trouble.failures > 8).then_some(())
    });

    empty_disk(node);
    wait_works(node);
    // Its session is opened, and reported fifty times a second.
    let another = pair.order(&offering);
    let known = database.wait_used(another).account.usage;
    wait_for("usage to grow", || {
        (database.wait_used(another).account.usage > known + 100).then_some(())
    });
    wait_works(&pair.agent);
    assert!(pair.agent.stop().success(), "nothing is lost any more");
}

#[test]
fn after_one_write_that_did_not_reach_the_disk_everything_works_again() {
    let package = Package::faulty("good");
    let agent = "[agent]\norders = \"open\"\nservice_endpoint_address = \"192.0.2.1\"\n";
    let mut pair = Pair::configured(&package, agent, "");
    let misfortune = Misfortune::new();
    let manager = Manager::new("one-write");
    assert!(pair.agent.stop().success());
    pair.agent.start_with(|command| {
        misfortune.befalls(command);
        manager.watches(command);
    });
    pair.agent.wait_state("good", State::Running);
    let offering: Value =
        pair.agent.post("/v1/offerings", &draft(&package, json!({ "supply": 99 }))).expect("made");
    pair.fetch();
    let offering = offering["hash"].as_str().expect("a hash");
    let database = Database::of(&pair.agent);
    for _ in 0..4 {
        // Its session is reported fifty times a second, so a commit is what fails. The module gives
        // the session up then.
        database.wait_used(pair.order(offering));
        misfortune.fail_sync();
        manager.hear("STATUS=the database cannot be written");
        manager.hear("STATUS=running");
        manager.hear("WATCHDOG=1");
        wait_works(&pair.agent);
        let view = good(&pair.agent).expect("a module");
        assert!(view.health.clone().unwrap_or_default().contains("healthy"), "{view:?}");
        let failures = pair.agent.log().matches("database: ").count();
        // No connection that met the fault is used on; there are four.
        let next = pair.order(offering);
        let known = database.wait_used(next).account.usage;
        wait_for("usage to grow", || {
            (database.wait_used(next).account.usage > known + 100).then_some(())
        });
        assert_eq!(pair.agent.log().matches("database: ").count(), failures, "one fault, once");
    }
    assert!(pair.agent.stop().success());
}

#[test]
fn a_host_that_cannot_write_at_the_end_says_so_and_fails() {
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    fill_disk(&node);
    wait_trouble(&node);
    let status = node.stop();
    assert_eq!(status.code(), Some(1));
    assert!(node.log().contains("the database could not be written while the host stopped"));
    node.start();
    wait_works(&node);
    assert!(node.stop().success());
}

/// A service manager, and what it is told.
struct Manager {
    name: String,
    socket: UnixDatagram,
}

impl Manager {
    fn new(test: &str) -> Self {
        let name = format!("privatix-e2e-{test}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("bound");
        socket.set_read_timeout(Some(crate::support::PATIENCE)).expect("set");
        Self { name, socket }
    }

    fn watches(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", format!("@{}", self.name)).env("WATCHDOG_USEC", "400000");
    }

    fn next(&self) -> std::io::Result<String> {
        let mut bytes = [0; 512];
        let length = self.socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// Waits until it is told this.
    fn hear(&self, begin: &str) {
        wait_for(begin, || self.next().expect("told something").starts_with(begin).then_some(()));
    }

    /// All that it was told and has not heard yet.
    fn told(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).expect("set");
        let told = std::iter::from_fn(|| self.next().ok()).collect();
        self.socket.set_nonblocking(false).expect("set");
        told
    }
}

#[test]
fn a_host_that_cannot_write_feeds_no_watchdog() {
    let mut node = Node::stopped("agent", "");
    let manager = Manager::new("full");
    node.start_with(|command| manager.watches(command));
    manager.hear("READY=1");
    manager.hear("WATCHDOG=1");
    node.run(&Package::faulty("good"));
    fill_disk(&node);
    manager.hear("STATUS=the database cannot be written");
    // It is tried again every second, and the manager would be told five times in one.
    wait_for("more failures", || {
        good(&node)?.database.is_some_and(|trouble| trouble.failures > 4).then_some(())
    });
    for said in manager.told() {
        assert!(!said.contains("WATCHDOG"), "{said}");
    }
    empty_disk(&node);
    manager.hear("WATCHDOG=1");
    assert!(node.stop().success());
}

#[test]
fn a_database_that_was_removed_acknowledges_nothing_and_the_host_fails() {
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    let (path, aside) = (node.home().join("state.db"), node.home().join("aside"));
    fs::rename(&path, &aside).expect("moved");
    wait_trouble(&node);
    let trouble = good(&node).and_then(|view| view.database).expect("seen");
    assert_eq!(trouble.fault.code(), "replaced");
    fs::rename(&aside, &path).expect("moved back");
    wait_works(&node);
    fs::remove_file(&path).expect("removed");
    wait_trouble(&node);
    assert_eq!(node.stop().code(), Some(1));
    assert!(!path.exists(), "none is made anew under its name");
}

/// Runs the host, which is to refuse.
fn refused(node: &Node, expected: &[&str]) {
    let output = node.privatix(&["run"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in expected {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
}

#[test]
fn another_identity_or_role_on_a_database_is_refused() {
    let mut node = Node::agent();
    assert!(node.stop().success());
    let identity = node.home().join("identity.json");
    let kept = fs::read(&identity).expect("readable");
    let other = Node::stopped("agent", "");
    fs::copy(other.home().join("identity.json"), &identity).expect("copied");
    refused(&node, &["belongs to another identity", "identity.json"]);
    fs::write(&identity, kept).expect("written");
    node.configure("role = \"client\"");
    refused(&node, &["role = \"agent\"", "role = \"client\""]);
    node.configure("role = \"agent\"");
    node.start();
    assert!(node.stop().success());
}

#[test]
fn files_that_others_can_change_are_refused_at_start() {
    let mut node = Node::stopped("agent", "");
    let home = node.home().to_owned();
    let root = nix::unistd::geteuid().is_root();
    for name in ["", "privatix.toml", "identity.json"] {
        let path = home.join(name);
        let before = fs::metadata(&path).expect("there").permissions();
        for mode in [0o777, 0o666, 0o720] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            if name.is_empty() && mode == 0o666 {
                continue;
            }
            refused(&node, &["WritableByOthers", "Run: chmod go-w"]);
        }
        fs::set_permissions(&path, before).expect("set");
        if root {
            own(&path, NOBODY);
            refused(&node, &["WrongOwner", "belongs to user 65534", "Run: chown"]);
            own(&path, 0);
        }
    }
    node.start();
    assert!(node.stop().success());
}

#[test]
fn empty_plugins_directory_that_others_can_write_is_refused_at_start() {
    let mut node = Node::stopped("agent", "");
    let plugins = node.plugins();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    };
    let elsewhere = tempfile::tempdir().expect("a directory");
    for linked in [false, true] {
        if linked {
            fs::remove_dir(&plugins).expect("removed");
            std::os::unix::fs::symlink(elsewhere.path(), &plugins).expect("linked");
        }
        let real = plugins.canonicalize().expect("there");
        let advice = format!("Run: chmod go-w {}", real.display());
        for bad in [0o777, 0o1777, 0o770] {
            mode(&real, bad);
            refused(&node, &["the plugins directory", "WritableByOthers", &advice]);
        }
        mode(&real, 0o755);
        node.start();
        assert!(node.stop().success());
    }
    // A package in it says so itself, in the same words.
    mode(&plugins, 0o777);
    Package::faulty("good").drop_into(&plugins);
    node.start();
    let view = node.wait_problem("good", State::Refused, "WritableByOthers");
    let problem = view.problem.expect("a reason");
    assert!(problem.found.starts_with("the plugins directory"), "{problem:?}");
}

fn own(path: &Path, user: u32) {
    let user = nix::unistd::Uid::from_raw(user);
    nix::unistd::chown(path, Some(user), None).expect("given away");
}

/// As after a restore by root.
#[test]
fn a_database_that_the_host_cannot_write_is_refused_at_start() {
    let mut node = Node::agent();
    assert!(node.stop().success());
    let database = node.home().join("state.db");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o444)).expect("set");
    // Nothing is read-only for root, who has to become somebody.
    let binary = tempfile::tempdir().expect("a directory");
    fs::set_permissions(binary.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let program = binary.path().join("privatix");
    fs::copy(env!("CARGO_BIN_EXE_privatix"), &program).expect("copied");
    let mut command = Command::new(&program);
    if nix::unistd::geteuid().is_root() {
        for name in ["", "plugins", "privatix.toml", "identity.json", "privatix.lock", "host.log"] {
            own(&node.home().join(name), NOBODY);
        }
        for entry in fs::read_dir(node.home()).expect("readable").flatten() {
            if entry.file_name() != "state.db" {
                own(&entry.path(), NOBODY);
            }
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    command.env_remove("PRIVATIX_TEST_MODULES").stdin(Stdio::null());
    command.arg("--home").arg(node.home()).arg("run");
    let output = command.output().expect("run");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["state.db", "read-only", "Run: chown"] {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
}

#[test]
fn an_interrupted_init_can_be_repeated() {
    let init = |home: &Path, limit: Option<u64>| {
        let mut command = Command::new("prlimit");
        // A write beyond it kills the process.
        command.arg(format!("--fsize={}", limit.map_or("unlimited".into(), |l| l.to_string())));
        command.arg(env!("CARGO_BIN_EXE_privatix")).arg("--home").arg(home);
        command.env_remove("PRIVATIX_TEST_MODULES");
        command.args(["init", "--role", "agent"]).output().expect("run")
    };
    let place = tempfile::tempdir().expect("a directory");
    let whole = place.path().join("whole");
    assert!(init(&whole, None).status.success());
    let length = |name: &str| fs::metadata(whole.join(name)).expect("there").len();
    let (identity, configuration) = (length("identity.json"), length("privatix.toml"));
    let limits = [0, 1, identity / 2, identity - 1, identity, configuration / 2, configuration - 1];
    for limit in limits {
        let home = place.path().join(limit.to_string());
        let output = init(&home, Some(limit));
        assert!(!output.status.success(), "{limit}: {}", said(&output));
        assert!(!home.join("privatix.toml").exists(), "{limit}");
        let known = fs::read(home.join("identity.json")).ok();
        let output = init(&home, None);
        assert!(output.status.success(), "{limit}: {}", said(&output));
        let now = fs::read(home.join("identity.json")).expect("an identity");
        assert!(known.is_none_or(|known| known == now), "{limit}: an identity stays");
        assert_eq!(
            fs::read_dir(&home).expect("readable").count(),
            3,
            "{limit}: nothing is left over"
        );
    }
    // What older versions have left.
    for name in ["identity.json", "privatix.toml"] {
        let home = place.path().join(format!("cut {name}"));
        fs::create_dir(&home).expect("made");
        let mut text = fs::read(whole.join(name)).expect("readable");
        text.truncate(text.len() / 2);
        fs::write(home.join(name), text).expect("written");
        let output = init(&home, None);
        assert!(output.status.success(), "{name}: {}", said(&output));
        assert_eq!(
            length("privatix.toml"),
            fs::metadata(home.join("privatix.toml")).unwrap().len()
        );
    }
}

#[test]
fn an_init_with_import_and_export_can_be_repeated() {
    let place = tempfile::tempdir().expect("a directory");
    let first = Node::stopped("agent", "");
    let (home, copy) = (place.path().join("home"), place.path().join("copy.json"));
    let import = first.home().join("identity.json");
    for _ in 0..2 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_privatix"));
        command.env_remove("PRIVATIX_TEST_MODULES");
        command.arg("--home").arg(&home).args(["init", "--role", "agent", "--import"]);
        let output = command.arg(&import).arg("--export").arg(&copy).output().expect("run");
        assert!(output.status.success(), "{}", said(&output));
        // As if it had been interrupted just before the end.
        fs::remove_file(home.join("privatix.toml")).expect("removed");
    }
    assert_eq!(fs::read(&copy).expect("readable"), fs::read(&import).expect("readable"));
}

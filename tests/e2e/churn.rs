//! What many comings and goings leave behind.
//!
//! After hundreds of replacements the process holds nothing but what is accounted for; and however
//! it ends, it ends in time, and the next start goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use privatix_modules::registry::State;

use crate::support::{Database, Node, Package, wait_for};

const REPLACEMENTS: usize = 200;
/// Replacements after which everything that is made once has been made.
const WARM: usize = 5;
/// Kilobytes that the process may grow by, from the 20th replacement to the last.
const GROWTH: u64 = 64 << 10;
/// Live channels, each of which reports usage all the time.
const CHANNELS: usize = 4;

/// What a process holds; without its connections to the database, of which there are never more
/// than six.
#[derive(Debug, Clone)]
struct Footprint {
    /// How many threads have each name.
    threads: BTreeMap<String, usize>,
    descriptors: usize,
    /// Files in the cache.
    copies: BTreeSet<String>,
    /// Files of the cache, also removed ones, that are mapped.
    mapped: BTreeSet<String>,
}

impl Footprint {
    fn of(node: &Node) -> Self {
        let cache = node.home().join("cache");
        let mut threads = BTreeMap::new();
        for task in names(&process(node).join("task")) {
            // A thread may end while it is looked at.
            let comm = process(node).join("task").join(task).join("comm");
            if let Ok(name) = fs::read_to_string(comm) {
                *threads.entry(name.trim_end().to_owned()).or_default() += 1;
            }
        }
        let connections = threads.remove("sqlx-sqlite-wor").unwrap_or(0);
        // Four of the pool, the one for notes, and the one that keeps the write-ahead log.
        assert!(connections <= 6, "{connections} connections to the database");
        let maps = fs::read_to_string(process(node).join("maps")).expect("the maps");
        let prefix = format!("{}/", cache.display());
        let mapped = maps.lines().filter_map(|line| line.split_once(&prefix)?.1.to_owned().into());
        Self {
            threads,
            descriptors: descriptors(node),
            copies: names(&cache),
            mapped: mapped.collect(),
        }
    }

    /// Whether nothing is more than before.
    fn within(&self, before: &Self) -> bool {
        let allowed = |name| before.threads.get(name).copied().unwrap_or(0);
        self.threads.iter().all(|(name, count)| *count <= allowed(name))
            && self.descriptors <= before.descriptors
    }

    /// Whether a replacement is still being tidied up after.
    fn passing(&self) -> bool {
        self.threads.keys().any(|name| name.starts_with("load-") || name.starts_with("module-shut"))
    }
}

fn process(node: &Node) -> std::path::PathBuf {
    Path::new("/proc").join(node.pid().to_string())
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("readable");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().unwrap()).collect()
}

fn descriptors(node: &Node) -> usize {
    let directory = process(node).join("fd");
    let database = node.home().join("state.db").display().to_string();
    let open = names(&directory).into_iter().filter(|number| {
        // One that is closed meanwhile does not count.
        let target = fs::read_link(directory.join(number));
        target.is_ok_and(|target| !target.to_string_lossy().starts_with(&database))
    });
    open.count()
}

/// Resident memory in kilobytes.
fn resident(node: &Node) -> u64 {
    let status = fs::read_to_string(process(node).join("status")).expect("the status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn two_hundred_replacements_under_load_leave_nothing_behind() {
    let versions = ["0.1.0", "0.2.0", "0.3.0"];
    let packages = versions.map(|version| Package::faulty("good").version(version));
    let mut node = Node::configured("agent", "[modules.good]\ntick_ms = 10\n");
    node.run(&packages[0]);
    let database = Database::of(&node);
    let channels: Vec<_> = (0..CHANNELS).map(|_| database.channel(&packages[0])).collect();
    node.stop();
    node.start();
    node.wait_state("good", State::Running);
    for channel in &channels {
        database.wait_used(*channel);
    }

    let mut took = Vec::new();
    let (mut before, mut memory) = (None, 0);
    for count in 1..=REPLACEMENTS {
        let next = count % versions.len();
        let begin = Instant::now();
        packages[next].drop_into(&node.plugins());
        node.wait_version("good", versions[next]);
        took.push(begin.elapsed());
        if count == WARM {
            before = Some(wait_for("the first replacements to settle", || {
                let footprint = Footprint::of(&node);
                (!footprint.passing()).then_some(footprint)
            }));
        }
        if count == 20 {
            memory = resident(&node);
        }
    }
    let grown = resident(&node).saturating_sub(memory);
    took.sort();
    say(&format!(
        "{REPLACEMENTS} replacements: median {:?}, longest {:?}; {grown} KiB more resident memory",
        took[REPLACEMENTS / 2],
        took[REPLACEMENTS - 1],
    ));

    let before = before.expect("counted");
    let workers = std::thread::available_parallelism().unwrap().get().min(4);
    assert_eq!(before.threads.get("mod-good"), Some(&workers), "{before:#?}");
    // The host's own pool of threads shrinks when it has been idle for some seconds.
    let after = wait_for(&format!("no more than {before:#?}"), || {
        let now = Footprint::of(&node);
        now.within(&before).then_some(now)
    });
    assert!(grown < GROWTH, "{grown} KiB more");

    let view = node.module("good").expect("a module");
    assert_eq!((view.generations, view.abandoned_threads), (1 + REPLACEMENTS as u64, 0));
    assert_eq!(view.candidate, None);
    assert_eq!(view.mapped, versions.len());
    assert_eq!((after.copies.len(), &after.mapped), (versions.len(), &after.copies));

    for channel in channels {
        let sessions = database.sessions(channel);
        assert_eq!(sessions.len(), 1 + REPLACEMENTS);
        let (newest, older) = sessions.split_last().unwrap();
        assert_eq!(newest.stopped_at, None);
        for session in older {
            assert!(session.stopped_at.is_some() && session.account.usage > 0, "{session:?}");
        }
    }
}

/// A host with one module, which serves a channel.
fn serving(
    name: &str,
    configuration: &str,
) -> (Node, Database, privatix_plugin_api::message::ClientKey) {
    let package = Package::faulty(name);
    let mut node = Node::configured("agent", configuration);
    node.run(&package);
    let database = Database::of(&node);
    let channel = database.channel(&package);
    node.kill();
    node.start();
    node.wait_state(name, State::Running);
    database.wait_used(channel);
    (node, database, channel)
}

/// What SIGTERM leads to.
struct Ending {
    /// The module, named after what it does wrong.
    module: &'static str,
    /// Seconds that the module has.
    module_shutdown: u64,
    /// Seconds that all of it has.
    shutdown_timeout: u64,
    /// The exit status.
    code: i32,
    /// Whether the module's last report arrived.
    drained: bool,
    /// What the log says of it.
    says: &'static str,
}

fn check(ending: &Ending) {
    let Ending { module, module_shutdown, shutdown_timeout, .. } = ending;
    let (mut node, database, channel) = serving(
        module,
        &format!(
            "shutdown_timeout = {shutdown_timeout}\n\
             [module_timeouts]\nshutdown = {module_shutdown}\n"
        ),
    );
    let used = database.wait_used(channel).account.usage;
    let begin = Instant::now();
    let status = node.stop();
    let took = begin.elapsed();
    assert_eq!(status.code(), Some(ending.code), "{module}: {status}");
    let last = database.sessions(channel).pop().expect("a session");
    assert_eq!(last.stopped_at.is_some(), ending.drained, "{module}: {last:?}");
    assert!(last.account.usage >= used, "{module}: {last:?} after {used}");
    let log = node.log();
    assert!(log.contains(ending.says), "{module}: {:?} is missing in {log}", ending.says);
    if !ending.drained {
        let patient = Duration::from_secs(*module_shutdown.min(shutdown_timeout));
        assert!(took >= patient, "{module}: not waited for: {took:?}");
    }
    assert!(took < Duration::from_secs(15), "{module}: {took:?}");
    // What was left behind is taken up again.
    node.start();
    node.wait_state(module, State::Running);
    let newest = database.wait_used(channel);
    assert_ne!(newest.id, last.id);
    let closed = database.sessions(channel).into_iter().filter(|session| session.id != newest.id);
    for session in closed {
        assert!(session.stopped_at.is_some(), "{module}: {session:?}");
    }
}

#[test]
fn a_node_that_is_told_to_stop_has_the_last_usage_reported() {
    let says = "stopped";
    let (module, drained) = ("good", true);
    check(&Ending { module, module_shutdown: 10, shutdown_timeout: 20, code: 0, drained, says });
}

#[test]
fn a_module_that_hangs_in_shutdown_is_given_its_time_and_no_more() {
    let (module, says) = ("shutdown-hangs", "not shut down within 1s");
    let drained = false;
    check(&Ending { module, module_shutdown: 1, shutdown_timeout: 5, code: 0, drained, says });
}

#[test]
fn a_module_that_blocks_a_thread_in_shutdown_is_given_its_time_and_no_more() {
    let (module, says) = ("shutdown-blocks", "abandoned_threads=1");
    let drained = false;
    check(&Ending { module, module_shutdown: 1, shutdown_timeout: 5, code: 0, drained, says });
}

#[test]
fn a_node_whose_modules_take_longer_than_it_may_ends_with_a_failure() {
    let (module, says) = ("shutdown-blocks", "modules were still running after 1s");
    let drained = false;
    check(&Ending { module, module_shutdown: 60, shutdown_timeout: 1, code: 1, drained, says });
}

#[test]
fn a_node_that_is_told_twice_does_not_wait() {
    let configuration = "shutdown_timeout = 600\n[module_timeouts]\nshutdown = 600\n";
    let (mut node, _database, _channel) = serving("shutdown-hangs", configuration);
    node.terminate();
    // Signals are not counted: the first has to have arrived before the second is sent.
    wait_for("the host to go down", || node.log().contains("stopping").then_some(()));
    assert!(node.alive());
    node.terminate();
    let status = node.ended();
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(node.log().contains("told to stop again"), "{}", node.log());
}

#[test]
fn a_second_host_in_the_same_home_is_refused() {
    let (mut node, database, channel) = serving("good", "");
    let second = node.privatix(&["run"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("a host is already running in"), "{said}");
    // The first one was not disturbed, and can still be asked.
    assert!(node.alive());
    let before = database.wait_used(channel);
    node.wait_state("good", State::Running);
    wait_for("further usage in the same session", || {
        let newest = database.wait_used(channel);
        (newest.id == before.id && newest.account.usage > before.account.usage).then_some(())
    });
}

#[test]
fn a_node_that_was_killed_goes_on() {
    let (mut node, database, channel) = serving("good", "");
    let used = database.wait_used(channel);
    node.kill();
    let killed = database.sessions(channel).pop().expect("a session");
    assert_eq!((killed.id, killed.stopped_at), (used.id, None), "it had no time to close it");
    assert!(killed.account.usage >= used.account.usage, "acknowledged is on disk");
    node.start();
    let view = node.wait_state("good", State::Running);
    assert_eq!((view.generations, view.mapped), (1, 1));
    assert_eq!(names(&node.home().join("cache")).len(), 1, "the copy is made anew");
    assert_ne!(database.wait_used(channel).id, killed.id);
    let sessions = database.sessions(channel);
    let old = sessions.iter().find(|session| session.id == killed.id).expect("kept");
    assert!(old.stopped_at.is_some() && old.account == killed.account, "{old:?}");
}

/// A child that a killed host was just starting has its lock until it becomes another program.
#[test]
fn a_lock_that_outlives_its_host_for_a_moment_is_waited_for() {
    let mut node = Node::stopped("agent", "");
    let lock = std::fs::File::create(node.home().join("privatix.lock")).expect("made");
    lock.lock().expect("locked");
    let held = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        drop(lock);
    });
    node.start();
    held.join().expect("let go");
    assert!(node.alive());
}

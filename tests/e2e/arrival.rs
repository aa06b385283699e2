//! How packages come and go: by every way in which a file can appear in a directory.
//!
//! Each way of arriving leaves one step to do, so that everything before it is seen by a host that
//! must not have begun. The host reads the directory by itself once an hour only: what runs, runs because
//! the last step was noticed. How soon it runs is measured by `cargo xtask bench arrival`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use privatix_core::ProductView;
use privatix_modules::registry::{ModuleView, State};
use privatix_operator::client::Client;

use crate::support::module::place;
use crate::support::{Node, Package, leases, wait_for};

/// The host reads the directory when something has changed in it, and not before an hour has passed
/// otherwise.
const UNPROMPTED: &str = "rescan_interval = 3600\n";

/// What is left to do of a package's arrival.
type LastStep = Box<dyn FnOnce()>;

/// Keeps asking for a module and notes everything it is told.
struct Witness {
    seen: Arc<Mutex<BTreeSet<String>>>,
    enough: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Witness {
    fn of(node: &Node, name: &str) -> Self {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let enough = Arc::new(AtomicBool::new(false));
        let (noted, stop) = (Arc::clone(&seen), Arc::clone(&enough));
        let (client, path) = (Client::new(&node.socket()), format!("/v1/modules/{name}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok(view) = runtime.block_on(client.get::<ModuleView>(&path)) {
                    noted.lock().unwrap().insert(word(&view));
                }
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        Self { seen, enough, thread }
    }

    fn so_far(&self) -> BTreeSet<String> {
        self.seen.lock().unwrap().clone()
    }

    fn end(self) -> BTreeSet<String> {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}

/// The code where there is one, else the state.
fn word(view: &ModuleView) -> String {
    view.problem.as_ref().map_or(view.state.as_str(), |problem| problem.code.code()).to_owned()
}

/// Delivers a package but for the last step, then lets it arrive. `waits` are the words by which
/// it may go before, as always `BeingWritten`.
fn arrives(waits: &[&str], deliver: impl Fn(&Node, &Package) -> LastStep) {
    let waits = [waits, &["BeingWritten"]].concat();
    let node = Node::configured("agent", UNPROMPTED);
    let package = Package::faulty("good");
    let witness = Witness::of(&node, "good");
    let last_step = deliver(&node, &package);
    let before = witness.so_far();
    assert!(before.iter().all(|word| waits.contains(&word.as_str())), "{before:?}");
    last_step();
    let view = node.wait_state("good", State::Running);
    assert_eq!((view.generations, view.mapped), (1, 1), "{view:?}");
    let mut all = witness.end();
    all.retain(|word| !["starting", "running"].contains(&word.as_str()));
    assert!(all.iter().all(|word| waits.contains(&word.as_str())), "{all:?}");
}

fn templates(node: &Node, package: &Package) {
    place(&node.plugins(), &package.access_name(), &package.access);
    place(&node.plugins(), &package.offering_name(), &package.offering);
}

/// Waits until the host has noticed the state of things.
fn noticed(node: &Node, code: &str) {
    node.wait("good", code, |view| word(view) == code);
}

#[test]
fn by_slow_copy() {
    arrives(&["LibraryMissing"], |node, package| {
        templates(node, package);
        let mut file = File::create(node.plugins().join(package.library_name())).unwrap();
        for chunk in package.library.chunks(package.library.len() / 20) {
            file.write_all(chunk).unwrap();
            noticed(node, "BeingWritten");
        }
        Box::new(move || drop(file))
    });
}

#[test]
fn by_slow_copy_of_a_template() {
    arrives(&["LibraryMissing", "TemplateMissing"], |node, package| {
        place(&node.plugins(), &package.offering_name(), &package.offering);
        place(&node.plugins(), &package.library_name(), &package.library);
        let mut file = File::create(node.plugins().join(package.access_name())).unwrap();
        for chunk in package.access.chunks(package.access.len() / 10) {
            file.write_all(chunk).unwrap();
            noticed(node, "BeingWritten");
        }
        Box::new(move || drop(file))
    });
}

#[test]
fn by_copy_with_a_pause() {
    arrives(&["LibraryMissing", "Truncated"], |node, package| {
        templates(node, package);
        let mut file = File::create(node.plugins().join(package.library_name())).unwrap();
        let (first, second) = package.library.split_at(package.library.len() / 2);
        file.write_all(first).unwrap();
        // Longer than a file has to lie still where nobody can be asked for writers.
        std::thread::sleep(Duration::from_secs(5));
        if leases() {
            noticed(node, "BeingWritten");
        }
        file.write_all(second).unwrap();
        Box::new(move || drop(file))
    });
}

#[test]
fn by_copy_into_a_file_of_the_final_size_in_any_order() {
    // Before the ends are there it is not even ELF, after that it looks whole for a long time.
    arrives(&["LibraryMissing"], |node, package| {
        templates(node, package);
        let mut file = File::create(node.plugins().join(package.library_name())).unwrap();
        file.set_len(package.library.len() as u64).unwrap();
        noticed(node, "BeingWritten");
        let size = package.library.len() / 16;
        let chunks: Vec<_> = package.library.chunks(size).enumerate().collect();
        let (even, odd): (Vec<_>, Vec<_>) = chunks.into_iter().partition(|(at, _)| at % 2 == 0);
        for (at, chunk) in even.into_iter().chain(odd.into_iter().rev()) {
            file.seek(SeekFrom::Start((at * size) as u64)).unwrap();
            file.write_all(chunk).unwrap();
            noticed(node, "BeingWritten");
        }
        noticed(node, "BeingWritten");
        Box::new(move || drop(file))
    });
}

#[test]
fn by_copy_in_two_parts() {
    // In between nobody writes, so it is examined, and refused for what it is.
    arrives(&["LibraryMissing", "Truncated"], |node, package| {
        templates(node, package);
        let path = node.plugins().join(package.library_name());
        let (first, second) = package.library.split_at(package.library.len() / 2);
        fs::write(&path, first).unwrap();
        noticed(node, "Truncated");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(second).unwrap();
        Box::new(move || drop(file))
    });
}

#[test]
fn by_rename() {
    arrives(&["LibraryMissing"], |node, package| {
        templates(node, package);
        let staged = node.plugins().join(".staged");
        fs::write(&staged, &package.library).unwrap();
        let path = node.plugins().join(package.library_name());
        Box::new(move || fs::rename(staged, path).unwrap())
    });
}

#[test]
fn by_hard_link() {
    arrives(&["LibraryMissing"], |node, package| {
        templates(node, package);
        let staged = node.home().join("staged.so");
        fs::write(&staged, &package.library).unwrap();
        let path = node.plugins().join(package.library_name());
        Box::new(move || {
            fs::hard_link(&staged, path).unwrap();
            // Changes the file's attributes once more.
            fs::remove_file(staged).unwrap();
        })
    });
}

#[test]
fn templates_first() {
    arrives(&["LibraryMissing"], |node, package| {
        templates(node, package);
        noticed(node, "LibraryMissing");
        let (plugins, package) = (node.plugins(), package.clone());
        Box::new(move || place(&plugins, &package.library_name(), &package.library))
    });
}

#[test]
fn library_first_and_offering_last() {
    arrives(&["TemplateMissing"], |node, package| {
        place(&node.plugins(), &package.library_name(), &package.library);
        noticed(node, "TemplateMissing");
        place(&node.plugins(), &package.access_name(), &package.access);
        node.wait("good", "waiting for its offering template", |view| {
            view.problem.as_ref().is_some_and(|problem| problem.found.contains("good.offering"))
        });
        let (plugins, package) = (node.plugins(), package.clone());
        Box::new(move || place(&plugins, &package.offering_name(), &package.offering))
    });
}

#[test]
fn a_buyers_module_runs_before_its_offering_template_and_takes_it_when_it_comes() {
    let node = Node::configured("client", "");
    let package = Package::faulty("good");
    place(&node.plugins(), &package.access_name(), &package.access);
    place(&node.plugins(), &package.library_name(), &package.library);
    node.wait_state("good", State::Running);
    let product = || -> Option<Vec<ProductView>> { node.get("/v1/products") };
    let template = || product()?.pop()?.offering_template;
    assert_eq!(template(), None);
    place(&node.plugins(), &package.offering_name(), &package.offering);
    let noted = wait_for("the offering template", template);
    assert_eq!(noted, package.manifest()["templates"]["offering"]);
    assert_eq!(node.module("good").unwrap().generations, 1);
}

#[test]
fn a_removed_module_ends_after_the_grace_and_its_product_goes_where_the_operator_says() {
    let node = Node::agent();
    let package = Package::faulty("good");
    let product = package.manifest()["productId"].clone();
    let id = product.as_str().unwrap().to_owned();
    let heir = Package::faulty("heir").with_manifest(|manifest| manifest["productId"] = product);
    let transfer = |node: &Node, name: &str| {
        let output = node.privatix(&["product", "transfer", &id, name]);
        assert!(output.status.success(), "{output:?}");
    };
    node.run(&package);
    heir.drop_into(&node.plugins());
    node.wait_problem("heir", State::Refused, "DuplicateProduct");

    let removed = Instant::now();
    fs::remove_file(node.plugins().join(package.library_name())).unwrap();
    let view = node.wait_state("good", State::Removed);
    assert!(removed.elapsed() >= Duration::from_secs(2), "gone after {:?}", removed.elapsed());
    assert_eq!((view.problem, view.candidate), (None, None));
    // The templates alone are no module.
    node.wait_problem("heir", State::Refused, "DuplicateProduct");
    transfer(&node, "heir");
    node.wait_state("heir", State::Running);
    assert_eq!(node.module("good").unwrap().state, State::Removed);

    place(&node.plugins(), &package.library_name(), &package.library);
    node.wait_problem("good", State::Refused, "DuplicateProduct");
    fs::remove_file(node.plugins().join(heir.library_name())).unwrap();
    transfer(&node, "good");
    let view = node.wait_state("good", State::Running);
    assert_eq!((view.generations, view.mapped), (2, 1));
}

#[test]
fn a_running_module_goes_on_without_its_templates() {
    let node = Node::agent();
    let package = Package::faulty("good");
    node.run(&package);
    let missing = |name: &str| {
        let view = node.wait("good", &format!("short of {name}"), |view| {
            let candidate =
                view.candidate.as_ref().and_then(|candidate| candidate.problem.as_ref());
            candidate.is_some_and(|problem| problem.found.contains(name))
        });
        let candidate = view.candidate.unwrap();
        assert_eq!((view.state, candidate.state), (State::Running, State::Incomplete));
        assert_eq!(candidate.problem.unwrap().code.code(), "TemplateMissing");
        let told = node.privatix(&["module", "explain", "good"]);
        assert!(String::from_utf8_lossy(&told.stdout).contains("TemplateMissing"), "{told:?}");
    };
    fs::remove_file(node.plugins().join(package.offering_name())).unwrap();
    missing("good.offering.json");
    fs::remove_file(node.plugins().join(package.access_name())).unwrap();
    missing("good.access.json");
    templates(&node, &package);
    let view = node.wait("good", "whole again", |view| view.candidate.is_none());
    assert_eq!((view.state, view.generations), (State::Running, 1));
}

#[test]
fn modules_outlive_the_absence_of_their_directory() {
    // Without grace and with frequent looks, so that a directory taken for empty would show.
    let node = Node::configured("agent", "removal_grace = 0\nrescan_interval = 1\n");
    node.run(&Package::faulty("good"));
    let away = node.home().join("away");
    fs::rename(node.plugins(), &away).unwrap();
    wait_for("a word about the directory", || {
        node.log().contains("the plugins directory cannot be read").then_some(())
    });
    assert_eq!(node.module("good").unwrap().state, State::Running);
    fs::rename(&away, node.plugins()).unwrap();
    node.run(&Package::faulty("other"));
    let view = node.module("good").unwrap();
    assert_eq!((view.state, view.generations, view.candidate), (State::Running, 1, None));
}

#[test]
fn a_directory_in_the_place_of_another_is_watched_instead() {
    let node = Node::configured("agent", "removal_grace = 0\nrescan_interval = 1\n");
    node.run(&Package::faulty("good"));
    fs::rename(node.plugins(), node.home().join("away")).unwrap();
    fs::create_dir(node.plugins()).unwrap();
    node.run(&Package::faulty("other"));
    node.wait_state("good", State::Removed);
}

#[test]
fn files_of_no_package_are_passed_over() {
    let node = Node::agent();
    let (package, plugins) = (Package::faulty("good"), node.plugins());
    let library = &package.library;
    for name in [
        ".libhidden.so",
        ".hidden.access.json",
        ".libgood.so.k3Gz",
        "libgood.so.part",
        "libgood.so~",
        "libgood.so.1",
        "good.json",
        "README",
        ".so",
    ] {
        fs::write(plugins.join(name), library).unwrap();
    }
    fs::write(plugins.join(OsStr::from_bytes(b"lib\xff.so")), library).unwrap();
    fs::create_dir(plugins.join("inner")).unwrap();
    Package::faulty("inner").drop_into(&plugins.join("inner"));
    let view = node.run(&package);
    assert_eq!((view.generations, view.candidate), (1, None));
    assert_eq!(node.names(), ["good"]);
}

#[test]
fn what_changes_no_content_restarts_nothing() {
    let node = Node::agent();
    let package = Package::faulty("good");
    node.run(&package);
    let library = node.plugins().join(package.library_name());
    let touch = |path: &Path| {
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    };
    let changes: [(&str, &dyn Fn()); 4] = [
        ("touched", &|| touch(&library)),
        ("copied again", &|| fs::write(&library, &package.library).unwrap()),
        ("replaced by itself", &|| package.drop_into(&node.plugins())),
        ("linked", &|| fs::hard_link(&library, node.plugins().join(".link")).unwrap()),
    ];
    for (what, change) in changes {
        change();
        // A change that shows: when the host has taken it up, it has seen the other as well.
        fs::remove_file(node.plugins().join(package.access_name())).unwrap();
        node.wait("good", "short of a template", |view| {
            let candidate =
                view.candidate.as_ref().and_then(|candidate| candidate.problem.as_ref());
            candidate.is_some_and(|problem| problem.code.code() == "TemplateMissing")
        });
        place(&node.plugins(), &package.access_name(), &package.access);
        let view = node.wait("good", "whole again", |view| view.candidate.is_none());
        assert_eq!((view.state, view.generations), (State::Running, 1), "{what}");
    }
}

#[test]
fn packages_may_come_while_the_host_is_down() {
    let mut node = Node::stopped("agent", "");
    let package = Package::faulty("good");
    package.drop_into(&node.plugins());
    node.start();
    assert_eq!(node.wait_state("good", State::Running).generations, 1);
    assert!(node.stop().success());
    package.version("0.2.0").drop_into(&node.plugins());
    Package::faulty("other").drop_into(&node.plugins());
    node.start();
    assert_eq!(node.wait_version("good", "0.2.0").generations, 1);
    assert_eq!(node.wait_state("other", State::Running).generations, 1);
    // Also when it had no time to tidy up, and a package went meanwhile.
    node.kill();
    fs::remove_file(node.plugins().join("libother.so")).unwrap();
    node.start();
    assert_eq!(node.wait_version("good", "0.2.0").generations, 1);
    node.wait_problem("other", State::Incomplete, "LibraryMissing");
    let cached = fs::read_dir(node.home().join("cache")).unwrap().count();
    assert_eq!(cached, 1, "private copies that nobody uses");
}

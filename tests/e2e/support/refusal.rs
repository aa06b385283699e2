//! Tables of packages that are refused: how each is made and dropped, and what is required of every
//! refusal. Which faults there are stands in the tests.

use std::fs;
use std::path::Path;

use privatix_modules::registry::{ModuleView, State};
use serde_json::Value;

use super::module::place;
use super::{Node, Package, wait_for};

/// How a bad package gets into the directory.
pub(crate) type Deliver = Box<dyn Fn(Package, &Path)>;

/// A package and what is to become of it.
pub(crate) struct Row {
    name: &'static str,
    deliver: Deliver,
    state: State,
    code: &'static str,
}

/// A package that is refused.
pub(crate) fn refused(name: &'static str, code: &'static str, deliver: Deliver) -> Row {
    Row { name, deliver, state: State::Refused, code }
}

/// A package that is waited for.
pub(crate) fn incomplete(name: &'static str, code: &'static str, deliver: Deliver) -> Row {
    Row { name, deliver, state: State::Incomplete, code }
}

/// Dropped whole, after a change.
pub(crate) fn changed(change: impl Fn(Package) -> Package + 'static) -> Deliver {
    Box::new(move |package, plugins| change(package).drop_into(plugins))
}

pub(crate) fn library(change: impl Fn(&mut Vec<u8>) + 'static) -> Deliver {
    changed(move |package| package.with_library(&change))
}

pub(crate) fn manifest(change: impl Fn(&mut Value) + 'static) -> Deliver {
    changed(move |package| package.with_manifest(&change))
}

/// With an access template made from the good one, to whose hash the manifest agrees.
pub(crate) fn access(change: impl Fn(&mut Value) + 'static) -> Deliver {
    changed(move |package| {
        let mut template = serde_json::from_slice(&package.access).unwrap();
        change(&mut template);
        package.with_access(&template.to_string())
    })
}

/// With an access template in which a part of the text is another.
pub(crate) fn access_text(from: &'static str, to: &'static str) -> Deliver {
    changed(move |package| {
        let text = String::from_utf8(package.access.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        package.with_access(&text.replacen(from, to, 1))
    })
}

/// With another title in its access template.
pub(crate) fn titled(package: Package, title: &str) -> Package {
    let mut template: Value = serde_json::from_slice(&package.access).unwrap();
    template["schema"]["title"] = title.into();
    package.with_access(&template.to_string())
}

/// All but the library is dropped, something is done to it, and only then the library comes: a
/// package that is good for a moment is run.
pub(crate) fn before_library(act: impl Fn(&Package, &Path) + 'static) -> Deliver {
    Box::new(move |package, plugins| {
        place(plugins, &package.access_name(), &package.access);
        place(plugins, &package.offering_name(), &package.offering);
        act(&package, plugins);
        place(plugins, &package.library_name(), &package.library);
    })
}

/// All but the library is dropped, and something else is put where it belongs.
pub(crate) fn instead_of_library(act: impl Fn(&Path) + 'static) -> Deliver {
    Box::new(move |package, plugins| {
        place(plugins, &package.access_name(), &package.access);
        place(plugins, &package.offering_name(), &package.offering);
        act(&plugins.join(package.library_name()));
    })
}

/// Something is done to the library before it gets its name.
pub(crate) fn prepared_library(act: impl Fn(&Path) + 'static) -> Deliver {
    Box::new(move |package, plugins| {
        place(plugins, &package.access_name(), &package.access);
        place(plugins, &package.offering_name(), &package.offering);
        let staged = plugins.join(format!(".{}", package.name));
        fs::write(&staged, &package.library).unwrap();
        act(&staged);
        fs::rename(staged, plugins.join(package.library_name())).unwrap();
    })
}

/// What is required of every refusal, and of the rest of the host meanwhile.
pub(crate) fn check(rows: &[Row]) {
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    for row in rows {
        (row.deliver)(Package::faulty(row.name), &node.plugins());
    }
    let views: Vec<_> = rows
        .iter()
        .map(|row| {
            let view = node.wait_problem(row.name, row.state, row.code);
            told(&node, &view);
            view
        })
        .collect();
    listed(&node, &views);
    for (row, view) in rows.iter().zip(&views) {
        let now = node.wait_problem(row.name, row.state, row.code);
        assert_eq!(&now, view, "{} has changed", row.name);
        assert_eq!((view.generations, view.abandoned_threads), (0, 0), "{}", row.name);
    }
    for row in rows {
        mend(&Package::faulty(row.name), &node.plugins());
    }
    for row in rows {
        let view = node.wait_state(row.name, State::Running);
        assert_eq!((view.problem, view.candidate), (None, None), "{}", row.name);
    }
    untouched(&mut node);
}

/// The reason is complete, and `explain` says all of it.
pub(crate) fn told(node: &Node, view: &ModuleView) {
    let problem = view.problem.as_ref().expect("a reason");
    let parts = [problem.code.code(), &problem.found, &problem.required, &problem.mend];
    assert!(parts.iter().all(|part| !part.is_empty()), "{problem:?}");
    // What may be mended elsewhere is tried again now and then, and is "starting" for that moment.
    wait_for(&format!("all of {problem:?} to be explained"), || {
        let output = node.privatix(&["module", "explain", &view.name]);
        assert!(output.status.success(), "{}", view.name);
        let text = String::from_utf8(output.stdout).unwrap();
        parts.iter().all(|part| text.contains(part)).then_some(())
    });
}

/// `module list` has them all, for programs and for people.
fn listed(node: &Node, views: &[ModuleView]) {
    let output = node.privatix(&["--json", "module", "list"]);
    assert!(output.status.success());
    let all: Vec<ModuleView> = serde_json::from_slice(&output.stdout).unwrap();
    let output = node.privatix(&["module", "list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for view in views {
        let known = all.iter().find(|known| known.name == view.name).expect("listed");
        let code =
            |view: &ModuleView| view.problem.as_ref().map(|problem| problem.code.to_string());
        assert_eq!((known.state, code(known)), (view.state, code(view)), "{}", view.name);
        let line = text.lines().find(|line| line.starts_with(&format!("{} ", view.name)));
        let line = line.unwrap_or_else(|| panic!("{} in {text}", view.name));
        assert!(
            line.contains(view.state.as_str()) && line.contains(&code(view).unwrap()),
            "{line}"
        );
    }
}

/// Puts the good package in the place of whatever is there.
fn mend(package: &Package, plugins: &Path) {
    let library = plugins.join(package.library_name());
    if library.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        fs::remove_dir(&library).unwrap();
    }
    let _ = fs::remove_file(plugins.join(format!("{}.so", package.name)));
    package.drop_into(plugins);
}

/// The good module has noticed nothing.
pub(crate) fn untouched(node: &mut Node) {
    assert!(node.alive());
    let good = node.module("good").unwrap();
    assert_eq!((good.state, good.generations), (State::Running, 1), "{good:?}");
    assert_eq!((good.problem, good.candidate), (None, None));
}

//! Modules built with an older and with a newer plugin-api than the host's: real builds of this
//! repository's own sources, with the difference put in by hand.
//!
//! The trees are kept below the target directory and are only rewritten where they differ, so that
//! cargo builds them once; other crates are shared with the host's build. Every alteration has to
//! find its place, so that none is lost when the sources change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Package;
use super::module::{repository, target};

/// A plugin-api of another time, and a module built with it.
pub(crate) struct Vintage {
    /// The module's name.
    pub(crate) name: &'static str,
    /// The version of its plugin-api, and its own.
    pub(crate) version: &'static str,
    /// What is different.
    pub(crate) edits: &'static [Edit],
}

/// In this file, this text is replaced by that.
pub(crate) struct Edit {
    pub(crate) file: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

/// What is taken over, and is all that is needed.
const PARTS: [&str; 3] = ["plugin-abi", "plugin-api", "tests/modules/faulty"];

impl Vintage {
    /// Builds the module.
    pub(crate) fn build(&self) -> Package {
        let (target, release) = target();
        let tree = target.join("vintage").join(self.name);
        self.plant(&tree);
        let build = |offline: &[&str]| {
            let mut cargo =
                Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.current_dir(&tree).args(["build", "--quiet", "-p", &self.package()]);
            cargo.args(offline).arg("--target-dir").arg(&target);
            if release {
                cargo.arg("--release");
            }
            cargo.status().expect("cargo runs").success()
        };
        // A lock file without the other members is brought up to date, for which no network is
        // needed where the repository itself was built.
        assert!(build(&["--offline"]) || build(&[]), "building {}", self.package());
        let built = target.join(if release { "release" } else { "debug" });
        let module = tree.join(self.name).join("tests/modules/faulty");
        let read = |path: PathBuf| {
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let package = Package {
            name: "faulty".into(),
            library: read(built.join(format!("lib{}_module.so", self.name))),
            access: read(module.join("faulty.access.json")),
            offering: read(module.join("faulty.offering.json")),
        };
        package.renamed(self.name)
    }

    fn package(&self) -> String {
        format!("{}-module", self.name)
    }

    /// Copies the sources with the alterations.
    fn plant(&self, tree: &Path) {
        let mut files = Vec::new();
        for part in PARTS {
            collect(&repository(), Path::new(part), &mut files);
        }
        let (package, library) = (self.package(), format!("name = \"{}_module\"", self.name));
        let package = format!("name = \"{package}\"");
        let manifest = "tests/modules/faulty/Cargo.toml";
        for edit in self.edits {
            alter(&mut files, edit.file, edit.from, edit.to);
        }
        alter(&mut files, manifest, "name = \"faulty-module\"", &package);
        alter(&mut files, manifest, "name = \"faulty\"", &library);
        for (path, text) in files {
            write_if_other(&tree.join(self.name).join(path), &text);
        }
        write_if_other(&tree.join("Cargo.toml"), &self.workspace());
        // Cargo changes the lock file of a tree that it builds, so it is compared with a copy.
        let (lock, copy) = (source("Cargo.lock"), tree.join("repository.lock"));
        if fs::read_to_string(&copy).ok().as_ref() != Some(&lock) {
            write_if_other(&tree.join("Cargo.lock"), &lock);
            write_if_other(&copy, &lock);
        }
    }

    /// The repository's, with fewer members, which are in a directory of the tree's name: cargo
    /// knows a crate by its path in the workspace, and would take two trees' for one.
    fn workspace(&self) -> String {
        let mut root: toml::Table = source("Cargo.toml").parse().expect("TOML");
        let workspace = root["workspace"].as_table_mut().expect("a workspace");
        let members = PARTS.map(|part| format!("{}/{part}", self.name));
        workspace.insert("members".into(), members.to_vec().into());
        workspace.remove("exclude");
        workspace["package"]["version"] = self.version.into();
        for crate_name in ["plugin-abi", "plugin-api"] {
            let dependency = &mut workspace["dependencies"][&format!("privatix-{crate_name}")];
            dependency["path"] = format!("{}/{crate_name}", self.name).into();
        }
        workspace["dependencies"]["privatix-plugin-api"]["version"] = self.version.into();
        root.to_string()
    }
}

fn source(file: &str) -> String {
    let path = repository().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All text files below a directory, by their paths in the repository.
fn collect(root: &Path, directory: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(root.join(directory)).expect("a directory") {
        let entry = entry.expect("an entry");
        let path = directory.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            collect(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            files.push((path, text));
        }
    }
}

fn alter(files: &mut [(PathBuf, String)], file: &str, from: &str, to: &str) {
    let found = files.iter_mut().find(|(path, _)| path == Path::new(file));
    let (_, text) = found.unwrap_or_else(|| panic!("there is no {file}"));
    assert_eq!(text.matches(from).count(), 1, "{file}: not once there: {from}");
    *text = text.replacen(from, to, 1);
}

/// Tests run in processes of their own, side by side: none may see half a file, and cargo builds
/// again what was written again.
fn write_if_other(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return;
    }
    let parent = path.parent().expect("a directory");
    fs::create_dir_all(parent).expect("made");
    let mut part = tempfile::NamedTempFile::new_in(parent).expect("a file");
    std::io::Write::write_all(&mut part, text.as_bytes()).expect("written");
    part.persist(path).expect("in place");
}

//! What lies in the plugins directory: file names and file attributes, sorted into packages.
//!
//! Nothing is opened here. Files that belong to no package (hidden ones, notes, half-named
//! downloads) are passed over.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use privatix_plugin_api::manifest::{NAME_RULE, is_name};

use super::problem::{Code, Problem};

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
    owner: u32,
}

impl From<&fs::Metadata> for Stamp {
    fn from(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            mode: meta.mode(),
            owner: meta.uid(),
        }
    }
}

/// One file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Where it is.
    pub path: PathBuf,
    /// Its attributes when the directory was read.
    pub stamp: Stamp,
}

impl FileEntry {
    /// Its name, for sentences.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The files of one module, as far as they are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageFiles {
    /// The library.
    pub library: Option<FileEntry>,
    /// The manifest of a standalone module, in place of a library.
    pub manifest: Option<FileEntry>,
    /// The access template.
    pub access: Option<FileEntry>,
    /// The offering template.
    pub offering: Option<FileEntry>,
    /// What is wrong before anything is opened: the directory, the name, a second library.
    pub problem: Option<Problem>,
}

impl PackageFiles {
    /// Whether the file is there that makes it a module: a library or a manifest.
    pub fn is_module(&self) -> bool {
        self.library.is_some() || self.manifest.is_some()
    }
}

/// Packages by module name.
pub type Scan = BTreeMap<String, PackageFiles>;

/// Reads the directory.
///
/// # Errors
/// When it cannot be read; its modules go on meanwhile.
pub fn scan(directory: &Path) -> io::Result<Scan> {
    let directory_problem = directory_problem(directory)?;
    let mut packages = Scan::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        let Some((name, part)) = part_of(&file_name) else { continue };
        // A file may be gone again by now.
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        let file = FileEntry { path: entry.path(), stamp: Stamp::from(&meta) };
        let files = packages.entry(name.to_owned()).or_default();
        let slot = match part {
            Part::Library => &mut files.library,
            Part::Manifest => &mut files.manifest,
            Part::Access => &mut files.access,
            Part::Offering => &mut files.offering,
        };
        if slot.is_some() {
            files.problem = Some(two_libraries(name));
        }
        // Either of two names, but the same one each time.
        if slot.as_ref().is_none_or(|other| other.path > file.path) {
            *slot = Some(file);
        }
    }
    for (name, files) in &mut packages {
        if files.library.is_some() && files.manifest.is_some() {
            files.problem = Some(library_and_manifest(name));
        }
        if !is_name(name) {
            files.problem = Some(invalid_name(name));
        }
        if directory_problem.is_some() {
            files.problem.clone_from(&directory_problem);
        }
    }
    Ok(packages)
}

#[derive(Debug, PartialEq)]
enum Part {
    Library,
    Manifest,
    Access,
    Offering,
}

fn part_of(file_name: &str) -> Option<(&str, Part)> {
    if file_name.starts_with('.') {
        return None;
    }
    if let Some(stem) = file_name.strip_suffix(".so") {
        // No module is called nothing.
        let name = stem.strip_prefix("lib").filter(|name| !name.is_empty()).unwrap_or(stem);
        return Some((name, Part::Library));
    }
    if let Some(name) = file_name.strip_suffix(".access.json") {
        return Some((name, Part::Access));
    }
    if let Some(name) = file_name.strip_suffix(".module.json") {
        return Some((name, Part::Manifest));
    }
    file_name.strip_suffix(".offering.json").map(|name| (name, Part::Offering))
}

/// What is wrong with the plugins directory. Where it is a symbolic link, the directory that the link
/// leads to counts: a link has no mode of its own.
///
/// # Errors
/// When it cannot be looked at.
pub fn directory_problem(directory: &Path) -> io::Result<Option<Problem>> {
    let real = directory.canonicalize()?;
    let shown = real.display();
    let what = if fs::symlink_metadata(directory)?.is_symlink() {
        format!("the plugins directory {}, a symbolic link to {shown},", directory.display())
    } else {
        format!("the plugins directory {shown}")
    };
    Ok(ownership_of(&fs::metadata(&real)?, &what, &real))
}

/// Whether a file or directory is the host's own and nobody else's to write.
pub fn ownership(meta: &fs::Metadata, path: &Path) -> Option<Problem> {
    ownership_of(meta, &path.display().to_string(), path)
}

/// The same; the problem calls it by this name, and its advice by its path.
pub fn ownership_of(meta: &fs::Metadata, what: &str, path: &Path) -> Option<Problem> {
    let path = path.display();
    let user = nix::unistd::geteuid().as_raw();
    if meta.uid() != user && meta.uid() != 0 {
        return Some(Problem::new(
            Code::WrongOwner,
            format!("{what} belongs to user {}", meta.uid()),
            format!("owned by the host's user ({user}) or by root"),
            format!("chown {user} {path}"),
        ));
    }
    if meta.mode() & 0o022 != 0 {
        return Some(Problem::new(
            Code::WritableByOthers,
            format!("{what} has mode {:04o}", meta.mode() & 0o7777),
            "writable by its owner alone: who can write it can take over the host",
            format!("chmod go-w {path}"),
        ));
    }
    None
}

fn two_libraries(name: &str) -> Problem {
    Problem::new(
        Code::AmbiguousLibrary,
        format!("both lib{name}.so and {name}.so"),
        "one library a module",
        "remove one of them",
    )
}

fn library_and_manifest(name: &str) -> Problem {
    Problem::new(
        Code::AmbiguousModule,
        format!("both a library and {name}.module.json"),
        "a library, or the manifest of a standalone module",
        "remove one of them",
    )
}

fn invalid_name(name: &str) -> Problem {
    Problem::new(
        Code::InvalidName,
        format!("a module called {name:?}"),
        format!("a name of {NAME_RULE}"),
        "rename the files; the name has to be the one in the module's manifest",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_and_what_they_are() {
        for (file_name, expected) in [
            ("libvpn.so", Some(("vpn", Part::Library))),
            ("vpn.so", Some(("vpn", Part::Library))),
            ("vpn.access.json", Some(("vpn", Part::Access))),
            ("vpn.offering.json", Some(("vpn", Part::Offering))),
            ("vpn.module.json", Some(("vpn", Part::Manifest))),
            (".vpn.module.json.k3Gz", None),
            ("module.json", None),
            ("liblib.so", Some(("lib", Part::Library))),
            ("lib.so", Some(("lib", Part::Library))),
            (".libvpn.so.k3Gz", None),
            (".libvpn.so", None),
            ("libvpn.so.part", None),
            ("libvpn.so.1", None),
            ("vpn.json", None),
            ("README", None),
        ] {
            assert_eq!(part_of(file_name), expected, "{file_name}");
        }
    }

    #[test]
    fn linked_plugins_directory_is_judged_by_where_the_link_leads() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let home = tempfile::tempdir().expect("a directory");
        let (real, link) = (home.path().join("real"), home.path().join("plugins"));
        fs::create_dir(&real).expect("made");
        symlink(&real, &link).expect("linked");
        fs::write(real.join("libvpn.so"), "x").expect("written");
        let problem = |mode| {
            fs::set_permissions(&real, fs::Permissions::from_mode(mode)).expect("changed");
            scan(&link).expect("readable")["vpn"].problem.clone()
        };
        assert_eq!(problem(0o755), None);
        let found = problem(0o777).expect("others can write there");
        assert_eq!(found.code, Code::WritableByOthers);
        let real = real.canonicalize().expect("there");
        assert_eq!(found.mend, format!("chmod go-w {}", real.display()));
        assert!(found.found.contains("symbolic link"), "{}", found.found);
    }

    #[test]
    fn packages_are_sorted_by_name_and_their_problems_noted() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in [
            "libvpn.so",
            "vpn.access.json",
            "two.so",
            "libtwo.so",
            "libBad Name.so",
            "notes.txt",
            "libboth.so",
            "both.module.json",
            "web.module.json",
        ] {
            fs::write(directory.path().join(name), "x").expect("written");
        }
        let packages = scan(directory.path()).expect("readable");
        let outcome: Vec<_> = packages
            .iter()
            .map(|(name, files)| (name.as_str(), files.problem.as_ref().map(|p| p.code.code())))
            .collect();
        let expected = [
            ("Bad Name", Some("InvalidName")),
            ("both", Some("AmbiguousModule")),
            ("two", Some("AmbiguousLibrary")),
            ("vpn", None),
            ("web", None),
        ];
        assert_eq!(outcome, expected);
        assert!(packages["vpn"].library.is_some() && packages["vpn"].access.is_some());
        assert!(packages["vpn"].offering.is_none());
        assert!(packages["web"].is_module() && packages["web"].library.is_none());
    }
}

//! Which other libraries a module pulls in: none but those of the system, from where only root can
//! write.
//!
//! A search path in the library, or a needed library that others can write, would have a stranger's
//! code run in the host. Two steps: what the file says is read from its bytes; where the dynamic
//! linker would find each library is asked of the dynamic linker itself, which lists them without
//! running any of their code. It is not asked for a library that needs only what the host has loaded.
//!
//! Not covered: what the module loads by itself (`dlopen`) once it runs.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use object::elf;
use object::endian::LittleEndian as Endian;
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::read::{ReadCache, ReadRef as _};
use tokio::process::Command;

use super::inspect::Header;
use super::problem::{Code, Problem};

/// How long the dynamic linker may take to list what a library needs.
const DEADLINE: Duration = Duration::from_secs(5);

/// The most symbolic links on the way to a library, as the kernel has it.
const LINKS: usize = 40;

const REQUIRED: &str = "libraries from a system directory that only root can write";
const SELF_CONTAINED: &str = "a library that names no directories of other libraries";

/// Reads what the library asks of the dynamic linker.
///
/// # Errors
/// `MalformedElf`, `RunPath`, `LibraryNotTrusted`.
pub(super) fn check(header: &Header, library: &[u8]) -> Result<(), Problem> {
    let malformed = |found: String| {
        Problem::new(Code::MalformedElf, found, "an intact ELF file", "copy the library again")
    };
    let segments = header.program_headers(Endian, library);
    let segments = segments.map_err(|error| malformed(error.to_string()))?;
    let mut tables = Vec::new();
    for segment in segments {
        let table = segment.dynamic(Endian, library);
        tables.extend(table.map_err(|error| malformed(error.to_string()))?);
    }
    let [table] = tables.as_slice() else {
        return Err(malformed(format!("{} dynamic sections", tables.len())));
    };
    let entries = || table.iter().take_while(|entry| entry.tag(Endian) != elf::DT_NULL);
    let value = |tag| entries().find(|entry| entry.tag(Endian) == tag).map(|e| e.val(Endian));
    let (start, size) = value(elf::DT_STRTAB).zip(value(elf::DT_STRSZ)).unwrap_or((0, 0));
    let strings = segments
        .iter()
        .filter(|segment| segment.p_type(Endian) == elf::PT_LOAD)
        .find_map(|segment| segment.data_range(Endian, library, start, size).ok().flatten())
        .unwrap_or_default();
    let text = |offset: u64| {
        let from = usize::try_from(offset).ok().and_then(|offset| strings.get(offset..));
        let text = from.and_then(|from| from.split(|byte| *byte == 0).next());
        text.map(|text| String::from_utf8_lossy(text).into_owned())
            .ok_or_else(|| malformed("a name beyond the table of names".into()))
    };
    for entry in entries() {
        match entry.tag(Endian) {
            elf::DT_RUNPATH | elf::DT_RPATH => {
                return Err(search_path(&text(entry.val(Endian))?));
            }
            elf::DT_NEEDED => {
                let name = text(entry.val(Endian))?;
                if !is_plain(&name) {
                    return Err(untrusted(format!("it needs {name:?}, which is a path")));
                }
            }
            elf::DT_AUDIT | elf::DT_DEPAUDIT | elf::DT_FILTER | elf::DT_AUXILIARY => {
                let name = text(entry.val(Endian))?;
                let found = format!("it has the dynamic linker load {name:?} in its own way");
                return Err(untrusted(found));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Asks the dynamic linker where it would find each library that this one needs, and looks at who
/// can write there.
///
/// # Errors
/// `LibraryNotFound`, `LibraryNotTrusted`, `LoadCrashed`, `LoadTimedOut`, `HostFailed`.
pub async fn needed(copy: &Path, binary: &Path) -> Result<(), Problem> {
    // A host without a dynamic linker loads no library in any case.
    let Some(linker) = interpreter(binary) else { return Ok(()) };
    // The processes that load it are the other binary and this one.
    if [binary, Path::new("/proc/self/exe")].iter().all(|program| has_all(program, copy)) {
        return Ok(());
    }
    let mut command = Command::new(&linker);
    command.arg("--list").arg(copy).stdin(Stdio::null()).env_clear().kill_on_drop(true);
    // The host's own search path holds for what it loads.
    if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", path);
    }
    let output = match tokio::time::timeout(DEADLINE, command.output()).await {
        Err(_) => {
            return Err(Problem::new(
                Code::LoadTimedOut,
                format!("the libraries that it needs were not found within {DEADLINE:?}"),
                "a library that the dynamic linker can read",
                "copy the library again; if it stays so, tell its author",
            ));
        }
        Ok(Err(error)) => {
            return Err(Problem::new(
                Code::HostFailed,
                format!("{}: {error}", linker.display()),
                "room for one more process",
                "see the limits of the host's user",
            ));
        }
        Ok(Ok(output)) => output,
    };
    let listed = String::from_utf8_lossy(&output.stdout);
    for (name, path) in places(&listed) {
        let Some(path) = path else { return Err(not_found(name)) };
        if let Err(why) = trusted(Path::new(path)) {
            return Err(untrusted(format!("it needs {name}, found as {path}: {why}")));
        }
    }
    if output.status.success() {
        return Ok(());
    }
    if let Some(name) = missing(&String::from_utf8_lossy(&output.stderr)) {
        return Err(not_found(name));
    }
    // Loading it in another process says the same in the dynamic linker's own words.
    tracing::debug!(status = %output.status, "the dynamic linker did not list what is needed");
    Ok(())
}

/// What the dynamic linker lists: each library, and where it is, if it was found. What the kernel
/// itself provides has no path.
fn places(listed: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    listed.lines().filter_map(|line| {
        let line = line.trim();
        let without_address = |text: &'_ str| text.rfind(" (0x").unwrap_or(text.len());
        match line.split_once(" => ") {
            Some((name, "not found")) => Some((name, None)),
            Some((name, place)) => Some((name, Some(&place[..without_address(place)]))),
            None if line.starts_with('/') => {
                let path = &line[..without_address(line)];
                Some((path, Some(path)))
            }
            None => None,
        }
    })
}

/// The library that the dynamic linker says it has not found.
fn missing(said: &str) -> Option<&str> {
    let (_, why) = said.split_once(": error while loading shared libraries: ")?;
    let (name, why) = why.split_once(": ")?;
    (is_plain(name) && why.starts_with("cannot open shared object file")).then_some(name)
}

/// The dynamic linker of a program.
fn interpreter(binary: &Path) -> Option<PathBuf> {
    // It stands at the beginning of the file.
    let mut bytes = Vec::new();
    fs::File::open(binary).ok()?.take(64 << 10).read_to_end(&mut bytes).ok()?;
    let header = Header::parse(&*bytes).ok()?;
    let segments = header.program_headers(Endian, &*bytes).ok()?;
    let mut found = segments.iter().filter_map(|s| s.interpreter(Endian, &*bytes).ok().flatten());
    found.next().map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// Whether a program has loaded everything that a library needs before it loads the library. The
/// dynamic linker then takes what is there, by name, and searches no directory. It starts a process
/// less, and most modules need nothing that the host does not need itself.
fn has_all(program: &Path, library: &Path) -> bool {
    match (needs(program), needs(library)) {
        (Some(has), Some(needs)) => needs.is_subset(&has),
        _ => false,
    }
}

/// What a file names as needed. `None`: the file cannot be read as one that the dynamic linker loads.
fn needs(path: &Path) -> Option<BTreeSet<Vec<u8>>> {
    let file = ReadCache::new(fs::File::open(path).ok()?);
    let segments = Header::parse(&file).ok()?.program_headers(Endian, &file).ok()?;
    let table = segments.iter().find_map(|s| s.dynamic(Endian, &file).ok().flatten())?;
    let entries = || table.iter().take_while(|entry| entry.tag(Endian) != elf::DT_NULL);
    let value = |tag| entries().find(|entry| entry.tag(Endian) == tag).map(|e| e.val(Endian));
    let (start, size) = (value(elf::DT_STRTAB)?, value(elf::DT_STRSZ)?);
    // The names alone: their segment is most of a program.
    let names = segments.iter().find_map(|segment| place_of(segment, start, size))?;
    let names = file.read_bytes_at(names, size).ok()?;
    let text = |offset: u64| {
        let from = names.get(usize::try_from(offset).ok()?..)?;
        from.split(|byte| *byte == 0).next().map(<[u8]>::to_vec)
    };
    let needed = entries().filter(|entry| entry.tag(Endian) == elf::DT_NEEDED);
    needed.map(|entry| text(entry.val(Endian))).collect()
}

/// Where in the file something is that a segment has in memory, all of it.
fn place_of(segment: &elf::ProgramHeader64<Endian>, address: u64, size: u64) -> Option<u64> {
    let within = address.checked_sub(segment.p_vaddr(Endian))?;
    let fits = within.checked_add(size)? <= segment.p_filesz(Endian);
    let is_loaded = segment.p_type(Endian) == elf::PT_LOAD;
    (is_loaded && fits).then(|| segment.p_offset(Endian).checked_add(within))?
}

/// Whether only root can change what is under this path: the file, each directory on the way, and
/// each symbolic link with the way that it leads to.
fn trusted(path: &Path) -> Result<(), String> {
    let mut todo: Vec<_> = parts(path).collect();
    todo.reverse();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    only_root(&at)?;
    while let Some(part) = todo.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let meta = fs::symlink_metadata(&next).map_err(|e| format!("{}: {e}", next.display()))?;
        if !meta.is_symlink() {
            only_root(&next)?;
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err("too many symbolic links".into());
        }
        let target = fs::read_link(&next).map_err(|e| format!("{}: {e}", next.display()))?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        let more: Vec<_> = parts(&target).collect();
        todo.extend(more.into_iter().rev());
    }
    Ok(())
}

fn parts(path: &Path) -> impl Iterator<Item = std::ffi::OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

fn only_root(path: &Path) -> Result<(), String> {
    let meta = fs::symlink_metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let shown = path.display();
    if meta.uid() != 0 {
        return Err(format!("{shown} belongs to user {}", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(format!("{shown} has mode {:04o}", meta.mode() & 0o7777));
    }
    Ok(())
}

/// A name, and no path: the dynamic linker looks it up in its own directories.
fn is_plain(name: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "._+-".contains(letter);
    !name.is_empty() && name.chars().all(is_letter)
}

fn search_path(path: &str) -> Problem {
    Problem::new(
        Code::RunPath,
        format!("a RUNPATH or RPATH: {path:?}"),
        SELF_CONTAINED,
        "build the module without it, or remove it: patchelf --remove-rpath LIBRARY",
    )
}

fn untrusted(found: String) -> Problem {
    Problem::new(
        Code::LibraryNotTrusted,
        found,
        REQUIRED,
        "install what it needs with the system's package manager, or link it into the module",
    )
}

fn not_found(name: &str) -> Problem {
    Problem::new(
        Code::LibraryNotFound,
        format!("it needs {name}, which this system does not have"),
        REQUIRED,
        "install the package of the system that has it, or link it into the module",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn listing_of_the_dynamic_linker_names_each_library_and_its_place() {
        let listed = "\tlinux-vdso.so.1 (0x00007f93295fc000)\n\
             \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f93295cb000)\n\
             \tlibodd.so => /opt/a b (0x1)/libodd.so (0x00007f93295cb000)\n\
             \tlibnone.so.6 => not found\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f93295fe000)\n";
        let expected = [
            ("libgcc_s.so.1", Some("/lib/x86_64-linux-gnu/libgcc_s.so.1")),
            ("libodd.so", Some("/opt/a b (0x1)/libodd.so")),
            ("libnone.so.6", None),
            ("/lib64/ld-linux-x86-64.so.2", Some("/lib64/ld-linux-x86-64.so.2")),
        ];
        assert_eq!(places(listed).collect::<Vec<_>>(), expected);
        assert_eq!(places("\tstatically linked\n").count(), 0);
        let said = "/x/libneedy.so: error while loading shared libraries: libnone.so.6: cannot open \
                    shared object file: No such file or directory\n";
        assert_eq!(missing(said), Some("libnone.so.6"));
        assert_eq!(missing("/x/libneedy.so: invalid ELF header\n"), None);
    }

    #[test]
    fn path_is_trusted_only_where_root_alone_can_change_every_part_of_it() {
        let linker = interpreter(Path::new("/proc/self/exe")).expect("a dynamic linker");
        assert_eq!(trusted(&linker), Ok(()));
        let directory = tempfile::tempdir().expect("a directory");
        let library = directory.path().join("libx.so");
        fs::write(&library, "x").expect("written");
        // Below a directory that everybody can write, as temporary ones are.
        assert!(trusted(&library).expect_err("not root's alone").contains("mode 1777"));
        let link = directory.path().join("liby.so");
        symlink(&linker, &link).expect("linked");
        assert!(trusted(&link).is_err(), "the link itself can be replaced");
        assert!(trusted(Path::new("/no such directory/libx.so")).is_err());
    }

    #[test]
    fn only_library_that_needs_more_than_the_program_has_is_searched_for() {
        let this = std::env::current_exe().expect("a path");
        let names = needs(&this).expect("a program");
        assert!(names.contains(&b"libc.so.6"[..]), "{names:?}");
        assert!(has_all(&this, &this));
        // The same file, but for the name of one library.
        let bytes = fs::read(&this).expect("a file");
        let at = bytes.windows(10).position(|part| part == b"libc.so.6\0").expect("a name");
        let other = tempfile::NamedTempFile::new().expect("a file");
        let altered = [&bytes[..at], b"libx.so.6", &bytes[at + 9..]].concat();
        fs::write(other.path(), altered).expect("written");
        assert!(!has_all(&this, other.path()));
        assert!(!has_all(other.path(), &this));
        fs::write(other.path(), &bytes[..1000]).expect("written");
        assert!(!has_all(&this, other.path()), "a part of a file");
    }

    #[test]
    fn file_that_others_can_write_is_not_roots_alone() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(file.path(), mode(0o664)).expect("changed");
        assert!(only_root(file.path()).is_err());
        if nix::unistd::geteuid().is_root() {
            fs::set_permissions(file.path(), mode(0o644)).expect("changed");
            assert_eq!(only_root(file.path()), Ok(()));
        }
    }

    #[test]
    fn needed_library_is_a_name_and_no_path() {
        for (name, expected) in [
            ("libc.so.6", true),
            ("libstdc++.so.6", true),
            ("ld-linux-x86-64.so.2", true),
            ("./libx.so", false),
            ("/tmp/libx.so", false),
            ("$ORIGIN", false),
            ("a => b", false),
            ("", false),
        ] {
            assert_eq!(is_plain(name), expected, "{name}");
        }
    }
}

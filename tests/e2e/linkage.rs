//! What a library pulls in: search paths of its own, and libraries that others can write, are refused
//! before any code runs, in the host or elsewhere.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use object::elf::{self, FileHeader64};
use object::endian::LittleEndian as Endian;
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use privatix_modules::registry::State;

use crate::support::refusal::{told, untouched};
use crate::support::{Node, Package};

/// The library's dynamic section with one more entry, in the place of a count that nobody needs. Its
/// text is a name that the library has anyway: the one returned.
fn with_entry(package: Package, tag: elf::DynamicTag) -> (Package, String) {
    let library = &package.library;
    let header = FileHeader64::<Endian>::parse(&**library).expect("ELF");
    let segments = header.program_headers(Endian, &**library).expect("segments");
    let dynamic = segments.iter().find_map(|s| s.dynamic(Endian, &**library).expect("whole"));
    let dynamic = dynamic.expect("a dynamic section");
    let entry = |tag| dynamic.iter().find(|entry| entry.tag(Endian) == tag).expect("an entry");
    let spare = entry(elf::DT_RELACOUNT);
    let at = std::ptr::from_ref(spare).addr() - library.as_ptr().addr();
    let strings = usize::try_from(entry(elf::DT_STRTAB).val(Endian)).expect("small");
    // The first name in the table; its addresses are those of the file.
    let name: Vec<u8> = library[strings + 1..].iter().copied().take_while(|b| *b != 0).collect();
    let name = String::from_utf8(name).expect("a name");
    let altered = package.with_library(|library| {
        library[at..at + 8].copy_from_slice(&tag.0.to_le_bytes());
        library[at + 8..at + 16].copy_from_slice(&1_u64.to_le_bytes());
    });
    (altered, name)
}

fn refused(node: &mut Node, package: &Package, code: &str, expected: &str) {
    package.drop_into(&node.plugins());
    let view = node.wait_problem(&package.name, State::Refused, code);
    told(node, &view);
    assert!(view.problem.expect("a reason").found.contains(expected), "{expected}");
    assert_eq!(view.generations, 0, "none of its code ran");
    untouched(node);
}

#[test]
fn search_path_in_a_library_is_refused() {
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    for (name, tag) in [("run-path", elf::DT_RUNPATH), ("r-path", elf::DT_RPATH)] {
        let (package, path) = with_entry(Package::faulty(name), tag);
        refused(&mut node, &package, "RunPath", &path);
    }
    for (name, tag) in [("audits", elf::DT_AUDIT), ("filters", elf::DT_FILTER)] {
        let (package, library) = with_entry(Package::faulty(name), tag);
        refused(&mut node, &package, "LibraryNotTrusted", &library);
    }
}

#[test]
fn needed_library_that_others_can_write_is_refused() {
    let (package, needed) = with_entry(Package::faulty("needy"), elf::DT_NEEDED);
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    refused(&mut node, &package, "LibraryNotFound", &needed);
    node.stop();
    // In the host's own search path, below a directory that everybody can write.
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("changed");
    fs::write(directory.path().join(&needed), Package::echo().library).expect("written");
    node.start_with(|command| {
        command.env("LD_LIBRARY_PATH", directory.path());
    });
    node.wait_state("good", State::Running);
    refused(&mut node, &package, "LibraryNotTrusted", &needed);
}

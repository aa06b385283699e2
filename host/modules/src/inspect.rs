//! Looks into a library's bytes before any of its code can run: ELF structure, manifest, seal.
//!
//! The dynamic linker trusts its input: a library of which a part is missing ends the process with
//! a bus error. So every segment and section has to lie inside the file.

use object::elf;
use object::endian::LittleEndian as Endian;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use privatix_plugin_api::json::hex;
use privatix_plugin_api::manifest::{ApiRange, Manifest, PanicStrategy, Role, SECTION, unsealed};
use sha2::{Digest, Sha256};

use super::linkage;
use super::problem::{Code, Problem};

/// The header of the files that this host can load.
pub(super) type Header = elf::FileHeader64<Endian>;

const REBUILD: &str = "build the module again: cargo build --release";
const COPY_AGAIN: &str = "copy the library again";
const SHARED_OBJECT: &str = "a shared library (crate-type = [\"cdylib\"])";

#[cfg(target_arch = "x86_64")]
const MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: elf::Machine = elf::EM_AARCH64;
#[cfg(target_arch = "riscv64")]
const MACHINE: elf::Machine = elf::EM_RISCV;

/// Checks the structure and returns the manifest.
///
/// # Errors
/// `NotElf`, `Truncated`, `MalformedElf`, `WrongArchitecture`, `NotSharedObject`, `NoManifest`,
/// `BadManifest`, `SealBroken`, `RunPath`, `LibraryNotTrusted`.
pub fn inspect(library: &[u8]) -> Result<Manifest, Problem> {
    let header = header(library)?;
    segments(header, library)?;
    let section = manifest_section(header, library)?;
    let manifest = Manifest::from_bytes(section).map_err(|error| {
        let required = "a manifest written by privatix_plugin_api::build";
        Problem::new(Code::BadManifest, privatix_plugin_api::chain(&error), required, REBUILD)
    })?;
    check_seal(library, section, &manifest)?;
    linkage::check(header, library)?;
    Ok(manifest)
}

/// What a manifest was read from; advice on it depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A library, which is built.
    Library,
    /// A file of its own, which is written by hand.
    File,
}

/// Whether this host can run what the manifest describes, under this name and in this role.
///
/// # Errors
/// `NameMismatch`, `ApiTooNew`, `ApiTooOld`, `PanicAbort`, `RoleUnsupported`.
pub fn verdict(
    manifest: &Manifest,
    carrier: Carrier,
    name: &str,
    role: Role,
) -> Result<u32, Problem> {
    if manifest.name != name && carrier == Carrier::File {
        return Err(Problem::new(
            Code::NameMismatch,
            format!("{name}.module.json describes the module {:?}", manifest.name),
            "a manifest whose name is the first part of the file's name",
            format!(
                "write \"name\": {name:?} in {name}.module.json, or rename the files from {name:?} \
                 to {:?}",
                manifest.name
            ),
        ));
    }
    if manifest.name != name {
        return Err(Problem::new(
            Code::NameMismatch,
            format!("the library of the module {:?}", manifest.name),
            format!("files named after it: lib{0}.so, {0}.access.json", manifest.name),
            format!("rename the files from {name:?} to {:?}", manifest.name),
        ));
    }
    let ours = ApiRange::SUPPORTED;
    let theirs = manifest.service_api;
    let Some(version) = ours.common(theirs) else {
        let found = format!("speaks Service API {} to {}", theirs.min, theirs.max);
        let required = format!("Service API {} to {}", ours.min, ours.max);
        return Err(if theirs.min > ours.max {
            Problem::new(Code::ApiTooNew, found, required, "update the host")
        } else {
            Problem::new(Code::ApiTooOld, found, required, "get a newer version of the module")
        });
    };
    if manifest.panic == PanicStrategy::Abort {
        return Err(Problem::new(
            Code::PanicAbort,
            "built with panic = \"abort\": a panic of the module would end the host",
            "built with panic = \"unwind\"",
            "remove panic = \"abort\" from the module's profile and build it again",
        ));
    }
    if !manifest.roles.contains(&role) {
        return Err(Problem::new(
            Code::RoleUnsupported,
            format!("the module cannot run as {role}"),
            format!("a module that can be {role}"),
            format!("use it on the other side, or a module that supports {role}"),
        ));
    }
    Ok(version)
}

/// Writes the seal into a library: from then on any altered byte is noticed.
///
/// # Errors
/// As [`inspect`]; `BadManifest` where the manifest has no room for a seal.
pub fn seal(library: &mut [u8]) -> Result<(), Problem> {
    let section = manifest_section(header(library)?, library)?;
    let manifest = Manifest::from_bytes(section).map_err(|error| {
        let required = "a manifest written by privatix_plugin_api::build";
        Problem::new(Code::BadManifest, privatix_plugin_api::chain(&error), required, REBUILD)
    })?;
    let at = seal_position(library, section, &manifest)?;
    let digest = digest_without_seal(library, at);
    library[at..at + digest.len()].copy_from_slice(digest.as_bytes());
    Ok(())
}

fn header(library: &[u8]) -> Result<&Header, Problem> {
    if !library.starts_with(&elf::ELFMAG) {
        return Err(Problem::new(Code::NotElf, first_bytes(library), SHARED_OBJECT, COPY_AGAIN));
    }
    if library.len() < size_of::<Header>() {
        return Err(truncated(format!("{} bytes of an ELF file", library.len())));
    }
    let ident = &library[..size_of::<elf::Ident>()];
    if ident[4] != elf::ELFCLASS64.0 || ident[5] != elf::ELFDATA2LSB.0 {
        return Err(wrong_architecture("not a 64-bit little-endian file".into()));
    }
    let header = Header::parse(library).map_err(|error| malformed(error.to_string()))?;
    if header.e_machine.get(Endian) != MACHINE {
        return Err(wrong_architecture(format!("ELF machine {}", header.e_machine.get(Endian))));
    }
    if header.e_type.get(Endian) != elf::ET_DYN {
        let found = format!("ELF type {}", header.e_type.get(Endian));
        return Err(Problem::new(Code::NotSharedObject, found, SHARED_OBJECT, REBUILD));
    }
    Ok(header)
}

fn segments(header: &Header, library: &[u8]) -> Result<(), Problem> {
    let segments = header
        .program_headers(Endian, library)
        .map_err(|_| truncated("program headers beyond the end of the file".into()))?;
    if segments.is_empty() {
        return Err(malformed("no program headers".into()));
    }
    for (number, segment) in segments.iter().enumerate() {
        let (offset, size) = segment.file_range(Endian);
        inside(library, offset, size, || format!("segment {number}"))?;
        let memory = segment.p_memsz(Endian);
        let end = segment.p_vaddr(Endian).checked_add(memory);
        // A library does not span a terabyte; the linker would try to reserve it.
        if end.is_none_or(|end| end > 1 << 40)
            || (segment.p_type(Endian) == elf::PT_LOAD && memory < size)
        {
            return Err(malformed(format!("segment {number} has impossible addresses")));
        }
    }
    Ok(())
}

/// Checks all sections on the way.
fn manifest_section<'a>(header: &Header, library: &'a [u8]) -> Result<&'a [u8], Problem> {
    let sections = header
        .sections(Endian, library)
        .map_err(|_| truncated("section headers beyond the end of the file".into()))?;
    let mut found = None;
    for (index, section) in sections.enumerate() {
        if let Some((offset, size)) = section.file_range(Endian) {
            inside(library, offset, size, || format!("section {}", index.0))?;
        }
        let name = sections.section_name(Endian, section);
        if name.map_err(|error| malformed(error.to_string()))? == SECTION.as_bytes() {
            let data = section.data(Endian, library);
            let data = data.map_err(|error| malformed(error.to_string()))?;
            if found.replace(data).is_some() {
                return Err(malformed("two manifests".into()));
            }
        }
    }
    found.filter(|data| !data.is_empty()).ok_or_else(|| {
        Problem::new(
            Code::NoManifest,
            format!("no section {SECTION}"),
            "a library with a manifest, which makes it a module",
            "call privatix_plugin_api::build in the build script and export_module! in the library",
        )
    })
}

fn inside(
    library: &[u8],
    offset: u64,
    size: u64,
    what: impl Fn() -> String,
) -> Result<(), Problem> {
    match offset.checked_add(size) {
        Some(end) if end <= library.len() as u64 => Ok(()),
        _ => Err(truncated(format!("{} ends beyond the end of the file", what()))),
    }
}

fn check_seal(library: &[u8], section: &[u8], manifest: &Manifest) -> Result<(), Problem> {
    if manifest.seal == unsealed() {
        return Ok(());
    }
    let at = seal_position(library, section, manifest)?;
    if digest_without_seal(library, at) == manifest.seal {
        return Ok(());
    }
    Err(Problem::new(
        Code::SealBroken,
        "the library is not as it was when it was sealed",
        format!("content that hashes to {}", manifest.seal),
        "copy it again from where it came from",
    ))
}

/// Where the seal's digits lie in the file: the manifest's only occurrence of them.
fn seal_position(library: &[u8], section: &[u8], manifest: &Manifest) -> Result<usize, Problem> {
    let start = section.as_ptr().addr() - library.as_ptr().addr();
    let digits = manifest.seal.as_bytes();
    let mut places = section.windows(digits.len()).enumerate().filter(|(_, part)| *part == digits);
    match (places.next(), places.next()) {
        (Some((at, _)), None) => Ok(start + at),
        _ => Err(Problem::new(
            Code::BadManifest,
            "the manifest has no single place for a seal",
            "a manifest written by privatix_plugin_api::build",
            REBUILD,
        )),
    }
}

fn digest_without_seal(library: &[u8], at: usize) -> String {
    let digits = unsealed();
    let mut hasher = Sha256::new();
    hasher.update(&library[..at]);
    hasher.update(digits.as_bytes());
    hasher.update(&library[at + digits.len()..]);
    hex(&hasher.finalize())
}

fn first_bytes(library: &[u8]) -> String {
    match library.get(..4) {
        None => format!("a file of {} bytes", library.len()),
        Some(first) => format!("a file that begins with {}", hex(first)),
    }
}

fn truncated(found: String) -> Problem {
    Problem::new(Code::Truncated, found, "the whole library", COPY_AGAIN)
}

fn malformed(found: String) -> Problem {
    Problem::new(Code::MalformedElf, found, "an intact ELF file", COPY_AGAIN)
}

fn wrong_architecture(found: String) -> Problem {
    let required = format!("a library for {}", std::env::consts::ARCH);
    Problem::new(Code::WrongArchitecture, found, required, "build the module for this machine")
}

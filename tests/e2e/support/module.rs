//! Module packages: built once from source, then altered byte by byte as a test needs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use object::elf::FileHeader64;
use object::endian::LittleEndian;
use object::read::elf::{FileHeader as _, SectionHeader as _};
use privatix_plugin_api::manifest::SECTION;
use serde_json::Value;

/// Where a section's offset and size stand in its 64-byte header.
const SH_OFFSET: usize = 24;
const SH_SIZE: usize = 32;

/// The three files of a module.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) library: Vec<u8>,
    pub(crate) access: Vec<u8>,
    pub(crate) offering: Vec<u8>,
}

impl Package {
    /// The teaching module.
    pub(crate) fn echo() -> Self {
        Self::built("echo", "plugins/echo")
    }

    /// The module with a fault for each name; the name `good` has none.
    pub(crate) fn faulty(name: &str) -> Self {
        Self::built("faulty", "tests/modules/faulty").renamed(name)
    }

    /// The module whose root has another layout.
    pub(crate) fn wrong_layout() -> Self {
        Self::built("wrong_layout", "tests/modules/wrong-layout")
    }

    /// The module that sells SOCKS5.
    pub(crate) fn proxy() -> Self {
        Self::built("proxy", "templates")
    }

    /// The module that sells OpenVPN.
    pub(crate) fn vpn() -> Self {
        Self::built("vpn", "templates")
    }

    /// The module that does one thing wrong, which is written into the library; `none` is nothing.
    pub(crate) fn wayward(fault: &str) -> Self {
        Self::built("wayward", "tests/modules/wayward").with_library(|library| {
            let place = b"fault-of-this-module:none       ";
            let at = find(library, place).expect("the fixture has a place for a fault");
            library[at..at + place.len()].fill(b' ');
            library[at..at + fault.len()].copy_from_slice(fault.as_bytes());
        })
    }

    /// The library of this name with the templates from a directory.
    fn built(name: &str, templates: &str) -> Self {
        let source = repository().join(templates);
        let read =
            |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self {
            name: name.to_owned(),
            library: read(libraries().join(format!("lib{name}.so"))),
            access: read(source.join(format!("{name}.access.json"))),
            offering: read(source.join(format!("{name}.offering.json"))),
        }
    }

    /// Under another name, with a product id of its own that depends on the name alone.
    pub(crate) fn renamed(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        let mut id = [0x40; 16];
        for (byte, letter) in id.iter_mut().zip(name.bytes().chain(std::iter::repeat(0))) {
            *byte = letter;
        }
        let id = uuid::Builder::from_random_bytes(id).into_uuid();
        self.with_manifest(|manifest| {
            manifest["name"] = name.into();
            manifest["productId"] = id.to_string().into();
        })
    }

    /// With another version in the manifest, and so with another content.
    pub(crate) fn version(self, version: &str) -> Self {
        self.with_manifest(|manifest| manifest["version"] = version.into())
    }

    /// With another manifest.
    pub(crate) fn with_manifest(self, change: impl FnOnce(&mut Value)) -> Self {
        let mut manifest = self.manifest();
        change(&mut manifest);
        self.with_manifest_text(manifest.to_string().as_bytes())
    }

    /// With other bytes in the manifest's section: appended to the file, to which the section's
    /// header then points.
    pub(crate) fn with_manifest_text(mut self, text: &[u8]) -> Self {
        let (header, _) = manifest_section(&self.library);
        let offset = self.library.len() as u64;
        self.library.extend_from_slice(text);
        let mut put = |at: usize, value: u64| {
            self.library[header + at..header + at + 8].copy_from_slice(&value.to_le_bytes());
        };
        put(SH_OFFSET, offset);
        put(SH_SIZE, text.len() as u64);
        self
    }

    /// The manifest as it is.
    pub(crate) fn manifest(&self) -> Value {
        let (_, data) = manifest_section(&self.library);
        serde_json::from_slice(data).expect("a manifest")
    }

    /// With another access template, to whose hash the manifest agrees where the text is JSON.
    pub(crate) fn with_access(mut self, text: &str) -> Self {
        self.access = text.as_bytes().to_vec();
        let hash = serde_json::from_str(text)
            .ok()
            .and_then(|value: Value| privatix_plugin_api::json::hash(&value).ok());
        self.with_manifest(|manifest| {
            if let Some(hash) = hash {
                manifest["templates"]["access"] = hash.into();
            }
        })
    }

    /// With another offering template, to whose hash the manifest agrees.
    pub(crate) fn with_offering(mut self, text: &str) -> Self {
        self.offering = text.as_bytes().to_vec();
        let value = serde_json::from_str(text).expect("JSON");
        let hash = privatix_plugin_api::json::hash(&value).expect("canonical");
        self.with_manifest(|manifest| manifest["templates"]["offering"] = hash.into())
    }

    /// With other bytes in the library.
    pub(crate) fn with_library(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.library);
        self
    }

    /// With a fault in its code whatever it is called, of the module that has one for each name.
    pub(crate) fn with_fault(self, fault: &str) -> Self {
        self.with_library(|library| {
            let place = b"fault-when-called:good";
            let at = find(library, place).expect("the fixture has a place for a fault");
            library[at..at + place.len()].fill(b' ');
            library[at..at + fault.len()].copy_from_slice(fault.as_bytes());
        })
    }

    pub(crate) fn library_name(&self) -> String {
        format!("lib{}.so", self.name)
    }

    pub(crate) fn access_name(&self) -> String {
        format!("{}.access.json", self.name)
    }

    pub(crate) fn offering_name(&self) -> String {
        format!("{}.offering.json", self.name)
    }

    /// Puts all files into a directory, each whole at once.
    pub(crate) fn drop_into(&self, directory: &Path) {
        place(directory, &self.access_name(), &self.access);
        place(directory, &self.offering_name(), &self.offering);
        place(directory, &self.library_name(), &self.library);
    }
}

/// Where a part is in the whole for the first time.
pub(crate) use memchr::memmem::find;

/// Writes beside and renames, as a careful installer does.
pub(crate) fn place(directory: &Path, name: &str, bytes: &[u8]) {
    let part = directory.join(format!(".{name}.part"));
    fs::write(&part, bytes).expect("written");
    fs::rename(&part, directory.join(name)).expect("renamed");
}

/// The offset of the manifest section's header, and its data.
fn manifest_section(library: &[u8]) -> (usize, &[u8]) {
    let header = FileHeader64::<LittleEndian>::parse(library).expect("ELF");
    let sections = header.sections(LittleEndian, library).expect("sections");
    let (index, section) =
        sections.section_by_name(LittleEndian, SECTION.as_bytes()).expect("a manifest section");
    let start = usize::try_from(header.e_shoff.get(LittleEndian)).expect("small");
    (start + index.0 * 64, section.data(LittleEndian, library).expect("data"))
}

/// The checkout whose tests run. Checkouts that share a target directory share their binaries, so
/// what cargo says now goes before where this was compiled.
pub(crate) fn repository() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = package.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.ancestors().nth(2).expect("the workspace").to_owned()
}

/// Where the built modules are. `cargo xtask test` builds them and says where; without it they
/// are built here.
pub(crate) fn libraries() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| std::env::var_os("PRIVATIX_TEST_MODULES").map_or_else(build, PathBuf::from))
        .clone()
}

/// The target directory of this build, and whether it is a release.
pub(crate) fn target() -> (PathBuf, bool) {
    let directory = Path::new(env!("CARGO_BIN_EXE_privatix")).parent().expect("a directory");
    let target = directory.parent().expect("a target directory");
    (target.to_owned(), directory.ends_with("release"))
}

fn build() -> PathBuf {
    let (target, release) = target();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args(["build", "--quiet", "--locked"]);
    cargo.args(["-p", "privatix-echo", "-p", "privatix-proxy", "-p", "privatix-vpn"]);
    cargo.args(["-p", "faulty-module", "-p", "wrong-layout-module", "-p", "misfortune"]);
    cargo.args(["-p", "wayward-module", "-p", "privatix-proxy-standalone"]);
    if release {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(&target);
    assert!(cargo.status().expect("cargo runs").success(), "building the modules");
    target.join(if release { "release" } else { "debug" })
}

//! Libraries that were damaged on the way: cut off, or with a bit turned over.
//!
//! What the host reads itself is tried on its reader, which is quick; what only the dynamic linker
//! could notice, in processes of their own; and some of each on a whole host. Positions are drawn
//! from a fixed seed: set `TEST_SEED` to draw others.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use object::elf::{self, FileHeader64};
use object::endian::LittleEndian as Endian;
use object::read::elf::{FileHeader as _, SectionHeader as _};
use privatix_modules::inspect;
use privatix_modules::probe::Prober;
use privatix_modules::registry::State;
use privatix_plugin_api::manifest::SECTION;

use crate::support::module::find;
use crate::support::{Node, Package};

/// What a library that is cut off may be refused for.
const CUT: &[&str] = &["NotElf", "Truncated", "MalformedElf", "NoManifest", "BadManifest"];

/// What any damage to a sealed library may be refused for.
const DAMAGED: &[&str] = &[
    "NotElf",
    "Truncated",
    "MalformedElf",
    "WrongArchitecture",
    "NotSharedObject",
    "NoManifest",
    "BadManifest",
    "SealBroken",
];

/// How many bits are turned over, one at a time.
const FLIPS: usize = 1_000;

/// Numbers that look random and are the same every time (SplitMix64).
struct Random(u64);

fn seed() -> u64 {
    let seed = std::env::var("TEST_SEED").ok();
    seed.map_or(20_261_122, |text| text.parse().expect("TEST_SEED is a number"))
}

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    /// A bit in one of the regions, each as likely as the others whatever its size.
    fn bit(&mut self, regions: &[(String, Range<usize>)]) -> Flip {
        let (region, bytes) = &regions[self.below(regions.len())];
        let at = bytes.start + self.below(bytes.len());
        Flip { at, bit: self.below(8), region: region.clone() }
    }
}

/// One bit of a file.
#[derive(Clone)]
struct Flip {
    at: usize,
    bit: usize,
    region: String,
}

impl Flip {
    fn turn(&self, library: &mut [u8]) {
        library[self.at] ^= 1 << self.bit;
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, bit, region } = self;
        write!(out, "seed {}: bit {bit} of byte {at:#x}, in {region}", seed())
    }
}

/// The parts of a library, by name: its headers and those sections that are wanted.
fn regions(
    library: &[u8],
    wanted: impl Fn(&str, elf::SectionType) -> bool,
) -> Vec<(String, Range<usize>)> {
    let header = FileHeader64::<Endian>::parse(library).unwrap();
    let sections = header.sections(Endian, library).unwrap();
    let table = |start: u64, count: usize, size: usize| {
        let start = usize::try_from(start).unwrap();
        start..start + count * size
    };
    let programs = usize::from(header.e_phnum.get(Endian));
    let mut regions = vec![
        ("ELF header".to_owned(), 0..64),
        ("program headers".to_owned(), table(header.e_phoff.get(Endian), programs, 56)),
        ("section headers".to_owned(), table(header.e_shoff.get(Endian), sections.len(), 64)),
    ];
    for section in sections.iter() {
        let name = sections.section_name(Endian, section).unwrap();
        let name = String::from_utf8_lossy(name).into_owned();
        let Some((start, size)) = section.file_range(Endian) else { continue };
        if size > 0 && wanted(&name, section.sh_type(Endian)) {
            regions.push((name, table(start, 1, usize::try_from(size).unwrap())));
        }
    }
    regions
}

fn seal(library: &mut [u8]) {
    inspect::seal(library).expect("sealed");
}

/// The code for which the reader refuses a library, if it does.
fn refusal(library: &[u8]) -> Option<String> {
    inspect::inspect(library).err().map(|problem| problem.code.to_string())
}

/// Lengths at which a library is cut off: all in its header, the rest all over the file.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let step = length / 135;
    (0..=64).chain((1..135).map(move |nth| nth * step)).chain([length - 1])
}

#[test]
fn a_library_that_is_cut_off_is_refused_wherever_that_is() {
    let library = Package::faulty("good").library;
    // The library as it was built: this one has its manifest behind everything else.
    let built = Package::echo().library;
    for library in [library, built] {
        let all: Vec<_> = cuts(library.len()).collect();
        assert_eq!(all.len(), 200);
        for length in all {
            let code = refusal(&library[..length]);
            assert!(
                code.as_ref().is_some_and(|code| CUT.contains(&code.as_str())),
                "{length} of {} bytes: {code:?}",
                library.len()
            );
        }
    }
}

#[test]
fn a_sealed_library_is_refused_whatever_bit_is_turned() {
    // The smallest one: all of it is hashed each time.
    let mut library = Package::wrong_layout().library;
    seal(&mut library);
    assert_eq!(refusal(&library), None);
    let regions = regions(&library, |_, _| true);
    let mut random = Random(seed());
    for flip in (0..FLIPS).map(|_| random.bit(&regions)) {
        flip.turn(&mut library);
        let code = refusal(&library);
        assert!(
            code.as_ref().is_some_and(|code| DAMAGED.contains(&code.as_str())),
            "{flip}: {code:?}"
        );
        flip.turn(&mut library);
    }
    assert_eq!(refusal(&library), None, "all bits are back in their places");
}

#[test]
fn no_bit_can_be_turned_that_makes_the_seal_unseen() {
    let mut library = Package::wrong_layout().library;
    seal(&mut library);
    let name = b"\"seal\":\"";
    let start = find(&library, name).expect("a seal");
    for (at, bit) in (start..start + name.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let flip = Flip { at, bit, region: "the seal's name".into() };
        flip.turn(&mut library);
        let code = refusal(&library);
        assert!(
            code.is_some(),
            "{flip} of {:?}",
            String::from_utf8_lossy(&library[start..start + 8])
        );
        flip.turn(&mut library);
    }
}

/// What the dynamic linker goes by, and the manifest.
fn linked(name: &str, kind: elf::SectionType) -> bool {
    let kinds = [
        elf::SHT_DYNAMIC,
        elf::SHT_DYNSYM,
        elf::SHT_STRTAB,
        elf::SHT_RELA,
        elf::SHT_HASH,
        elf::SHT_GNU_HASH,
        elf::SHT_GNU_VERSYM,
        elf::SHT_GNU_VERNEED,
        elf::SHT_INIT_ARRAY,
    ];
    // The names for debuggers are looked at by nobody.
    name == SECTION || (kinds.contains(&kind) && name != ".strtab")
}

#[test]
fn a_damaged_library_harms_nobody_but_the_process_that_tries_it() {
    let library = Package::wrong_layout().library;
    let regions = regions(&library, linked);
    for needed in [".dynamic", ".dynsym", ".dynstr", ".rela.dyn", ".init_array", SECTION] {
        assert!(regions.iter().any(|(name, _)| name == needed), "no {needed}");
    }
    let mut random = Random(seed());
    let mut altered = library.clone();
    let mut accepted = Vec::new();
    for flip in (0..FLIPS).map(|_| random.bit(&regions)) {
        flip.turn(&mut altered);
        if refusal(&altered).is_none() {
            accepted.push(flip.clone());
        }
        flip.turn(&mut altered);
    }
    assert!(accepted.len() > FLIPS / 4, "most of these are not the reader's to notice");
    // All of them: one takes a few milliseconds.
    let outcomes = probe_all(&library, accepted);
    // Those that load are refused for their layout, which is what is wrong with this library.
    assert!(outcomes.contains_key("LayoutMismatch"), "{outcomes:?}");
    assert!(outcomes.len() > 1, "none of them noticed: {outcomes:?}");
}

/// Has the library tried with each bit turned, four at a time, and counts what came of it.
fn probe_all(library: &[u8], flips: Vec<Flip>) -> BTreeMap<String, usize> {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let shares: Vec<Vec<Flip>> =
        (0..4).map(|nth| flips.iter().skip(nth).step_by(4).cloned().collect()).collect();
    let workers: Vec<_> = shares
        .into_iter()
        .enumerate()
        .map(|(number, share)| {
            let path = directory.path().join(format!("{number}.so"));
            fs::write(&path, library).unwrap();
            runtime.spawn(async move {
                let mut outcomes = Vec::new();
                for flip in share {
                    outcomes.push(probe(&path, &flip).await);
                }
                outcomes
            })
        })
        .collect();
    let mut counts = BTreeMap::new();
    for worker in workers {
        for outcome in runtime.block_on(worker).expect("no probe took this process along") {
            *counts.entry(outcome).or_default() += 1;
        }
    }
    assert_eq!(counts.values().sum::<usize>(), flips.len());
    counts
}

async fn probe(path: &Path, flip: &Flip) -> String {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, flip.at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << flip.bit], flip.at as u64).unwrap();
    let outcome = Prober::binary(env!("CARGO_BIN_EXE_privatix")).probe(path).await;
    file.write_all_at(&byte, flip.at as u64).unwrap();
    outcome.map_or_else(|problem| problem.code.to_string(), |()| "loaded".into())
}

/// Drops altered libraries into a host beside a good module: each is refused for one of the
/// codes, and nothing else happens.
fn all_refused(libraries: Vec<Package>, codes: &[&str]) {
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    for package in &libraries {
        package.drop_into(&node.plugins());
    }
    for package in &libraries {
        let view = node.wait_state(&package.name, State::Refused);
        let problem = view.problem.expect("a reason");
        assert!(
            codes.contains(&problem.code.code()),
            "seed {}, {}: {problem:?}",
            seed(),
            package.name
        );
        assert_eq!((view.generations, view.mapped), (0, 0));
    }
    assert!(node.alive());
    let good = node.module("good").unwrap();
    assert_eq!((good.state, good.generations), (State::Running, 1));
}

#[test]
fn a_node_refuses_libraries_that_are_cut_off() {
    let package = Package::faulty("good");
    let length = package.library.len();
    let lengths = [0, 3, 4, 63, 64, 4096, length / 4, length / 2, length / 4 * 3]
        .into_iter()
        .chain([length - 4096, length - 64, length - 1]);
    let libraries = lengths.map(|length| {
        Package::faulty(&format!("cut-{length}")).with_library(|library| library.truncate(length))
    });
    all_refused(libraries.collect(), CUT);
}

#[test]
fn a_node_refuses_sealed_libraries_with_a_bit_turned() {
    let mut random = Random(seed());
    let libraries = (0..20).map(|number| {
        Package::faulty(&format!("turned-{number}")).with_library(|library| {
            seal(library);
            let regions = regions(library, |_, _| true);
            random.bit(&regions).turn(library);
        })
    });
    all_refused(libraries.collect(), DAMAGED);
}

#[test]
fn a_sealed_library_runs_and_a_second_seal_is_the_same() {
    let node = Node::agent();
    let package = Package::faulty("good");
    package.drop_into(node.home());
    let path = node.home().join(package.library_name());
    let sealed = || {
        let output = node.privatix(&["module", "seal", path.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        fs::read(&path).unwrap()
    };
    let once = sealed();
    assert_ne!(once, package.library);
    assert_eq!(once.len(), package.library.len());
    assert!(once == sealed(), "the second seal is another");
    let view = node.run(&Package { library: once, ..package.clone() });
    assert!(view.version.expect("a version").sealed);
    let view = node.run(&Package::faulty("open"));
    assert!(!view.version.expect("a version").sealed);
}

#[test]
fn strip_breaks_the_seal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libecho.so");
    let mut library = Package::echo().library;
    seal(&mut library);
    fs::write(&path, &library).unwrap();
    assert!(Command::new("strip").arg(&path).status().unwrap().success());
    assert_eq!(refusal(&fs::read(&path).unwrap()).as_deref(), Some("SealBroken"));
}

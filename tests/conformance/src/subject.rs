//! The module that is checked: where its files are, and what it is configured with.
//!
//! The files are copied into a directory that is the kit's alone, as an operator's installation
//! would, so that what is checked does not change meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use memchr::memmem;
use privatix_plugin_api::json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What every process of one check has to know. Written once, read by each case's process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// The module's name, by the library's file name.
    pub(crate) name: String,
    /// The library as it was named.
    pub(crate) library: PathBuf,
    /// Where the copies are: a plugins directory with this one module.
    pub(crate) plugins: PathBuf,
    /// What the module is configured with, and what is offered.
    pub(crate) settings: Settings,
    /// For cases that do something in an order of chance.
    pub(crate) seed: u64,
    /// How the program of a standalone module is started; `library` is its manifest then.
    pub(crate) program: Option<Program>,
}

/// A standalone module's program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Its name and arguments, with placeholders.
    pub(crate) command: Vec<String>,
    /// Where it is started.
    pub(crate) directory: PathBuf,
}

/// `NAME.check.toml`: what the kit has to know to use the service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Cases that may run at once, where the service takes something that a machine has only once.
    pub(crate) jobs: Option<NonZeroUsize>,
    /// How much the service carries where a case is content with any amount, in smallest units: for
    /// services that are counted in requests or seconds.
    pub(crate) amount: Option<NonZeroU64>,
    /// `[modules.NAME]` of the agent.
    pub(crate) agent: Map<String, Value>,
    /// `[modules.NAME]` of the client.
    pub(crate) client: Map<String, Value>,
    /// Fields of the offering, beside or instead of those that the kit fills in.
    pub(crate) offering: Map<String, Value>,
    /// What the agent's module would tell clients, for a module that has no agent's side.
    pub(crate) access: BTreeMap<String, String>,
}

/// Why a module cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubjectError {
    #[error("{0} is not the file of a library: its name has to be libNAME.so or NAME.so")]
    NoLibraryName(String),
    #[error("{0} is not the manifest of a standalone module: its name has to be NAME.module.json")]
    NoManifestName(String),
    #[error("{0} is no directory; templates are looked for in one")]
    NoDirectory(String),
    #[error("{path} cannot be read")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} has to say what the kit configures the module with: jobs, [agent], [client], [offering], [access]"
    )]
    Settings {
        path: String,
        #[source]
        source: toml::de::Error,
    },
    #[error("copying the package to {path}")]
    Copy {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Where templates and settings may be, if not beside the library.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) templates: Option<PathBuf>,
    pub(crate) settings: Option<PathBuf>,
}

impl Subject {
    /// Copies the package of a library into a new directory below `into`.
    pub(crate) fn stage(
        library: &Path,
        places: &Places,
        into: &Path,
        seed: u64,
        program: Option<Program>,
    ) -> Result<Self, SubjectError> {
        let shown = || library.display().to_string();
        let name = match program {
            Some(_) => manifest_name(library).ok_or_else(|| SubjectError::NoManifestName(shown())),
            None => name_of(library).ok_or_else(|| SubjectError::NoLibraryName(shown())),
        }?;
        let bytes = read(library)?;
        // Cases have directories of their own.
        let library = &std::path::absolute(library).unwrap_or_else(|_| library.to_owned());
        let plugins = into.join("plugins");
        let copy = |path: &Path, bytes: &[u8]| {
            let written = fs::write(path, bytes)
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)));
            written
                .map_err(|source| SubjectError::Copy { path: path.display().to_string(), source })
        };
        fs::create_dir(&plugins)
            .map_err(|source| SubjectError::Copy { path: plugins.display().to_string(), source })?;
        let file = match program {
            Some(_) => format!("{name}.module.json"),
            None => format!("lib{name}.so"),
        };
        copy(&plugins.join(file), &bytes)?;
        if let Some(named) = &places.templates
            && !named.is_dir()
        {
            return Err(SubjectError::NoDirectory(named.display().to_string()));
        }
        let directories = places.directories(library);
        for kind in ["access", "offering"] {
            let file = format!("{name}.{kind}.json");
            if let Some(found) = find_template(&directories, &file, &bytes)? {
                copy(&plugins.join(&file), &found)?;
            }
        }
        let settings = places.settings(&directories, &name)?;
        Ok(Self { name, library: library.to_owned(), plugins, settings, seed, program })
    }
}

impl Places {
    /// In the order in which they are looked through: what was named; beside the library; where a
    /// crate or a workspace has them, seen from its target directory; where the command was given.
    fn directories(&self, library: &Path) -> Vec<PathBuf> {
        if let Some(named) = &self.templates {
            return vec![named.clone()];
        }
        let library = std::path::absolute(library).unwrap_or_else(|_| library.to_owned());
        let beside = library.parent().map(Path::to_owned);
        let source =
            library.ancestors().find(|path| path.ends_with("target")).and_then(Path::parent);
        let mut directories: Vec<PathBuf> = beside.into_iter().collect();
        for root in [source, Some(Path::new("."))].into_iter().flatten() {
            directories.extend([root.to_owned(), root.join("templates")]);
        }
        directories
    }

    fn settings(&self, directories: &[PathBuf], name: &str) -> Result<Settings, SubjectError> {
        let file = format!("{name}.check.toml");
        let found = match &self.settings {
            Some(named) => Some(named.clone()),
            None => directories.iter().map(|directory| directory.join(&file)).find(|p| p.exists()),
        };
        let Some(path) = found else { return Ok(Settings::default()) };
        let text = String::from_utf8_lossy(&read(&path)?).into_owned();
        toml::from_str(&text)
            .map_err(|source| SubjectError::Settings { path: path.display().to_string(), source })
    }
}

/// The module's name, by the name of its library.
fn name_of(library: &Path) -> Option<String> {
    let stem = library.file_name()?.to_str()?.strip_suffix(".so")?;
    let name = stem.strip_prefix("lib").filter(|name| !name.is_empty()).unwrap_or(stem);
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

fn manifest_name(manifest: &Path) -> Option<String> {
    let name = manifest.file_name()?.to_str()?.strip_suffix(".module.json")?;
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

/// The template that is beside the library, or where it was said to be: that is the one a host sees.
/// Else the one that the library was built with, if it is in one of the directories; else the first of
/// its name, which has another hash.
fn find_template(
    directories: &[PathBuf],
    file: &str,
    library: &[u8],
) -> Result<Option<Vec<u8>>, SubjectError> {
    let mut first = None;
    for (number, directory) in directories.iter().enumerate() {
        let path = directory.join(file);
        if !path.exists() {
            continue;
        }
        let text = read(&path)?;
        let hash = json::parse(&text).ok().and_then(|value| json::hash(&value).ok());
        let noted = |hash: &String| memmem::find(library, hash.as_bytes()).is_some();
        let beside = number == 0;
        if beside || hash.as_ref().is_some_and(noted) {
            return Ok(Some(text));
        }
        first.get_or_insert(text);
    }
    Ok(first)
}

fn read(path: &Path) -> Result<Vec<u8>, SubjectError> {
    fs::read(path).map_err(|source| SubjectError::Read { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_libraries() {
        for (path, name) in [
            ("target/debug/libmine.so", Some("mine")),
            ("mine.so", Some("mine")),
            ("lib.so", Some("lib")),
            ("libmine.so.1", None),
            ("libmine.a", None),
            (".so", None),
            ("/", None),
        ] {
            assert_eq!(name_of(Path::new(path)).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn names_of_manifests() {
        for (path, name) in
            [("a/mine.module.json", Some("mine")), (".module.json", None), ("mine.json", None)]
        {
            assert_eq!(manifest_name(Path::new(path)).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn the_template_beside_counts_and_else_the_one_that_fits() {
        let root = tempfile::tempdir().unwrap();
        let [beside, below, other] = ["", "templates", "other"].map(|name| root.path().join(name));
        for directory in [&below, &other] {
            fs::create_dir(directory).unwrap();
        }
        let directories = [beside.clone(), below.clone(), other.clone()];
        let fitting = json::hash(&json::parse(br#"{"a":1}"#).unwrap()).unwrap();
        let find = || find_template(&directories, "t.json", fitting.as_bytes()).unwrap();
        assert_eq!(find(), None);
        fs::write(below.join("t.json"), r#"{"a":2}"#).unwrap();
        assert_eq!(find().unwrap(), br#"{"a":2}"#, "none fits: the first");
        fs::write(other.join("t.json"), r#"{"a":1}"#).unwrap();
        assert_eq!(find().unwrap(), br#"{"a":1}"#);
        fs::write(beside.join("t.json"), r#"{"a":3}"#).unwrap();
        assert_eq!(find().unwrap(), br#"{"a":3}"#, "the one that a host would see");
    }

    #[test]
    fn settings_are_found_beside_and_have_to_be_sound() {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("libmine.so");
        let find = || {
            let places = Places::default();
            places.settings(&places.directories(&library), "mine")
        };
        assert_eq!(find().unwrap(), Settings::default());
        let path = directory.path().join("mine.check.toml");
        fs::write(&path, "[agent]\nallow_private = true\n").unwrap();
        assert_eq!(find().unwrap().agent["allow_private"], Value::Bool(true));
        fs::write(&path, "jobs = 1\n").unwrap();
        assert_eq!(find().unwrap().jobs, NonZeroUsize::new(1));
        for bad in ["agent = 1", "[agnet]\n", "[", "jobs = 0"] {
            fs::write(&path, bad).unwrap();
            assert!(find().unwrap_err().to_string().contains("mine.check.toml"), "{bad}");
        }
    }
}

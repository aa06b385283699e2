//! From files to a verdict: taken in, inspected, templates checked, settings checked.
//!
//! A module is a library, whose manifest is inside it, or a program elsewhere, whose manifest is a
//! file. That is the only difference until the end: all else is checked in the same steps. Nothing of
//! the module runs here. Blocking: the caller gives it a thread.

use std::io;
use std::path::{Path, PathBuf};

use privatix_plugin_api::json::hex;
use privatix_plugin_api::manifest::{Manifest, Role, unsealed};
use privatix_plugin_api::message::{HostInfo, LogLevel};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::copy::{self, MAX_LIBRARY, MAX_TEMPLATE, Quiet};
use super::inspect::{self, Carrier};
use super::manifest_file::ManifestFile;
use super::package::{FileEntry, PackageFiles};
use super::problem::{Code, Problem};
use privatix_domain::template::{SettingsSchema, Template, TemplateKind};

/// What a package is checked against.
#[derive(Debug, Clone)]
pub struct Terms {
    /// This host's side.
    pub role: Role,
    /// Where private copies go.
    pub cache: PathBuf,
    /// `[modules.<name>]`, an object.
    pub settings: Value,
    /// Whether standalone modules can come here.
    pub standalone: bool,
}

/// What there is of a module in this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A library that is loaded into the host.
    InProcess {
        /// The private copy.
        library: PathBuf,
    },
    /// A program elsewhere, which speaks the Service API over the network.
    Standalone,
}

/// A package that may be started.
#[derive(Debug)]
pub struct Checked {
    /// What the module says of itself.
    pub manifest: Manifest,
    /// The Service API version to speak.
    pub api_version: u32,
    /// Where its code is.
    pub form: Form,
    /// SHA-256 of the library, or of the manifest's file.
    pub content_hash: String,
    /// The access template.
    pub access: Template,
    /// The offering template, where there is one.
    pub offering: Option<Template>,
    /// The settings, valid by the manifest's schema.
    pub settings: Value,
}

impl Checked {
    /// Whether both are the same module with the same templates; an offering template that only one
    /// has does not count.
    pub fn same_as(&self, other: &Self) -> bool {
        let offerings = self.offering.as_ref().zip(other.offering.as_ref());
        self.content_hash == other.content_hash
            && self.access.hash() == other.access.hash()
            && offerings.is_none_or(|(one, other)| one.hash() == other.hash())
    }

    /// The private copy of its library, if it has one.
    pub fn library(&self) -> Option<&Path> {
        match &self.form {
            Form::InProcess { library } => Some(library),
            Form::Standalone => None,
        }
    }

    /// What the module is told of a host that creates it.
    pub fn host_info(
        &self,
        name: &str,
        role: Role,
        data_dir: PathBuf,
        log_level: LogLevel,
    ) -> HostInfo {
        HostInfo {
            api_version: self.api_version,
            host_version: env!("CARGO_PKG_VERSION").into(),
            name: name.into(),
            role,
            data_dir,
            log_level,
        }
    }

    /// Whether any altered byte of the library would be noticed.
    pub fn sealed(&self) -> bool {
        self.manifest.seal != unsealed()
    }
}

/// Checks a package whose library or manifest is there.
///
/// # Errors
/// The first problem. `BeingWritten` and `TemplateMissing` mean that it is not complete yet.
pub fn examine(
    name: &str,
    files: &PackageFiles,
    terms: &Terms,
    quiet: &mut Quiet,
) -> Result<Checked, Problem> {
    if let Some(problem) = &files.problem {
        return Err(problem.clone());
    }
    let Found { bytes, mut manifest, carrier, templates } = match (&files.library, &files.manifest)
    {
        (Some(library), _) => built(library, quiet)?,
        (None, Some(file)) => written(file, quiet)?,
        (None, None) => return Err(library_missing(name)),
    };
    let api_version = inspect::verdict(&manifest, carrier, name, terms.role)?;
    if carrier == Carrier::File && !terms.standalone {
        return Err(standalone_off());
    }
    let [noted, sold] = &templates;
    let access = template(name, TemplateKind::Access, noted, files.access.as_ref(), quiet)?;
    let access = access.ok_or_else(|| template_missing(name, TemplateKind::Access))?;
    let offering = template(name, TemplateKind::Offering, sold, files.offering.as_ref(), quiet)?;
    if offering.is_none() && terms.role == Role::Agent {
        return Err(template_missing(name, TemplateKind::Offering));
    }
    check_settings(name, &manifest, carrier, &terms.settings)?;
    let (form, content_hash) = match carrier {
        Carrier::Library => {
            let kept = copy::keep(&terms.cache, &bytes);
            let (library, hash) = kept.map_err(|error| not_kept(&terms.cache, &error))?;
            (Form::InProcess { library }, hash)
        }
        Carrier::File => {
            // By hand it need not be written what the templates are.
            manifest.templates.access = access.hash().to_owned();
            manifest.templates.offering = offering.as_ref().map(|it| it.hash().to_owned());
            (Form::Standalone, hex(&Sha256::digest(&bytes)))
        }
    };
    let settings = terms.settings.clone();
    Ok(Checked { manifest, api_version, form, content_hash, access, offering, settings })
}

/// What the file of a module says of it, be it built or written by hand.
struct Found {
    bytes: Vec<u8>,
    manifest: Manifest,
    carrier: Carrier,
    /// What it says of the access template, and of the offering template.
    templates: [Noted; 2],
}

/// A library has its manifest inside.
fn built(library: &FileEntry, quiet: &mut Quiet) -> Result<Found, Problem> {
    let bytes = copy::read_settled(library, MAX_LIBRARY, quiet)?;
    let manifest = inspect::inspect(&bytes)?;
    let access = Noted::Hash(manifest.templates.access.clone());
    let offering = manifest.templates.offering.clone().map_or(Noted::None, Noted::Hash);
    Ok(Found { bytes, manifest, carrier: Carrier::Library, templates: [access, offering] })
}

/// A program is elsewhere, and its manifest is a file of its own.
fn written(file: &FileEntry, quiet: &mut Quiet) -> Result<Found, Problem> {
    let bytes = copy::read_settled(file, MAX_TEMPLATE, quiet)?;
    let ManifestFile { manifest, templates } = ManifestFile::read(&file.name(), &bytes)?;
    let named = [templates.access, templates.offering];
    let templates = named.map(|hash| hash.map_or(Noted::Any, Noted::Written));
    Ok(Found { bytes, manifest, carrier: Carrier::File, templates })
}

/// The problem of a package of which only templates are there.
pub fn library_missing(name: &str) -> Problem {
    Problem::new(
        Code::LibraryMissing,
        "templates without their library",
        format!("lib{name}.so, or {name}.module.json of a standalone module"),
        format!("copy lib{name}.so into the plugins directory"),
    )
}

/// What a manifest says of a template.
enum Noted {
    /// There is none.
    None,
    /// Nothing.
    Any,
    /// The one that the library was built with.
    Hash(String),
    /// The same, in a manifest that was written by hand.
    Written(String),
}

impl Noted {
    /// What to do about a template that breaks a rule.
    fn after_correcting(&self, name: &str, file: &str) -> String {
        match self {
            Self::None | Self::Any => format!("correct {file}"),
            Self::Hash(_) => {
                format!("correct {file} and build the module again, so that its hash is noted")
            }
            Self::Written(_) => format!(
                "correct {file}, and write its new hash into {name}.module.json or leave the hash out"
            ),
        }
    }

    /// The problem with a template that is another one.
    fn mismatch(&self, name: &str, file: &str, hash: &str) -> Option<Problem> {
        let (noted, required, mend) = match self {
            Self::None | Self::Any => return None,
            Self::Hash(noted) => (
                noted,
                format!("the template the library was built with: {noted}"),
                format!("copy lib{name}.so and its templates from one build"),
            ),
            Self::Written(noted) => (
                noted,
                format!("the template that {name}.module.json names: {noted}"),
                format!("copy the template that belongs to it, or correct {name}.module.json"),
            ),
        };
        (*noted != hash).then(|| {
            let found = format!("{file} has the hash {hash}");
            Problem::new(Code::TemplateHashMismatch, found, required, mend)
        })
    }
}

/// Reads the template of a kind; `None` where its file is not there or the module knows none.
fn template(
    name: &str,
    kind: TemplateKind,
    noted: &Noted,
    file: Option<&FileEntry>,
    quiet: &mut Quiet,
) -> Result<Option<Template>, Problem> {
    let Some(file) = file.filter(|_| !matches!(noted, Noted::None)) else { return Ok(None) };
    let text = copy::read_settled(file, MAX_TEMPLATE, quiet)?;
    let parsed = Template::parse(kind, &text).map_err(|error| {
        Problem::template(&file.name(), &error, noted.after_correcting(name, &file.name()))
    })?;
    match noted.mismatch(name, &file.name(), parsed.hash()) {
        Some(problem) => Err(problem),
        None => Ok(Some(parsed)),
    }
}

fn standalone_off() -> Problem {
    Problem::new(
        Code::StandaloneOff,
        "a standalone module, and standalone.enabled = false",
        "a host that listens for standalone modules",
        "set enabled = true in [standalone] of the configuration and restart the host",
    )
}

fn template_missing(name: &str, kind: TemplateKind) -> Problem {
    let why = match kind {
        TemplateKind::Access => "",
        TemplateKind::Offering => ", which a module needs to sell",
    };
    Problem::new(
        Code::TemplateMissing,
        format!("no {name}.{kind}.json"),
        format!("the {kind} template{why}"),
        format!("copy {name}.{kind}.json into the plugins directory"),
    )
}

fn check_settings(
    name: &str,
    manifest: &Manifest,
    carrier: Carrier,
    settings: &Value,
) -> Result<(), Problem> {
    let bad = |found: String, required: String| {
        let mend = format!("correct [modules.{name}] in the configuration and restart the host");
        Problem::new(Code::BadConfiguration, found, required, mend)
    };
    let Some(schema) = &manifest.config_schema else {
        return match settings.as_object() {
            Some(settings) if !settings.is_empty() => {
                let keys: Vec<_> = settings.keys().map(String::as_str).collect();
                Err(bad(
                    format!("settings: {}", keys.join(", ")),
                    "none: it has no settings".into(),
                ))
            }
            _ => Ok(()),
        };
    };
    let schema = SettingsSchema::compile(schema).map_err(|error| {
        let required = "a JSON Schema of the module's settings";
        let found = format!("configSchema: {}", privatix_plugin_api::chain(&error));
        let mend = match carrier {
            Carrier::Library => "correct it and build the module again".to_owned(),
            Carrier::File => format!("correct configSchema in {name}.module.json"),
        };
        Problem::new(Code::BadManifest, found, required, mend)
    })?;
    schema.validate(settings).map_err(|violations| {
        let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
        bad(all.join("; "), "settings valid by the module's schema".into())
    })
}

fn not_kept(cache: &Path, error: &io::Error) -> Problem {
    Problem::new(
        Code::HostFailed,
        format!("no private copy in {}: {error}", cache.display()),
        "room and write access in the cache directory",
        "free space on the disk or correct cache_dir in the configuration",
    )
}

#[cfg(test)]
mod tests {
    use privatix_plugin_api::manifest::{
        ApiRange, PanicStrategy, TemplateHashes, UsageReporting, unsealed,
    };
    use serde_json::json;

    use super::*;

    fn manifest(name: &str, config_schema: Option<Value>) -> Manifest {
        Manifest {
            name: name.into(),
            version: "1".into(),
            product_id: uuid::Uuid::new_v4(),
            service_api: ApiRange::SUPPORTED,
            roles: vec![Role::Agent],
            usage_reporting: UsageReporting::Total,
            templates: TemplateHashes { access: unsealed(), offering: None },
            panic: PanicStrategy::Unwind,
            config_schema,
            seal: unsealed(),
        }
    }

    #[test]
    fn advice_fits_what_the_manifest_was_read_from() {
        let hash = "0".repeat(64);
        for (noted, builds) in [
            (Noted::Hash(hash.clone()), true),
            (Noted::Any, false),
            (Noted::Written(hash.clone()), false),
        ] {
            let advice = noted.after_correcting("files", "files.access.json");
            assert!(advice.starts_with("correct files.access.json"), "{advice}");
            assert_eq!(advice.contains("build"), builds, "{advice}");
        }
        for (carrier, expected) in [
            (Carrier::Library, "correct it and build the module again"),
            (Carrier::File, "correct configSchema in files.module.json"),
        ] {
            let manifest = manifest("files", Some(json!({"type": "text"})));
            let problem = check_settings("files", &manifest, carrier, &json!({}));
            assert_eq!(problem.expect_err("no schema").mend, expected);
        }
        for (carrier, builds) in [(Carrier::Library, "libother.so"), (Carrier::File, "\"name\"")] {
            let problem = inspect::verdict(&manifest("other", None), carrier, "files", Role::Agent);
            let problem = problem.expect_err("another name");
            assert_eq!(problem.code, Code::NameMismatch);
            let advice = format!("{} {}", problem.required, problem.mend);
            assert!(advice.contains(builds), "{advice}");
        }
    }
}

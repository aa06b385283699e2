//! From files to a verdict: taken in, inspected, templates checked, settings checked.
//!
//! Nothing of the module runs here. Blocking: the caller gives it a thread.

use std::io;
use std::path::{Path, PathBuf};

use privatix_plugin_api::manifest::{Manifest, Role, unsealed};
use serde_json::Value;

use super::copy::{self, MAX_LIBRARY, MAX_TEMPLATE, Quiet};
use super::inspect;
use super::package::{FileEntry, PackageFiles};
use super::problem::{Code, Problem};
use crate::domain::template::{SettingsSchema, Template, TemplateKind};

/// What a package is checked against.
#[derive(Debug, Clone)]
pub struct Terms {
    /// This node's side.
    pub role: Role,
    /// Where private copies go.
    pub cache: PathBuf,
    /// `[modules.<name>]`, an object.
    pub settings: Value,
}

/// A package that may be started.
#[derive(Debug)]
pub struct Checked {
    /// What the library says of itself.
    pub manifest: Manifest,
    /// The Service API version to speak.
    pub api_version: u32,
    /// The private copy.
    pub library: PathBuf,
    /// SHA-256 of the library.
    pub library_hash: String,
    /// The access template.
    pub access: Template,
    /// The offering template, where there is one.
    pub offering: Option<Template>,
    /// The settings, valid by the manifest's schema.
    pub settings: Value,
}

impl Checked {
    /// Whether both are the same library with the same templates.
    pub fn same_as(&self, other: &Self) -> bool {
        self.library_hash == other.library_hash
            && self.manifest.templates == other.manifest.templates
    }

    /// Whether any altered byte of the library would be noticed.
    pub fn sealed(&self) -> bool {
        self.manifest.seal != unsealed()
    }
}

/// Checks a package whose library is there.
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
    let library = files.library.as_ref().ok_or_else(|| library_missing(name))?;
    let bytes = copy::read_settled(library, MAX_LIBRARY, quiet)?;
    let manifest = inspect::inspect(&bytes)?;
    let api_version = inspect::verdict(&manifest, name, terms.role)?;
    let access = Some(manifest.templates.access.as_str());
    let access = template(name, TemplateKind::Access, access, files.access.as_ref(), quiet)?;
    let access = access.ok_or_else(|| template_missing(name, TemplateKind::Access))?;
    let noted = manifest.templates.offering.as_deref();
    let offering = template(name, TemplateKind::Offering, noted, files.offering.as_ref(), quiet)?;
    if offering.is_none() && terms.role == Role::Agent {
        return Err(template_missing(name, TemplateKind::Offering));
    }
    check_settings(name, &manifest, &terms.settings)?;
    let (library, library_hash) =
        copy::keep(&terms.cache, &bytes).map_err(|error| not_kept(&terms.cache, &error))?;
    let settings = terms.settings.clone();
    Ok(Checked { manifest, api_version, library, library_hash, access, offering, settings })
}

/// The problem of a package of which only templates are there.
pub fn library_missing(name: &str) -> Problem {
    Problem::new(
        Code::LibraryMissing,
        "templates without their library",
        format!("lib{name}.so"),
        format!("copy lib{name}.so into the plugins directory"),
    )
}

/// Reads the template of a kind; `None` where its file is not there or the library knows none.
fn template(
    name: &str,
    kind: TemplateKind,
    noted: Option<&str>,
    file: Option<&FileEntry>,
    quiet: &mut Quiet,
) -> Result<Option<Template>, Problem> {
    let (Some(noted), Some(file)) = (noted, file) else { return Ok(None) };
    let text = copy::read_settled(file, MAX_TEMPLATE, quiet)?;
    let parsed =
        Template::parse(kind, &text).map_err(|error| Problem::template(&file.name(), &error))?;
    if parsed.hash() != noted {
        return Err(Problem::new(
            Code::TemplateHashMismatch,
            format!("{} has the hash {}", file.name(), parsed.hash()),
            format!("the template the library was built with: {noted}"),
            format!("copy lib{name}.so and its templates from one build"),
        ));
    }
    Ok(Some(parsed))
}

fn template_missing(name: &str, kind: TemplateKind) -> Problem {
    let why = match kind {
        TemplateKind::Access => "",
        TemplateKind::Offering => ", which a module needs to sell",
    };
    Problem::new(
        Code::TemplateMissing,
        format!("no {name}.{kind}.json beside the library"),
        format!("the {kind} template{why}"),
        format!("copy {name}.{kind}.json into the plugins directory"),
    )
}

fn check_settings(name: &str, manifest: &Manifest, settings: &Value) -> Result<(), Problem> {
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
        let found = format!("configSchema: {}", crate::chain(&error));
        Problem::new(Code::BadManifest, found, required, "correct it and build the module again")
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

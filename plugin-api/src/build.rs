//! The helper for a module's build script: templates in, manifest out.
//!
//! It parses and hashes the templates and writes `$OUT_DIR/privatix_manifest.rs`, which
//! [`export_module!`](crate::export_module) puts into the library. The panic strategy is noted
//! there by the compiler, since a build script is not told the profile's.

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value;

use crate::json;
use crate::manifest::{
    ApiRange, Manifest, PanicStrategy, Role, TemplateHashes, UsageReporting, unsealed,
};

/// What a module's package says of itself; paths are relative to the crate.
#[derive(Debug, Clone)]
#[must_use = "call emit()"]
pub struct Package {
    name: String,
    product_id: String,
    access: PathBuf,
    offering: Option<PathBuf>,
    config_schema: Option<PathBuf>,
    roles: Vec<Role>,
    usage: UsageReporting,
}

impl Package {
    /// A module of this name and product id (a UUID v4 made once, for good). Its access template
    /// is `NAME.access.json`; it takes both roles and reports totals.
    pub fn new(name: &str, product_id: &str) -> Self {
        Self {
            name: name.to_owned(),
            product_id: product_id.to_owned(),
            access: PathBuf::from(format!("{name}.access.json")),
            offering: None,
            config_schema: None,
            roles: vec![Role::Agent, Role::Client],
            usage: UsageReporting::Total,
        }
    }

    /// Where the access template is.
    pub fn access_template(mut self, path: impl AsRef<Path>) -> Self {
        self.access = path.as_ref().to_owned();
        self
    }

    /// Where the offering template is; required to sell.
    pub fn offering_template(mut self, path: impl AsRef<Path>) -> Self {
        self.offering = Some(path.as_ref().to_owned());
        self
    }

    /// Where the JSON Schema of `[modules.<name>]` is.
    pub fn config_schema(mut self, path: impl AsRef<Path>) -> Self {
        self.config_schema = Some(path.as_ref().to_owned());
        self
    }

    /// The roles it can take, if not both.
    pub fn roles(mut self, roles: impl IntoIterator<Item = Role>) -> Self {
        self.roles = roles.into_iter().collect();
        self
    }

    /// That its usage reports are increments, not totals.
    pub fn incremental_usage(mut self) -> Self {
        self.usage = UsageReporting::Incremental;
        self
    }

    /// Writes the manifest.
    ///
    /// # Panics
    /// With a sentence that names the file or field, which is how a build script fails.
    pub fn emit(&self) {
        if let Err(problem) = self.try_emit() {
            panic!("module {}: {problem}", self.name);
        }
    }

    fn try_emit(&self) -> Result<(), String> {
        let out = PathBuf::from(variable("OUT_DIR")?).join("privatix_manifest.rs");
        // Text of both; the compiler takes the one that is true.
        let [unwind, abort] = [PanicStrategy::Unwind, PanicStrategy::Abort].map(|panic| {
            serde_json::to_string(&self.manifest(panic)?).map_err(|error| error.to_string())
        });
        let (unwind, abort) = (unwind?, abort?);
        let source = format!(
            "(if cfg!(panic = \"abort\") {{ {abort:?} }} else {{ {unwind:?} }}).as_bytes()\n"
        );
        fs::write(&out, source).map_err(|error| format!("writing {}: {error}", out.display()))
    }

    fn manifest(&self, panic: PanicStrategy) -> Result<Manifest, String> {
        let hash = |path: &PathBuf| {
            let value = read(path)?;
            json::hash(&value).map_err(|error| format!("{}: {error}", path.display()))
        };
        let manifest = Manifest {
            name: self.name.clone(),
            version: variable("CARGO_PKG_VERSION")?,
            product_id: self.product_id.parse().map_err(|error| format!("product id: {error}"))?,
            service_api: ApiRange::SUPPORTED,
            roles: self.roles.clone(),
            usage_reporting: self.usage,
            templates: TemplateHashes {
                access: hash(&self.access)?,
                offering: self.offering.as_ref().map(hash).transpose()?,
            },
            panic,
            config_schema: self.config_schema.as_ref().map(read).transpose()?,
            seal: unsealed(),
        };
        manifest.check()?;
        Ok(manifest)
    }
}

fn read(path: &PathBuf) -> Result<Value, String> {
    #[allow(clippy::print_stdout)] // how a build script talks to cargo
    {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let text = fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
    json::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set; is this a build script?"))
}

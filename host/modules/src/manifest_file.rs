//! The manifest of a standalone module: `NAME.module.json`, written by hand.
//!
//! It says what a library's manifest says, but for what only a library has: panic strategy and seal.
//! Hashes of templates may be left out. As a person writes it, a field that is unknown is an error.

use privatix_plugin_api::json;
use privatix_plugin_api::manifest::{
    ApiRange, Manifest, ManifestError, PanicStrategy, Role, TemplateHashes, UsageReporting,
    unsealed,
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::problem::{Code, Problem};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ManifestFile {
    /// What it says, with hashes of templates that mean nothing yet.
    pub(super) manifest: Manifest,
    /// The templates that it names.
    pub(super) templates: NamedTemplates,
}

/// Hashes of templates, as far as they were written down.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct NamedTemplates {
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub(super) access: Option<String>,
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub(super) offering: Option<String>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[a-z][a-z0-9_-]{0,31}$")))]
    name: String,
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    version: String,
    product_id: Uuid,
    service_api: ApiRange,
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    roles: Vec<Role>,
    usage_reporting: UsageReporting,
    #[serde(default)]
    templates: NamedTemplates,
    #[serde(default)]
    config_schema: Option<Value>,
}

/// The JSON Schema of a manifest file.
#[cfg(feature = "schema")]
pub fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    <Written as schemars::JsonSchema>::json_schema(generator)
}

/// What a manifest file says, without the hashes of its templates.
///
/// # Errors
/// `BadManifest`, with what is wrong.
pub fn manifest(file: &str, bytes: &[u8]) -> Result<Manifest, Problem> {
    Ok(ManifestFile::read(file, bytes)?.manifest)
}

impl ManifestFile {
    /// Reads the file's content.
    ///
    /// # Errors
    /// `BadManifest`, with what is wrong.
    pub(super) fn read(file: &str, bytes: &[u8]) -> Result<Self, Problem> {
        parse(bytes).map_err(|error| {
            Problem::new(
                Code::BadManifest,
                format!("{file}: {}", privatix_plugin_api::chain(&error)),
                "a manifest as docs/standalone.md describes it",
                format!("correct {file}"),
            )
        })
    }
}

fn parse(bytes: &[u8]) -> Result<ManifestFile, ManifestError> {
    let value = json::parse(bytes).map_err(ManifestError::Json)?;
    let written: Written =
        serde_json::from_value(value).map_err(|error| ManifestError::Form(error.to_string()))?;
    let Written { templates, .. } = written;
    // Filled in once the templates have been read; until then, something that passes as a hash.
    let unread = |hash: &Option<String>| hash.clone().unwrap_or_else(unsealed);
    let manifest = Manifest {
        name: written.name,
        version: written.version,
        product_id: written.product_id,
        service_api: written.service_api,
        roles: written.roles,
        usage_reporting: written.usage_reporting,
        templates: TemplateHashes {
            access: unread(&templates.access),
            offering: Some(unread(&templates.offering)),
        },
        // It panics in a process of its own.
        panic: PanicStrategy::Unwind,
        config_schema: written.config_schema,
        seal: unsealed(),
    };
    manifest.check().map_err(ManifestError::Form)?;
    Ok(ManifestFile { manifest, templates })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written() -> Value {
        json!({
            "name": "files", "version": "0.1.0",
            "productId": "5c1e1f0e-3d0a-4c55-9d4b-6a1c2f7b8e90",
            "serviceApi": {"min": 1, "max": 1}, "roles": ["agent", "client"],
            "usageReporting": "total",
        })
    }

    #[test]
    fn the_least_that_has_to_be_written_is_enough() {
        let file = ManifestFile::read("files.module.json", written().to_string().as_bytes());
        let file = file.expect("accepted");
        assert_eq!(file.manifest.name, "files");
        assert!(file.templates.access.is_none() && file.templates.offering.is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (field, value, expected) in [
            ("name", json!("Files"), "name \"Files\""),
            ("version", json!(""), "version"),
            ("productId", json!("nonsense"), "UUID"),
            ("productId", json!("00000000-0000-1000-8000-000000000000"), "UUID v4"),
            ("serviceApi", json!({"min": 2, "max": 1}), "serviceApi.min"),
            ("roles", json!([]), "roles is empty"),
            ("usageReporting", json!("maybe"), "unknown variant"),
            ("templates", json!({"access": "A"}), "SHA-256"),
            ("templates", json!({"acces": "A"}), "unknown field `acces`"),
            ("configschema", json!({}), "unknown field `configschema`"),
            ("panic", json!("unwind"), "unknown field `panic`"),
        ] {
            let mut altered = written();
            altered[field] = value;
            let problem = ManifestFile::read("files.module.json", altered.to_string().as_bytes());
            let problem = problem.expect_err(field);
            assert_eq!(problem.code, Code::BadManifest);
            assert!(problem.found.contains(expected), "{field}: {}", problem.found);
        }
        for text in ["", "{", "[]", "{\"name\": 1, \"name\": 2}", "\u{feff}{}"] {
            let problem = ManifestFile::read("files.module.json", text.as_bytes());
            assert_eq!(problem.expect_err(text).code, Code::BadManifest);
        }
    }
}

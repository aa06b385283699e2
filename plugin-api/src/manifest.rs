//! What a library says of itself before any of its code runs.
//!
//! A manifest is one flat byte array, JSON in the form of [`crate::json`], in the ELF section
//! [`SECTION`]. The build-script helper writes it; the host reads it from the file. Unknown
//! fields are ignored, so that a newer helper may say more.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::json::{self, JsonError};

/// The ELF section that holds the manifest.
pub const SECTION: &str = ".privatix.module";

/// The Service API version of this crate, and the oldest one it still speaks.
pub const API_VERSION: u32 = 1;
/// See [`API_VERSION`].
pub const OLDEST_API_VERSION: u32 = 1;

/// The side of a service that a product takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sells.
    Agent,
    /// Buys.
    Client,
}

impl Role {
    /// The word used in JSON, tables and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Client => "client",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.as_str())
    }
}

/// What the numbers in a module's usage reports mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum UsageReporting {
    /// Each report is the total of its session so far. Preferred: a lost or repeated report does
    /// no harm.
    Total,
    /// Each report is what was used since the previous one, with a sequence number.
    Incremental,
}

/// What happens in the library when Rust code panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PanicStrategy {
    /// The panic is caught at the module's edge and reported.
    Unwind,
    /// The panic ends the process, so the host refuses the library.
    Abort,
}

/// The Service API versions a library can speak, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApiRange {
    /// Oldest.
    pub min: u32,
    /// Newest.
    pub max: u32,
}

impl ApiRange {
    /// What this crate speaks.
    pub const SUPPORTED: Self = Self { min: OLDEST_API_VERSION, max: API_VERSION };

    /// The newest version both sides speak.
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// The hash of each template the library was built with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TemplateHashes {
    /// Of the access template.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub access: String,
    /// Of the offering template; required to sell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub offering: Option<String>,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The module's name: the file's without `lib` and `.so`.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[a-z][a-z0-9_-]{0,31}$")))]
    pub name: String,
    /// The module's own version.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub version: String,
    /// Identifies the product on every host; a UUID v4 chosen once by the author.
    pub product_id: Uuid,
    /// Service API versions the library speaks.
    pub service_api: ApiRange,
    /// Roles it can take.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub roles: Vec<Role>,
    /// What its usage reports mean.
    pub usage_reporting: UsageReporting,
    /// Templates it was built with.
    pub templates: TemplateHashes,
    /// Noted by the compiler, not by the author.
    pub panic: PanicStrategy,
    /// JSON Schema of `[modules.<name>]`; without it no settings are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<Value>,
    /// Lowercase hex SHA-256 of the whole library with this field's digits set to `0`, or all
    /// zeros in a library that was not sealed. Not to be left out: one damaged letter of its name
    /// would unseal the library.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub seal: String,
}

/// The `seal` of a library that was not sealed.
pub fn unsealed() -> String {
    "0".repeat(64)
}

/// Why a section does not hold a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON in the accepted form.
    #[error("the manifest is not acceptable JSON")]
    Json(#[source] JsonError),
    /// JSON, but not a manifest.
    #[error("the manifest is incomplete or wrong: {0}")]
    Form(String),
}

impl Manifest {
    /// Reads a manifest from the bytes of its section.
    ///
    /// # Errors
    /// [`ManifestError`] where the bytes are no manifest, or a name, id or hash in it is malformed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let value = json::parse(bytes).map_err(ManifestError::Json)?;
        let manifest: Self = serde_json::from_value(value)
            .map_err(|error| ManifestError::Form(error.to_string()))?;
        manifest.check().map_err(ManifestError::Form)?;
        Ok(manifest)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// A sentence naming the field.
    pub fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!("name {:?} is not {NAME_RULE}", self.name));
        }
        if self.version.is_empty() || self.version.len() > 64 {
            return Err("version has to have 1 to 64 characters".into());
        }
        if self.product_id.get_version_num() != 4 {
            return Err(format!("productId {} is not a UUID v4", self.product_id));
        }
        if self.service_api.min > self.service_api.max {
            return Err("serviceApi.min is above serviceApi.max".into());
        }
        if self.roles.is_empty() {
            return Err("roles is empty".into());
        }
        if self.roles.contains(&Role::Agent) && self.templates.offering.is_none() {
            return Err("a module that can sell needs an offering template".into());
        }
        let hashes =
            [Some(&self.templates.access), self.templates.offering.as_ref(), Some(&self.seal)];
        match hashes.into_iter().flatten().find(|hash| !is_hash(hash)) {
            Some(hash) => Err(format!("{hash:?} is not a lowercase hex SHA-256")),
            None => Ok(()),
        }
    }
}

/// What a module's name looks like, in words.
pub const NAME_RULE: &str = "1 to 32 of a-z, 0-9, '-' and '_', beginning with a letter";

/// Whether a module may be called this ([`NAME_RULE`]).
pub fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Value {
        serde_json::json!({
            "name": "echo", "version": "0.1.0",
            "productId": "0b3c6a51-5e2f-4b6e-9c0f-1f2d3c4b5a69",
            "serviceApi": {"min": 1, "max": 1}, "roles": ["agent", "client"],
            "usageReporting": "total", "panic": "unwind",
            "templates": {"access": "a".repeat(64), "offering": "b".repeat(64)},
            "seal": unsealed(),
        })
    }

    #[test]
    fn fields_that_are_checked() {
        for (field, value, expected) in [
            ("name", serde_json::json!("Echo"), "name \"Echo\""),
            ("name", serde_json::json!(""), "name \"\""),
            ("name", serde_json::json!("../x"), "name \"../x\""),
            ("version", serde_json::json!(""), "version"),
            ("productId", serde_json::json!("00000000-0000-1000-8000-000000000000"), "UUID v4"),
            ("productId", serde_json::json!("nonsense"), "UUID"),
            ("serviceApi", serde_json::json!({"min": 3, "max": 2}), "serviceApi.min"),
            ("roles", serde_json::json!([]), "roles is empty"),
            ("roles", serde_json::json!(["broker"]), "unknown variant"),
            ("templates", serde_json::json!({"access": "a".repeat(64)}), "offering template"),
            (
                "templates",
                serde_json::json!({"access": "A".repeat(64), "offering": "b".repeat(64)}),
                "SHA-256",
            ),
            ("panic", serde_json::json!("maybe"), "unknown variant"),
        ] {
            let mut altered = manifest();
            altered[field] = value.clone();
            let error =
                Manifest::from_bytes(altered.to_string().as_bytes()).expect_err(field).to_string();
            assert!(error.contains(expected), "{field} = {value}: {error}");
        }
        Manifest::from_bytes(manifest().to_string().as_bytes()).expect("the unaltered one");
    }

    #[test]
    fn a_seal_under_another_name_is_none() {
        let text = manifest().to_string().replace("\"seal\"", "\"real\"");
        let error = Manifest::from_bytes(text.as_bytes()).expect_err("no seal").to_string();
        assert!(error.contains("`seal`"), "{error}");
    }

    #[test]
    fn fields_of_a_newer_helper_are_ignored() {
        let mut newer = manifest();
        newer["colour"] = "blue".into();
        Manifest::from_bytes(newer.to_string().as_bytes()).expect("accepted");
    }

    #[test]
    fn version_ranges_meet_at_the_newest_common_version() {
        let range = |min, max| ApiRange { min, max };
        for (ours, theirs, common) in [
            (range(1, 1), range(1, 1), Some(1)),
            (range(1, 3), range(2, 5), Some(3)),
            (range(2, 5), range(1, 3), Some(3)),
            (range(1, 1), range(2, 3), None),
            (range(4, 5), range(2, 3), None),
        ] {
            assert_eq!(ours.common(theirs), common, "{ours:?} {theirs:?}");
        }
    }
}

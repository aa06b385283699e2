//! Why a package is not running: a stable code, what was found, what is required, how to mend it.
//!
//! All codes stand in [`Code`]; those of templates have the names that the domain gives them. A test
//! compares docs/reference/codes.md with them.

use std::fmt;

use serde::{Deserialize, Serialize};

use privatix_domain::foreign::AnyCode;
use privatix_domain::template::TemplateError;
use strum::{Display, EnumMessage, EnumString, IntoStaticStr, VariantArray};

/// A refusal or failure as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// Stable name.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub code: AnyCode<Code>,
    /// What was found.
    pub found: String,
    /// What is required.
    pub required: String,
    /// How to mend it.
    pub mend: String,
}

impl Problem {
    /// For a host that does not start because of it.
    pub fn refusal(&self) -> String {
        let Self { code, found, required, mend } = self;
        format!("{found} ({code}). It must be {required}. Run: {mend}")
    }

    /// A problem in three sentences.
    pub fn new(
        code: Code,
        found: impl Into<String>,
        required: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        let code = AnyCode::Known(code);
        Self { code, found: found.into(), required: required.into(), mend: mend.into() }
    }

    /// Whether it is the one with this code.
    pub fn is(&self, code: Code) -> bool {
        self.code == code
    }

    /// As [`Code::retry`]; the host does nothing again because of a code that it does not know.
    pub fn retry(&self) -> bool {
        self.code.known().is_some_and(Code::retry)
    }

    /// A template that breaks a rule, and how to mend it: what has to be done beside correcting the
    /// file depends on where its hash is noted.
    pub fn template(file: &str, error: &TemplateError, mend: String) -> Self {
        Self {
            code: AnyCode::of(error.code().into()),
            found: format!("{file}: {}", privatix_plugin_api::chain(error)),
            required: "a template as docs/templates.md describes it".to_owned(),
            mend,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.found)
    }
}

impl std::error::Error for Problem {}

/// The stable names of all problems. The meaning of each is its documentation here.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Display, EnumMessage, EnumString, IntoStaticStr, VariantArray,
)]
pub enum Code {
    /// The library has not arrived.
    LibraryMissing,
    /// A template has not arrived.
    TemplateMissing,
    /// Somebody has a file of the package open for writing, or it changed a moment ago.
    BeingWritten,
    /// The name cannot be a module's.
    InvalidName,
    /// The package has two libraries.
    AmbiguousLibrary,
    /// The package has a library and the manifest of a standalone module.
    AmbiguousModule,
    /// A symbolic link, a directory or a device.
    NotRegularFile,
    /// A file or the directory belongs to another user.
    WrongOwner,
    /// A file or the directory can be written by others.
    WritableByOthers,
    /// A file cannot be read.
    Unreadable,
    /// A file is larger than any module or template.
    TooLarge,
    /// Not an ELF file.
    NotElf,
    /// An ELF file of which a part is missing.
    Truncated,
    /// An ELF file that contradicts itself.
    MalformedElf,
    /// Made for another kind of machine.
    WrongArchitecture,
    /// An ELF file, but not a shared library.
    NotSharedObject,
    /// No manifest, so not a module.
    NoManifest,
    /// A manifest that cannot be used.
    BadManifest,
    /// The manifest names another module.
    NameMismatch,
    /// The library was altered after it was sealed.
    SealBroken,
    /// The library names directories of other libraries (`RUNPATH`, `RPATH`).
    RunPath,
    /// A library that it needs can be changed by others than root.
    LibraryNotTrusted,
    /// This system does not have a library that it needs.
    LibraryNotFound,
    /// Needs a newer host.
    ApiTooNew,
    /// Needs an older host.
    ApiTooOld,
    /// A panic of the module would end the host.
    PanicAbort,
    /// The module cannot take this node's role.
    RoleUnsupported,
    /// This host does not listen for standalone modules.
    StandaloneOff,
    /// The template is not the one the library was built with.
    TemplateHashMismatch,
    /// The settings of the module are not valid.
    BadConfiguration,
    /// Another module has this product id.
    DuplicateProduct,
    /// The operator has switched the module off.
    Disabled,
    /// The library is set aside: the host died while it came up, or three times while it served.
    Quarantined,
    /// The host died while the library came up, and waits before it tries again.
    Suspected,
    /// The dynamic linker refused the library.
    LoadFailed,
    /// The library crashed a process that only loaded it.
    LoadCrashed,
    /// The library kept a process that only loaded it from ending.
    LoadTimedOut,
    /// The library exports no root module.
    NoRootModule,
    /// The library was built with another ABI.
    AbiIncompatible,
    /// The library's types differ from the host's.
    LayoutMismatch,
    /// `create` returned an error.
    CreateFailed,
    /// `create` panicked.
    CreatePanicked,
    /// `create` did not return in time.
    CreateTimedOut,
    /// `configure` returned an error.
    ConfigureFailed,
    /// `configure` panicked.
    ConfigurePanicked,
    /// `configure` did not answer in time.
    ConfigureTimedOut,
    /// `start` returned an error.
    StartFailed,
    /// `start` panicked.
    StartPanicked,
    /// `start` did not answer in time.
    StartTimedOut,
    /// The host could not do its part; see its log.
    HostFailed,
    // Templates, as the domain names them.
    /// The template is not JSON.
    InvalidJson,
    /// A key is twice in one object.
    DuplicateKey,
    /// A number is above 9007199254740991.
    NumberTooLarge,
    /// A number has a fraction, an exponent or a sign.
    NumberNotInteger,
    /// Nested deeper than 64 levels.
    TooDeep,
    /// The template has more than 256 KiB.
    TemplateTooLarge,
    /// Neither `{"schema", "uiSchema"}` nor a bare JSON Schema.
    BadTemplateForm,
    /// `$schema` names no draft that is known.
    UnknownDraft,
    /// A reference leaves the document.
    RemoteReference,
    /// References go in a circle, or lead to too much.
    TemplateTooComplex,
    /// A pattern is outside the limits.
    UnsupportedPattern,
    /// Not valid by its draft.
    InvalidSchema,
    /// A core field is not declared.
    CoreFieldMissing,
    /// A core field is declared as something else.
    CoreFieldType,
    /// A core field may be left out.
    CoreFieldNotRequired,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name on the wire.
    pub fn code(self) -> &'static str {
        self.into()
    }

    /// What it means, in the words of the documentation.
    pub fn meaning(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// Whether the host tries the same files again by itself: where the host or the machine may be
    /// to blame, and where the module said no rather than broke. What broke in `create` or
    /// `configure` left something behind each time; a start depends on the world outside, too.
    pub fn retry(self) -> bool {
        matches!(
            self,
            Self::HostFailed
                | Self::BeingWritten
                | Self::LoadTimedOut
                | Self::CreateFailed
                | Self::ConfigureFailed
                | Self::StartFailed
                | Self::StartPanicked
                | Self::StartTimedOut
        )
    }
}

#[cfg(test)]
mod tests {
    use privatix_plugin_api::json::JsonError;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_code_keeps_its_name_through_json_and_says_what_it_means() {
        for code in Code::ALL {
            let problem = Problem::new(*code, "f", "r", "m");
            let value = json!(problem);
            assert_eq!(value["code"], code.code());
            assert_eq!(serde_json::from_value::<Problem>(value).expect("a problem"), problem);
            assert!(code.meaning().ends_with('.'), "{code}: {}", code.meaning());
        }
    }

    /// Both sides of a table, so that a new code is thought of.
    #[test]
    fn codes_that_are_tried_again() {
        use Code::*;
        let again = [
            BeingWritten,
            LoadTimedOut,
            CreateFailed,
            ConfigureFailed,
            StartFailed,
            StartPanicked,
            StartTimedOut,
            HostFailed,
        ];
        for code in Code::ALL {
            assert_eq!(code.retry(), again.contains(code), "{code}");
            assert_eq!(Problem::new(*code, "", "", "").retry(), code.retry(), "{code}");
        }
    }

    #[test]
    fn a_problem_of_a_newer_host_is_shown_and_not_tried_again() {
        for (name, shown) in [("TeaCold", "TeaCold"), ("Tea\u{1b}[2J", r"Tea\u{1b}[2J")] {
            let value = json!({"code": name, "found": "f", "required": "r", "mend": "m"});
            let problem: Problem = serde_json::from_value(value).expect("a problem");
            assert_eq!((problem.code.known(), problem.code.code()), (None, shown));
            assert_eq!(problem.to_string(), format!("{shown}: f"));
            assert!(!problem.retry());
        }
    }

    /// The names are the domain's, whatever the template is refused for.
    #[test]
    fn templates_are_refused_with_the_domains_names() {
        let (place, word) = (String::new, String::new);
        for error in [
            TemplateError::Json(JsonError::Invalid(word())),
            TemplateError::Json(JsonError::DuplicateKey { key: word(), place: place() }),
            TemplateError::Json(JsonError::NumberTooLarge { place: place() }),
            TemplateError::Json(JsonError::NumberNotInteger { number: word(), place: place() }),
            TemplateError::Json(JsonError::TooDeep { place: place() }),
            TemplateError::TooLarge { bytes: 0 },
            TemplateError::Form(""),
            TemplateError::UnknownDraft { place: place(), found: word() },
            TemplateError::RemoteReference { place: place(), found: word(), reason: "" },
            TemplateError::TooComplex { place: place(), reason: word() },
            TemplateError::UnsupportedPattern { place: place(), pattern: word(), reason: "" },
            TemplateError::InvalidSchema { place: place(), reason: word() },
            TemplateError::CoreFieldMissing { field: "", required: "" },
            TemplateError::CoreFieldType { field: "", found: word(), required: "" },
            TemplateError::CoreFieldNotRequired { field: "" },
        ] {
            let problem = Problem::template("x.access.json", &error, String::new());
            assert_eq!(problem.code.code(), error.code().code());
            assert!(problem.code.known().is_some(), "{} stands in the list", problem.code);
        }
    }
}

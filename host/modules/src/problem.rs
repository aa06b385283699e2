//! Why a package is not running: a stable code, what was found, what is required, how to mend it.
//!
//! All codes stand in [`Code`]; those of templates come from the domain, which knows the rules. A test
//! compares docs/reference/codes.md with them.

use std::fmt;

use serde::{Deserialize, Serialize};

use privatix_domain::template::TemplateError;

/// A refusal or failure as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// Stable name.
    pub code: String,
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
        let code = code.to_string();
        Self { code, found: found.into(), required: required.into(), mend: mend.into() }
    }

    /// Whether it is the one with this code.
    pub fn is(&self, code: Code) -> bool {
        self.code == code.to_string()
    }

    /// A template that breaks a rule, and how to mend it: what has to be done beside correcting the
    /// file depends on where its hash is noted.
    pub fn template(file: &str, error: &TemplateError, mend: String) -> Self {
        let found = format!("{file}: {}", privatix_plugin_api::chain(error));
        Self {
            code: error.code().into(),
            found,
            required: "a template as docs/templates.md describes it".into(),
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

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The stable names of all problems but those of JSON and templates.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// Every code with its meaning, for the documentation.
            pub const ALL: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+)),)+];
        }
    };
}

codes! {
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
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants' names are the stable names.
        fmt::Debug::fmt(self, out)
    }
}

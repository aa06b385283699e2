//! The package, before any of its code runs: what the host's own checks say of it.
//!
//! The host names the first thing it refuses; each case stands for some of its codes, and the last
//! one for whatever is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use privatix_domain::template::SettingsSchema;
use privatix_modules::problem::Code;
use privatix_plugin_api::manifest::Role;

use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::Bench;

pub(super) fn cases() -> Vec<Case> {
    vec![
        refusals(
            "package.files",
            "The library and the templates that it needs are there, under names a module can have.",
            "docs/reference/package.md: A module package",
            &[
                Code::LibraryMissing,
                Code::TemplateMissing,
                Code::InvalidName,
                Code::AmbiguousLibrary,
                Code::Unreadable,
                Code::NotRegularFile,
                Code::TooLarge,
            ],
        )
        .mend("put NAME.access.json and, to sell, NAME.offering.json beside the library, or say where they are with --templates"),
        case(
            "package.mode",
            "Nobody but its owner can write the library.",
            "docs/modules.md#what-is-checked: Files must be regular, owned by the host's user or root, and not writable by others",
        )
        .after(&["package.files"])
        .mend("chmod go-w the library, and install it with `install -m 0644`")
        .run(mode),
        refusals(
            "package.elf",
            "The library is a whole and intact ELF file.",
            "docs/modules.md#installing: nothing is loaded half-written",
            &[Code::NotElf, Code::Truncated, Code::MalformedElf],
        )
        .after(&["package.files"])
        .mend("build or copy it again"),
        refusals(
            "package.machine",
            "It is a shared library for this kind of machine.",
            "docs/reference/package.md#the-library: In-process: a cdylib behind the stable ABI",
            &[Code::WrongArchitecture, Code::NotSharedObject],
        )
        .after(&["package.elf"])
        .mend("set crate-type = [\"cdylib\"] and build it for this machine"),
        refusals(
            "manifest.present",
            "It carries a manifest.",
            "docs/reference/package.md#manifest-of-a-library: The library carries a manifest readable without running any of its code",
            &[Code::NoManifest],
        )
        .after(&["package.machine"])
        .mend("call privatix_plugin_api::build in build.rs and export_module! in the library"),
        refusals(
            "manifest.valid",
            "The manifest can be read and says all that it has to.",
            "docs/reference/package.md#manifest-of-a-library: name, version, product id (UUID v4), Service API version range, roles, usage reporting",
            &[Code::BadManifest],
        )
        .after(&["manifest.present"])
        .mend("let privatix_plugin_api::build write it"),
        refusals(
            "manifest.seal",
            "A seal that it bears is whole.",
            "docs/reference/package.md#manifest-of-a-library: The library carries a manifest",
            &[Code::SealBroken],
        )
        .after(&["manifest.valid"])
        .mend("seal it last of all: nothing may change it afterwards"),
        refusals(
            "manifest.name",
            "It names the module as its files do.",
            "docs/modules.md#installing: plugins/libvpn.so, plugins/vpn.access.json",
            &[Code::NameMismatch],
        )
        .after(&["manifest.seal"])
        .mend("name the files after the module: libNAME.so"),
        refusals(
            "manifest.api",
            "It speaks a version of the Service API that this host speaks.",
            "docs/reference/package.md#manifest-of-a-library: Service API version range",
            &[Code::ApiTooNew, Code::ApiTooOld],
        )
        .after(&["manifest.name"])
        .mend("build it with a privatix-plugin-api of this host's time"),
        refusals(
            "manifest.panic",
            "A panic in it does not end the host.",
            "docs/modules.md#what-is-checked: panic strategy (`abort` is refused)",
            &[Code::PanicAbort],
        )
        .after(&["manifest.api"])
        .mend("remove panic = \"abort\" from its profile"),
        case("manifest.roles", "It takes at least one role.", "docs/reference/package.md#manifest-of-a-library: roles")
            .after(&["manifest.panic"])
            .mend("name its roles in build.rs")
            .run(|bench: Bench| async move {
                ensure(!bench.roles()?.is_empty(), || "the manifest names no role".into())
            }),
        case(
            "manifest.settings",
            "The schema of its settings is one, and takes what the kit configures it with.",
            "docs/modules.md#installing: A module's settings are checked against its schema before it starts",
        )
        .after(&["manifest.roles"])
        .mend("correct the schema, or give the kit settings in NAME.check.toml")
        .run(settings),
        case(
            "manifest.unknown-settings",
            "A setting that it does not know is refused.",
            "docs/modules.md#installing: an unknown key is an error",
        )
        .after(&["manifest.settings"])
        .mend("add \"additionalProperties\": false to the schema of its settings")
        .run(unknown_settings),
    ]
}

/// A case that fails where the host refuses the package with one of these codes.
pub(super) fn refusals(
    id: &'static str,
    sentence: &'static str,
    rule: &'static str,
    codes: &'static [Code],
) -> Case {
    case(id, sentence, rule).run(move |bench: Bench| async move {
        // Which roles it takes is not known before there is a manifest.
        let roles = bench.roles().unwrap_or_else(|_| vec![Role::Agent, Role::Client]);
        for role in roles {
            if let Err(problem) = bench.examine(role)?
                && problem.code.is_one_of(codes)
            {
                return Err(failed(format!(
                    "{}: {}; required is {}; {}",
                    problem.code, problem.found, problem.required, problem.mend
                )));
            }
        }
        Ok(())
    })
}

async fn mode(bench: Bench) -> Result<(), Finding> {
    let library = &bench.subject.library;
    let mode = fs::metadata(library)?.permissions().mode();
    let shown = format!("{} has mode {:04o}", library.display(), mode & 0o7777);
    if mode & 0o002 != 0 {
        return Err(failed(format!("{shown}: everybody can write it")));
    }
    // With a group of one's own that is how compilers leave files.
    if mode & 0o020 != 0 {
        return Err(Finding::Warning(format!("{shown}: installed like that, a host refuses it")));
    }
    Ok(())
}

async fn settings(bench: Bench) -> Result<(), Finding> {
    let manifest = bench.manifest()?;
    for role in bench.roles()? {
        let settings = bench.settings(role);
        let Some(schema) = &manifest.config_schema else {
            let none = settings.as_object().is_none_or(serde_json::Map::is_empty);
            ensure(none, || format!("there are settings for the {role}, and the module has none"))?;
            continue;
        };
        SettingsSchema::compile(schema)?.validate(&settings).map_err(|violations| {
            let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
            failed(format!("the {role}'s settings {settings}: {}", all.join("; ")))
        })?;
    }
    Ok(())
}

async fn unknown_settings(bench: Bench) -> Result<(), Finding> {
    let Some(schema) = bench.manifest()?.config_schema else { return Ok(()) };
    let schema = SettingsSchema::compile(&schema)?;
    for role in bench.roles()? {
        let mut settings = bench.settings(role);
        settings["no_such_setting_as_this"] = 1.into();
        if schema.validate(&settings).is_ok() {
            return Err(Finding::Warning(
                "the schema takes any key, so an operator's typing error stays unnoticed".into(),
            ));
        }
    }
    Ok(())
}

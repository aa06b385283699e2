//! `privatix module new`: writes the crate of a module that works as it stands.
//!
//! The files are below `new_module/`, with the name, the product id and the place of the SDK left
//! out. All of them are made in a directory beside the new one, which appears whole or not at all.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use privatix_plugin_api::manifest::{NAME_RULE, is_name};
use uuid::Uuid;

use super::output;

/// What can be said of a new module.
#[derive(Debug, Args)]
pub(super) struct NewModule {
    /// The module's name; it is also the crate's
    name: String,
    /// Create the crate in this directory [default: a directory of the module's name]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The privatix repository, of which the crate uses `plugin-api` [default: found from the
    /// current directory or from this binary]
    #[arg(long, value_name = "PATH", env = "PRIVATIX_SDK")]
    sdk: Option<PathBuf>,
}

/// The files by their paths in the crate.
const FILES: [(&str, &str); 10] = [
    ("Cargo.toml", include_str!("new_module/Cargo.toml.in")),
    ("build.rs", include_str!("new_module/build.rs.in")),
    ("README.md", include_str!("new_module/README.md")),
    (".gitignore", include_str!("new_module/gitignore")),
    ("{{name}}.access.json", include_str!("new_module/access.json")),
    ("{{name}}.offering.json", include_str!("new_module/offering.json")),
    ("{{name}}.config.json", include_str!("new_module/config.json")),
    ("{{name}}.check.toml", include_str!("new_module/check.toml")),
    ("src/lib.rs", include_str!("new_module/src/lib.rs.in")),
    ("tests/conformance.rs", include_str!("new_module/tests/conformance.rs.in")),
];

/// Names that are a module's, but cannot be a crate's: of the language, or of what every crate has.
const TAKEN: [&str; 62] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "serde_json",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "tokio",
    "tracing",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "privatix_plugin_api",
];

/// Writes the crate.
pub(super) fn new(request: &NewModule) -> anyhow::Result<()> {
    let name = request.name.as_str();
    check_name(name)?;
    let directory = request.dir.clone().unwrap_or_else(|| name.into());
    if fs::symlink_metadata(&directory).is_ok() {
        bail!("{} exists already; choose another directory with --dir", directory.display());
    }
    let sdk = sdk(request.sdk.as_deref())?;
    check_toolchain()?;
    let sdk_text = sdk.to_str().filter(|text| !text.contains(['"', '\\', '\n']));
    let sdk_text = sdk_text
        .with_context(|| format!("the path {} cannot stand in a Cargo.toml", sdk.display()))?;
    write(&directory, name, sdk_text).with_context(|| format!("making {}", directory.display()))?;
    output::text(&format!(
        "Created {0}\n\nBuild it and check it:\n  cd {0}\n  cargo build\n  privatix check \
         target/debug/lib{name}.so",
        directory.display()
    ))
}

fn check_name(name: &str) -> anyhow::Result<()> {
    if !is_name(name) {
        bail!("{name:?} cannot be the name of a module: it has to be {NAME_RULE}");
    }
    if name.contains('-') {
        let better = name.replace('-', "_");
        bail!("{name:?} cannot be the name of a library of Rust; take {better:?}");
    }
    if TAKEN.contains(&name) {
        bail!("{name:?} means something to Rust already; take another name, as \"my_{name}\"");
    }
    Ok(())
}

/// The repository, by what was said, or above the current directory or this binary.
fn sdk(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let is_sdk = |path: &Path| path.join("plugin-api/Cargo.toml").is_file();
    if let Some(named) = named {
        let path = fs::canonicalize(named).with_context(|| format!("--sdk {}", named.display()))?;
        if !is_sdk(&path) {
            bail!("{} is not the privatix repository: it has no plugin-api", path.display());
        }
        return Ok(path);
    }
    let starts = [env::current_dir().ok(), env::current_exe().ok()];
    let found =
        starts.iter().flatten().flat_map(|start| start.ancestors()).find(|path| is_sdk(path));
    let found = found.map(Path::to_owned).context(
        "the crate needs privatix's plugin-api, which is not published yet: say where the \
         repository is with --sdk PATH",
    )?;
    Ok(found)
}

/// Somebody without a toolchain should hear of it now, and not from a shell later.
fn check_toolchain() -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let version = Command::new(&cargo).arg("--version").stdin(Stdio::null()).output();
    match version {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!(
            "cargo does not work ({}); install Rust from https://rustup.rs",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => Err(error).context(
            "there is no cargo, which builds modules; install Rust from https://rustup.rs",
        ),
    }
}

fn write(directory: &Path, name: &str, sdk: &str) -> anyhow::Result<()> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if !parent.is_dir() {
        bail!("there is no directory {}", parent.display());
    }
    let part = tempfile::Builder::new().prefix(".privatix-new-").tempdir_in(parent)?;
    let product_id = Uuid::new_v4().to_string();
    let fill = |text: &str| {
        let filled = text.replace("{{name}}", name).replace("{{product_id}}", &product_id);
        filled.replace("{{sdk}}", sdk).replace("{{rust_version}}", env!("CARGO_PKG_RUST_VERSION"))
    };
    let whole = part.path().join(name);
    for (path, text) in FILES {
        let path = whole.join(fill(path));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, fill(text))?;
    }
    public(&whole)?;
    // Fails where there is something now that was not there before, unless it is empty.
    fs::rename(&whole, directory)?;
    Ok(())
}

/// A crate is nobody's secret, unlike what else this program writes.
fn public(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            public(&entry?.path())?;
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_can_be_a_crates_and_a_modules() {
        for (name, part) in [
            ("mine", None),
            ("my_vpn2", None),
            ("my-vpn", Some("take \"my_vpn\"")),
            ("Mine", Some("1 to 32")),
            ("2fast", Some("1 to 32")),
            ("", Some("1 to 32")),
            ("../mine", Some("1 to 32")),
            ("test", Some("my_test")),
            ("match", Some("my_match")),
            ("serde", Some("my_serde")),
        ] {
            let checked = check_name(name).map_err(|error| error.to_string());
            match part {
                None => assert!(checked.is_ok(), "{name}"),
                Some(part) => assert!(checked.unwrap_err().contains(part), "{name}"),
            }
        }
    }

    /// What every module needs is the SDK's; what is left is the service.
    #[test]
    fn a_module_that_sells_over_a_stream_is_at_most_120_lines() {
        let sources = FILES.iter().filter(|(path, _)| path.starts_with("src/"));
        let lines = sources.flat_map(|(_, text)| text.lines()).map(str::trim);
        let code = lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        assert!(code <= 120, "{code} lines without comments and blank lines");
    }

    #[test]
    fn nothing_is_left_to_be_filled_in() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("here");
        write(&directory, "mine", "/sdk").unwrap();
        for (path, _) in FILES {
            let path = directory.join(path.replace("{{name}}", "mine"));
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains("{{"), "{}", path.display());
        }
        // Only what was wanted is there.
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}

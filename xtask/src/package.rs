//! `cargo xtask package`: the modules as they are given to others, in one directory.
//!
//! Each library lies beside the templates it was built with, and is sealed by the host's own command:
//! any byte that changes on the way is noticed before the library is loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{Outcome, built, cargo, repository, step};

/// A module: its cargo package, its name, and where its templates are.
const MODULES: [(&str, &str, &str); 3] = [
    ("privatix-proxy", "proxy", "templates"),
    ("privatix-vpn", "vpn", "templates"),
    ("privatix-echo", "echo", "plugins/echo"),
];

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The directory; without it, `package` beside what is built.
    out: Option<PathBuf>,
    /// Whether unoptimised libraries will do.
    dev: bool,
}

impl Options {
    pub(crate) fn read(arguments: &[&str]) -> Outcome<Self> {
        let mut options = Self::default();
        for argument in arguments {
            match *argument {
                "--dev" => options.dev = true,
                other if other.starts_with('-') => {
                    return Err(format!("package knows --dev and a directory, not {other}"));
                }
                directory if options.out.is_none() => options.out = Some(directory.into()),
                second => return Err(format!("package takes one directory, not also {second}")),
            }
        }
        Ok(options)
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    let profile = if options.dev { "debug" } else { "release" };
    let mut build = cargo(&["build", "--locked", "-p", "privatix"]);
    for (package, ..) in MODULES {
        build.args(["-p", package]);
    }
    if !options.dev {
        build.arg("--release");
    }
    step("building the modules", &mut build)?;
    let from = built(profile)?;
    let out = options.out.clone().map_or_else(|| built("package"), Ok)?;
    let out = std::path::absolute(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    for (_, name, templates) in MODULES {
        let templates = repository().join(templates);
        for kind in ["access", "offering"] {
            let file = format!("{name}.{kind}.json");
            put(&templates.join(&file), &out.join(&file), 0o644)?;
        }
        let library = format!("lib{name}.so");
        // Sealed under another name: nobody is to take up a library that is not.
        let part = out.join(format!(".{library}.part"));
        put(&from.join(&library), &part, 0o755)?;
        let mut seal = Command::new(from.join("privatix"));
        step(&format!("sealing {library}"), seal.args(["module", "seal"]).arg(&part))?;
        let sealed = out.join(&library);
        fs::rename(&part, &sealed).map_err(|error| format!("{}: {error}", sealed.display()))?;
    }
    println!("{}", out.display());
    Ok(())
}

fn put(from: &Path, to: &Path, mode: u32) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let copied = fs::copy(from, to).and_then(|_| {
        // Whatever umask there is: a file that its group can write is refused.
        fs::set_permissions(to, fs::Permissions::from_mode(mode))
    });
    copied.map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn the_command_line() {
        let options = |out: Option<&str>, dev| Options { out: out.map(Into::into), dev };
        for (arguments, expected) in [
            (&[][..], Some(options(None, false))),
            (&["dist"], Some(options(Some("dist"), false))),
            (&["--dev", "dist"], Some(options(Some("dist"), true))),
            (&["dist", "other"], None),
            (&["--release"], None),
        ] {
            assert_eq!(Options::read(arguments).ok(), expected, "{arguments:?}");
        }
    }
}

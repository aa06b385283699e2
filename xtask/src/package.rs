//! `cargo xtask package`: the modules as they are given to others, in one directory.
//!
//! Each library lies beside the templates it was built with, and is sealed by the host's own command:
//! any byte that changes on the way is noticed before the library is loaded.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

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
    make(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    for (_, name, templates) in MODULES {
        let templates = repository().join(templates);
        for kind in ["access", "offering"] {
            let file = format!("{name}.{kind}.json");
            put(&templates.join(&file), &part(&out, &file), 0o644)?;
            finish(&out, &file)?;
        }
        let library = format!("lib{name}.so");
        // Sealed under another name: nobody is to take up a library that is not.
        let part = part(&out, &library);
        put(&from.join(&library), &part, 0o755)?;
        let mut seal = Command::new(from.join("privatix"));
        // It would name the part.
        seal.args(["module", "seal"]).arg(&part).stdout(Stdio::null());
        step(&format!("sealing {library}"), &mut seal)?;
        finish(&out, &library)?;
    }
    println!("{}", out.display());
    Ok(())
}

/// A directory that a host takes modules from, whatever umask there is. One that is there stays as it is.
fn make(out: &Path) -> io::Result<()> {
    if out.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(out)?;
    fs::set_permissions(out, fs::Permissions::from_mode(0o755))
}

/// Where a file is until it is whole: a host may be watching the directory.
fn part(out: &Path, file: &str) -> PathBuf {
    out.join(format!(".{file}.part"))
}

fn finish(out: &Path, file: &str) -> Outcome {
    let whole = out.join(file);
    fs::rename(part(out, file), &whole).map_err(|error| format!("{}: {error}", whole.display()))
}

fn put(from: &Path, to: &Path, mode: u32) -> Outcome {
    let copied = fs::copy(from, to).and_then(|_| {
        // Whatever umask there is: a file that its group can write is refused.
        fs::set_permissions(to, fs::Permissions::from_mode(mode))
    });
    copied.map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use super::{Options, finish, make, part, put};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn files_take_the_place_of_older_ones_whole_and_nobody_else_can_write_them() {
        let place: PathBuf =
            std::env::temp_dir().join(format!("privatix-package-{}", std::process::id()));
        let (out, from) = (place.join("out"), place.join("from"));
        make(&out).expect("made");
        assert_eq!(mode(&out), 0o755);
        for text in ["one", "another"] {
            fs::write(&from, text).expect("written");
            fs::set_permissions(&from, fs::Permissions::from_mode(0o666)).expect("set");
            put(&from, &part(&out, "libx.so"), 0o755).expect("copied");
            finish(&out, "libx.so").expect("finished");
            let whole = out.join("libx.so");
            assert_eq!((fs::read(&whole).expect("read"), mode(&whole)), (text.into(), 0o755));
        }
        assert_eq!(fs::read_dir(&out).expect("listed").count(), 1, "no part is left");
        fs::set_permissions(&out, fs::Permissions::from_mode(0o700)).expect("set");
        make(&out).expect("it is there");
        assert_eq!(mode(&out), 0o700);
        fs::remove_dir_all(&place).expect("removed");
    }

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

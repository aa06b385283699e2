//! Cargo, run in the repository as if from a shell.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What went wrong, as a sentence.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// A command of cargo's.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository()).args(arguments);
    // What cargo told this process about its package would have build scripts run again.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a step of a command, by its name.
pub(crate) fn step(name: &str, command: &mut Command) -> Outcome {
    eprintln!("xtask: {name}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} failed ({status}): {}", shown(command))),
        Err(error) => Err(format!("{name} could not be started: {}: {error}", shown(command))),
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let program = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    program.into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// Where this package's workspace is.
pub(crate) fn repository() -> PathBuf {
    let [name, directory] = ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"].map(std::env::var_os);
    package(name.as_deref(), directory.as_deref()).join("..")
}

/// The directory of this package, given what cargo told this process about the package that it
/// runs. Checkouts that share a target directory share this binary, so the directory in which it
/// was compiled may be that of another one.
fn package<'a>(name: Option<&OsStr>, directory: Option<&'a OsStr>) -> &'a Path {
    match (name, directory) {
        // Another package's variables reach this process when that package starts it.
        (Some(name), Some(directory)) if name == env!("CARGO_PKG_NAME") => Path::new(directory),
        _ => Path::new(env!("CARGO_MANIFEST_DIR")),
    }
}

/// Where cargo puts what it builds in a profile: beside the directory this binary was put in,
/// whatever the configuration and the environment say about it.
pub(crate) fn built(profile: &str) -> Outcome<PathBuf> {
    let binary = std::env::current_exe().map_err(|error| format!("this binary: {error}"))?;
    let target = binary.parent().and_then(Path::parent);
    target.map(|target| target.join(profile)).ok_or_else(|| "no target directory".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkout_that_runs_goes_before_the_one_that_compiled() {
        let compiled = env!("CARGO_MANIFEST_DIR");
        for (name, directory, expected) in [
            (Some("xtask"), Some("/other/xtask"), "/other/xtask"),
            (Some("another"), Some("/other/package"), compiled),
            (None, Some("/other/xtask"), compiled),
            (Some("xtask"), None, compiled),
        ] {
            let (name, directory) = (name.map(OsStr::new), directory.map(OsStr::new));
            assert_eq!(package(name, directory), Path::new(expected), "{name:?} {directory:?}");
        }
    }
}

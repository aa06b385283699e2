//! What the process's surroundings say: where a host lives by default, and the variables that are
//! meant for it. The decision is a pure function of what was read.

use std::path::PathBuf;

use super::error::ConfigError;
use super::variables::PREFIX;

/// Where root's host lives, and that of a user without a home.
const SYSTEM_HOME: &str = "/var/lib/privatix";

/// The host's home directory where neither `--home` nor `PRIVATIX_HOME` names one:
/// `/var/lib/privatix` for root, else `privatix` in the user's data directory.
pub fn default_home() -> PathBuf {
    home_of(
        nix::unistd::geteuid().is_root(),
        std::env::var_os("XDG_DATA_HOME").map(PathBuf::from),
        std::env::home_dir(),
    )
}

/// The XDG specification has relative paths ignored.
fn home_of(root: bool, xdg_data_home: Option<PathBuf>, user_home: Option<PathBuf>) -> PathBuf {
    if root {
        return PathBuf::from(SYSTEM_HOME);
    }
    xdg_data_home
        .filter(|path| path.is_absolute())
        .or_else(|| Some(user_home.filter(|path| path.is_absolute())?.join(".local/share")))
        .map_or_else(|| PathBuf::from(SYSTEM_HOME), |data| data.join("privatix"))
}

/// The `PRIVATIX_…` variables of this process, for [`super::Config::load`]. Others need not be
/// UTF-8, which [`std::env::vars`] would panic about.
///
/// # Errors
/// [`ConfigError::VariableNotUtf8`].
pub fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    std::env::vars_os()
        .filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        .map(|(name, value)| match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => Ok((name, value)),
            (Ok(variable), Err(_)) => Err(ConfigError::VariableNotUtf8 { variable }),
            (Err(name), _) => {
                let variable = name.to_string_lossy().into_owned();
                Err(ConfigError::VariableNotUtf8 { variable })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_home_depends_on_the_user() {
        for (root, xdg, home, expected) in [
            (true, Some("/data"), Some("/root"), "/var/lib/privatix"),
            (false, Some("/data"), Some("/home/a"), "/data/privatix"),
            (false, Some("data"), Some("/home/a"), "/home/a/.local/share/privatix"),
            (false, Some(""), Some("/home/a"), "/home/a/.local/share/privatix"),
            (false, None, Some("/home/a"), "/home/a/.local/share/privatix"),
            (false, None, Some(""), "/var/lib/privatix"),
            (false, None, None, "/var/lib/privatix"),
        ] {
            let found = home_of(root, xdg.map(PathBuf::from), home.map(PathBuf::from));
            assert_eq!(found, PathBuf::from(expected), "{root} {xdg:?} {home:?}");
        }
    }
}

//! `privatix init`.
//!
//! It may be interrupted at any point, and made again then: each file is there whole or not at all, and
//! with the last one, the configuration, the host is there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use privatix_plugin_api::files;
use privatix_plugin_api::manifest::Role;

use super::output;
use privatix_base::config;
use privatix_domain::identity::Identity;
use privatix_exchange::identity;

/// Creates a host. What exists is not changed.
pub(super) fn init(
    home: &Path,
    role: Role,
    import: Option<&Path>,
    export: Option<&Path>,
) -> anyhow::Result<()> {
    let path = home.join(config::FILE_NAME);
    if path.symlink_metadata().is_ok() && !is_cut(&path) {
        bail!("{} exists already; nothing was changed", path.display());
    }
    let plugins = home.join("plugins");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&plugins)
        .with_context(|| format!("making {}", plugins.display()))?;
    let identity = identity_of(home, import)?;
    if let Some(path) = export {
        put(path, &identity)?;
    }
    let written = match is_cut(&path) {
        true => files::replace(&path, config::default_file(role).as_bytes()),
        false => files::create(&path, config::default_file(role).as_bytes()),
    };
    written.with_context(|| format!("writing {}", path.display()))?;
    output::text(&format!(
        "Created {article} {role} host in {home}\n\
         \n\
         configuration  {path}\n\
         modules        {plugins}\n\
         \n\
         To start it: privatix --home {home} run",
        article = if role == Role::Agent { "an" } else { "a" },
        home = home.display(),
        path = path.display(),
        plugins = plugins.display(),
    ))
}

/// The identity that is there, since others know it; else the imported one, else a new one.
fn identity_of(home: &Path, import: Option<&Path>) -> anyhow::Result<Identity> {
    let path = home.join(identity::FILE_NAME);
    if identity::is_cut(&path) {
        put_aside(&path)?;
    }
    if path.exists() && import.is_none() {
        return Ok(identity::read(&path)?);
    }
    let identity = match import {
        Some(path) => identity::read(path)?,
        None => identity::generate()?,
    };
    put(&path, &identity)?;
    Ok(identity)
}

/// Writes an identity, unless the same one is there already.
fn put(path: &Path, identity: &Identity) -> anyhow::Result<()> {
    let same = |known: Identity| known.to_json() == identity.to_json();
    match identity::write(path, identity) {
        Err(identity::IdentityFileError::Exists(_)) if identity::read(path).is_ok_and(same) => {
            Ok(())
        }
        written => Ok(written?),
    }
}

/// Only an older version can have left a part of an identity. It holds the beginning of keys, so it
/// is not removed.
fn put_aside(path: &Path) -> anyhow::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".cut");
    let aside = PathBuf::from(aside);
    let what = || format!("moving the cut {} to {}", path.display(), aside.display());
    if aside.symlink_metadata().is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).with_context(what);
    }
    fs::rename(path, &aside).with_context(what)
}

/// Whether it is the beginning of a configuration that an older version did not write to its end.
fn is_cut(path: &Path) -> bool {
    let Ok(text) = fs::read_to_string(path) else { return false };
    let begins = |role| {
        let whole = config::default_file(role);
        text.len() < whole.len() && whole.starts_with(&text)
    };
    begins(Role::Agent) || begins(Role::Client)
}

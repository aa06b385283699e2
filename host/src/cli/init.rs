//! `privatix init`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use privatix_plugin_api::manifest::Role;

use super::output;
use crate::config;
use crate::domain::identity::Identity;
use crate::exchange::identity;

/// Makes a node; nothing that is there is changed.
pub(super) fn init(
    home: &Path,
    role: Role,
    import: Option<&Path>,
    export: Option<&Path>,
) -> anyhow::Result<()> {
    let path = home.join(config::FILE_NAME);
    if path.exists() {
        bail!("{} is there already; nothing was changed", path.display());
    }
    let plugins = home.join("plugins");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&plugins)
        .with_context(|| format!("making {}", plugins.display()))?;
    let identity = identity_of(home, import)?;
    if let Some(path) = export {
        identity::write(path, &identity)?;
    }
    // Last: with it, the node is there.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = file.with_context(|| format!("making {}", path.display()))?;
    let written = file.write_all(config::default_file(role).as_bytes());
    written.with_context(|| format!("writing {}", path.display()))?;
    output::text(&format!(
        "Made a node that is {role} in {home}\n\
         \n\
         configuration  {path}\n\
         drop modules into  {plugins}\n\
         run it with  privatix --home {home} run",
        home = home.display(),
        path = path.display(),
        plugins = plugins.display(),
    ))
}

/// The identity that is there, since others know it; else the imported one, else a new one.
fn identity_of(home: &Path, import: Option<&Path>) -> anyhow::Result<Identity> {
    let path = home.join(identity::FILE_NAME);
    if path.exists() && import.is_none() {
        return Ok(identity::read(&path)?);
    }
    let identity = match import {
        Some(path) => identity::read(path)?,
        None => identity::generate()?,
    };
    identity::write(&path, &identity)?;
    Ok(identity)
}

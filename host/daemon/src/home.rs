//! What has to be true of a home directory before a host runs in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use privatix_plugin_api::manifest::Role;

use privatix_base::config;
use privatix_domain::identity::PublicKey;
use privatix_exchange::identity;
use privatix_modules::package::ownership;
use privatix_store::{Fault, Store, StoreError};

/// Who can change the home, its configuration or its identity is the host: nobody else may.
///
/// # Errors
/// What others can write, or what belongs to somebody else; how to mend it.
pub fn check(home: &Path) -> anyhow::Result<()> {
    for path in [home.to_owned(), home.join(config::FILE_NAME), home.join(identity::FILE_NAME)] {
        check_owner(&path)?;
    }
    Ok(())
}

/// A file that does not exist is not refused here: the step that needs it reports it.
fn check_owner(path: &Path) -> anyhow::Result<()> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta.with_context(|| format!("looking at {}", path.display()))?,
    };
    match ownership(&meta, path) {
        None => Ok(()),
        Some(problem) => bail!("{}", problem.refusal()),
    }
}

/// Opens the database, and says what is wrong with its files where it cannot.
///
/// # Errors
/// As [`Store::open`]; files that belong to somebody else.
pub async fn open_database(path: &Path) -> anyhow::Result<Store> {
    for file in files(path) {
        check_owner(&file)?;
    }
    match Store::open(path).await {
        Ok(store) => Ok(store),
        Err(error) => {
            let hint = hint(path, &error);
            Err(error).with_context(|| format!("the database {}{hint}", path.display()))
        }
    }
}

/// The database and what SQLite has beside it.
fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        name.into()
    })
}

/// What to do about a database that cannot be opened.
fn hint(path: &Path, error: &StoreError) -> String {
    let fault = error.fault();
    let advice = match fault {
        Fault::ReadOnly | Fault::Unopenable => {
            let user = nix::unistd::geteuid();
            let shown = path.display();
            format!("the host runs as user {user}, who must own it. Run: chown {user} {shown}*")
        }
        Fault::Full => "make room and start the host again".to_owned(),
        Fault::Busy => "end the other program and start the host again".to_owned(),
        Fault::Corrupt => "put a backup in its place".to_owned(),
        Fault::Newer => "use the version of the host that wrote it, or a newer one".to_owned(),
        Fault::Io | Fault::Memory | Fault::Replaced | Fault::Other => return String::new(),
    };
    format!(" cannot be used: {fault}; {advice}")
}

/// A database belongs to one identity and one role for good: channels, cheques and credentials in
/// it mean nothing to another.
///
/// # Errors
/// When it is another's; nothing is changed then.
pub(crate) async fn claim_database(
    store: &Store,
    path: &Path,
    key: &PublicKey,
    role: Role,
) -> anyhow::Result<()> {
    let shown = path.display();
    let mut txn = store.begin().await?;
    let owner = txn.note_once("identity", &key.to_string()).await?;
    if owner != key.to_string() {
        bail!(
            "the database {shown} belongs to another identity, with the signing key {owner}; {} \
             has {key}. Put the identity that belongs to the database back, or give the other \
             one a home of its own: privatix --home DIR init --import FILE",
            identity::FILE_NAME
        );
    }
    let noted = txn.note_once("role", role.as_str()).await?;
    if noted != role.as_str() {
        bail!(
            "the database {shown} belongs to a host with role = \"{noted}\", and {} says role = \
             \"{role}\". Set role = \"{noted}\", or give the {role} a home of its own: privatix --home DIR init --role \
             {role}",
            config::FILE_NAME
        );
    }
    txn.commit().await?;
    Ok(())
}

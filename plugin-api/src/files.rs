//! Files that are there whole or not at all, also after a crash or a loss of power.
//!
//! The content is written to a hidden file beside the place, put on disk, moved to the place, and the
//! move put on disk. Only the file's owner can read it unless other permissions are asked for.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// The end of a file's name that is not whole yet.
const PART: &str = ".part";

/// Makes a file; what an interrupted attempt has left of it beside the place is removed.
///
/// # Errors
/// `AlreadyExists` where there is something, which is not touched; else when it cannot be written.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = NewFile::begin(path)?;
    file.write_all(content)?;
    file.finish()
}

/// A file that is made piece by piece. Without [`NewFile::finish`] there is none.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    part: NamedTempFile,
}

impl NewFile {
    /// Begins to make a file.
    ///
    /// # Errors
    /// `AlreadyExists` where there is something; else when it cannot be written there.
    pub fn begin(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(Self { path: path.to_owned(), part: part(path, None)? })
    }

    /// Puts it on disk and in its place; what an interrupted attempt has left of it beside the place is
    /// removed.
    ///
    /// # Errors
    /// `AlreadyExists` where there is something by now, which is not touched; else when it cannot be
    /// written.
    pub fn finish(self) -> io::Result<()> {
        let Self { path, part } = self;
        part.as_file().sync_all()?;
        part.persist_noclobber(&path).map_err(|error| error.error)?;
        for entry in fs::read_dir(parent(&path))?.flatten() {
            if is_part_of(&entry.file_name(), &path) {
                // It is in nobody's way.
                let _ = fs::remove_file(entry.path());
            }
        }
        sync(&path)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.part.flush()
    }
}

/// Writes a file in place of the one that is there, if one is.
///
/// # Errors
/// When it cannot be written; the old one stays then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    written(path, content, None)?.persist(path).map_err(|error| error.error)?;
    sync(path)
}

/// The same, with these permissions.
///
/// # Errors
/// As [`replace`].
pub fn replace_with(path: &Path, content: &[u8], permissions: Permissions) -> io::Result<()> {
    written(path, content, Some(permissions))?.persist(path).map_err(|error| error.error)?;
    sync(path)
}

/// The content beside its place, on disk.
fn written(
    path: &Path,
    content: &[u8],
    permissions: Option<Permissions>,
) -> io::Result<NamedTempFile> {
    let mut file = part(path, permissions.clone())?;
    file.write_all(content)?;
    if let Some(permissions) = permissions {
        // The process's mask has taken some away.
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    Ok(file)
}

/// A file beside a place, for what is to be there.
fn part(path: &Path, permissions: Option<Permissions>) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    let prefix = prefix(path);
    builder.prefix(&prefix).suffix(PART);
    builder.permissions(permissions.unwrap_or_else(|| Permissions::from_mode(0o600)));
    builder.tempfile_in(parent(path))
}

/// Has the name on disk as well.
fn sync(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

fn is_part_of(name: &OsString, path: &Path) -> bool {
    let (name, prefix) = (name.as_encoded_bytes(), prefix(path));
    name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(PART.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(place: &Path) -> Vec<String> {
        let entries = fs::read_dir(place).expect("readable");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
        let mut names: Vec<_> = names.map(|name| name.expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn new_file_appears_when_it_is_finished() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("cheques.json");
        let mut file = NewFile::begin(&path).expect("begun");
        for piece in ["[", "1", "]"] {
            file.write_all(piece.as_bytes()).expect("written");
            assert!(!path.exists());
        }
        drop(NewFile::begin(&path).expect("another, given up"));
        file.finish().expect("finished");
        assert_eq!(fs::read(&path).expect("readable"), b"[1]");
        assert_eq!(names(place.path()), ["cheques.json"]);
        NewFile::begin(&path).expect_err("it is there");
    }

    #[test]
    fn a_file_is_made_once_and_what_was_left_of_it_goes() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("identity.json");
        for left in [".identity.json.k3Gz.part", ".other.json.k3Gz.part", "identity.json.part"] {
            fs::write(place.path().join(left), "half").expect("written");
        }
        create(&path, b"whole").expect("made");
        let error = create(&path, b"another").expect_err("it is there");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("readable"), b"whole");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let expected = [".other.json.k3Gz.part", "identity.json", "identity.json.part"];
        assert_eq!(names(place.path()), expected);
    }

    #[test]
    fn a_dangling_link_is_something_that_is_there() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("link");
        std::os::unix::fs::symlink("nowhere", &path).expect("linked");
        let error = create(&path, b"x").expect_err("it is there");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(place.path()), ["link"]);
    }

    #[test]
    fn a_file_is_replaced_or_stays_as_it_was() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("journal.json");
        replace(&path, b"first").expect("made");
        replace_with(&path, b"second", Permissions::from_mode(0o664)).expect("replaced");
        assert_eq!(fs::read(&path).expect("readable"), b"second");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o664);
        // A directory cannot be replaced by a file.
        let directory = place.path().join("directory");
        fs::create_dir(&directory).expect("made");
        replace(&directory, b"x").expect_err("a directory");
        replace(&place.path().join("missing").join("x"), b"x").expect_err("no directory");
        assert_eq!(names(place.path()), ["directory", "journal.json"]);
    }
}

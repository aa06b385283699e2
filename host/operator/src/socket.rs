//! The Unix socket: never open to anybody else, not even for a moment.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use tokio::net::UnixListener;

/// The longest path a Unix socket can have, in bytes.
const MAX_PATH: usize = 107;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into a socket address.
    #[error("the socket's path {0:?} is longer than {MAX_PATH} bytes; set a shorter one (socket)")]
    TooLong(String),
    /// It cannot be made.
    #[error("making the socket {path}")]
    Make {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listens at a path; what an earlier process left there is replaced.
///
/// # Errors
/// [`SocketError`].
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let shown = || path.display().to_string();
    if path.as_os_str().len() > MAX_PATH {
        return Err(SocketError::TooLong(shown()));
    }
    bind(path).map_err(|source| SocketError::Make { path: shown(), source })
}

/// Made in a directory that nobody else can enter, then moved to its place.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.file_type().is_socket()) {
        return Err(io::Error::other("something else is there, and is not replaced"));
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    let private = tempfile::Builder::new().prefix(".s").rand_bytes(4).tempdir_in(parent)?;
    let made = private.path().join("s");
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    fs::rename(&made, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_its_owner_can_open_it_and_a_stale_one_is_replaced() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("privatix.sock");
        drop(listen(&path).expect("listening"));
        let _listener = listen(&path).expect("listening again");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        tokio::net::UnixStream::connect(&path).await.expect("connected");
        assert_eq!(fs::read_dir(home.path()).expect("readable").count(), 1);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_not_replaced() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("identity.json");
        fs::write(&path, "precious").expect("written");
        listen(&path).expect_err("a file is there");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "precious");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_named() {
        let error = listen(Path::new(&format!("/tmp/{}", "x".repeat(120)))).expect_err("too long");
        assert!(error.to_string().contains("longer than 107 bytes"), "{error}");
    }
}

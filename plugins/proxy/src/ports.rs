//! The local port of each channel, remembered in `channels/<channel>.json` of the data directory:
//! programs are set up with it once, so it has to be the same after a restart.
//!
//! The file is also where a person or program looks the port up: `{"socks5": "127.0.0.1:PORT"}`.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use privatix_plugin_api::files;
use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    socks5: SocketAddr,
}

/// A port that could not be had, or not be remembered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    #[error("listening on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("writing {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The remembered ports.
#[derive(Debug)]
pub(crate) struct Ports {
    directory: PathBuf,
}

impl Ports {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { directory: data_dir.join("channels") }
    }

    /// Listens for a channel: on the wanted port if one is, else on the one remembered, else on
    /// any.
    pub(crate) async fn listen(
        &self,
        channel: ClientKey,
        wanted: SocketAddr,
    ) -> Result<(TcpListener, SocketAddr), PortError> {
        let listener = match self.remembered(channel, wanted).await {
            Some(listener) => listener,
            None => TcpListener::bind(wanted).await.map_err(|e| unable(wanted, e))?,
        };
        let address = listener.local_addr().map_err(|e| unable(wanted, e))?;
        self.remember(channel, address)?;
        Ok((listener, address))
    }

    /// Forgets a channel that is over.
    pub(crate) fn forget(&self, channel: ClientKey) {
        // What is not there is forgotten.
        let _ = fs::remove_file(self.path(channel));
    }

    async fn remembered(&self, channel: ClientKey, wanted: SocketAddr) -> Option<TcpListener> {
        if wanted.port() != 0 {
            return None;
        }
        let text = fs::read(self.path(channel)).ok()?;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        let address = SocketAddr::new(wanted.ip(), entry.socks5.port());
        let listener = TcpListener::bind(address).await;
        let taken = |error: io::Error| {
            tracing::warn!(%channel, %address, %error, "the channel gets another port");
        };
        listener.map_err(taken).ok()
    }

    fn remember(&self, channel: ClientKey, socks5: SocketAddr) -> Result<(), PortError> {
        let path = self.path(channel);
        self.write(&path, &Entry { socks5 }).map_err(|source| PortError::Write { path, source })
    }

    /// Nobody reads half of it.
    fn write(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        files::replace(path, format!("{}\n", serde_json::to_string(entry)?).as_bytes())
    }

    fn path(&self, channel: ClientKey) -> PathBuf {
        self.directory.join(format!("{channel}.json"))
    }
}

fn unable(address: SocketAddr, source: io::Error) -> PortError {
    PortError::Listen { address, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";

    #[tokio::test]
    async fn a_port_is_remembered_unless_it_is_taken_or_another_is_wanted() {
        let home = tempfile::tempdir().expect("a directory");
        let ports = Ports::new(home.path());
        let channel = KEY.parse().expect("a UUID");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let (listener, first) = ports.listen(channel, any).await.expect("a port");
        let path = home.path().join(format!("channels/{KEY}.json"));
        let text = fs::read_to_string(&path).expect("written");
        assert_eq!(text, format!("{{\"socks5\":\"{first}\"}}\n"));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

        let (other, second) = ports.listen(channel, any).await.expect("another port");
        assert_ne!(first, second);
        drop((listener, other));
        let (again, third) = ports.listen(channel, any).await.expect("the last port");
        assert_eq!(second, third);
        assert!(ports.listen(channel, third).await.is_err(), "a wanted port is taken");
        drop(again);
        let (_wanted, fourth) = ports.listen(channel, first).await.expect("the wanted port");
        assert_eq!(first, fourth);
        ports.forget(channel);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_damaged_file_is_replaced() {
        let home = tempfile::tempdir().expect("a directory");
        let ports = Ports::new(home.path());
        let channel = KEY.parse().expect("a UUID");
        fs::create_dir(home.path().join("channels")).expect("made");
        let path = home.path().join(format!("channels/{KEY}.json"));
        for text in ["", "{", "[]", "{\"socks5\":7}", "\u{0}"] {
            fs::write(&path, text).expect("written");
            let any = "127.0.0.1:0".parse().expect("an address");
            let (_listener, address) = ports.listen(channel, any).await.expect("a port");
            let entry: Entry =
                serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
            assert_eq!(entry.socks5, address);
        }
    }
}

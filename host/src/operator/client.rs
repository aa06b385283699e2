//! The command line's end of the operator's socket.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::service::Refused;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no host is running here (start it with: privatix run); its socket {path}")]
    NotRunning {
        /// The socket.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket is another user's.
    #[error("the host's socket {path} is not yours to open")]
    NotYours {
        /// The socket.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host refused.
    #[error("{0}")]
    Refused(Refused),
    /// The conversation broke off.
    #[error("talking to the host")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A host to talk to.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The host behind a socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Request::get(path), Vec::new()).await
    }

    /// Has something done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        self.send(Request::post(path).header("content-type", "application/json"), body).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: Builder,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Drives the conversation; what goes wrong with it is seen at the request.
        tokio::spawn(connection);
        let request = request.header("host", "privatix").body(Full::new(Bytes::from(body)));
        let request = request.map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(broken);
        }
        Err(ClientError::Refused(serde_json::from_slice(&body).map_err(broken)?))
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let path = self.socket.display().to_string();
        if source.kind() == io::ErrorKind::PermissionDenied {
            return ClientError::NotYours { path, source };
        }
        ClientError::NotRunning { path, source }
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> ClientError {
    ClientError::Broken(Box::new(error))
}

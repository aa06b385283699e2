//! The command line's end of the operator's socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use privatix_core::Refused;

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
    /// The host's process is there and does nothing.
    #[error(
        "the host does not answer: {request} was not answered within {seconds} s. Its process may be \
         stopped, overloaded or wait for its disk: see its log, and restart it if it stays so{}",
        if *changes { ". It may still do what was asked: look before you ask again" } else { "" }
    )]
    NoAnswer {
        /// What was asked.
        request: String,
        /// For how long.
        seconds: u64,
        /// Whether something was to be changed.
        changes: bool,
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
    /// How long an answer is waited for that takes longer than others.
    patience: Option<Duration>,
}

/// How soon a connection is tried again for which there was no room.
const AGAIN: Duration = Duration::from_millis(50);

/// How long the answer to a question is waited for.
const QUESTION: Duration = Duration::from_secs(20);

/// The same where something has to be done, for which a write may have to wait for its turn.
const DEED: Duration = Duration::from_secs(60);

impl Client {
    /// The host behind a socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), patience: None }
    }

    /// The same host, asked for something that may take this long.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.in_time(QUESTION, false, path, self.send(Request::get(path), Vec::new())).await
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
        let request = Request::post(path).header("content-type", "application/json");
        self.in_time(DEED, true, path, self.send(request, body)).await
    }

    async fn in_time<T>(
        &self,
        usual: Duration,
        changes: bool,
        path: &str,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let patience = self.patience.unwrap_or(usual);
        tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| {
            let (request, seconds) = (path.to_owned(), patience.as_secs());
            Err(ClientError::NoAnswer { request, seconds, changes })
        })
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: Builder,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let stream = self.connect().await.map_err(|e| self.unreachable(e))?;
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

    async fn connect(&self) -> io::Result<UnixStream> {
        loop {
            match UnixStream::connect(&self.socket).await {
                // Others wait for the host already, as many as the system lets wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(AGAIN).await;
                }
                connected => return connected,
            }
        }
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

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_that_does_not_answer_is_not_waited_for_for_ever() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("s");
        // The system takes connections; nobody ever reads from them.
        let _listener = UnixListener::bind(&path).expect("bound");
        let client = Client::new(&path);
        let question = client.get::<()>("/v1/modules").await.expect_err("no answer");
        let deed = client.post::<()>("/v1/orders", &()).await.expect_err("no answer");
        let long = client.patient(Duration::from_secs(300));
        let long = long.post::<()>("/v1/offerings/fetch", &()).await.expect_err("no answer");
        for (error, seconds, changes) in
            [(question, 20, false), (deed, 60, true), (long, 300, true)]
        {
            let text = error.to_string();
            assert!(text.starts_with("the host does not answer: /v1/"), "{text}");
            assert!(text.contains(&format!("within {seconds} s")), "{text}");
            assert_eq!(text.contains("It may still do what was asked"), changes, "{text}");
        }
    }
}

//! The client's calls to an agent: bounded in size and time, without redirects.

use std::time::Duration;

use privatix_plugin_api::json;
use privatix_plugin_api::message::ClientKey;
use reqwest::{Response, StatusCode, redirect};
use rustls::ClientConfig;
use serde_json::Value;
use uuid::Uuid;

use super::MAX_BODY;
use privatix_base::clock;
use privatix_core::{OfferingPage, Refused};
use privatix_domain::time::Heard;
use privatix_tls::explain;

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// How many pages of offerings are followed.
const MAX_PAGES: usize = 20;

/// What an agent offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Offerings {
    /// The messages.
    pub messages: Vec<Value>,
    /// Whether that is all of it.
    pub all: bool,
    /// What the agent's clock said.
    pub time: Option<Heard>,
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The agent refused, as it says; the whole message may be signed.
    #[error("the agent refused: {0}")]
    Refused(Refused, Value),
    /// The agent was not reached, or broke off.
    #[error("the agent at {url} was not reached")]
    Unreached {
        /// Where it should be.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The agent was reached, but not in secret.
    #[error("the agent at {url} was not reached by TLS: {why}")]
    Tls {
        /// Where it should be.
        url: String,
        /// What is the matter, in words.
        why: String,
    },
    /// An answer that is none.
    #[error("the agent's answer cannot be used: {0}")]
    Answer(String),
}

impl PeerError {
    /// Whether all calls to this agent will fail for now.
    pub fn is_unreached(&self) -> bool {
        matches!(self, Self::Unreached { .. } | Self::Tls { .. })
    }
}

fn unreached(url: &str, source: reqwest::Error) -> PeerError {
    match explain(&source) {
        Some(why) => PeerError::Tls { url: url.to_owned(), why },
        // The address is said already.
        None => PeerError::Unreached { url: url.to_owned(), source: source.without_url() },
    }
}

/// Makes calls to agents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peer {
    http: reqwest::Client,
}

impl Peer {
    /// A caller who believes agents with TLS as it is said.
    ///
    /// # Errors
    /// When the system gives no networking.
    pub fn new(trust: ClientConfig) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(trust)
            .redirect(redirect::Policy::none())
            .timeout(DEADLINE)
            .no_proxy()
            .build()?;
        Ok(Self { http })
    }

    /// The offerings at an agent's URL, as they are: nothing is checked.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn offerings(&self, exchange: &str) -> Result<Offerings, PeerError> {
        let mut found = Offerings { messages: Vec::new(), all: true, time: None };
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let (page, time) = self.offering_page(exchange, after.as_deref()).await?;
            found.time = found.time.or(time);
            found.messages.extend(page.offerings);
            let Some(next) = page.next else { return Ok(found) };
            // An agent's pages have to come to an end.
            if after.is_some_and(|after| next <= after) {
                return Err(PeerError::Answer("its pages of offerings do not go on".into()));
            }
            after = Some(next);
        }
        found.all = false;
        Ok(found)
    }

    /// What an agent's clock says; `None` from one that does not say it.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn time(&self, exchange: &str) -> Result<Option<Heard>, PeerError> {
        // As little as there is of what comes with it.
        let last = "f".repeat(64);
        Ok(self.offering_page(exchange, Some(&last)).await?.1)
    }

    async fn offering_page(
        &self,
        exchange: &str,
        after: Option<&str>,
    ) -> Result<(OfferingPage, Option<Heard>), PeerError> {
        let nonce = Uuid::new_v4();
        let mut url = format!("{exchange}/v1/offerings?nonce={nonce}");
        if let Some(after) = after {
            if after.is_empty() || !after.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(PeerError::Answer("its next page of offerings is no hash".into()));
            }
            url = format!("{url}&after={after}");
        }
        let asked = clock::wall_now();
        let sent = self.http.get(&url).send().await;
        let response = sent.map_err(|source| unreached(&url, source))?;
        let page = answer(&url, response).await?.and_then(|page| serde_json::from_value(page).ok());
        let mut page: OfferingPage =
            page.ok_or_else(|| PeerError::Answer("no list of offerings".into()))?;
        let answered = clock::wall_now();
        let time = page.time.take().map(|message| Heard { message, nonce, asked, answered });
        Ok((page, time))
    }

    /// Sends an order; `None` while the agent's operator has not decided.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn order(&self, exchange: &str, order: &Value) -> Result<Option<Value>, PeerError> {
        self.post(format!("{exchange}/v1/orders"), order).await
    }

    /// Sends the cancellation of an order; returns the final answer to the order.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn cancel(&self, exchange: &str, cancel: &Value) -> Result<Value, PeerError> {
        let answer = self.post(format!("{exchange}/v1/orders/cancel"), cancel).await?;
        answer.ok_or_else(|| PeerError::Answer("no body".into()))
    }

    /// Sends a signed request about a channel.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn channel(
        &self,
        exchange: &str,
        channel: ClientKey,
        what: &str,
        request: &Value,
    ) -> Result<Value, PeerError> {
        let answer = self.post(format!("{exchange}/v1/channels/{channel}/{what}"), request).await?;
        answer.ok_or_else(|| PeerError::Answer("no body".into()))
    }

    /// Sends a cheque to where it is taken; returns the receipt.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn pay(&self, receiver: &str, cheque: &Value) -> Result<Value, PeerError> {
        let answer = self.post(receiver.to_owned(), cheque).await?;
        answer.ok_or_else(|| PeerError::Answer("no receipt".into()))
    }

    async fn post(&self, url: String, message: &Value) -> Result<Option<Value>, PeerError> {
        let request = self.http.post(&url).body(message.to_string());
        let sent = request.header("content-type", "application/json").send().await;
        let response = sent.map_err(|source| unreached(&url, source))?;
        answer(&url, response).await
    }
}

async fn answer(url: &str, mut response: Response) -> Result<Option<Value>, PeerError> {
    let status = response.status();
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|source| unreached(url, source))?;
        let Some(chunk) = chunk else { break };
        if body.len() + chunk.len() > MAX_BODY {
            return Err(PeerError::Answer(format!("more than {MAX_BODY} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    match status {
        StatusCode::ACCEPTED => Ok(None),
        StatusCode::OK => {
            json::parse(&body).map(Some).map_err(|error| PeerError::Answer(error.to_string()))
        }
        status => {
            let message = json::parse(&body).ok();
            let refused = message.and_then(|m| Some((serde_json::from_value(m.clone()).ok()?, m)));
            Err(match refused {
                Some((refused, message)) => PeerError::Refused(Refused::clipped(refused), message),
                None => PeerError::Answer(format!("HTTP status {status}")),
            })
        }
    }
}

//! A visit to an agent: one errand after the other, until all are run or the agent is not reached.

use privatix_plugin_api::message::ClientKey;
use serde_json::Value;

use super::peer::{Peer, PeerError};
use privatix_core::{ClientApi, Followed, Obstacle, Refused};
use privatix_domain::code::Code;
use privatix_domain::signed::Kind;
use privatix_domain::time::complaint;

/// Something to be done at an agent.
pub(super) enum Errand {
    /// An order that has no answer.
    Order {
        /// Its hash.
        hash: String,
        /// The signed message.
        message: Value,
    },
    /// An order that was cancelled here, which the agent has to be told.
    Cancel {
        /// The order's hash.
        hash: String,
        /// The signed cancellation.
        message: Value,
    },
    /// A channel to be asked about, or that was ended here.
    Channel(Followed),
}

impl Errand {
    /// What its turns are counted by. To end a channel is another errand than to ask about it, so that
    /// it does not wait for that one's turn; but it has turns.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Channel(followed) if followed.ended => format!("end of {}", followed.channel),
            Self::Cancel { hash, .. } => format!("end of {hash}"),
            _ => self.subject(),
        }
    }

    /// What the caller asks for: the order or the channel.
    fn subject(&self) -> String {
        match self {
            Self::Order { hash, .. } | Self::Cancel { hash, .. } => hash.clone(),
            Self::Channel(followed) => followed.channel.to_string(),
        }
    }
}

pub(super) struct Visit {
    pub(super) client: ClientApi,
    pub(super) peer: Peer,
    /// The agent's URL.
    pub(super) exchange: String,
    pub(super) errands: Vec<Errand>,
}

/// A visit that is over.
pub(super) struct Visited {
    /// The agent's URL.
    pub(super) exchange: String,
    /// Names of the errands, and whether each was run with success.
    pub(super) errands: Vec<(String, bool)>,
}

/// Why something was not done.
enum Trouble {
    /// The agent was not reached, nor will it be for the other errands.
    Away(String),
    /// The agent says that the request is too old, or of the future.
    Stale(String),
    /// Anything else.
    Other(String),
}

impl From<PeerError> for Trouble {
    fn from(error: PeerError) -> Self {
        let why = privatix_plugin_api::chain(&error);
        match error {
            PeerError::Refused(refused, _) if refused.code == Code::StaleRequest => {
                Self::Stale(why)
            }
            error if error.is_unreached() => Self::Away(why),
            _ => Self::Other(why),
        }
    }
}

impl From<Refused> for Trouble {
    fn from(error: Refused) -> Self {
        Self::Other(error.to_string())
    }
}

impl Visit {
    pub(super) async fn run(self) -> Visited {
        let (mut away, mut errands) = (None, Vec::with_capacity(self.errands.len()));
        for errand in &self.errands {
            let outcome = match &away {
                None => self.errand(errand).await,
                Some(why) => Err(Trouble::Away(String::clone(why))),
            };
            errands.push((errand.name(), outcome.is_ok()));
            if let Err(trouble) = outcome {
                let (obstacle, why) = match trouble {
                    Trouble::Away(why) => (Obstacle::Unreached, &*away.insert(why)),
                    Trouble::Stale(ref why) | Trouble::Other(ref why) => (Obstacle::NotNow, why),
                };
                tracing::debug!(errand = errand.name(), why, "not done at the agent");
                self.client.progress_note(&errand.subject(), obstacle, why.clone());
            }
        }
        Visited { exchange: self.exchange, errands }
    }

    async fn errand(&self, errand: &Errand) -> Result<(), Trouble> {
        match errand {
            Errand::Order { hash, message } => self.order(hash, message).await,
            Errand::Cancel { hash, message } => {
                let answer = self.peer.cancel(&self.exchange, message).await?;
                Ok(self.client.cancel_answered(hash, &answer).await?)
            }
            Errand::Channel(followed) => {
                self.follow(followed).await?;
                self.client.progress_clear(&errand.subject());
                Ok(())
            }
        }
    }

    async fn order(&self, hash: &str, message: &Value) -> Result<(), Trouble> {
        match self.peer.order(&self.exchange, message).await {
            Ok(Some(reply)) => {
                self.client.order_replied(hash, &reply).await.inspect_err(|error| {
                    tracing::error!(order = hash, %error, "the agent's reply was refused");
                })?;
                Ok(())
            }
            Ok(None) => {
                let text = "the agent's operator has to decide".to_owned();
                self.client.progress_note(hash, Obstacle::Deciding, text);
                Ok(())
            }
            Err(error) => {
                if let PeerError::Refused(_, message) = &error {
                    match self.client.order_refused(hash, message).await {
                        Ok(()) => return Ok(()),
                        // Not the agent's word, or not its last one.
                        Err(why) => tracing::debug!(order = hash, %why, "not refused for good"),
                    }
                }
                Err(error.into())
            }
        }
    }

    async fn follow(&self, followed: &Followed) -> Result<(), Trouble> {
        let channel = followed.channel;
        let (what, kind) = if followed.ended {
            ("terminate", Kind::TerminateRequest)
        } else {
            ("account", Kind::AccountRequest)
        };
        let account = match self.ask(channel, what, kind).await {
            Err(Trouble::Stale(why)) => return Err(self.clocks(channel, why).await),
            account => account?,
        };
        let newer = self.client.account_received(channel, &account).await?;
        if newer || (followed.serial == 0 && !followed.ended) {
            let envelope = self.ask(channel, "access", Kind::AccessRequest).await?;
            self.client.access_received(channel, &envelope).await.inspect_err(|error| {
                tracing::error!(%channel, %error, "an access message was refused");
            })?;
        }
        Ok(())
    }

    /// What the matter is with a request that was not of now: what the agent's clock says, signed.
    async fn clocks(&self, channel: ClientKey, why: String) -> Trouble {
        let agent = self.client.agent_of(channel).await;
        let heard = self.peer.time(&self.exchange).await;
        let (Ok(agent), Ok(Some(heard))) = (agent, heard) else { return Trouble::Other(why) };
        Trouble::Other(heard.ahead(&agent).and_then(complaint).unwrap_or(why))
    }

    async fn ask(&self, channel: ClientKey, what: &str, kind: Kind) -> Result<Value, Trouble> {
        let request = self.client.request_make(kind, channel)?;
        Ok(self.peer.channel(&self.exchange, channel, what, &request).await?)
    }
}

//! A core that keeps a book of its channels and of what is done to them.
//!
//! It answers at once. The book can be changed and waited for.

use std::sync::Arc;
use std::time::Duration;

use abi_stable::erased_types::TD_Opaque;
use privatix_plugin_api::abi::{Bytes, CoreInterface, CoreInterface_TO, Future, FutureExt};
use privatix_plugin_api::message::{CoreRequest, Done, Reply, StatusReply, decode, encode};
use privatix_plugin_api::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long anything may take that is expected to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const PASSWORD: &str = "open sesame";

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) config: BTreeMap<String, String>,
    pub(super) channels: HashMap<ClientKey, Channel>,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) status: Status,
    /// How much may be used in all, if there is a limit.
    pub(super) paid: Option<u64>,
    /// Whether every call fails.
    pub(super) fails: bool,
    pub(super) access: Option<AccessMessage>,
    pub(super) ready: u32,
    pub(super) sessions: Vec<Record>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: SessionId,
    pub(super) has_peer: bool,
    pub(super) used: u64,
    pub(super) open: bool,
}

/// The test's end of the core.
#[derive(Clone)]
pub(super) struct TestCore {
    book: Arc<watch::Sender<Book>>,
}

impl TestCore {
    pub(super) fn new() -> Self {
        Self { book: Arc::new(watch::Sender::new(Book::default())) }
    }

    pub(super) fn core(&self) -> Core {
        Core::from_object(CoreInterface_TO::from_value(self.clone(), TD_Opaque))
    }

    /// A new channel that may be used.
    pub(super) fn channel(&self) -> ClientKey {
        let key = ClientKey(uuid::Uuid::new_v4());
        self.add(key, None);
        key
    }

    pub(super) fn add(&self, key: ClientKey, access: Option<AccessMessage>) {
        let channel = Channel {
            status: Status::Active,
            paid: None,
            fails: false,
            access,
            ready: 0,
            sessions: Vec::new(),
        };
        self.book.send_modify(|book| drop(book.channels.insert(key, channel)));
    }

    pub(super) fn change(&self, key: ClientKey, change: impl FnOnce(&mut Channel)) {
        self.book.send_modify(|book| change(book.channels.get_mut(&key).expect("a channel")));
    }

    pub(super) fn look<T>(&self, key: ClientKey, at: impl FnOnce(&Channel) -> T) -> T {
        at(&self.book.borrow().channels[&key])
    }

    pub(super) fn config(&self) -> BTreeMap<String, String> {
        self.book.borrow().config.clone()
    }

    /// Waits until a channel is as described.
    pub(super) async fn wait(&self, key: ClientKey, mut is: impl FnMut(&Channel) -> bool) {
        let mut book = self.book.subscribe();
        let found = timeout(PATIENCE, book.wait_for(|book| is(&book.channels[&key]))).await;
        assert!(found.is_ok(), "{:?}", self.book.borrow());
    }

    /// Usage of all sessions of a channel.
    pub(super) fn used(&self, key: ClientKey) -> u64 {
        self.look(key, Channel::used)
    }

    /// Waits until none of a channel's sessions is open, of which there were so many; their usage.
    pub(super) async fn closed(&self, key: ClientKey, sessions: usize) -> u64 {
        self.wait(key, |channel| {
            channel.sessions.len() == sessions && channel.sessions.iter().all(|s| !s.open)
        })
        .await;
        self.used(key)
    }

    fn answer(&self, request: CoreRequest) -> Vec<u8> {
        let mut reply = Err(ErrorName::Unsupported);
        // Logging is no news.
        if matches!(request, CoreRequest::Log(_)) {
            return encode(&Reply::<_, ()>::Ok(Done {}));
        }
        self.book.send_modify(|book| reply = book.answer(request));
        encode(&Reply::from(reply.map_err(ApiError::new)))
    }
}

impl CoreInterface for TestCore {
    fn call(&self, request: Bytes<u8>) -> Future<Bytes<u8>> {
        let reply = self.answer(decode(&request).expect("a request"));
        async move { Bytes::from(reply) }.into_ffi()
    }
}

impl Book {
    fn answer(&mut self, request: CoreRequest) -> Result<Value, ErrorName> {
        match request {
            CoreRequest::SetProductConfig { config } => {
                self.config = config;
                Ok(json!({}))
            }
            CoreRequest::AuthClient { client_key, password } => {
                let channel = self.channel(client_key)?;
                if password.0 != PASSWORD {
                    return Err(ErrorName::BadClientPassword);
                }
                channel.usable().map(|()| json!({}))
            }
            CoreRequest::GetAccess { client_key } => {
                let access = self.channel(client_key)?.access.as_ref();
                let access = access.ok_or(ErrorName::AccessNotFound)?;
                Ok(serde_json::to_value(access).expect("JSON"))
            }
            CoreRequest::ServiceReady { client_key } => {
                let channel = self.channel(client_key)?;
                channel.ready += 1;
                Ok(channel.reply())
            }
            CoreRequest::StartSession { client_key, client_address, .. } => {
                let channel = self.channel(client_key)?;
                channel.usable()?;
                channel.sessions.iter_mut().for_each(|session| session.open = false);
                let id = SessionId(uuid::Uuid::new_v4());
                let has_peer = client_address.is_some();
                channel.sessions.push(Record { id, has_peer, used: 0, open: true });
                let mut started = channel.reply();
                started["session"] = json!(id);
                Ok(started)
            }
            CoreRequest::UpdateSession { client_key, session, usage: Usage::Total(total) } => {
                let channel = self.channel(client_key)?;
                let record = channel.session(session)?;
                if total < record.used {
                    return Err(ErrorName::UsageWentBackwards);
                }
                record.used = total;
                Ok(channel.reply())
            }
            CoreRequest::StopSession { client_key, session } => {
                let channel = self.channel(client_key)?;
                channel.session(session)?.open = false;
                Ok(channel.reply())
            }
            _ => Err(ErrorName::Unsupported),
        }
    }

    fn channel(&mut self, key: ClientKey) -> Result<&mut Channel, ErrorName> {
        let channel = self.channels.get_mut(&key).ok_or(ErrorName::ChannelNotFound)?;
        if channel.fails { Err(ErrorName::Internal) } else { Ok(channel) }
    }
}

impl Channel {
    fn usable(&self) -> Result<(), ErrorName> {
        if self.status.allows_use() { Ok(()) } else { Err(ErrorName::NonActiveChannel) }
    }

    pub(super) fn used(&self) -> u64 {
        self.sessions.iter().map(|session| session.used).sum()
    }

    fn session(&mut self, id: SessionId) -> Result<&mut Record, ErrorName> {
        self.sessions.iter_mut().find(|record| record.id == id).ok_or(ErrorName::SessionNotFound)
    }

    fn reply(&self) -> Value {
        let credit = self.paid.map(|paid| paid.saturating_sub(self.used()));
        let reply = StatusReply { credit, ..StatusReply::new(self.status) };
        serde_json::to_value(reply).expect("JSON")
    }
}

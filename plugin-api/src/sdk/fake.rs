//! A core for tests: it keeps the books of one channel, and answers as each test has it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Core, Meter, MeterOptions};
use crate::abi::{Boxed, Bytes, CoreInterface, CoreInterface_TO, Future, FutureExt};
use crate::message::{
    ApiError, ClientKey, CoreRequest, Done, ErrorName, SessionId, SessionStarted, Status,
    StatusReply, Usage, decode, encode,
};

/// What the core does with the next reports.
#[derive(Debug, Clone)]
pub(super) enum Says {
    Status(Status, Option<u64>),
    Error(ErrorName),
    /// Takes it in, and the answer is lost.
    Nothing,
}

/// A core that keeps the books of one session.
#[derive(Clone)]
pub(super) struct Fake {
    books: Arc<Mutex<Books>>,
}

struct Books {
    /// One each for the next reports, then the last again and again.
    plan: VecDeque<Says>,
    calls: Vec<CoreRequest>,
    /// Of the session that is open, and of those before it.
    total: u64,
    earlier: u64,
    sequence: u64,
    open: bool,
    denies: Option<ErrorName>,
    silent: bool,
    first: (Status, Option<u64>),
}

impl Fake {
    pub(super) fn new(credit: Option<u64>, plan: impl IntoIterator<Item = Says>) -> Self {
        let plan = plan.into_iter().collect();
        let first = (Status::Active, credit);
        let books = Books {
            plan,
            calls: Vec::new(),
            total: 0,
            earlier: 0,
            sequence: 0,
            open: false,
            denies: None,
            silent: false,
            first,
        };
        Self { books: Arc::new(Mutex::new(books)) }
    }

    pub(super) fn granting(first: u64, then: u64) -> Self {
        Self::new(Some(first), [Says::Status(Status::Active, Some(then))])
    }

    pub(super) fn core(&self) -> Core {
        let object =
            CoreInterface_TO::from_value(self.clone(), abi_stable::erased_types::TD_Opaque);
        let _: &CoreInterface_TO<Boxed<()>> = &object;
        Core::from_object(object)
    }

    pub(super) async fn meter(&self, options: MeterOptions) -> Meter {
        let channel = ClientKey(Uuid::from_u128(1));
        Meter::start(&self.core(), channel, None, options).await.expect("a session")
    }

    pub(super) fn says(&self, says: Says) {
        self.books().plan = [says].into();
    }

    pub(super) fn total(&self) -> u64 {
        let books = self.books();
        books.earlier + books.total
    }

    /// The calls so far, by their names.
    pub(super) fn calls(&self, is: impl Fn(&CoreRequest) -> bool) -> usize {
        self.books().calls.iter().filter(|call| is(call)).count()
    }

    pub(super) fn sessions(&self) -> usize {
        self.calls(|call| matches!(call, CoreRequest::StartSession { .. }))
    }

    /// Whether a session is open.
    pub(super) fn is_open(&self) -> bool {
        self.books().open
    }

    pub(super) fn opens_with(&self, status: Status, credit: Option<u64>) {
        self.books().first = (status, credit);
    }

    /// How logins are answered from now on.
    pub(super) fn denies(&self, name: Option<ErrorName>) {
        self.books().denies = name;
    }

    /// Whether the start of a session is not answered from now on.
    pub(super) fn opens_nothing(&self, silent: bool) {
        self.books().silent = silent;
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("books")
    }

    pub(super) fn reports(&self) -> Vec<Usage> {
        let books = self.books();
        let usage = |call: &CoreRequest| match call {
            CoreRequest::UpdateSession { usage, .. } => Some(*usage),
            _ => None,
        };
        books.calls.iter().filter_map(usage).collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        let books = self.books();
        books.calls.iter().any(|call| matches!(call, CoreRequest::StopSession { .. }))
    }
}

impl Books {
    fn answer(&mut self, request: CoreRequest) -> Option<Value> {
        self.calls.push(request.clone());
        let ok = |value: Value| Some(json!({ "ok": value }));
        match request {
            CoreRequest::StartSession { .. } => {
                if self.silent {
                    return None;
                }
                let (status, credit) = self.first;
                self.earlier += std::mem::take(&mut self.total);
                (self.sequence, self.open) = (0, true);
                ok(json!(SessionStarted {
                    session: SessionId(Uuid::from_u128(2)),
                    offering: json!({ "unitName": "byte" }),
                    status,
                    credit,
                }))
            }
            CoreRequest::UpdateSession { usage, .. } => {
                let says = if self.plan.len() > 1 {
                    self.plan.pop_front()
                } else {
                    self.plan.front().cloned()
                };
                match says.expect("a plan") {
                    Says::Error(name) => Some(json!({ "error": ApiError::new(name) })),
                    says => {
                        self.book(usage);
                        match says {
                            Says::Status(status, credit) => {
                                ok(json!(StatusReply { status, credit }))
                            }
                            _ => None,
                        }
                    }
                }
            }
            CoreRequest::AuthClient { .. } => match self.denies {
                Some(name) => Some(json!({ "error": ApiError::new(name) })),
                None => ok(json!(Done {})),
            },
            CoreRequest::StopSession { .. } => {
                self.open = false;
                ok(json!(StatusReply::new(Status::Active)))
            }
            _ => ok(json!(Done {})),
        }
    }

    fn book(&mut self, usage: Usage) {
        match usage {
            Usage::Total(total) => {
                assert!(total >= self.total, "usage went backwards: {total} after {}", self.total);
                self.total = total;
            }
            Usage::Incremental { sequence, amount } if sequence > self.sequence => {
                self.sequence = sequence;
                self.total += amount;
            }
            Usage::Incremental { .. } => {}
        }
    }
}

impl CoreInterface for Fake {
    fn call(&self, request: Bytes<u8>) -> Future<Bytes<u8>> {
        let request = decode(&request).expect("a request");
        let answer = self.books().answer(request);
        async move {
            match answer {
                Some(answer) => Bytes::from(encode(&answer)),
                None => std::future::pending().await,
            }
        }
        .into_ffi()
    }
}

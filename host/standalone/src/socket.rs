//! `/ws`: a connection that lives as long as both sides like.
//!
//! One task has all of a connection: it reads calls, has them answered beside each other, and writes
//! answers and commands in turn. It reads no further while too many calls are under way, and closes
//! the connection of a program that does not read what is written; so a connection holds a bounded amount of everything.

use std::collections::HashSet;
use std::future::pending;
use std::ops::ControlFlow;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::budget::{Budget, cost, max_message};
use super::desk::{Desk, Joined, Visitor};
use super::places::Place;
use super::rpc;
use super::stop::stopped;
use super::stream::Intake;
use super::text::{self, Answer};
use privatix_core::Proof;
use privatix_modules::door::Here;
use privatix_modules::line::{Command, Ended, Way};

/// Calls of one connection under way at a time.
const AT_ONCE: usize = 64;

/// How long a write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// How often the other end is asked whether it is there.
const PING: Duration = Duration::from_secs(20);

/// How long nothing at all may come from it.
const SILENCE: Duration = Duration::from_secs(75);

/// Tokens that one connection may show.
const MAX_PROOFS: usize = 16;

/// Closed because of what the operator did: a token is void.
const VOID_TOKEN: u16 = 4001;
/// Closed because another connection of the product has subscribed.
const TAKEN_OVER: u16 = 4002;

type End = ControlFlow<(u16, &'static str)>;

/// A connection.
pub(super) struct Connection {
    socket: WebSocket,
    desk: Desk,
    visitor: Visitor,
    intake: Intake,
    /// There as long as answers can be written.
    here: Here,
    /// Who pays for what it says: all strangers, until it has shown a token.
    budget: Budget,
    /// A text that waits for room; nothing is read meanwhile.
    admitted: Option<oneshot::Receiver<()>>,
    proven: HashSet<Proof>,
    joined: Option<(Joined, u64)>,
    calls: JoinSet<Option<Answer>>,
    heard: Instant,
}

impl Connection {
    pub(super) fn new(
        socket: WebSocket,
        desk: Desk,
        bearer: Option<Proof>,
        place: Place,
        intake: Intake,
    ) -> Self {
        let (here, gone) = Here::new();
        let budget = desk.budgets.of(None);
        let mut connection = Self {
            socket,
            desk,
            proven: HashSet::new(),
            joined: None,
            calls: JoinSet::new(),
            heard: Instant::now(),
            visitor: Visitor {
                bearer: bearer.clone(),
                way: Way::Pushed { connection: Uuid::new_v4() },
                place,
                gone,
            },
            intake,
            here,
            budget,
            admitted: None,
        };
        if let Some(proof) = bearer {
            connection.prove(proof);
        }
        connection
    }

    /// Serves it to its end.
    pub(super) async fn serve(mut self, mut stop: watch::Receiver<bool>) {
        let mut tokens = self.desk.api.tokens_changed();
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            let step = tokio::select! {
                message = self.socket.recv(), if self.has_room() => match message {
                    Some(Ok(message)) => self.heard(message).await,
                    Some(Err(error)) => {
                        tracing::debug!(error = privatix_plugin_api::chain(&error), "a connection broke");
                        // The program that is there can still be told some of what is wrong.
                        ControlFlow::Break((close_code::PROTOCOL, TOO_LARGE_OR_BROKEN))
                    }
                    None => ControlFlow::Break((close_code::NORMAL, "")),
                },
                Some(answer) = self.calls.join_next() => match answer {
                    Ok(answer) => self.answered(answer).await,
                    Err(_) => ControlFlow::Break((close_code::ERROR, "a call was not answered")),
                },
                () = admitted(self.admitted.as_mut()) => {
                    self.admitted = None;
                    ControlFlow::Continue(())
                }
                command = next(self.joined.as_ref()) => self.tell(command).await,
                _ = pings.tick() => self.ping().await,
                changed = tokens.changed() => match changed {
                    Ok(()) => self.look_at_tokens().await,
                    Err(_) => ControlFlow::Break((close_code::AWAY, "the host stops")),
                },
                () = stopped(&mut stop) => {
                    ControlFlow::Break((close_code::AWAY, "the host stops"))
                }
            };
            if let ControlFlow::Break(end) = step {
                break end;
            }
        };
        self.joined = None;
        // What waits is broken off. What was begun is ended, though nobody is there to be told.
        drop(self.here);
        self.calls.detach_all();
        let (code, reason) = end;
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        // It may be gone already.
        let _ = timeout(WRITE_DEADLINE, self.socket.send(Message::Close(Some(frame)))).await;
    }

    fn has_room(&self) -> bool {
        self.calls.len() < AT_ONCE && self.admitted.is_none()
    }

    async fn heard(&mut self, message: Message) -> End {
        self.heard = Instant::now();
        let said = match message {
            Message::Text(said) => said,
            Message::Binary(_) => {
                return ControlFlow::Break((close_code::UNSUPPORTED, "calls are text"));
            }
            // Pings are answered by the library.
            Message::Ping(_) | Message::Pong(_) => return ControlFlow::Continue(()),
            Message::Close(_) => return ControlFlow::Break((close_code::NORMAL, "")),
        };
        self.intake.whole();
        let Some(cost) = cost(said.as_bytes(), self.visitor.bearer.is_some()) else {
            let answer = rpc::response(&Value::Null, Err(rpc::too_much()));
            return self.write(Message::text(answer.to_string())).await;
        };
        let (desk, visitor) = (self.desk.clone(), self.visitor.clone());
        if let Some(ticket) = self.budget.try_hold(cost) {
            self.calls.spawn(async move {
                Some(text::answer(&desk, &visitor, said.as_bytes(), ticket).await)
            });
            return ControlFlow::Continue(());
        }
        let budget = self.budget.clone();
        let (room, admitted) = oneshot::channel::<()>();
        self.admitted = Some(admitted);
        self.calls.spawn(async move {
            let ticket = visitor.gone.unless(budget.hold(cost)).await?;
            drop(room);
            Some(text::answer(&desk, &visitor, said.as_bytes(), ticket).await)
        });
        ControlFlow::Continue(())
    }

    async fn answered(&mut self, answer: Option<Answer>) -> End {
        // The ticket is held until all of this is over.
        let Some(Answer { text, effects, ticket: _ticket }) = answer else {
            return ControlFlow::Continue(());
        };
        for proof in effects.proven {
            self.prove(proof);
        }
        if let Some(text) = text {
            self.write(Message::text(text)).await?;
        }
        if let Some(id) = effects.left
            && self.joined.as_ref().is_some_and(|(joined, _)| joined.held.subscription.id() == id)
            && let Some((joined, _)) = self.joined.take()
        {
            joined.held.leave();
        }
        // Only now, so that the answer with its id comes before the first command. Of two that were
        // asked for at once the later one is told, whichever is answered first.
        if let Some(joined) = effects.joined.filter(|joined| joined.held.is_current())
            && let Some((before, _)) = self.joined.replace((joined, 0))
        {
            before.held.leave();
        }
        ControlFlow::Continue(())
    }

    async fn tell(&mut self, command: Result<Command, Ended>) -> End {
        let command = match command {
            Ok(command) => command,
            // By the program itself; what follows from it is on its way.
            Err(Ended::Renewed | Ended::Left) => {
                self.joined = None;
                return ControlFlow::Continue(());
            }
            Err(Ended::TakenOver) => {
                return ControlFlow::Break((TAKEN_OVER, "another connection has taken over"));
            }
            Err(Ended::Over) => {
                return ControlFlow::Break((close_code::RESTART, "the module is not run any more"));
            }
        };
        let Some((joined, after)) = &mut self.joined else { return ControlFlow::Continue(()) };
        *after = command.number;
        let text = (joined.write)(&joined.held.subscription, &command);
        self.write(Message::text(text)).await?;
        if let Some((joined, _)) = &self.joined {
            joined.held.line.told(&joined.held.subscription, command.number);
        }
        ControlFlow::Continue(())
    }

    async fn ping(&mut self) -> End {
        if self.heard.elapsed() > SILENCE {
            return ControlFlow::Break((close_code::POLICY, "silent for too long"));
        }
        self.write(Message::Ping(axum::body::Bytes::new())).await
    }

    async fn look_at_tokens(&mut self) -> End {
        for proof in &self.proven {
            // A database that fails now will be asked again with the next call.
            if matches!(self.desk.api.token_is_valid(proof).await, Ok(false)) {
                return ControlFlow::Break((VOID_TOKEN, "the token is void"));
            }
        }
        ControlFlow::Continue(())
    }

    fn prove(&mut self, proof: Proof) {
        if self.proven.is_empty() {
            self.budget = self.desk.budgets.of(Some(proof.product()));
            let most = max_message(self.visitor.bearer.is_some());
            self.intake.charge(self.budget.clone(), most);
        }
        if self.proven.len() < MAX_PROOFS {
            self.proven.insert(proof);
        }
    }

    async fn write(&mut self, message: Message) -> End {
        match timeout(WRITE_DEADLINE, self.socket.send(message)).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) => ControlFlow::Break((close_code::NORMAL, "")),
            Err(_) => {
                tracing::warn!("closed a connection that does not read what it is sent");
                ControlFlow::Break((close_code::POLICY, "it does not read"))
            }
        }
    }
}

/// For the reason of a close frame, which takes no more than 123 bytes.
const TOO_LARGE_OR_BROKEN: &str = "a message that is too large, or not as WebSocket has it";

/// When a text that waits has room; never, where none does.
async fn admitted(waiting: Option<&mut oneshot::Receiver<()>>) {
    match waiting {
        // Either way it waits no more.
        Some(waiting) => drop(waiting.await),
        None => pending().await,
    }
}

/// The next command, for ever where there is no subscription.
async fn next(joined: Option<&(Joined, u64)>) -> Result<Command, Ended> {
    match joined {
        Some((joined, after)) => joined.held.subscription.next(*after).await,
        None => pending().await,
    }
}

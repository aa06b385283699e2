//! Keeps an OpenVPN server running and carries words between it and its [`Clients`].
//!
//! One task has all state and takes one thing after the other: what OpenVPN says, what the core
//! answered, what the module is told. A process that ends, hangs or does not come up is started
//! again with back-off; its clients' sessions end at their last count.

use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Board;
use super::clients::Clients;
use crate::journal::Journal;
use crate::management::{ClientEventKind, Message};
use crate::openvpn::{Asked, Line, Openvpn, OpenvpnError, Place};
use crate::pause::Pauses;
use crate::pki::Pki;
use crate::settings::Settings;
use crate::{full, render};

#[cfg(test)]
mod tests;

/// How often OpenVPN is asked for a sign of life.
const PULSE: Duration = Duration::from_secs(5);

/// How long the process has to end when it was told to.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the module tells the server.
pub(super) enum Order {
    /// The channel's clients have to go; answered when they are gone and their sessions closed.
    Cut { channel: ClientKey, done: oneshot::Sender<()> },
    /// All have to go, for good.
    Shutdown { deadline: Duration, done: oneshot::Sender<()> },
}

/// Why a process is no longer attended to.
enum End {
    Shutdown,
    Failed(OpenvpnError),
}

pub(super) struct Server {
    settings: Settings,
    pki: Pki,
    place: Place,
    journal: Arc<Journal>,
    board: Board,
    clients: Clients,
    /// Until when all has to be over, and who waits for that.
    ending: Option<(Instant, oneshot::Sender<()>)>,
}

impl Server {
    pub(super) fn new(
        settings: Settings,
        pki: Pki,
        place: Place,
        journal: Arc<Journal>,
        board: Board,
        clients: Clients,
    ) -> Self {
        Self { settings, pki, place, journal, board, clients, ending: None }
    }

    /// Keeps a server running until it is told to shut down.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut pauses = Pauses::default();
        loop {
            let begun = Instant::now();
            let End::Failed(error) = self.attend(&mut orders).await else { break };
            let why = full(&error);
            tracing::error!(error = why, "the server is down");
            self.board.change(|report| {
                report.down = Some(format!("the server is down: {why}"));
                report.tried = true;
            });
            let until = Instant::now() + pauses.after(begun.elapsed());
            if let Some(End::Shutdown) = self.idle(&mut orders, until).await {
                break;
            }
        }
        let ending = self.ending.take();
        let until = ending.as_ref().map_or(Instant::now() + LAST_WORDS, |(until, _)| *until);
        self.clients.close(until).await;
        orders.close();
        if let Some((_, done)) = ending {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }

    /// Starts a process and attends to it until it ends.
    async fn attend(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> End {
        let config = render::server(&self.settings, &self.pki, &self.place.socket);
        let started = Openvpn::start(&self.place, &config, &self.journal).await;
        let (mut openvpn, mut line) = match started {
            Ok(started) => started,
            Err(error) => return End::Failed(error),
        };
        self.clients.forget_all();
        let end = self.converse(&mut line, orders).await;
        if matches!(end, End::Shutdown) {
            self.farewell(&mut line).await;
        }
        drop(line);
        let hangs = matches!(end, End::Failed(OpenvpnError::Hangs));
        openvpn.end(if hangs { Duration::ZERO } else { LAST_WORDS }).await;
        self.clients.forget_all();
        match end {
            // That the line broke says little; what the process said last does.
            End::Failed(OpenvpnError::Ended(_) | OpenvpnError::Line(_)) => {
                End::Failed(OpenvpnError::Ended(openvpn.last_words()))
            }
            end => end,
        }
    }

    async fn converse(
        &mut self,
        line: &mut Line,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> End {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.clients.due();
            let outcome = tokio::select! {
                message = line.next() => match message {
                    None => Err(OpenvpnError::Ended(String::new())),
                    Some(Err(error)) => Err(error),
                    Some(Ok(message)) => self.heard(line, message).await,
                },
                order = orders.recv() => match self.ordered(order) {
                    Some(end) => return end,
                    None => Ok(()),
                },
                news = self.clients.news() => {
                    self.clients.take(news);
                    Ok(())
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.clients.throw_out();
                    Ok(())
                }
                _ = pulse.tick() => {
                    self.clients.forget_old_logins();
                    line.ping().await
                }
            };
            let outcome = match outcome {
                Ok(()) => self.speak(line).await,
                failed => failed,
            };
            if let Err(error) = outcome {
                return End::Failed(error);
            }
        }
    }

    /// Does what the module wants; the end, if that is what it wants.
    fn ordered(&mut self, order: Option<Order>) -> Option<End> {
        match order {
            Some(Order::Cut { channel, done }) => {
                self.clients.cut_channel(channel, done);
                None
            }
            Some(Order::Shutdown { deadline, done }) => {
                self.ending = Some((Instant::now() + deadline, done));
                Some(End::Shutdown)
            }
            None => Some(End::Shutdown),
        }
    }

    /// Tells OpenVPN what its clients have come to.
    async fn speak(&mut self, line: &mut Line) -> Result<(), OpenvpnError> {
        for command in self.clients.commands() {
            line.send(&command, Asked::Done).await?;
        }
        Ok(())
    }

    async fn heard(&mut self, line: &mut Line, message: Message) -> Result<(), OpenvpnError> {
        match message {
            Message::Success(_) => drop(line.answered()),
            Message::Failure(why) => {
                // A client that was to be killed may be gone by itself.
                tracing::debug!(why, "a command failed");
                line.answered();
            }
            Message::Hold => {
                line.send("bytecount 1", Asked::Done).await?;
                line.send("state on", Asked::Done).await?;
                line.send("hold release", Asked::Done).await?;
            }
            Message::State { name, .. } if name == "CONNECTED" => {
                tracing::info!(port = self.settings.port, "the server is up");
                self.board.change(|report| (report.down, report.tried) = (None, true));
            }
            Message::Client(event) => self.clients.event(&event),
            Message::Address { client, address } => self.clients.address(client, address),
            Message::ClientBytes { client, bytes } => self.clients.sent(client, bytes.outgoing),
            Message::Fatal(why) => tracing::error!(why, "openvpn"),
            other => tracing::trace!(?other, "openvpn"),
        }
        Ok(())
    }

    /// Ends the process in order: it says what each client has used.
    async fn farewell(&mut self, line: &mut Line) {
        let words = async {
            line.send("signal SIGTERM", Asked::Done).await?;
            while let Some(message) = line.next().await {
                match message? {
                    Message::Client(event) if event.kind == ClientEventKind::Disconnect => {
                        self.clients.event(&event);
                    }
                    Message::ClientBytes { client, bytes } => {
                        self.clients.sent(client, bytes.outgoing)
                    }
                    _ => {}
                }
            }
            Ok::<_, OpenvpnError>(())
        };
        if let Ok(Err(error)) = timeout(LAST_WORDS, words).await {
            tracing::warn!(error = full(&error), "openvpn ended without its last words");
        }
    }

    /// Goes on without a process until the time is there, or the end.
    async fn idle(
        &mut self,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        until: Instant,
    ) -> Option<End> {
        loop {
            // Nobody is there to be told anything.
            self.clients.commands();
            let end = tokio::select! {
                () = sleep_until(until) => return None,
                order = orders.recv() => self.ordered(order),
                news = self.clients.news() => {
                    self.clients.take(news);
                    None
                }
            };
            if end.is_some() {
                return end;
            }
        }
    }
}

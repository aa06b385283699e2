//! Delivers what stands in the outbox to the modules, and has time-outs applied.
//!
//! One command of a channel is under way at a time, so they come in order. An answer is saved
//! before the next is told; what was not saved is told again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::message::{ClientKey, Started};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::router::Router;
use crate::service::{Answer, Service};
use crate::store::PendingCommand;

/// Commands of one product under way at once, so that a module that hangs keeps no other waiting.
const AT_ONCE: usize = 64;

/// How often time-outs are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Delivers until shutdown.
pub async fn run(service: Service, router: Arc<Router>, mut shutdown: watch::Receiver<bool>) {
    let mut outbox = service.outbox();
    let mut under_way: HashMap<ClientKey, Uuid> = HashMap::new();
    let mut deliveries: JoinSet<ClientKey> = JoinSet::new();
    loop {
        outbox.borrow_and_update();
        if let Err(error) = service.channels_tick().await {
            tracing::error!(error = crate::chain(&error), "time-outs were not applied");
        }
        let mut waiting = Vec::new();
        match service.commands().await {
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "the outbox was not read");
            }
            Ok(commands) => {
                for command in commands {
                    if command.start && router.route(command.product).is_none() {
                        // Told when its module comes up; it must not stand in the way of others.
                        waiting.push(command);
                    } else if has_room(&under_way, &command) {
                        under_way.insert(command.channel, command.product);
                        deliveries.spawn(deliver(service.clone(), Arc::clone(&router), command));
                    }
                }
            }
        }
        if let Err(error) = service.commands_wait(&waiting).await {
            tracing::error!(error = crate::chain(&error), "the outbox was not written");
        }
        tokio::select! {
            _ = outbox.changed() => {}
            () = tokio::time::sleep(TICK) => {}
            Some(done) = deliveries.join_next() => match done {
                Ok(channel) => { under_way.remove(&channel); }
                // Which channel it was is not known any more: all may be told again.
                Err(error) => {
                    tracing::error!(%error, "a delivery broke off");
                    under_way.clear();
                }
            },
            () = super::going_down(&mut shutdown) => return,
        }
    }
}

fn has_room(under_way: &HashMap<ClientKey, Uuid>, command: &PendingCommand) -> bool {
    let of_product = || under_way.values().filter(|product| **product == command.product).count();
    !under_way.contains_key(&command.channel) && of_product() < AT_ONCE
}

async fn deliver(service: Service, router: Arc<Router>, command: PendingCommand) -> ClientKey {
    let channel = command.channel;
    let answer = match router.route(command.product) {
        Some(generation) if command.start => match generation.start(channel).await {
            Ok(Started::Ready) => Answer::Ready,
            Ok(Started::Later) if generation.is_only_told() => Answer::Told,
            Ok(Started::Later) => Answer::Later,
            // Replaced meanwhile: the next generation is told.
            Err(error) if error.is_stopped() => return wait_a_tick(channel).await,
            Err(error) => Answer::Failed(crate::chain(&error)),
        },
        Some(generation) => match generation.stop(channel, command.stop_reason()).await {
            Ok(()) => Answer::Stopped,
            Err(error) if error.is_stopped() => return wait_a_tick(channel).await,
            Err(error) => Answer::Failed(crate::chain(&error)),
        },
        // The module has just gone; a start waits for the next one, a stop not for ever.
        None if command.start => return channel,
        None => Answer::NoModule,
    };
    if let Err(error) = service.command_answered(&command, answer).await {
        tracing::error!(%channel, error = crate::chain(&error), "an answer was not saved");
        return wait_a_tick(channel).await;
    }
    channel
}

/// Keeps what cannot be done now from being tried without pause.
async fn wait_a_tick(channel: ClientKey) -> ClientKey {
    tokio::time::sleep(TICK).await;
    channel
}

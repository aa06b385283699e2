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
use privatix_base::backoff::Backoff;
use privatix_base::condition::Condition;
use privatix_core::{Answer, Outbox};
use privatix_domain::status::stop_reason;
use privatix_store::{PendingCommand, StoreError};

/// Commands of one product under way at once, so that a module that hangs keeps no other waiting.
const AT_ONCE: usize = 64;

/// How often time-outs are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Delivers until shutdown.
pub async fn run(outbox: Outbox, router: Arc<Router>, mut shutdown: watch::Receiver<bool>) {
    let mut changes = outbox.changes();
    let mut under_way: HashMap<ClientKey, Uuid> = HashMap::new();
    let mut deliveries: JoinSet<Delivered> = JoinSet::new();
    let mut again = Backoff::default();
    let mut untimed = Condition::new("time-outs are not applied");
    let mut unread = Condition::new("the outbox is not read");
    let mut unwritten = Condition::new("the outbox is not written");
    let mut unsaved = Condition::new("answers of modules are not saved");
    loop {
        changes.borrow_and_update();
        untimed.note(outbox.channels_tick().await);
        let mut waiting = Vec::new();
        for command in unread.note(outbox.commands().await).unwrap_or_default() {
            if command.start && router.route(command.product).is_none() {
                // Told when its module comes up; it must not stand in the way of others.
                waiting.push(command);
            } else if has_room(&under_way, &command) && again.is_ready(&command.channel) {
                under_way.insert(command.channel, command.product);
                deliveries.spawn(deliver(outbox.clone(), Arc::clone(&router), command));
            }
        }
        unwritten.note(outbox.commands_wait(&waiting).await);
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(TICK) => {}
            Some(done) = deliveries.join_next() => match done {
                Ok(Delivered { channel, saved }) => {
                    under_way.remove(&channel);
                    match unsaved.note(saved) {
                        Some(()) => again.worked(&channel),
                        // It is due still, as far as the database knows.
                        None => drop(again.failed(channel)),
                    }
                }
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

/// A command that was told, or could not be.
struct Delivered {
    channel: ClientKey,
    /// Whether what came of it is in the database.
    saved: Result<(), StoreError>,
}

fn has_room(under_way: &HashMap<ClientKey, Uuid>, command: &PendingCommand) -> bool {
    let of_product = || under_way.values().filter(|product| **product == command.product).count();
    !under_way.contains_key(&command.channel) && of_product() < AT_ONCE
}

async fn deliver(outbox: Outbox, router: Arc<Router>, command: PendingCommand) -> Delivered {
    let channel = command.channel;
    let answer = match router.route(command.product) {
        Some(generation) if command.start => match generation.start(channel).await {
            Ok(Started::Ready) => Answer::Ready,
            // It has no way to say whether it will.
            Ok(Started::Later) if generation.is_only_told() => Answer::Told,
            Ok(Started::Later) => Answer::Later,
            // Replaced meanwhile: the next generation is told.
            Err(error) if error.is_stopped() => return wait_a_tick(channel).await,
            Err(error) => Answer::Failed(error.told()),
        },
        Some(generation) => match generation.stop(channel, stop_reason(command.status)).await {
            Ok(()) => Answer::Stopped,
            Err(error) if error.is_stopped() => return wait_a_tick(channel).await,
            Err(error) => Answer::Failed(error.told()),
        },
        // The module has just gone; a start waits for the next one, a stop not for ever.
        None if command.start => return Delivered { channel, saved: Ok(()) },
        None => Answer::NoModule,
    };
    Delivered { channel, saved: outbox.command_answered(&command, answer).await }
}

/// Keeps what cannot be done now from being tried without pause.
async fn wait_a_tick(channel: ClientKey) -> Delivered {
    tokio::time::sleep(TICK).await;
    Delivered { channel, saved: Ok(()) }
}

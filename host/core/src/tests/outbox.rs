//! What modules are told, and what follows from what they answer, or do not.

use std::time::Duration;

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, Status, StopReason};

use super::world::{MINE, World, total};
use crate::{Answer, ListQuery};
use privatix_base::clock;
use privatix_domain::status::stop_reason;
use privatix_domain::status::{ChannelState, Effect, Event, Hold, Holds};
use privatix_store::StateChange;

fn failed() -> Answer {
    Answer::Failed("silence".into())
}

/// Answers what is to be told of a channel, whenever that is due.
async fn answer(world: &World, channel: ClientKey, answer: Answer) {
    let command = world.pending(channel).await.expect("something to tell");
    world.outbox().command_answered(&command, answer).await.expect("saved");
}

/// Whether what is to be told of a channel is due within a second.
async fn is_due(world: &World, channel: ClientKey) -> bool {
    let due = world.store.channel_commands(clock::unix_now() + 1).await.expect("read");
    due.iter().any(|command| command.channel == channel)
}

/// A channel that is active, with an open session that used 7.
async fn active(world: &World) -> ClientKey {
    let channel = world.channel_with(Status::Suspended, &[Hold::User], |_| {}).await;
    event(world, channel, Event::Resume).await;
    answer(world, channel, Answer::Ready).await;
    let session = world.start_session(channel).await;
    world.call(total(channel, session, 7)).await.expect("reported");
    assert_eq!((world.state(channel).await.as_str(), world.told(channel).await), ("active", "-"));
    channel
}

async fn event(world: &World, channel: ClientKey, event: Event) {
    world.service.channel_event(channel, event, "by the test").await.expect("applied");
}

fn forced(world: &World) -> u64 {
    world.outbox().forced(MINE)
}

#[tokio::test]
async fn a_module_that_never_stops_a_channel_does_not_trap_it() {
    for (command, then, reason) in [
        (Event::Suspend, "suspended+user", StopReason::Suspended),
        (Event::Terminate, "terminated", StopReason::Terminated),
        (Event::HoldAdded(Hold::Payment), "suspended+payment", StopReason::Suspended),
    ] {
        // Silence, and the claim to have stopped while the session is open.
        for silence in [failed(), Answer::Stopped] {
            let world = World::new(Role::Agent).await;
            let channel = active(&world).await;
            event(&world, channel, command).await;
            let on_the_way = world.state(channel).await;
            for attempt in 0..3 {
                let told = world.pending(channel).await.expect("a stop");
                assert_eq!((told.start, told.attempts), (false, attempt));
                assert_eq!(stop_reason(told.status), reason, "{command:?}");
                assert_eq!(is_due(&world, channel).await, attempt == 0, "again after a while");
                assert_eq!((world.state(channel).await, forced(&world)), (on_the_way.clone(), 0));
                assert!(world.sessions(channel).await[0].stopped_at.is_none());
                world.outbox().command_answered(&told, silence.clone()).await.expect("saved");
            }
            assert_eq!((world.state(channel).await.as_str(), forced(&world)), (then, 1));
            assert_eq!(world.told(channel).await, "-");
            let row = world.row(channel).await;
            assert!(row.reason.contains("forced"), "{}", row.reason);
            let session = &world.sessions(channel).await[0];
            assert_eq!((session.stopped_at.is_some(), session.account.usage), (true, 7));
        }
    }
}

#[tokio::test]
async fn a_stop_that_works_at_last_is_not_forced() {
    let world = World::new(Role::Agent).await;
    let channel = active(&world).await;
    let session = world.sessions(channel).await[0].id;
    event(&world, channel, Event::Suspend).await;
    answer(&world, channel, failed()).await;
    answer(&world, channel, failed()).await;
    let stop =
        privatix_plugin_api::message::CoreRequest::StopSession { client_key: channel, session };
    assert_eq!(world.said(stop).await, "suspended");
    answer(&world, channel, Answer::Stopped).await;
    assert_eq!((world.state(channel).await.as_str(), forced(&world)), ("suspended+user", 0));
    assert_eq!(world.told(channel).await, "-");
}

/// The session had said its end; that the module falls silent afterwards forces nothing.
#[tokio::test]
async fn nothing_is_forced_on_a_channel_that_has_arrived() {
    let world = World::new(Role::Agent).await;
    let channel = active(&world).await;
    let session = world.sessions(channel).await[0].id;
    event(&world, channel, Event::Suspend).await;
    let stop =
        privatix_plugin_api::message::CoreRequest::StopSession { client_key: channel, session };
    assert_eq!(world.said(stop).await, "suspended");
    let before = world.row(channel).await;
    for _ in 0..3 {
        answer(&world, channel, failed()).await;
    }
    assert_eq!((world.row(channel).await, forced(&world)), (before, 0));
    assert_eq!(world.told(channel).await, "-");
}

#[tokio::test]
async fn a_start_that_fails_is_tried_again_later_and_later() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel_with(Status::Suspended, &[Hold::User], |_| {}).await;
    event(&world, channel, Event::Resume).await;
    for (count, pause) in [(1, 5), (2, 10), (3, 20), (4, 40)] {
        let began = clock::unix_now();
        answer(&world, channel, failed()).await;
        let told = (world.state(channel).await, world.told(channel).await);
        assert_eq!(told, ("suspending+fault".to_owned(), "stop"));
        answer(&world, channel, Answer::Stopped).await;
        assert_eq!(world.state(channel).await, "suspended+fault");
        let row = world.row(channel).await;
        let until = row.fault_until.expect("a time");
        assert!((began + pause..=clock::unix_now() + pause).contains(&until), "{count}: {until}");
        assert_eq!(row.fault_count, count);
        world.outbox().channels_tick().await.expect("looked");
        assert_eq!(world.state(channel).await, "suspended+fault", "not yet");
        overdue(&world, channel).await;
        world.outbox().channels_tick().await.expect("looked");
        let told = (world.state(channel).await, world.told(channel).await);
        assert_eq!(told, ("activating".to_owned(), "start"));
    }
    answer(&world, channel, Answer::Ready).await;
    let row = world.row(channel).await;
    assert_eq!((row.state.status, row.fault_until, row.fault_count), (Status::Active, None, 0));
}

/// Has the time to forgive a fault, or to become active, come.
async fn overdue(world: &World, channel: ClientKey) {
    let row = world.row(channel).await;
    let past = clock::unix_now() - 1;
    let change = StateChange {
        state: row.state,
        reason: "by the test",
        effect: None,
        activate_by: row.activate_by.map(|_| past),
        fault_until: row.fault_until.map(|_| past),
        fault_count: row.fault_count,
    };
    world.set(channel, change).await;
}

#[tokio::test]
async fn a_fault_that_is_set_anew_while_time_outs_are_applied_is_not_forgiven() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel_with(Status::Suspended, &[Hold::Fault], |_| {}).await;
    let held = |fault_until| StateChange {
        state: ChannelState { status: Status::Suspended, holds: Holds::NONE.with(Hold::Fault) },
        reason: "by the test",
        effect: None,
        activate_by: None,
        fault_until: Some(fault_until),
        fault_count: 1,
    };
    let now = clock::unix_now();
    world.set(channel, held(now - 1)).await;
    let mut txn = world.store.begin().await.expect("begun");
    txn.channel_change(channel, &held(now + 600), now).await.expect("changed");
    let outbox = world.outbox();
    let mut tick = tokio::spawn(async move { outbox.channels_tick().await });
    // It has found the channel as it was, and waits for its turn to write.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut tick).await;
    assert!(early.is_err(), "{early:?}");
    txn.commit().await.expect("committed");
    tick.await.expect("no panic").expect("looked");
    assert_eq!(world.state(channel).await, "suspended+fault");
}

#[tokio::test]
async fn a_service_that_does_not_come_is_not_awaited_for_ever() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel_with(Status::Suspended, &[Hold::User], |_| {}).await;
    event(&world, channel, Event::Resume).await;
    answer(&world, channel, Answer::Later).await;
    assert_eq!(world.told(channel).await, "-");
    world.outbox().channels_tick().await.expect("looked");
    assert_eq!(world.state(channel).await, "activating", "there is time");
    overdue(&world, channel).await;
    world.outbox().channels_tick().await.expect("looked");
    let told = (world.state(channel).await, world.told(channel).await);
    assert_eq!(told, ("suspending+fault".to_owned(), "stop"));
    assert_eq!(world.row(channel).await.reason, "not active in time");
}

#[tokio::test]
async fn a_user_may_end_what_is_faulty() {
    for status in [Status::Suspending, Status::Suspended] {
        let world = World::new(Role::Agent).await;
        let past = clock::unix_now() - 1;
        let channel = world
            .channel_with(status, &[Hold::Fault], |row| {
                (row.fault_until, row.fault_count) = (Some(past + 60), 1);
            })
            .await;
        event(&world, channel, Event::Terminate).await;
        overdue(&world, channel).await;
        assert_eq!(world.row(channel).await.fault_until, None, "nothing is tried again");
        let overdue = world.store.channel_overdue(clock::unix_now()).await.expect("read");
        assert_eq!(overdue, [], "from {status}");
    }
}

#[tokio::test]
async fn an_answer_to_a_replaced_command_is_without_effect() {
    let world = World::new(Role::Agent).await;
    let channel = active(&world).await;
    event(&world, channel, Event::Suspend).await;
    let stop = world.pending(channel).await.expect("a stop");
    event(&world, channel, Event::Terminate).await;
    let before = (world.row(channel).await, world.pending(channel).await);
    for late in [Answer::Stopped, Answer::Ready, failed(), failed(), failed()] {
        world.outbox().command_answered(&stop, late).await.expect("saved");
        assert_eq!((world.row(channel).await, world.pending(channel).await), before);
    }
    assert_eq!(forced(&world), 0);
}

/// Active means that a module serves the channel now.
#[tokio::test]
async fn start_that_fails_while_active_adds_the_hold_fault() {
    let world = World::new(Role::Client).await;
    let channel = active(&world).await;
    let mut txn = world.store.begin().await.expect("begun");
    txn.channel_command(channel, Effect::Start, clock::unix_now()).await.expect("noted");
    txn.commit().await.expect("committed");
    answer(&world, channel, failed()).await;
    let told = (world.state(channel).await, world.told(channel).await);
    assert_eq!(told, ("suspending+fault".to_owned(), "stop"));
    // Whose words they are stays with them.
    assert_eq!(world.row(channel).await.reason, "start failed: silence");
    assert!(world.row(channel).await.fault_until.is_some(), "it is tried again");
}

#[tokio::test]
async fn channel_shows_its_history_and_what_last_kept_it_from_being_active() {
    let world = World::new(Role::Client).await;
    let channel = active(&world).await;
    event(&world, channel, Event::HoldAdded(Hold::Payment)).await;
    let words = "the module says: channel 4 carries everything already; set `routes`\n\u{202e}";
    world.outbox().replayed(channel, failed()).await.expect("saved");
    event(&world, channel, Event::HoldRemoved(Hold::Payment)).await;
    let session = world.sessions(channel).await[0].id;
    let stop =
        privatix_plugin_api::message::CoreRequest::StopSession { client_key: channel, session };
    assert_eq!(world.said(stop).await, "activating");
    answer(&world, channel, Answer::Failed(words.into())).await;
    let view = world.operator().channel_view(channel).await.expect("a channel");
    let trouble = view.trouble.expect("a reason");
    assert_eq!((trouble.status, trouble.holds), (Status::Suspending, vec!["fault".to_owned()]));
    let shown = "start failed: the module says: channel 4 carries everything already; set `routes`";
    assert_eq!(trouble.reason, format!("{shown}\\n\\u{{202e}}"));
    let states: Vec<_> = view.history.iter().map(|change| change.status.as_str()).collect();
    let end = ["activating", "active", "suspending", "suspending", "activating", "suspending"];
    assert!(states.ends_with(&end), "{states:?}");
    assert!(view.history.is_sorted_by_key(|change| change.at));
    let all = world.operator().channel_views(&ListQuery::default()).await.expect("channels");
    let listed = all.iter().find(|view| view.id == channel).expect("listed");
    assert_eq!((listed.history.len(), &listed.trouble), (0, &None), "a list stays short");
}

/// A module that has come up is told of its live channels beside the outbox; what stands there by
/// the time it answers counts more.
#[tokio::test]
async fn what_a_module_answers_on_coming_up_replaces_no_stop() {
    for (command, answered, then, told) in [
        (None, Answer::Ready, "active", "-"),
        (None, Answer::Later, "active", "-"),
        (None, failed(), "suspending+fault", "stop"),
        (Some(Event::Suspend), failed(), "suspending+user", "stop"),
        (Some(Event::Suspend), Answer::Ready, "suspending+user", "stop"),
        (Some(Event::Terminate), failed(), "terminating", "stop"),
        (Some(Event::Terminate), Answer::Ready, "terminating", "stop"),
    ] {
        let world = World::new(Role::Agent).await;
        let channel = active(&world).await;
        let case = format!("{command:?}, {answered:?}");
        if let Some(command) = command {
            event(&world, channel, command).await;
        }
        world.outbox().replayed(channel, answered).await.expect("saved");
        let state = world.state(channel).await;
        assert_eq!((state.as_str(), world.told(channel).await), (then, told), "{case}");
    }
}

/// Of every status and hold: which channels a module that has come up is told of.
#[tokio::test]
async fn live_channels_are_those_that_may_be_used() {
    let world = World::new(Role::Agent).await;
    for status in Status::ALL {
        let holds = Holds::NONE;
        let channel = world.channel(status).await;
        assert_eq!(world.row(channel).await.state, ChannelState { status, holds });
        let served = world.outbox().served_channels(MINE).await.expect("read");
        assert_eq!(served.contains(&channel), status.allows_use(), "{status}");
    }
}

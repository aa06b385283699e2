//! What existing adapters are answered, status by status, with a session and without one.

use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ApiError, ClientKey, Status};

use super::world::{MINE, World, word};
use crate::{AdapterCall, Answer, Caller, CoreReply};
use privatix_base::clock;
use privatix_domain::status::{Event, Hold};

fn caller() -> Caller {
    Caller { product: MINE, name: "test".into() }
}

async fn update(world: &World, channel: ClientKey, amount: u64) -> String {
    let call = AdapterCall::Update { client_key: channel, amount };
    word(&world.service.modules().call(&caller(), call).await)
}

async fn stop(world: &World, channel: ClientKey) -> Result<CoreReply, ApiError> {
    let call = AdapterCall::Stop { client_key: channel };
    world.service.modules().call(&caller(), call).await
}

/// Which session the channel has: none, an open one, or one that ended so many seconds ago.
#[derive(Debug, Clone, Copy)]
enum Newest {
    None,
    Open,
    Closed(u64),
}

impl Newest {
    async fn make(self, world: &World, channel: ClientKey) {
        match self {
            Self::None => {}
            Self::Open => {
                world.session(channel, None).await;
            }
            Self::Closed(ago) => {
                world.session(channel, Some(clock::unix_now() - ago)).await;
            }
        }
    }
}

#[tokio::test]
async fn usage_is_saved_or_dropped_and_only_a_metered_agent_goes_on() {
    for role in [Role::Agent, Role::Client] {
        let world = World::new(role).await;
        for status in Status::ALL {
            for (newest, saved) in [
                (Newest::None, false),
                (Newest::Open, true),
                (Newest::Closed(0), true),
                (Newest::Closed(30), true),
                (Newest::Closed(61), false),
            ] {
                let channel = world.channel(status).await;
                newest.make(&world, channel).await;
                let metered = status == Status::Active && matches!(newest, Newest::Open);
                let expected =
                    if role == Role::Client || metered { "ok" } else { "NonActiveChannel" };
                let case = format!("{role} {status} {newest:?}");
                for amount in [5, 7, 7] {
                    assert_eq!(update(&world, channel, amount).await, expected, "{case}");
                }
                let usage = if saved { 7 } else { 0 };
                assert_eq!(world.usage(channel).await, usage, "{case}");
            }
        }
    }
}

/// A report that is wrong is told only where the session is metered: elsewhere it would be the error
/// that such an adapter takes for the end of everything.
#[tokio::test]
async fn reports_that_are_wrong() {
    for (role, status, newest, back, huge) in [
        (Role::Agent, Status::Active, Newest::Open, "UsageWentBackwards", "BadRequest"),
        (Role::Client, Status::Active, Newest::Open, "UsageWentBackwards", "BadRequest"),
        (Role::Agent, Status::Active, Newest::Closed(1), "NonActiveChannel", "NonActiveChannel"),
        (Role::Agent, Status::Suspending, Newest::Open, "NonActiveChannel", "NonActiveChannel"),
        (Role::Client, Status::Suspended, Newest::Closed(1), "ok", "ok"),
    ] {
        let world = World::new(role).await;
        let channel = world.channel(status).await;
        newest.make(&world, channel).await;
        update(&world, channel, 9).await;
        let case = format!("{role} {status} {newest:?}");
        assert_eq!(update(&world, channel, 8).await, back, "{case}");
        assert_eq!(update(&world, channel, MAX_INTEGER + 1).await, huge, "{case}");
        assert_eq!(world.usage(channel).await, 9, "{case}");
    }
}

#[tokio::test]
async fn a_stop_is_never_an_error() {
    for role in [Role::Agent, Role::Client] {
        let world = World::new(role).await;
        for status in Status::ALL {
            for newest in [Newest::None, Newest::Open, Newest::Closed(5), Newest::Closed(61)] {
                let channel = world.channel(status).await;
                newest.make(&world, channel).await;
                let case = format!("{role} {status} {newest:?}");
                let expected = match (role, status) {
                    (Role::Client, Status::Active) => "suspended+user",
                    // No hold is left, so it is begun again at once.
                    (_, Status::Suspending) => "activating",
                    (_, Status::Terminating) => "terminated",
                    (_, other) => other.as_str(),
                };
                for _ in 0..2 {
                    assert_eq!(word(&stop(&world, channel).await), "ok", "{case}");
                    assert_eq!(world.state(channel).await, expected, "{case}");
                }
                let told = if expected == "activating" && status != Status::Activating {
                    "start"
                } else {
                    "-"
                };
                assert_eq!(world.told(channel).await, told, "{case}");
                assert!(world.sessions(channel).await.iter().all(|s| s.stopped_at.is_some()));
            }
        }
        let unknown = ClientKey(uuid::Uuid::new_v4());
        assert_eq!(word(&stop(&world, unknown).await), "ChannelNotFound");
    }
}

/// Held and released between two reports: the tunnel may still be up, and nobody would meter it.
#[tokio::test]
async fn a_hold_that_is_added_and_lifted_between_two_reports_ends_the_use() {
    for (add, lift) in [
        (Event::Suspend, Event::Resume),
        (Event::HoldAdded(Hold::Payment), Event::HoldRemoved(Hold::Payment)),
    ] {
        let world = World::new(Role::Agent).await;
        let channel = world.channel(Status::Active).await;
        world.start_session(channel).await;
        assert_eq!(update(&world, channel, 100).await, "ok");
        for event in [add, lift] {
            world.service.channel_event(channel, event, "by the test").await.expect("applied");
        }
        assert_eq!(word(&stop(&world, channel).await), "ok");
        assert_eq!(world.state(channel).await, "activating");
        let start = world.pending(channel).await.expect("a start");
        world.outbox().command_answered(&start, Answer::Ready).await.expect("saved");
        assert_eq!(world.state(channel).await, "active");
        for used in [300, 400] {
            assert_eq!(update(&world, channel, used).await, "NonActiveChannel");
            assert_eq!(world.usage(channel).await, used);
        }
        world.start_session(channel).await;
        assert_eq!(update(&world, channel, 1).await, "ok");
        assert_eq!(world.usage(channel).await, 401);
    }
}

/// A stop of the operator's that the adapter was faster than is not told back.
#[tokio::test]
async fn who_stops_by_itself_has_nothing_left_to_be_told() {
    for (role, event, then) in [
        (Role::Agent, Event::Suspend, "suspended+user"),
        (Role::Client, Event::Suspend, "suspended+user"),
        (Role::Agent, Event::Terminate, "terminated"),
        (Role::Client, Event::Terminate, "terminated"),
    ] {
        let world = World::new(role).await;
        let channel = world.channel(Status::Active).await;
        world.start_session(channel).await;
        world.service.channel_event(channel, event, "by the test").await.expect("applied");
        let told = world.pending(channel).await.expect("a stop");
        assert_eq!(word(&stop(&world, channel).await), "ok");
        assert_eq!((world.state(channel).await.as_str(), world.told(channel).await), (then, "-"));
        // It was on its way already, and comes to nothing.
        world.outbox().command_answered(&told, Answer::Stopped).await.expect("saved");
        assert_eq!((world.state(channel).await.as_str(), world.told(channel).await), (then, "-"));
    }
}

#[tokio::test]
async fn a_start_that_was_only_told_is_told_again_until_the_channel_is_active() {
    let world = World::new(Role::Client).await;
    let channel = world.channel_with(Status::Suspended, &[Hold::User], |_| {}).await;
    world.service.channel_event(channel, Event::Resume, "by the test").await.expect("applied");
    for attempts in 0..3 {
        let start = world.pending(channel).await.expect("a start");
        assert_eq!((start.start, start.attempts), (true, attempts));
        let began = clock::unix_now();
        world.outbox().command_answered(&start, Answer::Told).await.expect("saved");
        let by = |due| world.store.channel_commands(due);
        let early = by(began + 4).await.expect("read");
        assert!(early.is_empty(), "not before 5 s");
        assert_eq!(by(clock::unix_now() + 5).await.expect("read").len(), 1, "then again");
    }
    let start = world.pending(channel).await.expect("a start");
    world.start_session(channel).await;
    assert_eq!((world.state(channel).await.as_str(), world.told(channel).await), ("active", "-"));
    // It was on its way already.
    world.outbox().command_answered(&start, Answer::Told).await.expect("saved");
    assert_eq!(world.told(channel).await, "-");
    // Of a channel that is active, a start is told once: a new access message, or a new connection.
    world.service.modules().connected(MINE, None, &[]).await.expect("told again");
    let start = world.pending(channel).await.expect("a start");
    world.outbox().command_answered(&start, Answer::Told).await.expect("saved");
    assert_eq!(world.told(channel).await, "-");
}

//! What becomes of sessions and their usage, report by report.

use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, CoreRequest, SessionId, Status};
use uuid::Uuid;

use super::world::{MINE, World, increment, start_session, total};
use privatix_base::clock;

#[tokio::test]
async fn reports_and_what_is_known_after_each() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Active).await;
    let (a, b) = (world.start_session(channel).await, world.start_session(channel).await);
    let back = "UsageWentBackwards";
    for (request, said, usage) in [
        (total(channel, b, 0), "active", 0),
        (total(channel, b, 100), "active", 100),
        (total(channel, b, 100), "active", 100),
        (total(channel, b, 99), back, 100),
        (total(channel, b, 0), back, 100),
        (total(channel, b, MAX_INTEGER + 1), "BadRequest", 100),
        (total(channel, b, 250), "active", 250),
        // The older session was closed by the newer one just now.
        (increment(channel, a, 1, 10), "active", 260),
        (increment(channel, a, 1, 10), "active", 260),
        (increment(channel, a, 1, 11), "active", 260),
        (increment(channel, a, 0, 10), "BadRequest", 260),
        (increment(channel, a, 5, 10), "active", 270),
        (increment(channel, a, 4, 10), "active", 270),
        (increment(channel, a, 6, 0), "active", 270),
        (increment(channel, a, 7, MAX_INTEGER), "BadRequest", 270),
        (increment(channel, a, 7, u64::MAX), "BadRequest", 270),
        (increment(channel, a, 7, 1), "active", 271),
        (total(channel, SessionId(Uuid::now_v7()), 9), "SessionNotFound", 271),
        (total(ClientKey(Uuid::new_v4()), b, 999), "ChannelNotFound", 271),
    ] {
        assert_eq!(world.said(request.clone()).await, said, "{request:?}");
        assert_eq!(world.usage(channel).await, usage, "{request:?}");
    }
}

#[tokio::test]
async fn a_session_is_of_one_channel() {
    let world = World::new(Role::Agent).await;
    let (one, other) = (world.channel(Status::Active).await, world.channel(Status::Active).await);
    let session = world.start_session(one).await;
    for request in
        [total(other, session, 7), CoreRequest::StopSession { client_key: other, session }]
    {
        assert_eq!(world.said(request.clone()).await, "SessionNotFound", "{request:?}");
    }
    let sessions = world.sessions(one).await;
    assert_eq!((sessions[0].stopped_at, sessions[0].account.usage), (None, 0));
    assert_eq!(world.sessions(other).await, []);
}

#[tokio::test]
async fn the_last_reports_of_a_session_may_come_late_but_not_too_late() {
    let world = World::new(Role::Agent).await;
    for status in Status::ALL {
        // Far enough from the limit that the clock may move on during the test.
        for (ago, expected) in
            [(0, status.as_str()), (30, status.as_str()), (61, "SessionNotFound")]
        {
            let channel = world.channel(status).await;
            let session = world.session(channel, Some(clock::unix_now() - ago)).await;
            for request in [total(channel, session, 5), increment(channel, session, 1, 2)] {
                assert_eq!(world.said(request).await, expected, "{status}, {ago} s ago");
            }
            let usage = if expected == "SessionNotFound" { 0 } else { 7 };
            assert_eq!(world.usage(channel).await, usage, "{status}, {ago} s ago");
        }
    }
}

#[tokio::test]
async fn a_channel_has_one_open_session() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Activating).await;
    let mut ids = Vec::new();
    for count in 1..=3 {
        ids.push(world.start_session(channel).await);
        let sessions = world.sessions(channel).await;
        let open: Vec<_> = sessions.iter().filter(|s| s.stopped_at.is_none()).collect();
        assert_eq!((sessions.len(), open.len()), (count, 1));
        assert_eq!(open[0].id, ids[count - 1], "the newest");
    }
    assert_eq!(world.state(channel).await, "active");
    // A refused start leaves the one that is open as it is.
    let suspended = world.channel(Status::Suspended).await;
    let open = world.session(suspended, None).await;
    assert_eq!(world.said(start_session(suspended)).await, "NonActiveChannel");
    let sessions = world.sessions(suspended).await;
    assert_eq!((sessions.len(), sessions[0].id, sessions[0].stopped_at), (1, open, None));
}

#[tokio::test]
async fn a_stop_that_is_repeated_changes_nothing_more() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Active).await;
    let first = world.start_session(channel).await;
    let stop = |session| CoreRequest::StopSession { client_key: channel, session };
    assert_eq!(world.said(stop(first)).await, "active", "a disconnect is no suspension");
    let closed = world.sessions(channel).await;
    assert!(closed[0].stopped_at.is_some());
    assert_eq!(world.said(stop(first)).await, "active");
    assert_eq!(world.sessions(channel).await, closed);
    // Repeated while the next session is open, and while the channel is being suspended.
    let second = world.start_session(channel).await;
    assert_eq!(world.said(stop(first)).await, "active");
    world
        .operator()
        .channel_command(channel, privatix_domain::status::Event::Suspend)
        .await
        .expect("suspended");
    assert_eq!(world.said(stop(first)).await, "suspending", "the open session is another");
    let is_open = |session: &privatix_store::SessionRow| session.stopped_at.is_none();
    assert!(world.sessions(channel).await.iter().any(|s| s.id == second && is_open(s)));
    assert_eq!(world.said(stop(second)).await, "suspended");
    assert_eq!(world.said(stop(second)).await, "suspended");
    assert_eq!(world.said(stop(SessionId(Uuid::now_v7()))).await, "SessionNotFound");
}

#[tokio::test]
async fn sessions_that_nobody_serves_end_at_their_last_usage() {
    let world = World::new(Role::Agent).await;
    let (served, lost) = (world.channel(Status::Active).await, world.channel(Status::Active).await);
    let foreign =
        world.channel_with(Status::Active, &[], |row| row.product = super::world::OTHER).await;
    for channel in [served, lost, foreign] {
        let session = world.session(channel, None).await;
        let product = world.row(channel).await.product;
        world.call_as(product, total(channel, session, 9)).await.expect("reported");
    }
    let earlier = world.outbox().open_sessions(MINE).await.expect("listed");
    world.outbox().close_unserved(MINE, &[served], &earlier).await.expect("closed");
    for (channel, open) in [(served, true), (lost, false), (foreign, true)] {
        let session = &world.sessions(channel).await[0];
        assert_eq!((session.stopped_at.is_none(), session.account.usage), (open, 9));
        assert_eq!(world.state(channel).await, "active");
    }
}

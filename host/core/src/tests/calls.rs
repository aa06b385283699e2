//! Every call of a module in every status and role: what it answers, and what follows.

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, CoreRequest, Password, SessionId, Status};
use uuid::Uuid;

use super::world::{
    MINE, OTHER, World, access_message, product_config, start_session, terms, total,
};
use crate::CoreReply;
use privatix_domain::status::{Event, Hold};

/// A call about a channel, by its word in the tables.
async fn request(
    world: &World,
    word: &str,
    client_key: ClientKey,
    session: SessionId,
) -> CoreRequest {
    match word {
        "right password" => {
            let password = world.password(client_key).await;
            CoreRequest::AuthClient { client_key, password }
        }
        "wrong password" => {
            CoreRequest::AuthClient { client_key, password: Password("wrong".into()) }
        }
        "get access" => CoreRequest::GetAccess { client_key },
        "ready" => CoreRequest::ServiceReady { client_key },
        "start" => start_session(client_key),
        "update" => total(client_key, session, 7),
        "stop" => CoreRequest::StopSession { client_key, session },
        "hold" => CoreRequest::HoldChannel { client_key, reason: "other routes".into() },
        _ => panic!("{word}"),
    }
}

/// A channel in a status with an open session; on the way to suspension by its user's wish.
async fn channel(world: &World, status: Status) -> (ClientKey, SessionId) {
    let held = matches!(status, Status::Suspending | Status::Suspended);
    let holds: &[Hold] = if held { &[Hold::User] } else { &[] };
    let channel = world.channel_with(status, holds, |_| {}).await;
    (channel, world.session(channel, None).await)
}

async fn check(world: &World, word: &str, status: Status, expected: &str) {
    let (channel, session) = channel(world, status).await;
    let said = world.said(request(world, word, channel, session).await).await;
    let (now, told) = (world.row(channel).await.state.status, world.told(channel).await);
    assert_eq!(format!("{said}; {now}; {told}"), expected, "{word} when {status}");
}

/// In the order of `Status::ALL`: the answer, and what the status is then; never is anything to be
/// told, since the module has just said it itself.
#[tokio::test]
async fn every_call_in_every_status() {
    let no = "NonActiveChannel";
    let same = ["", "", "", "", "", "", ""];
    let agent = [
        ("right password", [no, "ok", "ok", no, no, no, no], same),
        ("wrong password", ["BadClientPassword"; 7], same),
        ("get access", ["Unsupported"; 7], same),
        ("hold", ["Unsupported"; 7], same),
    ];
    let client = [
        ("right password", ["Unsupported"; 7], same),
        ("wrong password", ["Unsupported"; 7], same),
        ("get access", ["AccessNotFound"; 7], same),
    ];
    let both = [
        (
            "ready",
            ["pending", "active", "active", "suspending", "suspended", "terminating", "terminated"],
            ["", "active", "", "", "", "", ""],
        ),
        (
            "start",
            [no, "started active", "started active", no, no, no, no],
            ["", "active", "", "", "", "", ""],
        ),
        (
            "update",
            [
                "pending",
                "activating",
                "active",
                "suspending",
                "suspended",
                "terminating",
                "terminated",
            ],
            same,
        ),
        (
            "stop",
            [
                "pending",
                "activating",
                "active",
                "suspended",
                "suspended",
                "terminated",
                "terminated",
            ],
            ["", "", "", "suspended", "", "terminated", ""],
        ),
    ];
    for (role, own) in [(Role::Agent, &agent[..]), (Role::Client, &client[..])] {
        let world = World::new(role).await;
        for (word, said, then) in own.iter().copied().chain(both) {
            for ((status, said), then) in Status::ALL.into_iter().zip(said).zip(then) {
                let then = if then.is_empty() { status.as_str() } else { then };
                check(&world, word, status, &format!("{said}; {then}; -")).await;
            }
        }
    }
}

/// What the agent now asks for is not what the user agreed to: the module is told to stop, and the
/// user's resume is the agreement.
#[tokio::test]
async fn hold_of_a_module_is_lifted_by_the_users_resume_alone() {
    let world = World::new(Role::Client).await;
    for (status, then, told) in [
        (Status::Pending, Status::Pending, "-"),
        (Status::Activating, Status::Suspending, "stop"),
        (Status::Active, Status::Suspending, "stop"),
        (Status::Suspending, Status::Suspending, "-"),
        (Status::Suspended, Status::Suspended, "-"),
        (Status::Terminating, Status::Terminating, "-"),
        (Status::Terminated, Status::Terminated, "-"),
    ] {
        let (channel, session) = channel(&world, status).await;
        // Again it changes nothing.
        for _ in 0..2 {
            let said = world.said(request(&world, "hold", channel, session).await).await;
            assert_eq!(said, then.as_str(), "when {status}");
        }
        let row = world.row(channel).await;
        assert_eq!((row.state.status, world.told(channel).await), (then, told), "when {status}");
        let over = matches!(status, Status::Terminating | Status::Terminated);
        assert_eq!(row.state.holds.contains(Hold::User), !over, "when {status}");
    }
    let (channel, session) = channel(&world, Status::Active).await;
    for word in ["hold", "stop", "ready"] {
        world.said(request(&world, word, channel, session).await).await;
    }
    assert_eq!(world.row(channel).await.state.status, Status::Suspended);
    let resumed = world.service.channel_event(channel, Event::Resume, "agreed").await;
    assert_eq!(resumed.expect("resumed"), Status::Activating);
    assert_eq!(world.told(channel).await, "start");
}

#[tokio::test]
async fn a_call_reaches_only_channels_of_its_product() {
    for role in [Role::Agent, Role::Client] {
        let world = World::new(role).await;
        let (mine, session) = channel(&world, Status::Active).await;
        let unknown = ClientKey(Uuid::new_v4());
        let before = (world.row(mine).await, world.sessions(mine).await);
        let own = match role {
            Role::Agent => &["right password", "wrong password"][..],
            Role::Client => &["get access", "hold"],
        };
        for word in own.iter().chain(&["ready", "start", "update", "stop"]) {
            let request = request(&world, word, mine, session).await;
            for (product, request) in
                [(OTHER, request.clone()), (MINE, about(request.clone(), unknown))]
            {
                let said = super::world::word(&world.call_as(product, request).await);
                assert_eq!(said, "ChannelNotFound", "{word} by {product}");
            }
        }
        assert_eq!((world.row(mine).await, world.sessions(mine).await), before);
    }
}

/// The same call about another channel.
fn about(request: CoreRequest, client_key: ClientKey) -> CoreRequest {
    match request {
        CoreRequest::AuthClient { password, .. } => {
            CoreRequest::AuthClient { client_key, password }
        }
        CoreRequest::GetAccess { .. } => CoreRequest::GetAccess { client_key },
        CoreRequest::HoldChannel { reason, .. } => CoreRequest::HoldChannel { client_key, reason },
        CoreRequest::ServiceReady { .. } => CoreRequest::ServiceReady { client_key },
        CoreRequest::StartSession { .. } => start_session(client_key),
        CoreRequest::UpdateSession { session, usage, .. } => {
            CoreRequest::UpdateSession { client_key, session, usage }
        }
        CoreRequest::StopSession { session, .. } => {
            CoreRequest::StopSession { client_key, session }
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_no_role_may_call() {
    for (role, request, expected) in [
        (Role::Agent, CoreRequest::Unknown, "Unsupported"),
        (Role::Client, CoreRequest::Unknown, "Unsupported"),
        (Role::Client, product_config(&[("a", "b")]), "Unsupported"),
        (Role::Agent, product_config(&[("a", "b")]), "ok"),
    ] {
        assert_eq!(World::new(role).await.said(request.clone()).await, expected, "{request:?}");
    }
}

#[tokio::test]
async fn passwords_of_other_channels_and_orders_are_wrong() {
    let world = World::new(Role::Agent).await;
    let (client_key, other) =
        (world.channel(Status::Active).await, world.channel(Status::Active).await);
    let right = world.password(client_key).await.0;
    let order = world.row(client_key).await.order_hash;
    for (password, expected) in [
        (right.clone(), "ok"),
        (world.password(other).await.0, "BadClientPassword"),
        (world.identity.password(client_key, "another order").0, "BadClientPassword"),
        (super::world::identity(2).password(client_key, &order).0, "BadClientPassword"),
        (String::new(), "BadClientPassword"),
        (right[1..].to_owned(), "BadClientPassword"),
        (format!("{right} "), "BadClientPassword"),
        (right.to_lowercase(), "BadClientPassword"),
    ] {
        let request = CoreRequest::AuthClient { client_key, password: Password(password.clone()) };
        assert_eq!(world.said(request).await, expected, "{password:?}");
    }
}

#[tokio::test]
async fn a_client_gets_the_access_message_it_has() {
    let world = World::new(Role::Client).await;
    for status in Status::ALL {
        let client_key = world.channel(status).await;
        let message = access_message(client_key);
        let text = serde_json::to_string(&message).expect("JSON");
        let mut txn = world.store.begin().await.expect("begun");
        txn.channel_set_access(client_key, 1, Some(&text)).await.expect("set");
        txn.commit().await.expect("committed");
        let reply = world.call(CoreRequest::GetAccess { client_key }).await;
        assert_eq!(reply, Ok(CoreReply::Access(Box::new(message))), "{status}");
    }
}

#[tokio::test]
async fn a_session_begins_with_the_terms_of_its_offering() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Activating).await;
    match world.call(start_session(channel)).await {
        Ok(CoreReply::Started(started)) => assert_eq!(started.offering, terms(channel)),
        other => panic!("{other:?}"),
    }
}

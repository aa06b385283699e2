//! What is over costs nothing while nothing happens to it, and is read in pages.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use privatix_domain::code::Code;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::Status;
use serde_json::json;

use super::world::World;
use crate::{ListQuery, MAX_PAGE, Party};
use privatix_base::clock;

/// One live channel, and a history.
async fn world(role: Role, ended: u32) -> World {
    let world = World::new(role).await;
    world.priced(Status::Active, &[], &json!({"unitPrice": 1}), 100).await;
    world.store.add_history(ended).await;
    world
}

/// All that a host looks at again and again while nothing happens.
async fn idle_pass(world: &World) {
    assert_eq!(world.bill_all(false).await, []);
    let now = clock::unix_now();
    world.store.cheque_due(now, &[]).await.expect("read");
    world.store.channel_commands(now).await.expect("read");
    world.store.channel_overdue(now).await.expect("read");
    if let Party::Client(client) = world.service.party() {
        client.orders_waiting().await.expect("read");
        client.channels_followed().await.expect("read");
    }
}

#[tokio::test]
async fn idle_pass_over_ended_channels_looks_at_none_of_them() {
    for role in [Role::Client, Role::Agent] {
        let world = world(role, 50_000).await;
        let steps = world.store.count_steps().await;
        // Like the first one after a start.
        world.bill_all(true).await;
        let at_start = steps.swap(0, Ordering::Relaxed);
        assert!(at_start > 50_000, "{role}: each was looked at once: {at_start}");
        idle_pass(&world).await;
        let idle = steps.swap(0, Ordering::Relaxed);
        assert!(idle < 2000, "{role}: an idle pass takes {idle} steps of the database");
        world.bill_all(true).await;
        let again = steps.load(Ordering::Relaxed);
        assert!(again < 2000, "{role}: settled channels are not looked at again: {again}");
    }
}

#[tokio::test]
async fn settled_channel_with_late_usage_is_looked_at_again() {
    let world = world(Role::Client, 1).await;
    world.bill_all(true).await;
    let ended =
        world.store.channel_page(page("terminated")).await.expect("read").expect("rows")[0].id;
    let settled = async || world.store.billing_some(&[ended]).await.expect("read")[0].settled;
    assert!(settled().await);
    let mut txn = world.store.begin().await.expect("begun");
    txn.billing_add_used(&[(ended, 7)], clock::unix_now()).await.expect("added");
    txn.commit().await.expect("committed");
    assert!(!settled().await, "the agent may ask for more than is signed");
    world.bill_all(true).await;
    assert!(!settled().await, "the agent is asked first");
}

fn page(status: &str) -> privatix_store::Page<'_, privatix_plugin_api::message::ClientKey> {
    privatix_store::Page { after: None, status, limit: 10 }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = world(Role::Client, 2500).await;
    let mut query = ListQuery::default();
    let (mut seen, mut pages) = (HashSet::new(), Vec::new());
    loop {
        let views = world.operator().channel_views(&query).await.expect("listed");
        let Some(last) = views.last() else { break };
        query.after = Some(last.id.to_string());
        pages.push(views.len());
        seen.extend(views.into_iter().map(|view| view.id));
    }
    assert_eq!((pages, seen.len()), (vec![1000, 1000, 501], 2501));
    for (status, limit, expected) in [
        (None, Some(u32::MAX), Some(1000)),
        (None, Some(3), Some(3)),
        (Some("active"), None, Some(1)),
        (Some("terminated"), Some(10), Some(10)),
        (Some("gone"), None, None),
    ] {
        let query = ListQuery { status: status.map(str::to_owned), after: None, limit };
        let views = world.operator().channel_views(&query).await;
        assert_eq!(views.ok().map(|views| views.len()), expected, "{query:?}");
    }
    let strange = ListQuery { after: Some("f".repeat(64)), ..ListQuery::default() };
    assert_eq!(
        world.operator().order_views(&strange).await.expect_err("none").code,
        Code::NotFound
    );
    let orders = world.operator().order_views(&ListQuery::default()).await.expect("listed");
    assert_eq!(orders.len(), usize::try_from(MAX_PAGE).expect("small"));
    let offerings = world.operator().offering_views(&ListQuery::default()).await.expect("listed");
    assert_eq!(offerings.len(), 1);
    let cheques = world.operator().cheque_views(&ListQuery::default()).await.expect("listed");
    assert!(cheques.len() < 2);
    let channel =
        world.operator().channel_views(&ListQuery::default()).await.expect("listed").pop();
    let channel = channel.expect("one").id;
    for (status, count) in [("open", 0), ("closed", 1)] {
        let query = ListQuery { status: Some(status.to_owned()), ..ListQuery::default() };
        let sessions = world.operator().session_views(channel, &query).await.expect("listed");
        assert_eq!(sessions.len(), count, "{status}");
    }
}

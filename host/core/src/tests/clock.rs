//! A wall clock that is set while channels live.

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::Status;
use serde_json::json;

use super::world::World;
use privatix_base::clock::{self, testing::set_forward};
use privatix_domain::status::Hold;

const YEAR: i64 = 365 * 86_400;

#[tokio::test]
async fn a_jump_of_the_wall_clock_ends_no_channel_now_or_after_a_restart() {
    let world = World::new(Role::Agent).await;
    let terms = json!({ "maxInactiveTime": 60, "maxSuspendTime": 60 });
    let active = world.priced(Status::Active, &[], &terms, 60).await;
    let suspended = world.priced(Status::Suspended, &[Hold::User], &terms, 60).await;
    let states = async || (world.state(active).await, world.state(suspended).await);
    let alive = ("active".to_owned(), "suspended+user".to_owned());
    let since = async || world.row(active).await.since;
    let before = since().await;
    for set in [YEAR, -YEAR] {
        set_forward(set);
        world.bill_all(false).await;
        assert_eq!(states().await, alive, "{set}");
    }
    // The host's time follows the clock at the next start, and what was written before as well.
    set_forward(YEAR);
    world.bill_all(false).await;
    let moved = async || {
        let mut txn = world.store.begin().await.expect("begun");
        let until = clock::unix_now();
        txn.clock_move(YEAR, until).await.expect("moved");
        txn.clock_move(YEAR, until).await.expect("moved");
        txn.commit().await.expect("committed");
    };
    moved().await;
    assert_eq!(since().await, before.saturating_add_signed(YEAR), "once: the rest is later");
    set_forward(0);
}

#[tokio::test]
async fn a_clock_that_was_not_set_moves_nothing() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Active).await;
    let before = world.row(channel).await;
    world.bill_all(false).await;
    world.restarted(|_| {}).upkeep().clock_followed().await.expect("followed");
    assert_eq!(world.row(channel).await, before);
    // What was noted is used once.
    set_forward(-1000);
    world.bill_all(false).await;
    set_forward(0);
    for _ in 0..2 {
        world.restarted(|_| {}).upkeep().clock_followed().await.expect("followed");
        let since = world.row(channel).await.since;
        assert!(before.since - since <= 1001, "{since}");
        assert!(before.since - since >= 999, "{since}");
    }
}

//! The commands of a channel's user, in every status.

use privatix_domain::code::Code;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, Status};
use uuid::Uuid;

use super::world::{SUPPLY, World};
use privatix_domain::status::{Event, Hold};

/// What a command makes of a channel with an open session, what the module is to be told, whether
/// the session is still open, and what is left of the offering's supply.
async fn check(world: &World, status: Status, hold: Option<Hold>, event: Event, expected: &str) {
    let case = format!("{event:?} when {status} with {hold:?}");
    let channel = world.channel_with(status, hold.as_slice(), |_| {}).await;
    world.session(channel, None).await;
    let before = world.row(channel).await;
    let found = match world.operator().channel_command(channel, event).await {
        Err(refused) => {
            assert_eq!(world.row(channel).await, before, "{case}");
            refused.code.to_string()
        }
        Ok(view) => {
            let row = world.row(channel).await;
            assert_eq!((view.status, &view.reason), (row.state.status, &row.reason), "{case}");
            assert!(row.reason.ends_with("by the user"), "{case}: {}", row.reason);
            let open = world.sessions(channel).await[0].stopped_at.is_none();
            let session = if open { "open" } else { "closed" };
            format!("{}; {}; {session}", world.state(channel).await, world.told(channel).await)
        }
    };
    assert_eq!(found, expected, "{case}");
    let offering = world.store.offering_get(&before.offering).await.expect("read");
    let given_back = u64::from(expected.starts_with("terminated"));
    assert_eq!(offering.expect("an offering").supply_left, SUPPLY + given_back, "{case}");
}

#[tokio::test]
async fn every_command_in_every_status() {
    use Status::{Activating, Active, Pending, Suspended, Suspending, Terminated, Terminating};
    let world = World::new(Role::Agent).await;
    let (user, payment) = (Some(Hold::User), Some(Hold::Payment));
    let bad = "BadStatus";
    for (status, hold, [suspend, resume, terminate]) in [
        (Pending, None, ["pending+user; -; open", bad, "terminated; -; closed"]),
        (Pending, user, [bad, "pending; -; open", "terminated+user; -; closed"]),
        (Activating, None, ["suspending+user; stop; open", bad, "terminating; stop; open"]),
        (Active, None, ["suspending+user; stop; open", bad, "terminating; stop; open"]),
        (Suspending, user, [bad, "suspending; -; open", "terminating+user; stop; open"]),
        (
            Suspending,
            payment,
            ["suspending+user,payment; -; open", bad, "terminating+payment; stop; open"],
        ),
        (Suspending, None, ["suspending+user; -; open", bad, "terminating; stop; open"]),
        (Suspended, user, [bad, "activating; start; open", "terminated+user; -; closed"]),
        (
            Suspended,
            payment,
            ["suspended+user,payment; -; closed", bad, "terminated+payment; -; closed"],
        ),
        (Terminating, None, [bad; 3]),
        (Terminating, user, [bad; 3]),
        (Terminated, None, [bad; 3]),
        (Terminated, user, [bad; 3]),
    ] {
        for (event, expected) in
            [(Event::Suspend, suspend), (Event::Resume, resume), (Event::Terminate, terminate)]
        {
            check(&world, status, hold, event, expected).await;
        }
    }
    let unknown = ClientKey(Uuid::new_v4());
    let refused = world.operator().channel_command(unknown, Event::Suspend).await;
    assert_eq!(refused.expect_err("unknown").code, Code::ChannelNotFound);
}

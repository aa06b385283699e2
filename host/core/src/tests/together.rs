//! Many calls: in any order, repeated, at once, and of products side by side.

use std::sync::Arc;

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{
    ClientKey, CoreRequest, ErrorName, Password, SessionId, Status,
};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::world::{MINE, OTHER, World, increment, product_config, start_session, total};
use privatix_store::{ChannelRow, ProductRow, SessionRow};

const CASES: u32 = 8;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// One step of a module that reports what it has carried.
#[derive(Debug, Clone)]
enum Step {
    /// It carried so much, and reports until it hears an answer, which is lost so many times.
    Carry { amount: u64, lost: usize },
    /// An old report comes once more, as from a module that remembers too little.
    Old { back: usize },
    /// A new session.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..1 << 40, 0usize..3).prop_map(|(amount, lost)| Step::Carry { amount, lost }),
        2 => (0usize..6).prop_map(|back| Step::Old { back }),
        1 => Just(Step::Reconnect),
    ]
}

/// Plays the steps with reports of one kind; the usage known has to be what was carried after each.
async fn play(steps: &[Step], incremental: bool) {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Active).await;
    let mut session = world.start_session(channel).await;
    let (mut carried, mut in_session, mut sequence) = (0, 0, 0);
    let mut sent = Vec::new();
    for step in steps {
        match step {
            Step::Carry { amount, lost } => {
                (carried, in_session, sequence) =
                    (carried + amount, in_session + amount, sequence + 1);
                let report = if incremental {
                    increment(channel, session, sequence, *amount)
                } else {
                    total(channel, session, in_session)
                };
                for _ in 0..=*lost {
                    assert_eq!(world.said(report.clone()).await, "active", "{step:?}");
                }
                sent.push(report);
            }
            Step::Old { back } => {
                let Some(report) = sent.iter().rev().nth(*back).cloned() else { continue };
                // Refused or acknowledged, it is not counted.
                let said = world.said(report).await;
                assert!(said == "active" || said == "UsageWentBackwards", "{said}");
            }
            Step::Reconnect => {
                session = world.start_session(channel).await;
                (in_session, sequence) = (0, 0);
            }
        }
        assert_eq!(world.usage(channel).await, carried, "after {step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn usage_is_neither_lost_nor_counted_twice(
        steps in proptest::collection::vec(step(), 1..16),
        incremental: bool,
    ) {
        runtime().block_on(play(&steps, incremental));
    }
}

#[derive(Debug, PartialEq)]
struct Rows(ProductRow, Vec<ChannelRow>, Vec<SessionRow>);

async fn rows(world: &World) -> Rows {
    let mut channels = world
        .store
        .channel_page(privatix_store::Page { after: None, status: "", limit: 1000 })
        .await
        .expect("listed")
        .expect("the first page");
    channels.retain(|channel| channel.product == MINE);
    let mut sessions = Vec::new();
    for channel in &channels {
        sessions.extend(world.sessions(channel.id).await);
    }
    Rows(world.product(MINE).await, channels, sessions)
}

/// The other product makes every call, about channels and sessions of both in every status.
#[tokio::test]
async fn no_call_of_a_product_changes_a_row_of_another() {
    let world = World::new(Role::Agent).await;
    let mut targets: Vec<(ClientKey, SessionId)> = Vec::new();
    for product in [MINE, OTHER] {
        for status in Status::ALL {
            let channel = world.channel_with(status, &[], |row| row.product = product).await;
            targets.push((channel, world.session(channel, None).await));
        }
    }
    let before = rows(&world).await;
    // Eight calls, fourteen channels, and of each its own session or that of the other product's
    // channel in the same status.
    let calls = (0..8)
        .flat_map(|call| (0..14).flat_map(move |channel| [(call, channel, 0), (call, channel, 7)]));
    for (call, channel, shift) in calls {
        let client_key = targets[channel].0;
        let session = targets[(channel + shift) % 14].1;
        let password = Password("guess".into());
        let request = match call {
            0 => CoreRequest::AuthClient { client_key, password },
            1 => product_config(&[("a", "b"), ("externalIP", "192.0.2.9")]),
            2 => CoreRequest::ServiceReady { client_key },
            3 => start_session(client_key),
            4 => total(client_key, session, 7),
            5 => increment(client_key, session, 1, 7),
            6 => CoreRequest::StopSession { client_key, session },
            _ => CoreRequest::Unknown,
        };
        let outcome = world.call_as(OTHER, request).await;
        if channel < 7 && (call == 0 || (2..7).contains(&call)) {
            assert_eq!(outcome.expect_err("foreign").name, ErrorName::ChannelNotFound);
        }
        assert_eq!(rows(&world).await, before, "after {call} {channel} {shift}");
    }
}

/// Half of the tasks have a session of their own, half share four.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_at_the_same_time_all_land() {
    const OWN: u64 = 32;
    const SHARED: u64 = 4;
    const TASKS: u64 = 64;
    const REPORTS: u64 = 20;
    let world = Arc::new(World::new(Role::Agent).await);
    let mut targets = Vec::new();
    for _ in 0..OWN + SHARED {
        let channel = world.channel(Status::Active).await;
        targets.push((channel, world.start_session(channel).await));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let world = Arc::clone(&world);
        let own = task < OWN;
        let target = if own { task } else { OWN + task % SHARED };
        let (channel, session) = targets[usize::try_from(target).expect("small")];
        tasks.spawn(async move {
            for number in 1..=REPORTS {
                if own {
                    let report = increment(channel, session, number, task);
                    let (a, b) = tokio::join!(world.said(report.clone()), world.said(report));
                    assert_eq!([a, b], ["active", "active"]);
                } else {
                    // A report behind the others is refused.
                    let said = world.said(total(channel, session, number * task)).await;
                    assert!(said == "active" || said == "UsageWentBackwards", "{said}");
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no assertion failed");
    }
    for (number, (channel, _)) in (0..).zip(targets) {
        let expected = if number < OWN {
            REPORTS * number
        } else {
            // The greatest total of the tasks that share it.
            REPORTS * (TASKS - SHARED + number - OWN)
        };
        assert_eq!(world.usage(channel).await, expected, "channel {number}");
    }
}

//! Meters against a core that answers as each test has it, in paused time.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::*;
use crate::sdk::fake::{Fake, Says};

fn options() -> MeterOptions {
    MeterOptions::default()
}

/// All that is granted until nothing is for a while.
async fn take_all(meter: &Meter, most: u64) -> u64 {
    let mut taken = 0;
    while let Ok(Ok(granted)) = timeout(Duration::from_millis(10), meter.take(most)).await {
        taken += granted;
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn nothing_is_granted_beyond_the_credit() {
    for (credit, most) in [(0, 10), (1, 10), (3, 10), (1_000, 300), (1_000, 1_000)] {
        let core = Fake::granting(credit, 0);
        let meter = core.meter(options()).await;
        assert_eq!(take_all(&meter, most).await, credit, "{most} at a time");
        assert_eq!((meter.used(), meter.credit_left()), (credit, Some(0)));
        assert_eq!(core.total(), credit, "what is used is reported at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_module_that_waits_learns_of_a_payment() {
    let core = Fake::granting(100, 0);
    let meter = core.meter(options()).await;
    assert_eq!(take_all(&meter, 1_000).await, 100);
    sleep(Duration::from_secs(60)).await;
    core.says(Says::Status(Status::Active, Some(50)));
    let paid = Instant::now();
    assert_eq!(meter.take(1_000).await, Ok(50));
    assert!(paid.elapsed() <= Duration::from_millis(200), "{:?}", paid.elapsed());
}

/// A fast line is not held up by the time between two reports.
#[tokio::test(start_paused = true)]
async fn a_report_goes_out_before_the_credit_is_used_up() {
    let core = Fake::granting(1_000, 1_000);
    let meter = core.meter(options()).await;
    let began = Instant::now();
    let mut taken = 0;
    while taken < 100_000 {
        taken += meter.take(50).await.expect("granted");
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // A quarter each, and no report twice.
    assert!(core.reports().len() <= 100_000 / 250 + 1, "{}", core.reports().len());
}

/// One that moves packets never uses the last bytes of a credit.
#[tokio::test(start_paused = true)]
async fn a_payment_is_noticed_soon_while_the_last_of_a_credit_is_used() {
    let core = Fake::new(Some(100_000), [Says::Status(Status::Active, Some(20_000))]);
    let meter = core.meter(options()).await;
    meter.record(90_000);
    sleep(Duration::from_secs(10)).await;
    // A low credit that is not used is no reason to report more often.
    let reports = core.reports().len();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(core.reports().len(), reports + 10);
    // In use, though far from a quarter of it between two reports.
    let traffic = async {
        loop {
            meter.record(10);
            sleep(Duration::from_millis(20)).await;
        }
    };
    let paid = async {
        sleep(Duration::from_secs(3)).await;
        core.says(Says::Status(Status::Active, Some(500_000)));
        let (paid, mut limit) = (Instant::now(), meter.limit());
        let raised = |limit: &Option<u64>| limit.is_some_and(|limit| limit > 500_000);
        limit.wait_for(raised).await.expect("a meter");
        paid.elapsed()
    };
    let noticed = tokio::select! {
        () = traffic => unreachable!("it goes on"),
        noticed = paid => noticed,
    };
    assert!(noticed <= Duration::from_millis(120), "{noticed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_core_without_credit_states_no_limit() {
    let core = Fake::new(None, [Says::Status(Status::Active, None)]);
    let meter = core.meter(options()).await;
    assert_eq!(meter.take(1 << 52).await, Ok(1 << 52));
    assert_eq!(meter.credit_left(), None);
    sleep(Duration::from_millis(3_500)).await;
    assert_eq!(core.reports().len(), 3, "at intervals");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_allows_no_use_ends_it() {
    for status in [Status::Suspending, Status::Suspended, Status::Terminating] {
        let core = Fake::new(Some(100), [Says::Status(status, Some(100))]);
        let meter = core.meter(options()).await;
        assert_eq!(meter.take(10).await, Ok(10));
        assert_eq!(meter.ended().await, Ended::Status(status));
        assert_eq!(meter.take(10).await, Err(Ended::Status(status)));
        assert_eq!(meter.stop().await, 0);
        assert!(core.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_opens_without_use_is_closed() {
    let core = Fake::granting(0, 0);
    core.opens_with(Status::Suspended, Some(0));
    let channel = ClientKey(Uuid::from_u128(1));
    let meter = Meter::start(&core.core(), channel, None, options()).await;
    assert_eq!(meter.map(drop), Err(ErrorName::NonActiveChannel.into()));
    assert!(core.is_closed());
}

#[tokio::test(start_paused = true)]
async fn reports_without_acknowledgement_end_it() {
    for says in [Says::Error(ErrorName::Internal), Says::Nothing] {
        for credit in [Some(1_000), None] {
            let core = Fake::new(credit, [says.clone()]);
            let meter = core.meter(options()).await;
            let began = Instant::now();
            assert_eq!(meter.take(10).await, Ok(10));
            assert!(matches!(meter.ended().await, Ended::Unacknowledged(_)));
            let passed = began.elapsed();
            assert!(passed >= Duration::from_secs(10) && passed < Duration::from_secs(12));
            assert!(meter.take(10).await.is_err());
        }
    }
}

/// At most one credit is used while the core fails, and once it is back all of it is reported.
#[tokio::test(start_paused = true)]
async fn what_is_used_while_the_core_fails_is_one_credit_and_not_lost() {
    let core = Fake::new(Some(100), [Says::Error(ErrorName::Internal)]);
    let meter = core.meter(options()).await;
    let mut taken = 0;
    while let Ok(granted) = meter.take(30).await {
        taken += granted;
    }
    assert_eq!((taken, core.total()), (100, 0));
    let stopped = tokio::spawn({
        let meter = meter.clone();
        async move { meter.stop().await }
    });
    sleep(Duration::from_secs(300)).await;
    core.says(Says::Status(Status::Active, Some(100)));
    assert_eq!(stopped.await.expect("stopped"), 0);
    assert_eq!((core.total(), core.is_closed()), (100, true));
}

#[tokio::test(start_paused = true)]
async fn a_core_that_fails_for_a_moment_is_survived() {
    for says in [Says::Error(ErrorName::Internal), Says::Nothing] {
        for reporting in [UsageReporting::Total, UsageReporting::Incremental] {
            let ok = Says::Status(Status::Active, Some(1_000));
            let core = Fake::new(Some(1_000), [says.clone(), ok]);
            let patience = Duration::from_secs(30);
            let meter = core.meter(MeterOptions { reporting, patience, ..options() }).await;
            for _ in 0..40 {
                assert_eq!(meter.take(7).await, Ok(7));
                sleep(Duration::from_millis(500)).await;
            }
            assert_eq!(meter.stop().await, 0);
            assert_eq!(core.total(), 280, "{says:?} {reporting:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_is_granted_again_and_never_reported_twice() {
    let core = Fake::granting(100, 0);
    let meter =
        core.meter(MeterOptions { report_every: Duration::from_secs(3600), ..options() }).await;
    assert_eq!(meter.take(20).await, Ok(20));
    meter.give_back(20);
    assert_eq!((meter.used(), meter.credit_left()), (0, Some(100)));
    // Reported by now: what comes back is known to be used, and is used next.
    assert_eq!(take_all(&meter, 100).await, 100);
    meter.give_back(40);
    assert_eq!((meter.used(), meter.credit_left()), (60, Some(40)));
    assert_eq!(take_all(&meter, 30).await, 40);
    assert_eq!((meter.used(), core.total()), (100, 100));
    assert_eq!(meter.stop().await, 0);
}

#[tokio::test(start_paused = true)]
async fn usage_that_was_measured_elsewhere_counts_beyond_the_credit() {
    let core = Fake::granting(100, 40);
    let meter = core.meter(options()).await;
    let mut limit = meter.limit();
    assert_eq!(*limit.borrow_and_update(), Some(100));
    meter.record(130);
    limit.changed().await.expect("a meter");
    assert_eq!(*limit.borrow_and_update(), Some(170));
    assert_eq!((meter.credit_left(), core.total()), (Some(40), 130));
}

#[tokio::test(start_paused = true)]
async fn a_refused_report_ends_it_and_is_said_at_shutdown() {
    let core = Fake::new(Some(100), [Says::Error(ErrorName::SessionNotFound)]);
    let handle = core.core();
    let channel = ClientKey(Uuid::from_u128(1));
    let meter = Meter::start(&handle, channel, None, options()).await.expect("a session");
    assert_eq!(meter.take(70).await, Ok(70));
    assert!(matches!(meter.ended().await, Ended::Refused(_)));
    assert_eq!(meter.stop().await, 70);
    let left = vec![Unreported { client_key: channel, amount: 70 }];
    assert_eq!(handle.unreported(), left);
    drop(meter);
    assert_eq!(handle.unreported(), left, "also once the meter is gone");
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_is_dropped_reports_the_rest() {
    let core = Fake::granting(100, 100);
    let handle = core.core();
    let channel = ClientKey(Uuid::from_u128(1));
    let meter = Meter::start(&handle, channel, None, options()).await.expect("a session");
    assert_eq!(meter.take(7).await, Ok(7));
    assert_eq!(handle.unreported(), [Unreported { client_key: channel, amount: 7 }]);
    drop(meter);
    while !core.is_closed() {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(core.total(), 7);
    assert_eq!(handle.unreported(), []);
}

#[tokio::test(start_paused = true)]
async fn stop_wakes_whoever_waits_for_credit() {
    let core = Fake::granting(0, 0);
    let meter = core.meter(options()).await;
    let waiting = tokio::spawn({
        let meter = meter.clone();
        async move { meter.take(1).await }
    });
    sleep(Duration::from_secs(5)).await;
    assert_eq!(meter.stop().await, 0);
    assert_eq!(waiting.await.expect("woken"), Err(Ended::Stopped));
    assert_eq!(meter.stop().await, 0, "again");
}

/// Many connections of one channel share its credit.
#[tokio::test(start_paused = true)]
async fn connections_share_one_credit() {
    let core = Fake::granting(1_000, 0);
    let meter = core.meter(options()).await;
    let takers: Vec<_> = (0..10)
        .map(|_| {
            let meter = meter.clone();
            tokio::spawn(async move { take_all(&meter, 64).await })
        })
        .collect();
    let mut sum = 0;
    for taker in takers {
        sum += taker.await.expect("taken");
    }
    assert_eq!((sum, core.total()), (1_000, 1_000));
}

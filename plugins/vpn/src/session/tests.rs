//! A session against a core that fails and refuses as it is told. Time is tokio's own and passes
//! only while everybody waits.

use serde_json::json;

use super::*;
use crate::stand_in::{Script, TestCore};

struct Story {
    core: TestCore,
    meter: Option<Meter>,
    verdicts: mpsc::UnboundedReceiver<((), Verdict)>,
}

impl Story {
    fn new(prepare: impl FnOnce(&mut Script)) -> Self {
        let core = TestCore::default();
        core.script(prepare);
        let (send, verdicts) = mpsc::unbounded_channel();
        let meter = open(core.handle(), ClientKey(uuid::Uuid::nil()), Side::Agent, None, (), send);
        Self { core, meter: Some(meter), verdicts }
    }

    async fn next(&mut self) -> Verdict {
        self.verdicts.recv().await.expect("a verdict").1
    }

    fn count(&self, total: u64) {
        self.meter.as_ref().expect("a meter").count(total);
    }

    /// The tunnel goes, and all is accounted for.
    async fn end(&mut self) {
        self.meter = None;
        while !matches!(self.next().await, Verdict::Closed) {}
    }
}

#[test]
fn a_client_reports_in_time_for_its_next_payment() {
    let pause = |side: Side, interval: u64, kind: &str| {
        let offering = json!({
            "unitType": kind, "billingInterval": interval, "unitSize": 1 << 20,
        });
        side.options(&offering).report_every.as_millis()
    };
    for (interval, expected) in [(1, 200), (4, 200), (20, 419), (100, 1000), (u64::MAX, 1000)] {
        assert_eq!(pause(Side::Client, interval, "units"), expected, "{interval}");
        assert_eq!(pause(Side::Client, interval, "seconds"), 1000, "{interval}");
        assert_eq!(pause(Side::Agent, interval, "units"), 1000, "{interval}");
    }
    assert_eq!(Side::Client.options(&Value::Null), MeterOptions::default());
}

#[tokio::test(start_paused = true)]
async fn the_last_report_is_exact_and_totals_never_fall() {
    let mut story = Story::new(|_| {});
    let Verdict::Open(offering, _) = story.next().await else { panic!("not open") };
    assert_eq!(offering, json!({"a": 1}));
    story.count(5);
    story.count(3);
    story.end().await;
    let calls = story.core.calls();
    assert_eq!(calls.first().map(String::as_str), Some("start"));
    assert_eq!(calls[calls.len() - 2..], ["total 5", "stop"]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_said_again() {
    let mut story = Story::new(|script| script.failures = 2);
    assert!(matches!(story.next().await, Verdict::Open(..)));
    assert_eq!(story.core.calls(), ["start failed", "start failed", "start"]);
    story.core.script(|script| script.failures = 2);
    story.count(7);
    story.end().await;
    let calls = story.core.calls();
    assert_eq!(calls[calls.len() - 2..], ["total 7", "stop"]);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_says_stop_is_told_at_once_and_without_use_soon() {
    let mut story = Story::new(|_| {});
    assert!(matches!(story.next().await, Verdict::Open(..)));
    story.core.script(|script| script.status = Some("suspending"));
    // Nothing is used, and still the core is asked.
    assert!(matches!(story.next().await, Verdict::Over));
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_the_report_of_is_not_served_for_long() {
    let mut story = Story::new(|_| {});
    assert!(matches!(story.next().await, Verdict::Open(..)));
    story.core.script(|script| script.failures = 1000);
    assert!(matches!(story.next().await, Verdict::Over));
    story.core.script(|script| script.failures = 0);
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_of_a_channel_that_is_not_active_is_over_at_once() {
    let mut story = Story::new(|script| script.status = Some("suspended"));
    assert!(matches!(story.next().await, Verdict::Over));
    story.end().await;
}

use std::time::Duration;

use privatix_core::ModuleCall;
use privatix_plugin_api::message::{
    ClientKey, Done, ErrorName, Health, ModuleRequest, Started, StopReason,
};
use privatix_plugin_api::{Fault, FaultKind};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::door;

/// A core that is not asked here.
struct Nobody;

impl door::Core for Nobody {
    fn call<'a>(&'a self, _: &'a Caller, _: ModuleCall) -> door::Answering<'a> {
        Box::pin(std::future::ready(Err(ErrorName::Unsupported.into())))
    }
}

fn line() -> Arc<Line> {
    let caller = Caller { product: Uuid::new_v4(), name: "mine".into() };
    let door = Door::new(Arc::new(Nobody), caller, 1);
    Arc::new(Line::new(door, &json!({ "name": "mine" }), Arc::default()))
}

fn pushed() -> Way {
    Way::Pushed { connection: Uuid::new_v4() }
}

fn join(line: &Line, style: Style, way: Way) -> Arc<Subscription> {
    line.subscribe(Uuid::new_v4().to_string(), style, way, Some(&[])).expect("subscribed")
}

fn start(client_key: ClientKey) -> ModuleRequest {
    ModuleRequest::Start { client_key }
}

fn stop(client_key: ClientKey) -> ModuleRequest {
    ModuleRequest::Stop { client_key, reason: StopReason::Suspended }
}

/// Has a command carried out beside the test.
fn command(
    line: &Arc<Line>,
    request: ModuleRequest,
) -> tokio::task::JoinHandle<Result<Value, Fault>> {
    let line = Arc::clone(line);
    tokio::spawn(async move { line.call(&request).await })
}

/// How many channels it is known to serve.
fn served(line: &Line) -> usize {
    line.lock().serving.len()
}

#[tokio::test]
async fn without_a_program_nothing_is_told_and_the_module_is_not_well() {
    let line = line();
    let fault = line.call(&start(ClientKey(Uuid::new_v4()))).await.expect_err("nobody");
    assert_eq!(fault.kind, FaultKind::Stopped);
    let health = line.call(&ModuleRequest::Health).await.expect("answered");
    assert!(matches!(serde_json::from_value(health), Ok(Health::Unhealthy(_))));
    assert!(!line.is_connected());
    assert_eq!(
        line.call(&ModuleRequest::Cleanup).await.expect_err("no").kind,
        FaultKind::Unsupported
    );
}

#[tokio::test]
async fn what_is_answered_is_what_the_command_is_answered_with() {
    let line = line();
    let subscription = join(&line, Style::Answered, pushed());
    let channel = ClientKey(Uuid::new_v4());
    for (answer, expected) in [
        (Ok(json!(Started::Ready)), Ok(json!("ready"))),
        (Ok(json!(Started::Later)), Ok(json!("later"))),
        (Err(Fault::new(FaultKind::Failed, "no")), Err(FaultKind::Failed)),
    ] {
        let waiting = command(&line, start(channel));
        let told = subscription.next(0).await.expect("told");
        assert_eq!(told.order, Order::Start(channel));
        // Being told is not enough.
        line.told(&subscription, told.number);
        line.answered(&subscription, told.number + 1, Ok(json!("ready")), None);
        assert!(!waiting.is_finished());
        line.answered(&subscription, told.number, answer, None);
        let outcome = waiting.await.expect("no panic").map_err(|fault| fault.kind);
        assert_eq!(outcome, expected);
    }
    assert_eq!(served(&line), 1);
    let waiting = command(&line, stop(channel));
    let told = subscription.next(0).await.expect("told");
    line.answered(&subscription, told.number, Ok(json!(Done {})), None);
    assert_eq!(waiting.await.expect("no panic"), Ok(json!(Done {})));
    assert_eq!(served(&line), 0);
}

#[tokio::test]
async fn for_who_can_say_no_more_being_told_is_enough() {
    let line = line();
    let subscription = join(&line, Style::Told, pushed());
    let channel = ClientKey(Uuid::new_v4());
    for (request, expected) in [(start(channel), json!("later")), (stop(channel), json!({}))] {
        let waiting = command(&line, request);
        let told = subscription.next(0).await.expect("told");
        assert!(!waiting.is_finished());
        line.told(&subscription, told.number);
        assert_eq!(waiting.await.expect("no panic"), Ok(expected));
    }
}

/// Whether a stop comes to the program; it is answered in any case.
async fn is_told(line: &Arc<Line>, subscription: &Subscription, request: ModuleRequest) -> bool {
    let mut waiting = command(line, request);
    tokio::select! {
        // What needs no telling is answered without anybody's help.
        biased;
        answer = &mut waiting => {
            assert_eq!(answer.expect("no panic"), Ok(json!(Done {})));
            false
        }
        told = subscription.next(0) => {
            line.told(subscription, told.expect("told").number);
            waiting.await.expect("no panic").expect("answered");
            true
        }
    }
}

#[tokio::test]
async fn a_stop_is_told_once_a_connection() {
    let line = line();
    let [one, other] = [(); 2].map(|()| ClientKey(Uuid::new_v4()));
    let first = join(&line, Style::Told, pushed());
    assert!(is_told(&line, &first, stop(one)).await);
    assert!(!is_told(&line, &first, stop(one)).await, "it is stopping it");
    assert!(is_told(&line, &first, stop(other)).await, "another channel");
    assert!(is_told(&line, &first, start(one)).await);
    assert!(is_told(&line, &first, stop(one)).await, "it was started since");
    line.began(one);
    assert!(is_told(&line, &first, stop(one)).await, "it has begun by itself");
    let second = join(&line, Style::Told, pushed());
    assert!(is_told(&line, &second, stop(one)).await, "another connection");
    // Who can answer is told again until it does.
    let able = join(&line, Style::Answered, pushed());
    for _ in 0..2 {
        let waiting = command(&line, stop(one));
        able.next(0).await.expect("told");
        waiting.abort();
        assert!(waiting.await.is_err());
    }
}

#[tokio::test]
async fn who_has_stopped_by_itself_is_not_told_what_waits() {
    let line = line();
    let subscription = join(&line, Style::Told, pushed());
    let channel = ClientKey(Uuid::new_v4());
    let waiting = command(&line, stop(channel));
    let told = subscription.next(0).await.expect("to be told");
    line.stopped(channel);
    assert_eq!(waiting.await.expect("no panic"), Ok(json!(Done {})));
    assert_eq!(subscription.waiting(told.number), None);
}

#[tokio::test]
async fn what_was_not_answered_when_a_subscription_ends_was_not_told() {
    for (next, expected) in [
        (None, Ended::Over),
        (Some(pushed()), Ended::TakenOver),
        (Some(Way::Asked), Ended::TakenOver),
    ] {
        let line = line();
        let subscription = join(&line, Style::Answered, pushed());
        let waiting = command(&line, start(ClientKey(Uuid::new_v4())));
        subscription.next(0).await.expect("told");
        match next {
            None => line.leave(&subscription, Ended::Over),
            Some(way) => drop(join(&line, Style::Answered, way)),
        }
        let fault = waiting.await.expect("no panic").expect_err("not answered");
        assert_eq!(fault.kind, FaultKind::Stopped);
        assert_eq!(subscription.next(0).await, Err(expected));
        assert_eq!(line.is_connected(), next.is_some());
        // One that is over takes nobody's place away.
        line.leave(&subscription, Ended::Over);
        assert_eq!(line.is_connected(), next.is_some());
    }
}

#[tokio::test]
async fn who_can_say_what_it_serves_is_asked() {
    let line = line();
    let channel = ClientKey(Uuid::new_v4());
    let told = join(&line, Style::Told, pushed());
    let none = line.call(&ModuleRequest::Sessions).await.expect("answered");
    assert_eq!(none, json!({ "clientKeys": [] }));
    drop(told);
    let subscription = join(&line, Style::Answered, pushed());
    for (answer, expected) in [
        (Ok(json!({ "clientKeys": [channel] })), json!({ "clientKeys": [channel] })),
        (Err(Fault::new(FaultKind::Failed, "what?")), json!({ "clientKeys": [] })),
    ] {
        let waiting = command(&line, ModuleRequest::Sessions);
        let asked = subscription.next(0).await.expect("asked");
        assert_eq!(asked.order, Order::Sessions);
        line.answered(&subscription, asked.number, answer, None);
        assert_eq!(waiting.await.expect("no panic"), Ok(expected));
    }
}

#[tokio::test]
async fn the_same_connection_may_subscribe_anew() {
    let (line, way) = (line(), pushed());
    let first = join(&line, Style::Told, way);
    let second = join(&line, Style::Told, way);
    assert_eq!(first.next(0).await, Err(Ended::Renewed));
    assert!(line.subscription(second.id()).is_some() && line.subscription(first.id()).is_none());
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_any_more_is_not_told() {
    let line = line();
    let subscription = join(&line, Style::Answered, Way::Asked);
    let waiting = command(&line, start(ClientKey(Uuid::new_v4())));
    let told = subscription.next(0).await.expect("told");
    waiting.abort();
    assert!(waiting.await.is_err());
    assert_eq!(subscription.waiting(told.number), None);
    assert_eq!(subscription.ask(0, Duration::ZERO).await, Some(Vec::new()));
    line.answered(&subscription, told.number, Ok(json!(Started::Ready)), None);
    assert_eq!(served(&line), 0);
}

#[tokio::test]
async fn who_asks_is_there_as_long_as_it_does() {
    let line = line();
    let subscription = join(&line, Style::Answered, Way::Asked);
    let later = || Instant::now() + LEASE + Duration::from_secs(1);
    assert!(!subscription.is_gone(Instant::now()) && subscription.is_gone(later()));
    let asking = Asking::begin(&subscription);
    assert!(!subscription.is_gone(later()), "it is asking");
    drop(asking);
    assert!(subscription.is_gone(later()));
    let held = join(&line, Style::Answered, pushed());
    assert!(!held.is_gone(later()), "a connection says itself when it ends");
}

#[tokio::test]
async fn a_line_that_is_over_takes_nobody() {
    let line = line();
    let subscription = join(&line, Style::Answered, pushed());
    line.end();
    assert_eq!(subscription.next(0).await, Err(Ended::Over));
    let fault = line.call(&ModuleRequest::Sessions).await.expect_err("over");
    assert_eq!(fault.kind, FaultKind::Stopped);
    let again = line.subscribe("x".into(), Style::Told, pushed(), None);
    assert!(again.is_err());
}

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use privatix_base::config::{Log, LogFormat};
use privatix_base::logging::{subscriber, testing::Lines};
use privatix_plugin_api::message::{ClientKey, LogLevel};

use super::*;

/// A core that answers when the test says so.
struct Slow {
    begun: AtomicUsize,
    ended: AtomicUsize,
    go: Semaphore,
    heard: Mutex<Vec<String>>,
}

impl Slow {
    fn new() -> Arc<Self> {
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { begun, ended, go: Semaphore::new(0), heard: Mutex::default() })
    }
}

impl Core for Slow {
    fn call<'a>(&'a self, _: &'a Caller, call: ModuleCall) -> Answering<'a> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.go.acquire().await.expect("never closed").forget();
            self.ended.fetch_add(1, Ordering::SeqCst);
            match call {
                ModuleCall::Api(CoreRequest::GetAccess { .. }) => {
                    Err(ErrorName::AccessNotFound.into())
                }
                _ => Ok(CoreReply::Done(Done {})),
            }
        })
    }

    fn logged(&self, event: &LogEvent) {
        self.heard.lock().expect("no panic").push(event.message.clone());
    }
}

fn caller() -> Caller {
    Caller { product: Uuid::from_u128(1), name: "mine".into() }
}

fn ready() -> CoreRequest {
    CoreRequest::ServiceReady { client_key: ClientKey(Uuid::nil()) }
}

fn log(message: &str) -> CoreRequest {
    let (level, target) = (LogLevel::Info, "t".to_owned());
    CoreRequest::Log(LogEvent { level, target, message: message.into(), fields: BTreeMap::new() })
}

/// Lets every task go on for as long as it can: these tests have one thread.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// An answer in a word.
fn word(answer: Option<Result<CoreReply, ApiError>>) -> String {
    match answer {
        None => "-".into(),
        Some(Ok(_)) => "ok".into(),
        Some(Err(error)) => error.name.to_string(),
    }
}

/// What happens to a door, or what must be so by then.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A call comes.
    Ask,
    /// Nobody waits any more for the answer to the call of this number.
    Leave(usize),
    /// The core answers one call.
    Finish,
    /// The door is closed.
    Close,
    /// So many calls have come to the core.
    Begun(usize),
    /// The core has carried out so many.
    Ended(usize),
    /// The answer to the call of this number; `-` so far.
    Answer(usize, &'static str),
    /// So many calls were broken off.
    Dropped(u64),
}

#[tokio::test]
async fn stories_of_a_door() {
    use Step::*;
    let stories: &[(&str, usize, &[Step])] = &[
        ("a call is answered", 1, &[Ask, Begun(1), Answer(0, "-"), Finish, Answer(0, "ok")]),
        (
            "calls beyond the turns wait for one",
            2,
            &[
                Ask,
                Ask,
                Ask,
                Begun(2),
                Answer(2, "-"),
                Finish,
                Begun(3),
                Finish,
                Finish,
                Answer(0, "ok"),
                Answer(1, "ok"),
                Answer(2, "ok"),
            ],
        ),
        (
            "those that wait have their turn in the order in which they came",
            1,
            &[Ask, Ask, Ask, Finish, Finish, Answer(1, "ok"), Answer(2, "-")],
        ),
        (
            "a call that nobody waits for before its turn is broken off and frees its place",
            1,
            &[
                Ask,
                Ask,
                Ask,
                Leave(1),
                Dropped(1),
                Finish,
                Begun(2),
                Finish,
                Answer(2, "ok"),
                Ended(2),
            ],
        ),
        (
            "a call that has begun is carried out although nobody waits",
            1,
            &[Ask, Leave(0), Dropped(0), Finish, Ended(1), Ask, Finish, Answer(1, "ok")],
        ),
        (
            "a call that has waited and begun is carried out although nobody waits",
            1,
            &[Ask, Ask, Finish, Begun(2), Leave(1), Finish, Ended(2), Dropped(0)],
        ),
        (
            "a closed door refuses every call, for good",
            2,
            &[
                Close,
                Ask,
                Answer(0, "AccessDenied"),
                Close,
                Ask,
                Answer(1, "AccessDenied"),
                Begun(0),
            ],
        ),
        (
            "closing refuses calls that wait, and lets those that have begun end",
            1,
            &[
                Ask,
                Ask,
                Close,
                Answer(1, "AccessDenied"),
                Answer(0, "-"),
                Finish,
                Answer(0, "ok"),
                Ended(1),
            ],
        ),
        (
            "a turn that is given back behind a closed door is nobody's",
            1,
            &[Ask, Close, Finish, Answer(0, "ok"), Ask, Answer(1, "AccessDenied"), Begun(1)],
        ),
    ];
    for (story, at_once, steps) in stories {
        let core = Slow::new();
        let door = Door::new(core.clone(), caller(), *at_once);
        let mut asked: Vec<Option<tokio::task::JoinHandle<_>>> = Vec::new();
        let mut answers = BTreeMap::new();
        for (at, step) in steps.iter().enumerate() {
            let context = format!("{story}: step {at}, {step:?}");
            match *step {
                Ask => asked.push(Some(tokio::spawn(door.ask(ready())))),
                Leave(call) => asked[call].take().expect("asked").abort(),
                Finish => core.go.add_permits(1),
                Close => door.gate().close(),
                Begun(calls) => assert_eq!(core.begun.load(Ordering::SeqCst), calls, "{context}"),
                Ended(calls) => assert_eq!(core.ended.load(Ordering::SeqCst), calls, "{context}"),
                Answer(call, expected) => {
                    let ended = asked[call].take_if(|task| task.is_finished());
                    if let Some(task) = ended {
                        answers.insert(call, task.await.expect("no panic"));
                    }
                    assert_eq!(word(answers.get(&call).cloned()), expected, "{context}");
                }
                Dropped(calls) => {
                    let counted = door.counts().snapshot();
                    assert_eq!(counted[0].dropped, calls, "{context}");
                }
            }
            settle().await;
        }
    }
}

#[tokio::test]
async fn waiter_that_goes_gets_no_answer_before_the_turn_and_waits_for_the_end_after_it() {
    let core = Slow::new();
    let door = Door::new(core.clone(), caller(), 1);
    let ((first_here, first_gone), (second_here, second_gone)) = (Here::new(), Here::new());
    let ask = |gone: Gone| tokio::spawn(door.ask(ready()).unless_gone_owned(gone));
    let (first, second) = (ask(first_gone), ask(second_gone));
    settle().await;
    drop((first_here, second_here));
    settle().await;
    assert!(!first.is_finished(), "it has begun");
    assert_eq!(word(Some(second.await.expect("no panic"))), "Internal");
    assert_eq!(door.counts().snapshot()[0].dropped, 1);
    core.go.add_permits(1);
    assert_eq!(word(Some(first.await.expect("no panic"))), "ok");
    assert_eq!(core.begun.load(Ordering::SeqCst), 1);
}

impl<T> Asked<T> {
    async fn unless_gone_owned(self, gone: Gone) -> Result<T, ApiError> {
        self.unless_gone(&gone).await
    }
}

#[tokio::test]
async fn panic_of_the_host_is_logged_once_and_gives_its_turn_back() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = Log { level: "info".into(), format: LogFormat::Text };
    let log = subscriber(&log, false, move || writer.clone()).expect("a log");
    let _log = tracing::subscriber::set_default(log);
    let door = Door::new(Slow::new(), caller(), 1);
    for text in ["oh", "dear"] {
        let work = async move {
            tokio::task::yield_now().await;
            breaks(text)
        };
        let answer = door.carry_out(Called::StartSession, work).await;
        assert_eq!(word(Some(answer)), "Internal");
    }
    let said = lines.text();
    assert_eq!(said.matches("oh 1").count(), 1, "{said}");
    assert_eq!(said.matches("call=\"startSession\"").count(), 2, "{said}");
    assert!(said.contains("module=\"mine\""), "{said}");
    let counted = &door.counts().snapshot()[0];
    assert_eq!(counted.refused, [(ErrorName::Internal, 2)]);
}

fn breaks(text: &str) -> Result<CoreReply, ApiError> {
    panic!("{text} {}", 1)
}

#[tokio::test]
async fn log_lines_need_no_turn_and_pass_a_closed_gate() {
    let core = Slow::new();
    let door = Door::new(core.clone(), caller(), 1);
    let _under_way = door.ask(ready());
    for close in [false, true] {
        if close {
            door.gate().close();
        }
        assert_eq!(word(Some(door.ask(log("a word")).await)), "ok");
    }
    assert_eq!(*core.heard.lock().expect("no panic"), ["a word", "a word"]);
    let counted = door.counts().snapshot();
    assert_eq!((counted[1].called, counted[1].answered), (Called::Log, 2));
}

#[tokio::test]
async fn what_a_module_says_through_its_door_is_cut_and_has_a_rate() {
    let lines = Lines::default();
    let writer = lines.clone();
    let config = Log { level: "info".into(), format: LogFormat::Text };
    let subscriber = subscriber(&config, false, move || writer.clone()).expect("a log");
    let _log = tracing::subscriber::set_default(subscriber);
    let door = Door::new(Slow::new(), caller(), 1);
    for _ in 0..20_000 {
        assert_eq!(word(Some(door.ask(log(&"x".repeat(100))).await)), "ok");
    }
    assert_eq!(word(Some(door.ask(log(&"y".repeat(900_000))).await)), "ok");
    let said = lines.text();
    assert!(said.len() < 1024 * 1024, "{} bytes", said.len());
    assert!(said.contains("left out for now"), "{said:.200}");
}

#[tokio::test]
async fn counts_of_a_product_outlive_its_generations() {
    let core = Slow::new();
    core.go.add_permits(5);
    let doors = Doors::new(core.clone());
    let old = doors.open(caller(), 1);
    let other = doors.open(Caller { product: Uuid::from_u128(2), name: "other".into() }, 1);
    let access = || CoreRequest::GetAccess { client_key: ClientKey(Uuid::nil()) };
    for request in [ready(), access(), access()] {
        let _ = old.ask(request).await;
    }
    old.gate().close();
    let _ = old.ask(ready()).await;
    let new = doors.open(Caller { name: "mine again".into(), ..caller() }, 1);
    let _ = new.ask(ready()).await;
    assert_eq!(new.unreadable("no call").name, ErrorName::BadRequest);
    let _ = other.ask(ready()).await;
    let counts = doors.counts();
    let names: Vec<&str> = counts.iter().map(|product| product.module.as_str()).collect();
    assert_eq!(names, ["mine again", "other"]);
    let of_calls = |product: &ProductCounts| -> Vec<_> {
        let calls = product.calls.iter();
        calls.map(|of| (of.called.name(), of.asked, of.answered, of.refused.clone())).collect()
    };
    assert_eq!(
        of_calls(&counts[0]),
        [
            ("getAccess", 2, 0, vec![(ErrorName::AccessNotFound, 2)]),
            ("serviceReady", 3, 2, vec![(ErrorName::AccessDenied, 1)]),
            ("unknown", 1, 0, vec![(ErrorName::BadRequest, 1)]),
        ]
    );
    assert_eq!(of_calls(&counts[1]), [("serviceReady", 1, 1, vec![])]);
    for of in counts.iter().flat_map(|product| &product.calls) {
        let ended: u64 = of.within.iter().map(|(_, count)| count).sum();
        let refused: u64 = of.refused.iter().map(|(_, count)| count).sum();
        assert_eq!(ended, of.answered + refused, "each that ended is of one duration");
    }
}

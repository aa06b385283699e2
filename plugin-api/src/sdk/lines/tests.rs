//! Lines in paused time: what `cut` waits for, and both sides of a service over a stream.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::*;
use crate::message::{AccessMessage, ErrorName, Password, Status};
use crate::sdk::Error;
use crate::sdk::fake::{Fake, Says};

const CHANNEL: ClientKey = ClientKey(Uuid::from_u128(1));

/// Longer than anything takes in paused time.
const LONG: Duration = Duration::from_secs(3600);

fn generous() -> Fake {
    Fake::granting(1 << 40, 1 << 40)
}

/// The agent of a service that sends so many bytes as are asked for; connections come in by a pipe.
struct Agent {
    core: Fake,
    lines: Lines,
    door: mpsc::UnboundedSender<DuplexStream>,
}

impl Agent {
    fn new() -> Self {
        let (core, (door, mut inside)) = (generous(), mpsc::unbounded_channel());
        let lines = Lines::new(&core.core());
        lines.accept(
            move |context| {
                inside.poll_recv(context).map(|it| it.ok_or(std::io::ErrorKind::Other.into()))
            },
            sell,
        );
        Self { core, lines, door }
    }

    fn connect(&self) -> Result<DuplexStream, Error> {
        let (near, far) = duplex(1000);
        self.door.send(far).map_err(|_| "nobody listens")?;
        Ok(near)
    }
}

async fn sell(mut stream: DuplexStream, guest: Guest) -> Result<(), Error> {
    let (line, meter) = guest.admit(&mut stream, None).await?;
    let mut stream = meter.stream(stream);
    line.run(meter, async move {
        loop {
            let amount = stream.get_mut().read_u64().await?;
            tokio::io::copy(&mut tokio::io::repeat(1).take(amount), &mut stream).await?;
        }
    })
    .await;
    Ok(())
}

async fn buy(line: Line, connection: Result<DuplexStream, Error>) -> Result<Over, Error> {
    let mut stream = connection?;
    let meter = line.log_in(&mut stream, &access()).await?;
    let asked = line.clone();
    let mut stream = meter.stream(stream);
    let traffic = async move {
        loop {
            let errand = tokio::select! {
                errand = asked.errand() => errand,
                _ = stream.get_mut().read_u8() => return Ok(()),
            };
            stream.get_mut().write_u64(errand.amount).await?;
            stream.read_exact(&mut vec![0; errand.amount as usize]).await?;
            let amount = errand.amount;
            errand.done(amount);
        }
    };
    Ok(line.run(meter, traffic).await)
}

fn access() -> AccessMessage {
    AccessMessage {
        template_hash: String::new(),
        nonce: String::new(),
        username: CHANNEL,
        password: Password("open-sesame".into()),
        payment_receiver_address: String::new(),
        service_endpoint_address: String::new(),
        additional_params: std::collections::BTreeMap::new(),
        custom: serde_json::Map::new(),
    }
}

/// Both sides; the client is connected.
struct Pair {
    agent: Arc<Agent>,
    core: Fake,
    lines: Lines,
    connections: Arc<AtomicUsize>,
}

impl Pair {
    fn new() -> Self {
        let core = generous();
        let lines = Lines::new(&core.core());
        Self { agent: Arc::new(Agent::new()), core, lines, connections: Arc::default() }
    }

    async fn start(&self, nonce: &str) -> Result<(), Error> {
        let (agent, connections) = (Arc::clone(&self.agent), Arc::clone(&self.connections));
        let connect = move |line| {
            connections.fetch_add(1, SeqCst);
            buy(line, agent.connect())
        };
        self.lines.keep(CHANNEL, nonce, connect).await
    }
}

async fn until(what: impl Fn() -> bool) {
    let looked = async {
        while !what() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, looked).await.expect("in time");
}

/// Whether something is not over after a long time.
async fn lasts(what: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    timeout(LONG, what).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_service_is_counted_alike_on_both_sides_and_is_over_after_a_cut() {
    let pair = Pair::new();
    pair.start("1").await.expect("started");
    assert_eq!(pair.lines.served(), [CHANNEL]);
    assert_eq!(pair.lines.ask(CHANNEL, 100_000).await.expect("carried"), 100_000);
    assert_eq!(pair.lines.ask(CHANNEL, 1).await.expect("carried"), 1);
    pair.start("1").await.expect("started again");
    assert_eq!(pair.connections.load(SeqCst), 1, "that is done already");
    for lines in [&pair.lines, &pair.agent.lines] {
        lines.cut(CHANNEL).await;
        assert_eq!(lines.served(), []);
    }
    for core in [&pair.core, &pair.agent.core] {
        assert_eq!((core.total(), core.is_open()), (100_001, false));
    }
    assert!(pair.lines.ask(CHANNEL, 1).await.is_err(), "not served");
    pair.lines.cut(CHANNEL).await;
}

#[tokio::test(start_paused = true)]
async fn another_text_has_the_channel_connected_anew() {
    let pair = Pair::new();
    pair.start("1").await.expect("started");
    pair.start("2").await.expect("started");
    assert_eq!(pair.connections.load(SeqCst), 2);
    assert_eq!(pair.lines.ask(CHANNEL, 10).await.expect("carried"), 10);
    assert_eq!(pair.lines.served(), [CHANNEL]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_made_again() {
    let pair = Pair::new();
    pair.start("1").await.expect("started");
    // The agent has the channel stopped: nobody is let in for a while.
    pair.agent.core.denies(Some(ErrorName::NonActiveChannel));
    pair.agent.lines.cut(CHANNEL).await;
    until(|| pair.lines.served().is_empty()).await;
    let tries = pair.connections.load(SeqCst);
    until(|| pair.connections.load(SeqCst) > tries + 3).await;
    pair.agent.core.denies(None);
    assert_eq!(pair.lines.ask(CHANNEL, 10).await.expect("carried"), 10);
}

#[tokio::test(start_paused = true)]
async fn what_the_core_does_not_allow_is_not_connected_again() {
    let pair = Pair::new();
    pair.start("1").await.expect("started");
    pair.core.says(Says::Status(Status::Suspending, Some(0)));
    until(|| pair.lines.served().is_empty()).await;
    sleep(LONG).await;
    assert_eq!(pair.connections.load(SeqCst), 1);
    // One that fails is connected again once it answers.
    let pair = Pair::new();
    pair.start("1").await.expect("started");
    pair.core.says(Says::Error(ErrorName::Internal));
    until(|| pair.lines.served().is_empty() || pair.core.reports().len() > 3).await;
    sleep(Duration::from_secs(60)).await;
    pair.core.says(Says::Status(Status::Active, Some(1 << 40)));
    until(|| pair.connections.load(SeqCst) > 1).await;
    until(|| pair.lines.served() == [CHANNEL]).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_connection_that_fails_is_said_and_leaves_nothing() {
    let pair = Pair::new();
    pair.agent.core.denies(Some(ErrorName::BadClientPassword));
    let error = pair.start("1").await.expect_err("denied").to_string();
    assert!(error.contains(ErrorName::BadClientPassword.text()), "{error}");
    assert!(!error.contains("open-sesame"), "{error}");
    assert_eq!((pair.lines.served(), pair.core.sessions()), (vec![], 0));
    pair.agent.core.denies(None);
    pair.start("1").await.expect("started");
    // Nobody takes the connection in: that takes its time, and no longer.
    let lines = Lines::new(&generous().core());
    let (near, _far) = duplex(1000);
    let connection = Mutex::new(Some(near));
    let connect = move |line| buy(line, lock(&connection).take().ok_or_else(|| "once".into()));
    lines.keep(CHANNEL, "1", connect).await.expect_err("no answer");
    timeout(LONG, lines.cut(CHANNEL)).await.expect("it has ended");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_dropped_leaves_no_session() {
    let pair = Pair::new();
    pair.core.opens_nothing(true);
    assert!(timeout(Duration::from_secs(1), pair.start("1")).await.is_err());
    // The core may still open it: as long as that can be, the line lasts.
    let began = Instant::now();
    pair.lines.cut(CHANNEL).await;
    assert!(began.elapsed() <= Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(!pair.core.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_cut_waits_until_the_last_usage_is_reported() {
    let core = generous();
    let lines = Lines::new(&core.core());
    for how in ["run", "dropped", "panicked"] {
        let line = lines.open(CHANNEL, String::new()).await.expect("open");
        let meter = line.meter(None).await.expect("a session");
        let before = core.total();
        meter.take(7).await.expect("granted");
        core.says(Says::Error(ErrorName::Internal));
        match how {
            "run" => drop(tokio::spawn(async move {
                line.run(meter, std::future::pending()).await;
            })),
            "dropped" => drop((line, meter)),
            _ => assert!(
                tokio::spawn(async move {
                    let _held = (line, meter);
                    panic!("on purpose");
                })
                .await
                .is_err()
            ),
        }
        let mut cut = Box::pin(lines.cut(CHANNEL));
        assert!(lasts(&mut cut).await, "{how}");
        core.says(Says::Status(Status::Active, Some(1 << 40)));
        timeout(LONG, cut).await.expect("over");
        assert_eq!((core.total(), core.is_open()), (before + 7, false), "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_closes_the_connection_before_it_reports() {
    let core = generous();
    let lines = Lines::new(&core.core());
    let line = lines.open(CHANNEL, String::new()).await.expect("open");
    let meter = line.meter(None).await.expect("a session");
    meter.take(7).await.expect("granted");
    core.says(Says::Error(ErrorName::Internal));
    let (near, mut far) = duplex(10);
    let running = tokio::spawn(async move {
        let traffic = async move {
            let _near = near;
            std::future::pending().await
        };
        line.run(meter, traffic).await
    });
    until(|| lines.served() == [CHANNEL]).await;
    let mut cut = Box::pin(lines.cut(CHANNEL));
    assert!(lasts(&mut cut).await);
    assert_eq!(far.read(&mut [0]).await.expect("closed"), 0);
    core.says(Says::Status(Status::Active, Some(1 << 40)));
    cut.await;
    assert_eq!(running.await.expect("no panic"), Over::Service);
}

#[tokio::test(start_paused = true)]
async fn a_second_line_of_a_channel_waits_for_the_end_of_the_first() {
    let lines = Lines::new(&generous().core());
    let first = lines.open(CHANNEL, String::from("1")).await.expect("open");
    let other = lines.open(ClientKey(Uuid::from_u128(2)), String::new()).await.expect("open");
    let second = lines.open(CHANNEL, String::from("2"));
    let mut second = Box::pin(async { drop(second.await.expect("open")) });
    assert!(lasts(&mut second).await);
    timeout(LONG, first.until_cut()).await.expect("cut");
    drop(first);
    timeout(LONG, second).await.expect("open");
    assert!(timeout(LONG, other.until_cut()).await.is_err(), "another channel's");
}

#[tokio::test(start_paused = true)]
async fn holders_join_a_line_until_it_is_cut() {
    let lines: Lines<u32> = Lines::new(&generous().core());
    let (first, opened) = lines.join(CHANNEL, || 1).await.expect("open");
    assert!(opened);
    let (second, opened) = lines.join(CHANNEL, || 2).await.expect("joined");
    assert_eq!((opened, *second.value()), (false, 1));
    assert_eq!(lines.get(CHANNEL).map(|line| *line.value()), Some(1));
    second.cut();
    assert!(lines.get(CHANNEL).is_none() && lines.all().is_empty());
    let mut third = Box::pin(async { assert!(lines.join(CHANNEL, || 3).await.expect("open").1) });
    assert!(lasts(&mut third).await);
    drop((first, second));
    timeout(LONG, third).await.expect("open");
}

#[tokio::test(start_paused = true)]
async fn after_the_end_of_all_nobody_comes_in_and_the_listener_is_gone() {
    let pair = Pair::new();
    pair.start("1").await.expect("started");
    // One that has not said who it is.
    let mut stranger = pair.agent.connect().expect("a connection");
    stranger.write_all(b"some").await.expect("sent");
    sleep(Duration::from_secs(1)).await;
    pair.lines.cut_all().await;
    timeout(Duration::from_secs(1), pair.agent.lines.cut_all()).await.expect("over");
    assert!(pair.agent.door.is_closed(), "the port is free");
    assert_eq!(stranger.read(&mut [0]).await.expect("closed"), 0);
    assert!(!pair.agent.core.is_open() && !pair.core.is_open());
    assert!(pair.lines.open(CHANNEL, String::new()).await.is_err());
    pair.start("1").await.expect_err("over");
    pair.lines.cut_all().await;
}

#[tokio::test(start_paused = true)]
async fn strangers_are_bounded_in_time_and_bytes() {
    let agent = Agent::new();
    let mut silent = agent.connect().expect("a connection");
    assert_eq!(silent.read(&mut [0]).await.expect("closed"), 0);
    let mut noisy = agent.connect().expect("a connection");
    let began = Instant::now();
    noisy.write_all(&[b'x'; 600]).await.expect("taken by the pipe");
    assert_eq!(noisy.read(&mut [0]).await.expect("closed"), 0);
    assert_eq!(began.elapsed(), Duration::ZERO, "at once");
    let mut wrong = agent.connect().expect("a connection");
    wrong.write_all(b"nobody knows\n").await.expect("sent");
    let mut answer = String::new();
    wrong.read_to_string(&mut answer).await.expect("answered");
    assert_eq!(answer, "denied bad login line\n");
    assert_eq!(agent.core.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_password_that_the_agent_says_back_is_in_no_error() {
    let core = generous();
    let line = Lines::new(&core.core()).open(CHANNEL, String::new()).await.expect("open");
    let (mut near, mut far) = duplex(1000);
    far.write_all(b"denied open-sesame\n").await.expect("sent");
    let error = line.log_in(&mut near, &access()).await.expect_err("denied");
    assert!(!format!("{error} {error:?}").contains("open-sesame"), "{error:?}");
    assert_eq!(core.sessions(), 0);
}

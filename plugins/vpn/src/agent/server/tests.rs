//! The server with a stand-in for OpenVPN, which dies, hangs and talks nonsense at every stage.

use tokio::task::JoinHandle;

use super::*;
use crate::agent::clients::STOPPED;
use crate::agent::gate::{Gate, Tallies};
use crate::agent::tally::{Carried, Passed, Traffic};
use crate::management::MAX_LINE;
use crate::openvpn::PATIENCE as ANSWER;
use crate::stand_in::{Openvpn as StandIn, PATIENCE, Scene, TestCore, is_gone, wait_for};

const CHANNEL: &str = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";

struct World {
    scene: Scene,
    core: TestCore,
    board: Board,
    orders: mpsc::UnboundedSender<Order>,
    gate: mpsc::UnboundedReceiver<String>,
    tallies: Tallies,
    task: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(prepare: impl FnOnce(&Scene)) -> Self {
        let (scene, core, board) = (Scene::new(), TestCore::default(), Board::default());
        prepare(&scene);
        let (gate, words, tallies) = Gate::in_words();
        let pki = Pki::open(&scene.directory().join("pki")).expect("made");
        let (place, journal) = (scene.place.clone(), Arc::clone(&scene.journal));
        let clients = Clients::new(core.handle(), gate, board.clone());
        let server = Server::new(Settings::default(), pki, place, journal, board.clone(), clients);
        let (orders, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(server.run(inbox));
        Self { scene, core, board, orders, gate: words, tallies, task }
    }

    fn down(&self) -> Option<String> {
        self.board.read(|report| report.down.clone())
    }

    /// The process of this turn, ready for clients.
    async fn up(&mut self, turn: usize) -> StandIn {
        let mut openvpn = self.scene.connect(turn).await;
        openvpn.begins().await;
        openvpn.says(&[">STATE:1,CONNECTED,SUCCESS,10.89.0.1,,,,"]).await;
        wait_for("the server to be up", || self.down().is_none().then_some(())).await;
        openvpn
    }

    async fn wait_down(&self, why: &str) {
        let is = || self.down().filter(|down| down.contains(why));
        wait_for(&format!("{why:?} to be said"), is).await;
    }

    async fn gate_hears(&mut self, words: &[&str]) {
        for word in words {
            let heard = timeout(PATIENCE, self.gate.recv()).await.expect("in time");
            assert_eq!(heard.as_deref(), Some(*word));
        }
    }

    /// The firewall counts so much of a client that it lets through.
    fn passes(&self, address: &str, up: u64, down: u64) {
        let tallies = self.tallies.lock().expect("not poisoned");
        let tally = &tallies[&address.parse().expect("an address")];
        let traffic = |bytes| Traffic { bytes, packets: 0 };
        tally.passed(Passed { up: traffic(up), down: traffic(down) }, Carried::default());
    }

    /// The firewall is looked at again and again, until the core is told of so much.
    async fn wait_counted(&self, address: &str, up: u64, down: u64) {
        let total = format!("total {}", up + down);
        let counted = || {
            self.passes(address, up, down);
            self.core.calls().contains(&total).then_some(())
        };
        wait_for(&format!("{total} to be told"), counted).await;
    }

    /// The module is told to stop the channel; what comes when that is done.
    fn cut(&self) -> oneshot::Receiver<()> {
        let (done, gone) = oneshot::channel();
        let channel = CHANNEL.parse().expect("a key");
        assert!(self.orders.send(Order::Cut { channel, done }).is_ok());
        gone
    }

    fn shutdown(&self, deadline: Duration) -> oneshot::Receiver<()> {
        let (done, gone) = oneshot::channel();
        assert!(self.orders.send(Order::Shutdown { deadline, done }).is_ok());
        gone
    }

    async fn ends(self) {
        timeout(PATIENCE, self.task).await.expect("in time").expect("no panic");
        assert!(self.scene.starts().into_iter().all(is_gone), "a process is left");
        assert_eq!(self.scene.journal.all(), []);
    }
}

impl StandIn {
    async fn client(&mut self, event: &str, variables: &[&str]) {
        self.says(&[&format!(">CLIENT:{event}")]).await;
        for variable in variables {
            self.says(&[&format!(">CLIENT:ENV,{variable}")]).await;
        }
        self.says(&[">CLIENT:ENV,END"]).await;
    }

    /// A client shows the channel's credentials.
    async fn asks(&mut self, client: u64) {
        let user = format!("username={CHANNEL}");
        let from = ["untrusted_ip=192.0.2.2", "untrusted_port=4000"];
        let variables = [&user, "password=secret", from[0], from[1]];
        self.client(&format!("CONNECT,{client},1"), &variables).await;
    }

    /// A client is in, with an address of its own.
    async fn enters(&mut self, client: u64) {
        self.does(&[&format!("client-auth-nt {client} 1")]).await;
        self.says(&[&format!(">CLIENT:ADDRESS,{client},10.89.0.{},1", client + 2)]).await;
        let from = ["trusted_ip=192.0.2.2", "trusted_port=4000"];
        self.client(&format!("ESTABLISHED,{client}"), &from).await;
    }

    async fn leaves(&mut self, client: u64, received: u64, sent: u64) {
        let bytes = [format!("bytes_received={received}"), format!("bytes_sent={sent}")];
        self.client(&format!("DISCONNECT,{client}"), &[&bytes[0], &bytes[1]]).await;
    }
}

#[tokio::test]
async fn a_client_is_let_in_served_counted_and_gone() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    world.gate_hears(&["empty"]).await;
    openvpn.asks(0).await;
    openvpn.enters(0).await;
    world.gate_hears(&["open 10.89.0.2"]).await;
    assert_eq!(world.core.calls(), ["auth secret", "start"]);
    openvpn.says(&[">BYTECOUNT_CLI:0,64,2"]).await;
    world.wait_counted("10.89.0.2", 40, 2).await;
    assert_eq!(world.board.read(|report| report.served.len()), 1);
    world.passes("10.89.0.2", 50, 5);
    openvpn.leaves(0, 90, 5).await;
    world.gate_hears(&["shut 10.89.0.2"]).await;
    world.core.wait_called("stop").await;
    let calls = world.core.calls();
    assert_eq!(calls[calls.len() - 2..], ["total 55", "stop"]);
    wait_for("nobody", || world.board.read(|report| report.served.is_empty()).then_some(())).await;
    let gone = world.shutdown(PATIENCE);
    openvpn.does(&["signal SIGTERM"]).await;
    openvpn.dies();
    gone.await.expect("said");
    world.gate_hears(&["empty", "down"]).await;
    world.ends().await;
}

/// How far a process gets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Started,
    Connected,
    Halfway,
    Released,
    Asked,
    Admitted,
    Served,
}

#[tokio::test]
async fn one_that_dies_at_any_stage_is_started_again_and_its_sessions_end() {
    use Stage::{Admitted, Asked, Connected, Halfway, Released, Served, Started};
    for stage in [Started, Connected, Halfway, Released, Asked, Admitted, Served] {
        let mut world = World::new();
        let dead = if stage == Started {
            let pid = world.scene.wait_starts(1).await;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL)
                .expect("killed");
            pid
        } else {
            let mut openvpn = world.scene.connect(1).await;
            match stage {
                Started | Connected => {}
                Halfway => openvpn.says_bytes(b">HOLD:Waiting for ho").await,
                Released | Asked | Admitted | Served => openvpn.begins().await,
            }
            if [Asked, Admitted, Served].contains(&stage) {
                openvpn.asks(0).await;
            }
            match stage {
                Admitted => openvpn.does(&["client-auth-nt 0 1"]).await,
                Served => {
                    openvpn.enters(0).await;
                    world.gate_hears(&["empty", "open 10.89.0.2"]).await;
                    openvpn.says(&[">BYTECOUNT_CLI:0,64,2"]).await;
                    world.wait_counted("10.89.0.2", 40, 2).await;
                }
                _ => {}
            }
            let pid = openvpn.pid;
            openvpn.dies();
            pid
        };
        world.wait_down("openvpn ended").await;
        assert!(is_gone(dead), "{stage:?}");
        // What comes after it knows nothing of its clients.
        let mut openvpn = world.up(2).await;
        if stage == Served {
            world.core.wait_called("stop").await;
            let calls = world.core.calls();
            assert_eq!(calls[calls.len() - 2..], ["total 42", "stop"]);
        }
        world.cut().await.expect("nobody is there");
        openvpn.asks(0).await;
        openvpn.enters(0).await;
        wait_for("a session", || {
            world.board.read(|report| (report.served.len() == 1).then_some(()))
        })
        .await;
    }
}

#[tokio::test]
async fn junk_that_openvpn_counts_is_nobodys_usage() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    openvpn.asks(0).await;
    openvpn.enters(0).await;
    world.gate_hears(&["empty", "open 10.89.0.2"]).await;
    openvpn.says(&[">BYTECOUNT_CLI:0,8600000,0"]).await;
    world.passes("10.89.0.2", 40, 0);
    world.core.wait_called("total 40").await;
    openvpn.leaves(0, 20_000_000, 0).await;
    world.core.wait_called("stop").await;
    let mut calls = world.core.calls();
    calls.dedup();
    let counted = ["auth secret", "start", "total 40", "stop"];
    assert!(calls.iter().all(|call| call == "total 0" || counted.contains(&&**call)), "{calls:?}");
}

#[tokio::test]
async fn credentials_that_are_too_long_are_not_asked_about() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    let user = format!("username={CHANNEL}");
    for (client, password) in (0_u64..).zip([String::new(), "x".repeat(128), "x".repeat(5000)]) {
        let password = format!("password={password}");
        openvpn.client(&format!("CONNECT,{client},1"), &[&user, &password]).await;
        let denied = format!("client-deny {client} 1 \"no such user\" \"no such user\"");
        openvpn.does(&[&denied]).await;
    }
    assert_eq!(world.core.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn pauses_grow_and_what_it_said_is_told() {
    let said = "TCP/UDP: Socket bind failed on local address [AF_INET][undef]:1194: \
                Address already in use (errno=98)";
    let begun = Instant::now();
    let mut world = World::with(|scene| {
        scene.program(&format!("echo 'a line'; echo '{said}'; echo 'Exiting'; exit 1"));
    });
    world.wait_down("Address already in use").await;
    world.scene.wait_starts(3).await;
    // One second and two.
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    // In a pause, commands are carried out and the end comes at once.
    world.cut().await.expect("nobody is there");
    world.scene.lives();
    let _openvpn = world.up(world.scene.starts().len() + 1).await;
}

#[tokio::test]
async fn one_that_is_no_program_is_said_and_the_end_comes_all_the_same() {
    let world = World::with(|scene| std::fs::remove_file(&scene.place.program).expect("removed"));
    world.wait_down("the server is down").await;
    world.shutdown(PATIENCE).await.expect("said");
    world.ends().await;
}

#[tokio::test]
async fn one_that_never_says_a_word_is_ended() {
    let begun = Instant::now();
    let world = World::new();
    let silent = world.scene.wait_starts(1).await;
    world.wait_down("does not answer").await;
    assert!(is_gone(silent) && begun.elapsed() >= ANSWER);
    let mut world = world;
    world.up(2).await;
}

#[tokio::test]
async fn one_that_hangs_is_ended_with_its_sessions() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    openvpn.asks(0).await;
    openvpn.enters(0).await;
    world.gate_hears(&["empty", "open 10.89.0.2"]).await;
    // From now on nobody answers.
    world.wait_down("does not answer").await;
    world.core.wait_called("stop").await;
    let hung = openvpn.pid;
    wait_for("its end", || is_gone(hung).then_some(())).await;
    world.gate_hears(&["empty"]).await;
    drop(openvpn);
    world.up(2).await;
}

#[tokio::test]
async fn nonsense_is_passed_over_and_too_much_of_it_is_the_end() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    let nonsense: [&[u8]; 9] = [
        b"\xff\xfe\x00\n",
        b"\n\r\n",
        b">\n",
        b">CLIENT:\n",
        b">CLIENT:ESTABLISHED,99999999999999999999999\n",
        b">CLIENT:ENV,END\n",
        b">BYTECOUNT_CLI:0\n>BYTECOUNT_CLI:x,y,z\n",
        b">CLIENT:DISCONNECT,77\n>CLIENT:ENV,END\n",
        b">CLIENT:CONNECT,5,1\n>CLIENT:ENV,username=\xff\xfe\n>CLIENT:ENV,END\n",
    ];
    for line in nonsense {
        openvpn.says_bytes(line).await;
    }
    openvpn.does(&["client-deny 5 1 \"no such user\" \"no such user\""]).await;
    // One that was never let in.
    openvpn.client("ESTABLISHED,9", &[]).await;
    openvpn.does(&["client-kill 9 HALT"]).await;
    openvpn.asks(0).await;
    openvpn.enters(0).await;
    world.gate_hears(&["empty", "open 10.89.0.2"]).await;
    let pid = openvpn.pid;
    openvpn.says_bytes(&vec![b'x'; MAX_LINE + 10]).await;
    world.wait_down("the management interface").await;
    world.core.wait_called("stop").await;
    wait_for("its end", || is_gone(pid).then_some(())).await;
    world.up(2).await;
}

#[tokio::test]
async fn who_is_refused_is_told_and_not_served() {
    use ErrorName::{BadClientPassword, ChannelNotFound, Internal, NonActiveChannel};
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    let names = [BadClientPassword, ChannelNotFound, NonActiveChannel, Internal];
    for (client, name) in (0_u64..).zip(names) {
        world.core.script(|script| script.refusal = Some(name));
        openvpn.asks(client).await;
        let why = name.text();
        openvpn.does(&[&format!("client-deny {client} 1 \"{why}\" \"{why}\"")]).await;
    }
    assert!(!world.core.calls().contains(&"start".to_owned()));
    world.cut().await.expect("nobody is there");
    // Whoever is in and renews its keys with another user's name has to go.
    world.core.script(|script| script.refusal = None);
    openvpn.asks(7).await;
    openvpn.enters(7).await;
    world.gate_hears(&["empty", "open 10.89.0.9"]).await;
    openvpn.client("REAUTH,7,2", &[&format!("username={CHANNEL}"), "password=new"]).await;
    openvpn.does(&["client-auth-nt 7 2"]).await;
    world.core.script(|script| script.refusal = Some(NonActiveChannel));
    openvpn.client("REAUTH,7,3", &[&format!("username={CHANNEL}"), "password=new"]).await;
    let why = NonActiveChannel.text();
    openvpn.does(&[&format!("client-deny 7 3 \"{why}\" \"{why}\""), "client-kill 7 HALT"]).await;
    world.gate_hears(&["shut 10.89.0.9"]).await;
}

#[tokio::test]
async fn an_answer_that_comes_late_lets_nobody_into_another_process() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    world.core.answers(false);
    openvpn.asks(0).await;
    world.core.wait_called("auth secret").await;
    openvpn.dies();
    world.wait_down("openvpn ended").await;
    let mut openvpn = world.up(2).await;
    world.core.answers(true);
    // Client 0 of this process is somebody else, and is asked about by itself.
    openvpn.asks(0).await;
    openvpn.enters(0).await;
    world.gate_hears(&["empty", "empty", "empty", "open 10.89.0.2"]).await;
    assert_eq!(world.core.calls(), ["auth secret", "auth secret", "start"]);
}

#[tokio::test]
async fn a_second_login_waits_until_the_first_is_gone() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    openvpn.asks(0).await;
    openvpn.enters(0).await;
    world.gate_hears(&["empty", "open 10.89.0.2"]).await;
    openvpn.asks(1).await;
    openvpn.does(&["client-kill 0 HALT"]).await;
    world.gate_hears(&["shut 10.89.0.2"]).await;
    // A third one in the meantime takes the second's place.
    openvpn.asks(2).await;
    // It does not go by itself.
    let mut heard = [openvpn.hears().await, String::new()];
    openvpn.says(&["SUCCESS: done"]).await;
    heard[1] = openvpn.hears().await;
    openvpn.says(&["ERROR: nobody of that kind"]).await;
    heard.sort();
    let why = "\"logged in elsewhere\"";
    assert_eq!(heard, [format!("client-deny 1 1 {why} {why}"), "kill 192.0.2.2:4000".into()]);
    openvpn.leaves(0, 30, 3).await;
    openvpn.enters(2).await;
    // Shut again when it is gone; the gate knows better.
    world.gate_hears(&["shut 10.89.0.2", "open 10.89.0.4"]).await;
    assert_eq!(world.core.calls().iter().filter(|call| *call == "stop").count(), 1);
}

#[tokio::test]
async fn a_stop_is_answered_when_the_client_is_gone_and_accounted_for() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    openvpn.asks(0).await;
    openvpn.enters(0).await;
    world.gate_hears(&["empty", "open 10.89.0.2"]).await;
    world.passes("10.89.0.2", 20, 1);
    let mut gone = world.cut();
    openvpn.does(&["client-kill 0 HALT", "kill 192.0.2.2:4000"]).await;
    world.gate_hears(&["shut 10.89.0.2"]).await;
    assert!(gone.try_recv().is_err(), "answered too early");
    world.core.answers(false);
    openvpn.leaves(0, 20, 1).await;
    world.core.wait_called("total 21").await;
    assert!(gone.try_recv().is_err(), "answered before the session was closed");
    world.core.answers(true);
    gone.await.expect("said");
    assert_eq!(world.core.calls().last().map(String::as_str), Some("stop"));
}

#[tokio::test]
async fn who_comes_again_and_again_does_not_keep_a_stop_from_its_end() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    openvpn.asks(0).await;
    openvpn.enters(0).await;
    world.gate_hears(&["empty", "open 10.89.0.2"]).await;
    let gone = world.cut();
    openvpn.does(&["client-kill 0 HALT", "kill 192.0.2.2:4000"]).await;
    // The core would still let it in.
    openvpn.asks(1).await;
    openvpn.does(&[&format!("client-deny 1 1 \"{STOPPED}\" \"{STOPPED}\"")]).await;
    openvpn.leaves(0, 20, 1).await;
    gone.await.expect("said");
    // What comes later is the core's to say.
    openvpn.asks(2).await;
    openvpn.enters(2).await;
    // Shut as it was told to go, and as it went.
    world.gate_hears(&["shut 10.89.0.2", "shut 10.89.0.2", "open 10.89.0.4"]).await;
}

#[tokio::test]
async fn one_that_does_not_end_when_told_is_ended() {
    let mut world = World::new();
    let mut openvpn = world.up(1).await;
    openvpn.asks(0).await;
    openvpn.enters(0).await;
    world.gate_hears(&["empty", "open 10.89.0.2"]).await;
    openvpn.says(&[">BYTECOUNT_CLI:0,64,2"]).await;
    world.wait_counted("10.89.0.2", 40, 2).await;
    let gone = world.shutdown(PATIENCE);
    assert_eq!(openvpn.hears().await, "signal SIGTERM");
    openvpn.is_cut().await;
    gone.await.expect("said");
    let calls = world.core.calls();
    assert_eq!(calls[calls.len() - 2..], ["total 42", "stop"]);
    world.gate_hears(&["empty", "down"]).await;
    world.ends().await;
}

//! A tunnel with a stand-in for OpenVPN, which dies, hangs and talks nonsense at every stage.

use std::path::Path;

use tokio::task::JoinHandle;

use super::*;
use crate::client::statistics::tests::text;
use crate::management::MAX_LINE;
use crate::profile::tests::{agent, message};
use crate::settings::Settings;
use crate::stand_in::{Openvpn as StandIn, PATIENCE, Scene, TestCore, is_gone, wait_for};

struct World {
    scene: Scene,
    core: TestCore,
    board: Board,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

fn profile(password: &str, port: u16) -> Profile {
    let mut message = message(&Settings { port, ..agent() });
    message.password = Password(password.to_owned());
    Profile::read(&message, &Settings::default()).expect("usable")
}

fn addresses() -> Vec<IpAddr> {
    vec!["192.0.2.1".parse().expect("an address")]
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(prepare: impl FnOnce(&Scene)) -> Self {
        let (scene, core, board) = (Scene::new(), TestCore::default(), Board::default());
        prepare(&scene);
        let tunnel = Tunnel {
            core: core.handle(),
            channel: ClientKey(uuid::Uuid::nil()),
            profile: profile("secret", 1194),
            addresses: addresses(),
            device: "pvx0".into(),
            place: scene.place.clone(),
            set_dns: false,
            journal: Arc::clone(&scene.journal),
            guards: Guards::in_words(Arc::clone(&scene.journal)),
            statistics: Statistics(scene.directory().join("dev")),
            board: board.clone(),
        };
        let (orders, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(tunnel.run(inbox));
        Self { scene, core, board, orders, task }
    }

    /// The process of this turn, connected.
    async fn up(&self, turn: usize) -> StandIn {
        let mut openvpn = self.scene.connect(turn).await;
        openvpn.begins().await;
        openvpn.logs_in("secret").await;
        openvpn.connects().await;
        self.wait_up().await;
        openvpn
    }

    /// The device has carried so much since it was made.
    fn carries(&self, incoming: u64, outgoing: u64) {
        let file = self.scene.directory().join("dev");
        let part = file.with_extension("part");
        std::fs::write(&part, text("pvx0", incoming, outgoing)).expect("written");
        std::fs::rename(part, file).expect("renamed");
    }

    async fn wait_up(&self) {
        wait_for("the tunnel to be up", || self.board.is_up().then_some(())).await;
    }

    async fn wait_trouble(&self, why: &str) {
        let is = || self.board.trouble().filter(|trouble| trouble.contains(why));
        wait_for(&format!("{why:?} to be said"), is).await;
    }

    fn order(&self, order: Order) {
        assert!(self.orders.send(order).is_ok(), "the tunnel is over");
    }

    fn stop(&self) -> oneshot::Receiver<()> {
        let (done, gone) = oneshot::channel();
        self.order(Order::Stop { done, lift: true });
        gone
    }

    fn count(&self, call: &str) -> usize {
        self.core.calls().iter().filter(|known| *known == call).count()
    }

    async fn ends(self) {
        timeout(PATIENCE, self.task).await.expect("in time").expect("no panic");
        assert!(self.scene.starts().into_iter().all(is_gone), "a process is left");
        assert_eq!(self.scene.journal.all(), []);
        assert!(!self.board.has_session());
    }
}

impl StandIn {
    async fn logs_in(&mut self, password: &str) {
        self.says(&[">PASSWORD:Need 'Auth' username/password"]).await;
        let user = "username \"Auth\" \"6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b\"";
        self.does(&[user, &format!("password \"Auth\" \"{password}\"")]).await;
    }

    async fn connects(&mut self) {
        self.says(&[">STATE:1,CONNECTED,SUCCESS,10.89.0.2,192.0.2.1,1194,,"]).await;
    }

    /// Loses the connection when so much has come in all, and waits before another try.
    async fn loses_it(&mut self, received: u64) {
        self.says(&[">STATE:2,RECONNECTING,ping-restart,,,,,"]).await;
        assert_eq!(self.hears().await, "load-stats");
        let stats = format!("SUCCESS: nclients=0,bytesin={received},bytesout=7");
        self.says(&[&stats, ">HOLD:Waiting for hold release:1"]).await;
    }

    /// Hears that it has to end, and ends.
    async fn ends_in_order(mut self) {
        self.does(&["signal SIGTERM"]).await;
        self.dies();
    }
}

#[tokio::test]
async fn a_connection_is_a_session_and_what_it_used_is_counted_once() {
    let world = World::new();
    let mut openvpn = world.up(1).await;
    world.carries(60, 5);
    world.core.wait_called("total 65").await;
    assert_eq!(world.board.describe("pvx0")["address"], "10.89.0.2");
    world.carries(70, 30);
    openvpn.loses_it(1000).await;
    world.core.wait_called("stop").await;
    let calls = world.core.calls();
    assert_eq!(calls[calls.len() - 2..], ["total 100", "stop"]);
    assert!(!world.board.has_session());
    // The same process tries again after a pause; what its device has dropped meanwhile is nobody's.
    world.carries(70, 40);
    openvpn.does(&["hold release"]).await;
    openvpn.logs_in("secret").await;
    openvpn.connects().await;
    world.wait_up().await;
    world.carries(100, 60);
    world.core.wait_called("total 50").await;
    world.carries(110, 70);
    let gone = world.stop();
    openvpn.ends_in_order().await;
    gone.await.expect("said");
    let calls = world.core.calls();
    assert_eq!(calls[calls.len() - 2..], ["total 70", "stop"]);
    assert_eq!((world.count("start"), world.count("stop")), (2, 2));
    world.ends().await;
}

#[tokio::test]
async fn junk_that_openvpn_counts_is_nobodys_usage() {
    let world = World::new();
    let mut openvpn = world.up(1).await;
    openvpn.says(&[">BYTECOUNT:20000000,5"]).await;
    world.carries(60, 5);
    world.core.wait_called("total 65").await;
    openvpn.loses_it(40_000_000).await;
    openvpn.does(&["hold release"]).await;
    world.core.wait_called("stop").await;
    let counted = ["start", "total 0", "total 65", "stop"];
    let calls = world.core.calls();
    assert!(calls.iter().all(|call| counted.contains(&&**call)), "{calls:?}");
}

#[tokio::test]
async fn device_that_is_made_anew_is_counted_on() {
    let world = World::new();
    let _openvpn = world.up(1).await;
    world.carries(60, 5);
    world.core.wait_called("total 65").await;
    world.carries(1, 2);
    world.core.wait_called("total 68").await;
}

#[tokio::test]
async fn first_try_that_fails_is_diagnosed() {
    for (received, said) in [(0, "nothing was received"), (54, "54 bytes were received")] {
        let world = World::new();
        let mut openvpn = world.scene.connect(1).await;
        openvpn.begins().await;
        openvpn.says(&[">STATE:1,WAIT,,,,,,"]).await;
        openvpn.loses_it(received).await;
        world.wait_trouble(said).await;
        let trouble = world.board.trouble().expect("a trouble");
        for part in ["192.0.2.1", "UDP port 1194", "ping-restart"] {
            assert!(trouble.contains(part), "{trouble}");
        }
        // The next try is another one.
        openvpn.does(&["hold release"]).await;
        openvpn.says(&[">STATE:1,WAIT,,,,,,"]).await;
        openvpn.loses_it(received).await;
        world.wait_trouble("nothing was received").await;
    }
}

#[tokio::test]
async fn address_that_would_take_something_else_is_not_taken() {
    let world = World::new();
    let mut openvpn = world.scene.connect(1).await;
    openvpn.begins().await;
    openvpn.logs_in("secret").await;
    openvpn.says(&[">STATE:1,CONNECTED,SUCCESS,192.0.0.2,192.0.2.1,1194,,"]).await;
    world.wait_trouble("is no private address").await;
    world.scene.connect(2).await.begins().await;
    assert_eq!(world.core.calls(), Vec::<String>::new());
    assert!(!world.board.is_up());
}

#[tokio::test]
async fn one_that_dies_at_any_stage_is_started_again() {
    for stage in 0..6 {
        let world = World::new();
        if stage == 0 {
            let pid = world.scene.wait_starts(1).await;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL)
                .expect("killed");
        } else {
            let mut openvpn = world.scene.connect(1).await;
            match stage {
                1 => {}
                2 => openvpn.says_bytes(b">HOLD:Waiting for ho").await,
                _ => openvpn.begins().await,
            }
            if stage >= 4 {
                openvpn.logs_in("secret").await;
            }
            if stage == 5 {
                openvpn.connects().await;
                world.wait_up().await;
                world.carries(40, 2);
                world.core.wait_called("total 42").await;
            }
            openvpn.dies();
        }
        world.wait_trouble("openvpn ended").await;
        // The device went with its process.
        world.carries(0, 0);
        let openvpn = world.up(2).await;
        assert_eq!(world.board.trouble(), None, "stage {stage}");
        if stage == 5 {
            world.core.wait_called("stop").await;
        }
        wait_for("the session", || world.board.has_session().then_some(())).await;
        world.carries(7, 0);
        let gone = world.stop();
        openvpn.ends_in_order().await;
        gone.await.expect("said");
        // What the first has counted is not counted again for the second.
        let calls = world.core.calls();
        assert_eq!(calls[calls.len() - 2..], ["total 7", "stop"], "stage {stage}");
        world.ends().await;
    }
}

#[tokio::test]
async fn pauses_grow_what_it_said_is_told_and_a_stop_ends_a_pause() {
    let begun = Instant::now();
    let world = World::with(|scene| {
        scene.program("echo 'Cannot ioctl TUNSETIFF pvx0: Operation not permitted'; exit 1");
    });
    world.wait_trouble("Cannot ioctl TUNSETIFF").await;
    world.scene.wait_starts(3).await;
    // One second and two.
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    world.stop().await.expect("said");
    world.ends().await;
}

#[tokio::test]
async fn one_that_hangs_is_ended_with_its_session() {
    let world = World::new();
    let openvpn = world.up(1).await;
    let hung = openvpn.pid;
    world.wait_trouble("does not answer").await;
    world.core.wait_called("stop").await;
    wait_for("its end", || is_gone(hung).then_some(())).await;
    drop(openvpn);
    world.up(2).await;
}

#[tokio::test]
async fn one_that_does_not_end_when_told_is_ended() {
    let world = World::new();
    let mut openvpn = world.up(1).await;
    world.carries(40, 2);
    world.core.wait_called("total 42").await;
    let gone = world.stop();
    assert_eq!(openvpn.hears().await, "signal SIGTERM");
    openvpn.is_cut().await;
    gone.await.expect("said");
    let calls = world.core.calls();
    assert_eq!(calls[calls.len() - 2..], ["total 42", "stop"]);
    world.ends().await;
}

#[tokio::test]
async fn nonsense_is_passed_over_and_too_much_of_it_is_the_end() {
    let world = World::new();
    let mut openvpn = world.up(1).await;
    let nonsense: [&[u8]; 8] = [
        b"\xff\xfe\x00\n",
        b"\n\r\n",
        b">\n",
        b">BYTECOUNT:\n>BYTECOUNT:x,y\n>BYTECOUNT:99999999999999999999999,1\n",
        b">STATE:\n>STATE:1\n",
        b">PASSWORD:Need 'Private Key' password\n",
        b">PASSWORD:Need 'Auth\n",
        b">BYTECOUNT:50,0\n>BYTECOUNT:1,1\n",
    ];
    for line in nonsense {
        openvpn.says_bytes(line).await;
    }
    world.carries(49, 1);
    world.core.wait_called("total 50").await;
    assert!(world.board.is_up());
    let pid = openvpn.pid;
    openvpn.says_bytes(&vec![b'x'; MAX_LINE + 10]).await;
    world.wait_trouble("the management interface").await;
    world.core.wait_called("stop").await;
    assert_eq!(world.core.calls().last().map(String::as_str), Some("stop"));
    wait_for("its end", || is_gone(pid).then_some(())).await;
    world.up(2).await;
}

#[tokio::test]
async fn a_refused_login_is_told_and_tried_again_later() {
    let world = World::new();
    let mut openvpn = world.scene.connect(1).await;
    openvpn.begins().await;
    let mut before = Instant::now();
    for least in [1, 2] {
        openvpn.logs_in("secret").await;
        openvpn.says(&[">PASSWORD:Verification Failed: 'Auth' ['bad client password']"]).await;
        world.wait_trouble("bad client password").await;
        openvpn.loses_it(10).await;
        openvpn.does(&["hold release"]).await;
        assert!(before.elapsed() >= Duration::from_secs(least), "{:?}", before.elapsed());
        before = Instant::now();
    }
    // Told to try at once, it does not wait for the rest of the pause, which would be four seconds.
    openvpn.logs_in("secret").await;
    openvpn.loses_it(10).await;
    world.order(Order::Wake);
    openvpn.does(&["hold release"]).await;
    openvpn.logs_in("secret").await;
    openvpn.connects().await;
    world.wait_up().await;
    assert_eq!(world.board.trouble(), None);
}

#[tokio::test]
async fn another_access_message_is_applied_to_a_tunnel_in_use() {
    let world = World::new();
    let openvpn = world.up(1).await;
    world.carries(60, 5);
    world.core.wait_called("total 65").await;
    assert!(world.scene.config().contains("remote 192.0.2.1 1194 "));
    world.carries(70, 10);
    world.order(Order::Apply(Box::new((profile("new", 1195), addresses()))));
    openvpn.ends_in_order().await;
    let mut openvpn = world.scene.connect(2).await;
    world.carries(0, 0);
    let config = world.scene.config();
    assert!(config.contains("remote 192.0.2.1 1195 ") && !config.contains("new"), "{config}");
    openvpn.begins().await;
    openvpn.logs_in("new").await;
    openvpn.connects().await;
    world.wait_up().await;
    world.carries(3, 1);
    world.core.wait_called("total 4").await;
    let gone = world.stop();
    openvpn.ends_in_order().await;
    gone.await.expect("said");
    let sessions: Vec<_> = world.core.calls();
    assert_eq!(world.count("start"), 2);
    let last_of_first = sessions.iter().position(|call| call == "stop").expect("stopped");
    assert_eq!(sessions[last_of_first - 1], "total 80");
    world.ends().await;
}

#[tokio::test]
async fn another_access_message_ends_a_pause() {
    let world = World::with(|scene| scene.program("exit 1"));
    world.wait_trouble("openvpn ended").await;
    world.scene.wait_starts(3).await;
    world.scene.lives();
    world.order(Order::Apply(Box::new((profile("new", 1195), addresses()))));
    let turn = world.scene.starts().len();
    let mut openvpn = world.scene.connect(turn.max(4)).await;
    openvpn.begins().await;
    openvpn.logs_in("new").await;
    assert!(Path::new(&world.scene.place.config).exists());
}

#[tokio::test]
async fn what_the_core_does_not_want_is_over_until_it_is_wanted_again() {
    let world = World::new();
    let openvpn = world.up(1).await;
    world.core.script(|script| script.status = Some("suspending"));
    world.carries(60, 5);
    let first = openvpn.pid;
    openvpn.ends_in_order().await;
    world.core.wait_called("stop").await;
    wait_for("its end", || is_gone(first).then_some(())).await;
    world.core.script(|script| script.status = None);
    world.order(Order::Wake);
    world.up(2).await;
    assert_eq!(world.scene.starts().len(), 2);
}

#[tokio::test]
async fn an_answer_that_comes_late_belongs_to_its_own_session() {
    let world = World::new();
    world.core.answers(false);
    let mut openvpn = world.scene.connect(1).await;
    openvpn.begins().await;
    openvpn.logs_in("secret").await;
    openvpn.connects().await;
    world.core.wait_called("start").await;
    // Lost before the core has answered: that session is none by the time it is open.
    openvpn.loses_it(20).await;
    openvpn.does(&["hold release"]).await;
    openvpn.logs_in("secret").await;
    assert!(!world.board.has_session());
    world.core.answers(true);
    world.core.wait_called("stop").await;
    assert!(!world.board.has_session(), "a session that is over was taken for the present one");
    openvpn.connects().await;
    world.wait_up().await;
    assert_eq!((world.count("start"), world.count("stop")), (2, 1));
}

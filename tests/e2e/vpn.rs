//! The VPN between two machines and a far one, with real OpenVPN on both sides: what goes through
//! it, what each side counts of it, what is left when a host is killed, and who gets in.

use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use privatix_core::ProductView;
use privatix_core::{IdentityView, OfferingView, OrderView};
use privatix_domain::present::Line;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use crate::support::network::{self, AGENT, AGENT_OUTSIDE, CLIENT, Network, RESOLVERS};
use crate::support::node::signal;
use crate::support::trade::draft;
use crate::support::{Node, PATIENCE, Package, wait_for};

mod changes;
mod malice;
mod payments;
mod protection;

const MIB: u64 = 1 << 20;

/// More cannot still be in buffers of the client's machine, on its way to the reader.
const BUFFERS: u64 = 16 * MIB;

/// A count and what a device has carried may differ by one part in so many, 5 %. The firewall sees
/// packets that the kernel has merged (GRO, GSO), of which up to forty have one header of 52 bytes
/// together. That is up to 3.5 % of full packets. The module corrects its count by what OpenVPN has
/// sent, but it cannot do so exactly.
const TOLERANCE: u64 = 20;

const DEVICE: &str = "privatix0";

/// Two hosts in namespaces that both run the module, and a far machine.
struct World {
    agent: Node,
    client: Node,
    package: Package,
    // Last: its processes are ended before it is removed.
    network: Network,
}

impl World {
    fn new(agent: &str, client: &str) -> Self {
        let network = Network::new();
        let package = Package::vpn();
        let mut world = Self {
            agent: Node::stopped("agent", "").inside(&network.agent),
            client: Node::stopped("client", "").inside(&network.client),
            package,
            network,
        };
        world.agent.configure(&format!(
            "[exchange]\nlisten = \"0.0.0.0:8480\"\nurl = \"http://{AGENT}:8480\"\n\
             [agent]\norders = \"open\"\nmax_channels_per_client = 100\n\
             [modules.vpn]\nexternal_ip = \"{AGENT}\"\nkeepalive_seconds = 1\n"
        ));
        world.agent.configure(agent);
        world.client.configure("[client]\npoll_interval = 1\n");
        world.client.configure(client);
        for node in [&mut world.agent, &mut world.client] {
            world.package.drop_into(&node.plugins());
            node.start();
            node.wait_state("vpn", privatix_modules::registry::State::Running);
        }
        world
    }

    fn offer(&self, params: &Value) -> String {
        self.offer_of(json!({ "supply": 50, "additionalParams": params }))
    }

    fn offer_of(&self, terms: Value) -> String {
        let draft = draft(&self.package, terms);
        let offering: OfferingView = self.agent.post("/v1/offerings", &draft).expect("published");
        let agent: IdentityView = self.agent.get("/v1/identity").expect("an identity");
        let fetch = json!({ "url": agent.exchange, "agent": agent.fingerprint });
        let _: Value = self.client.post("/v1/offerings/fetch", &fetch).expect("fetched");
        offering.hash
    }

    fn order(&self, offering: &str) -> ClientKey {
        self.order_with(offering, None)
    }

    fn order_with(&self, offering: &str, deposit: Option<u64>) -> ClientKey {
        let order = json!({ "offering": offering, "deposit": deposit, "hold": false });
        let order: OrderView = self.client.post("/v1/orders", &order).expect("ordered");
        wait_for("the agent's answer", || {
            let order: OrderView = self.client.get(&format!("/v1/orders/{}", order.hash))?;
            order.channel
        })
    }

    /// A channel in use on both sides.
    fn channel(&self) -> ClientKey {
        let channel = self.order(&self.offer(&json!({})));
        self.wait_active(channel);
        channel
    }

    fn wait_active(&self, channel: ClientKey) {
        for node in [&self.client, &self.agent] {
            node.wait_channel(channel, Status::Active);
        }
    }

    fn command(&self, node: &Node, channel: ClientKey, command: &str, then: Status) {
        let path = format!("/v1/channels/{channel}/{command}");
        let _: Value = node.post(&path, &json!(null)).expect(command);
        node.wait_channel(channel, then);
    }

    fn usage(&self, channel: ClientKey) -> [u64; 2] {
        [&self.agent, &self.client].map(|node| node.channel(channel).usage)
    }

    /// What each side's end of the tunnel has carried.
    fn carried(&self, channel: ClientKey) -> [u64; 2] {
        let ends =
            [(&self.network.agent, DEVICE.to_owned()), (&self.network.client, device(channel))];
        ends.map(|(namespace, device)| self.network.counters(namespace, &device))
    }

    /// Fetches, and waits until each side has counted what its own end of the tunnel carried
    /// meanwhile, within the tolerance. What is lost between the two only the sender can have counted.
    fn fetch_and_count(&self, channel: ClientKey, size: u64) {
        let (used, carried) = (self.usage(channel), self.carried(channel));
        assert_eq!(self.network.fetch(size).expect("fetched"), AGENT_OUTSIDE);
        let mut last = String::new();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let (now, then) = (self.usage(channel), self.carried(channel));
            let more = |side: usize| (now[side] - used[side], then[side] - carried[side]);
            let both = [more(0), more(1)];
            let near = |(used, carried): (u64, u64)| carried >= size && is_near(used, carried);
            if both.into_iter().all(near) {
                return;
            }
            last = format!("counted and carried {both:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("not within 5 %: {last}");
    }

    /// Waits until bytes come through the tunnel, as the far machine sees it.
    fn wait_through(&self) {
        wait_for("bytes through the tunnel", || {
            self.network.fetch(1000).ok().filter(|seen| *seen == AGENT_OUTSIDE)
        });
    }

    /// A transfer without end, and how much of it has come.
    fn endless(&self) -> Arc<AtomicU64> {
        let asked = || self.network.ask(None, u64::MAX).ok();
        let (mut stream, _) = wait_for("the far machine", asked);
        stream.set_read_timeout(None).expect("set");
        let got = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&got);
        std::thread::spawn(move || {
            let mut part = vec![0; 1 << 16];
            while let Ok(some @ 1..) = stream.read(&mut part) {
                count.fetch_add(some as u64, Ordering::SeqCst);
            }
        });
        wait_for("the transfer to flow", || (got.load(Ordering::SeqCst) > MIB).then_some(()));
        got
    }

    /// What a client needs that knows nothing of this product.
    fn credentials(&self, channel: ClientKey) -> (ProductView, String) {
        let products: Vec<ProductView> = self.agent.get("/v1/products").expect("listed");
        let path = format!("/v1/channels/{channel}/access?reveal=true");
        let lines: Vec<Line> = self.client.get(&path).expect("an access message");
        let password = lines.into_iter().find(|line| line.label == "Password");
        (products.into_iter().next().expect("a product"), password.expect("a password").value)
    }
}

fn is_near(used: u64, carried: u64) -> bool {
    used.abs_diff(carried) * TOLERANCE <= carried
}

/// The network device of a client's channel.
fn device(channel: ClientKey) -> String {
    format!("pvx{}", &channel.0.simple().to_string()[..10])
}

/// No more arrives than was on its way, and then nothing for longer than any queue takes.
fn is_still(got: &AtomicU64) {
    let before = got.load(Ordering::SeqCst);
    let mut last = (before, Instant::now());
    while last.1.elapsed() < Duration::from_millis(1500) {
        std::thread::sleep(Duration::from_millis(50));
        let now = got.load(Ordering::SeqCst);
        assert!(now - before <= BUFFERS, "bytes still flow: {} more", now - before);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

/// OpenVPN run by hand with the credentials of a channel.
struct Manual {
    child: Child,
    log: tempfile::NamedTempFile,
    _files: tempfile::TempDir,
}

impl Manual {
    fn new(world: &World, product: &ProductView, user: &str, password: &str) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = files.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let get = |name: &str| product.config[name].as_str().expect("a text");
        let login = write("login", &format!("{user}\n{password}\n"));
        let config = format!(
            "client\nnobind\ndev tun\nremote {AGENT} {} udp4\nroute-nopull\n\
             verb 3\nremote-cert-tls server\nauth-user-pass {}\nconnect-retry 1 1\n\
             <ca>\n{}\n</ca>\n<tls-crypt>\n{}\n</tls-crypt>\n",
            get("port"),
            login.display(),
            get("ca"),
            get("tlsCrypt"),
        );
        let config = write("conf", &config);
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut command = network::program(&world.network.client, "openvpn");
        command.arg("--config").arg(config).stdout(log.reopen().expect("opened"));
        let child = command.stderr(Stdio::null()).spawn().expect("started");
        Self { child, log, _files: files }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log.path()).expect("readable")
    }

    fn wait_said(&self, what: &str) {
        wait_for(&format!("OpenVPN to say {what}"), || self.said().contains(what).then_some(()));
    }
}

impl Drop for Manual {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- OpenVPN by hand\n{}", self.said());
        }
    }
}

fn processes_in(namespace: &str, program: &str) -> Vec<u32> {
    let pids = network::ip(&["netns", "pids", namespace]);
    let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains(&format!("({program})")) && !stat.contains(") Z ")
    })
    .collect()
}

fn tables(namespace: &str) -> String {
    let output = network::program(namespace, "nft").args(["list", "tables"]).output().expect("nft");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn vpn_both_sides_count_what_the_tunnel_carried() {
    let world = World::new("", "");
    let channel = world.channel();
    world.wait_through();
    world.fetch_and_count(channel, 16 * MIB);
    assert!(world.network.resolvers().contains("9.9.9.9"), "{}", world.network.resolvers());
    // Suspended by either side, nothing flows; resumed, it flows again.
    for node in [&world.agent, &world.client] {
        let got = world.endless();
        world.command(node, channel, "suspend", Status::Suspended);
        is_still(&got);
        world.command(node, channel, "resume", Status::Active);
        world.wait_through();
    }
    let (product, password) = world.credentials(channel);
    world.command(&world.client, channel, "terminate", Status::Terminated);
    world.agent.wait_channel(channel, Status::Terminated);
    // The kill switch is lifted, the resolvers are as before, and plain traffic is plain.
    assert_eq!(world.network.fetch(1).expect("fetched"), CLIENT);
    assert_eq!(world.network.resolvers(), RESOLVERS);
    let manual = Manual::new(&world, &product, &channel.to_string(), &password);
    manual.wait_said("AUTH_FAILED");
}

#[test]
fn vpn_a_killed_host_of_either_side_comes_back() {
    let mut world = World::new("", "");
    let channel = world.channel();
    let got = world.endless();
    let mut known = world.usage(channel);
    world.agent.kill();
    is_still(&got);
    wait_for("OpenVPN's end", || {
        processes_in(&world.network.agent, "openvpn").is_empty().then_some(())
    });
    // Nothing leaks while the tunnel is down.
    let leak = world.network.fetch(1);
    assert!(leak.is_err(), "{leak:?}");
    world.agent.start();
    world.wait_through();
    let mut grows = |world: &World| {
        let now = world.usage(channel);
        assert!(now[0] >= known[0] && now[1] >= known[1], "{now:?} after {known:?}");
        known = now;
    };
    grows(&world);
    world.client.kill();
    let leak = world.network.fetch(1);
    assert!(leak.is_err(), "{leak:?}");
    world.client.start();
    world.wait_through();
    grows(&world);
    // What is counted from then on is counted once.
    world.fetch_and_count(channel, 8 * MIB);
}

#[test]
fn vpn_cleanup_puts_back_what_a_killed_host_left() {
    let mut world = World::new("", "");
    world.agent.stop();
    world.network.set_forwarding("0");
    world.agent.start();
    let channel = world.channel();
    world.wait_through();
    assert_eq!(world.network.forwarding(), "1");
    let refused = world.client.privatix(&["module", "cleanup", "vpn"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("already running"), "{said}");
    world.client.kill();
    world.agent.kill();
    assert!(world.network.resolvers().contains("9.9.9.9"));
    for (node, namespace, part) in [
        (&world.client, &world.network.client, "kill switch"),
        (&world.agent, &world.network.agent, "nftables table"),
    ] {
        assert!(tables(namespace).contains("privatix_"), "left by the killed host");
        let cleaned = node.privatix(&["module", "cleanup", "vpn"]);
        let said = String::from_utf8_lossy(&cleaned.stdout).into_owned();
        assert!(cleaned.status.success() && said.contains(part), "{cleaned:?}");
        assert_eq!(tables(namespace), "");
        assert!(processes_in(namespace, "openvpn").is_empty());
        let again = node.privatix(&["module", "cleanup", "vpn"]);
        assert!(String::from_utf8_lossy(&again.stdout).contains("nothing to clean up"));
    }
    assert_eq!(world.network.resolvers(), RESOLVERS);
    assert_eq!(world.network.forwarding(), "0");
    world.network.set_forwarding("1");
    assert_eq!(world.network.fetch(1).expect("fetched"), CLIENT);
    world.agent.start();
    world.client.start();
    world.wait_active(channel);
    world.wait_through();
    // A clean stop leaves nothing either.
    world.client.stop();
    world.agent.stop();
    for namespace in [&world.network.client, &world.network.agent] {
        assert_eq!(tables(namespace), "");
    }
    assert_eq!(world.network.resolvers(), RESOLVERS);
}

#[test]
fn vpn_a_channel_has_one_session_and_only_its_own_credentials_open_it() {
    let world = World::new("", "[modules.vpn]\nkill_switch = false\n");
    let channel = world.channel();
    let (product, password) = world.credentials(channel);
    let user = channel.to_string();
    // The client's own end is not to come back while others try.
    world.command(&world.client, channel, "suspend", Status::Suspended);
    let other = uuid::Uuid::new_v4().to_string();
    for (user, password) in [(&*user, "wrong"), (&*other, &*password), ("nobody", &*password)] {
        Manual::new(&world, &product, user, password).wait_said("AUTH_FAILED");
    }
    let open = || {
        let sessions = world.agent.sessions(channel);
        sessions.iter().filter(|session| session.stopped_at.is_none()).count()
    };
    let first = Manual::new(&world, &product, &user, &password);
    first.wait_said("Initialization Sequence Completed");
    wait_for("a session", || (open() == 1).then_some(()));
    let before = world.agent.sessions(channel).len();
    let mut second = Manual::new(&world, &product, &user, &password);
    second.wait_said("Initialization Sequence Completed");
    // The earlier one is told to go, and its session is closed.
    first.wait_said("Halt command was pushed by server");
    wait_for("one session, another one", || {
        (open() == 1 && world.agent.sessions(channel).len() == before + 1).then_some(())
    });
    // One that vanishes is noticed.
    second.child.kill().expect("killed");
    wait_for("no session", || (open() == 0).then_some(()));
}

#[test]
fn vpn_twenty_clients_at_once() {
    let world = World::new("", "[modules.vpn]\nroutes = []\n");
    let offering = world.offer(&json!({}));
    let channels: Vec<_> = (0..20).map(|_| world.order(&offering)).collect();
    for channel in &channels {
        world.wait_active(*channel);
    }
    std::thread::scope(|scope| {
        for channel in &channels {
            let device = device(*channel);
            let network = &world.network;
            scope.spawn(move || {
                let seen = wait_for("bytes through a client's own tunnel", || {
                    network.fetch_through(Some(&device), MIB).ok()
                });
                assert_eq!(seen, AGENT_OUTSIDE);
            });
        }
    });
    // What is lost on the way only the sender has counted: each side is compared with its own end.
    wait_for("usage on both sides", || {
        let mut agents = 0;
        for channel in &channels {
            let ([agent, client], [_, carried]) = (world.usage(*channel), world.carried(*channel));
            if agent < MIB || client < MIB || !is_near(client, carried) {
                return None;
            }
            agents += agent;
        }
        is_near(agents, world.network.counters(&world.network.agent, DEVICE)).then_some(())
    });
}

#[test]
fn vpn_speed_is_that_of_the_offering() {
    // Over TCP, for once.
    let world = World::new("[modules.vpn]\nprotocol = \"tcp\"\n", "");
    let params =
        json!({"maxDownloadSpeed": 8000, "minDownloadSpeed": 1000, "maxUploadSpeed": 4000});
    let channel = world.order(&world.offer(&params));
    world.wait_active(channel);
    world.wait_through();
    let begun = Instant::now();
    world.network.fetch(3 * MIB).expect("fetched");
    // 3 MiB are 25 Mbit: at 8 Mbit/s that is no less than two seconds, whatever the bursts.
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    let tc = |device: &str| {
        let tc = network::program(&world.network.agent, "tc")
            .args(["class", "show", "dev", device])
            .output();
        String::from_utf8(tc.expect("tc").stdout).expect("UTF-8")
    };
    assert!(tc(DEVICE).contains("rate 1Mbit ceil 8Mbit"), "{}", tc(DEVICE));
    assert!(tc("privatix0i").contains("ceil 4Mbit"), "{}", tc("privatix0i"));
    world.command(&world.agent, channel, "suspend", Status::Suspended);
    wait_for("no class of the client", || (!tc(DEVICE).contains("ceil 8Mbit")).then_some(()));
}

#[test]
fn vpn_openvpn_that_dies_hangs_or_has_no_port_is_started_again() {
    let world = World::new("", "");
    let channel = world.channel();
    world.wait_through();
    let before = world.agent.sessions(channel).len();
    let pid =
        || wait_for("OpenVPN", || processes_in(&world.network.agent, "openvpn").first().copied());
    let old = pid();
    // It is stopped in its tracks, which is to be noticed as well as its death.
    signal(old, nix::sys::signal::Signal::SIGSTOP);
    wait_for("another process", || {
        processes_in(&world.network.agent, "openvpn").into_iter().find(|new| *new != old)
    });
    world.wait_through();
    let sessions = world.agent.sessions(channel);
    assert!(sessions.len() > before && sessions[before - 1].stopped_at.is_some());
    // Its port is taken when it comes back.
    let taken = network::inside(&world.network.agent, || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        Ok::<_, std::io::Error>(socket)
    })
    .expect("a socket");
    let address = std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1194));
    wait_for("the port", || {
        let bound = taken.bind(&address.into()).ok();
        if bound.is_none() {
            // One that was back before the port was taken dies once more.
            for pid in processes_in(&world.network.agent, "openvpn") {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        bound
    });
    wait_for("the agent's module to say so", || {
        let view = world.agent.module("vpn")?;
        view.health.filter(|health| health.contains("the server is down"))
    });
    drop(taken);
    world.wait_through();
}

#[test]
fn vpn_what_is_missing_is_said_before_anything_is_touched() {
    let mut node = Node::stopped("agent", "[modules.vpn]\nexternal_ip = \"192.0.2.1\"\n");
    let package = Package::vpn();
    package.drop_into(&node.plugins());
    // Without its capabilities.
    node.start_with(|command| {
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.env_remove("PRIVATIX_TEST_MODULES").stdin(Stdio::null());
        *command = wrapped;
    });
    let view = node.wait("vpn", "refusing", |view| view.problem.is_some());
    let problem = view.problem.expect("a problem");
    assert!(problem.found.contains("CAP_NET_ADMIN"), "{problem}");
    assert!(!Path::new(&node.home().join("modules/vpn/journal.json")).exists());
}

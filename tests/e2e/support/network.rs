//! Three machines in one: network namespaces of a test's own, joined by virtual cables.
//!
//! ```text
//!  client 192.0.2.2 ── 192.0.2.1 agent 198.51.100.1 ── 198.51.100.2 far
//! ```
//! The agent's machine is also the client's way to the far one, so that what leaks past the tunnel
//! arrives there, with the client's own address. Nothing outside these namespaces is changed.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

pub(crate) const AGENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const AGENT_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// The far machine's port: it takes a number and sends back the caller's address and so many bytes.
const PORT: u16 = 7777;

/// Of the names of all namespaces: then comes the process that made them.
const PREFIX: &str = "pvxt";

/// How long a connection may take to be made: most of those that take long must not be made.
const SILENCE: Duration = Duration::from_secs(4);

/// How long it may be without a byte once it is made. A busy machine loses packets in bursts, and TCP
/// then waits longer and longer.
const PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct Network {
    pub(crate) agent: String,
    pub(crate) client: String,
    pub(crate) far: String,
}

impl Network {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_left_over();
        let name =
            format!("{PREFIX}{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let of = |side: &str| format!("{name}{side}");
        let network = Self { agent: of("a"), client: of("c"), far: of("f") };
        for namespace in network.names() {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
            fs::create_dir_all(etc(namespace)).expect("a directory");
            let resolvers = etc(namespace).join("resolv.conf");
            fs::write(resolvers, RESOLVERS).expect("written");
        }
        let Self { agent, client, far } = &network;
        join((agent, "near", AGENT), (client, "eth0", CLIENT));
        join((agent, "out", AGENT_OUTSIDE), (far, "eth0", FAR));
        ip(&["-n", client, "route", "add", "default", "via", &AGENT.to_string()]);
        ip(&["-n", far, "route", "add", "default", "via", &AGENT_OUTSIDE.to_string()]);
        network.set_forwarding("1");
        network.serve();
        network
    }

    fn names(&self) -> [&str; 3] {
        [&self.agent, &self.client, &self.far]
    }

    /// Whether the agent's machine forwards what is not in a tunnel.
    pub(crate) fn set_forwarding(&self, on: &'static str) {
        inside(&self.agent, move || fs::write("/proc/sys/net/ipv4/ip_forward", on)).expect("set");
    }

    pub(crate) fn forwarding(&self) -> String {
        let read = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("readable");
        inside(&self.agent, read).trim().to_owned()
    }

    /// The far machine's server; it lives as long as the test.
    fn serve(&self) {
        let listener = inside(&self.far, || TcpListener::bind((FAR, PORT)).expect("a port"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who goes away early is not served to the end.
                std::thread::spawn(move || answer(stream));
            }
        });
    }

    /// Fetches from the far machine; the address that it saw.
    pub(crate) fn fetch(&self, size: u64) -> io::Result<Ipv4Addr> {
        self.fetch_through(None, size)
    }

    /// As [`Network::fetch`], through a device.
    pub(crate) fn fetch_through(&self, device: Option<&str>, size: u64) -> io::Result<Ipv4Addr> {
        let (mut stream, seen) = self.ask(device, size)?;
        let (mut got, mut part) = (0, vec![0; 1 << 16]);
        while got < size {
            match stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => got += count as u64,
            }
        }
        Ok(seen)
    }

    /// Connects, and asks for bytes.
    pub(crate) fn ask(&self, device: Option<&str>, size: u64) -> io::Result<(TcpStream, Ipv4Addr)> {
        let device = device.map(str::to_owned);
        let mut stream = inside(&self.client, move || connect(device.as_deref()))?;
        stream.set_read_timeout(Some(PAUSE))?;
        stream.write_all(&size.to_be_bytes())?;
        let mut seen = [0; 4];
        stream.read_exact(&mut seen)?;
        Ok((stream, seen.into()))
    }

    /// The resolvers of the client's machine.
    pub(crate) fn resolvers(&self) -> String {
        fs::read_to_string(etc(&self.client).join("resolv.conf")).expect("readable")
    }

    /// What a network device has carried, in both directions.
    pub(crate) fn counters(&self, namespace: &str, device: &str) -> u64 {
        let text = ip(&["-n", namespace, "-s", "-j", "link", "show", device]);
        let links: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let bytes = |way: &str| links[0]["stats64"][way]["bytes"].as_u64().expect("a number");
        bytes("rx") + bytes("tx")
    }
}

pub(crate) const RESOLVERS: &str = "nameserver 192.0.2.53\n";

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.names() {
            remove(namespace);
        }
    }
}

/// Runs something on a thread in a namespace.
pub(crate) fn inside<T: Send + 'static>(
    namespace: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> T {
    let file = fs::File::open(format!("/run/netns/{namespace}")).expect("a namespace");
    let thread = std::thread::spawn(move || {
        nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entered");
        run()
    });
    thread.join().expect("not panicked")
}

/// Runs a program in a namespace.
pub(crate) fn program(namespace: &str, name: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, name]).stdin(Stdio::null());
    command
}

fn connect(device: Option<&str>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    let far = SocketAddr::from((FAR, PORT));
    socket.connect_timeout(&far.into(), SILENCE)?;
    Ok(socket.into())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut size = [0; 8];
    stream.read_exact(&mut size)?;
    let IpAddr::V4(peer) = stream.peer_addr()?.ip() else { return Ok(()) };
    stream.write_all(&peer.octets())?;
    let (mut left, part) = (u64::from_be_bytes(size), vec![7; 1 << 16]);
    while left > 0 {
        let count = left.min(part.len() as u64);
        stream.write_all(&part[..usize::try_from(count).expect("small")])?;
        left -= count;
    }
    Ok(())
}

fn join(one: (&str, &str, Ipv4Addr), other: (&str, &str, Ipv4Addr)) {
    let ((a, a_device, _), (b, b_device, _)) = (one, other);
    ip(&[
        "link", "add", a_device, "netns", a, "type", "veth", "peer", "name", b_device, "netns", b,
    ]);
    for (namespace, device, address) in [one, other] {
        ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", device]);
        ip(&["-n", namespace, "link", "set", device, "up"]);
    }
}

pub(crate) fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn etc(namespace: &str) -> PathBuf {
    PathBuf::from("/etc/netns").join(namespace)
}

/// What still runs in it is ended first: a namespace lives as long as its processes.
fn remove(namespace: &str) {
    let pids = Command::new("ip").args(["netns", "pids", namespace]).output();
    let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    for pid in pids.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
    let _ = fs::remove_dir_all(etc(namespace));
}

/// Namespaces of tests that were killed.
fn remove_left_over() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('n').next());
        if let Some(pid) = maker.and_then(|pid| pid.parse::<u32>().ok())
            && !PathBuf::from(format!("/proc/{pid}")).exists()
        {
            remove(&name);
        }
    }
}

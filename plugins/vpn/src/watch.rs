//! Says when somebody has changed the firewall or the routing of this machine.
//!
//! Netlink tells of every change, by its own programs and by others. What the message says is not
//! looked at: each is a reason to verify what must be there.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

/// Changes that come together are one.
const TOGETHER: Duration = Duration::from_millis(10);

/// The groups of netlink that are listened to, as masks.
const TABLES: u32 = 1 << (7 - 1);
const ROUTES: u32 = 1 << (7 - 1) | 1 << (11 - 1);
const RULES: u32 = 1 << (8 - 1) | 1 << (19 - 1);

/// What was restored is told for so long, so that somebody sees it.
const TOLD: Duration = Duration::from_secs(12);

/// What another program had changed last, and the module has put back.
#[derive(Debug, Default)]
pub(crate) struct Restored(Option<(Instant, String)>);

impl Restored {
    pub(crate) fn note(&mut self, what: &str) {
        self.0 = Some((Instant::now(), what.to_owned()));
    }

    /// What happened a short while ago.
    pub(crate) fn lately(&self) -> Option<&str> {
        self.0.as_ref().filter(|(when, _)| when.elapsed() < TOLD).map(|(_, what)| what.as_str())
    }
}

/// The ears.
#[derive(Debug)]
pub(crate) struct Watch(Vec<AsyncFd<OwnedFd>>);

impl Watch {
    /// Listens for changes of nftables.
    pub(crate) fn firewall() -> io::Result<Self> {
        Ok(Self(vec![listen(SockProtocol::NetlinkNetFilter, TABLES)?]))
    }

    /// Listens for changes of nftables, of routes and of the rules of routing.
    pub(crate) fn firewall_and_routing() -> io::Result<Self> {
        let routing = listen(SockProtocol::NetlinkRoute, ROUTES | RULES)?;
        Ok(Self(vec![listen(SockProtocol::NetlinkNetFilter, TABLES)?, routing]))
    }

    /// Waits until something has changed. May be dropped and called again.
    pub(crate) async fn changed(&self) {
        match &self.0[..] {
            [one] => wait(one).await,
            [one, other] => tokio::select! {
                () = wait(one) => {}
                () = wait(other) => {}
            },
            _ => std::future::pending().await,
        }
        sleep(TOGETHER).await;
        self.0.iter().for_each(drain);
    }
}

fn listen(protocol: SockProtocol, groups: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    // What replaces it is unsafe, for descriptors that may change. An owned one does not.
    #[allow(deprecated)]
    AsyncFd::new(fd)
}

async fn wait(ear: &AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = ear.readable().await else {
            return std::future::pending().await;
        };
        match ready.try_io(|fd| heard(fd.get_ref())) {
            Ok(_) => return,
            Err(_) => continue,
        }
    }
}

/// Takes one message. That some were lost because they were too many is a change as well.
fn heard(fd: &OwnedFd) -> io::Result<()> {
    match recv(fd.as_raw_fd(), &mut [0; 8192], MsgFlags::MSG_DONTWAIT) {
        Ok(_) | Err(Errno::ENOBUFS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn drain(ear: &AsyncFd<OwnedFd>) {
    // More than any burst; what is left says the same once more.
    for _ in 0..10_000 {
        if heard(ear.get_ref()).is_err() {
            return;
        }
    }
}

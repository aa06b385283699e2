//! What the service manager is told, by sd_notify(3).

use std::collections::VecDeque;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use sd_notify::NotifyState;

use privatix_base::condition::Condition;
use privatix_store::Store;

static UNTOLD: Mutex<Untold> = Mutex::new(Untold {
    messages: VecDeque::new(),
    failing: Condition::new("the service manager cannot be told how the host is"),
});

/// What the service manager has still to be told.
struct Untold {
    messages: VecDeque<String>,
    failing: Condition,
}

/// The most messages that are kept for a manager that does not read; the oldest go first.
const KEPT: usize = 16;

/// Tells the service manager, if there is one. A manager that does not read for a while keeps nothing
/// waiting: it is told the next time something is.
pub(crate) fn tell(states: &[NotifyState<'_>]) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let mut untold = UNTOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let beat = matches!(states, [NotifyState::Watchdog]);
    // A sign of life is worth nothing later.
    if !(states.is_empty() || beat && !untold.messages.is_empty()) {
        untold.messages.push_back(states.iter().map(|state| format!("{state}\n")).collect());
    }
    let told = send_all(&address.into_vec(), &mut untold.messages);
    if beat && told.is_err() {
        untold.messages.retain(|message| message != "WATCHDOG=1\n");
    }
    while untold.messages.len() > KEPT {
        untold.messages.pop_front();
    }
    untold.failing.note(told);
}

/// Sends in order, until there are none or one cannot be sent.
fn send_all(address: &[u8], messages: &mut VecDeque<String>) -> io::Result<()> {
    while let Some(message) = messages.front() {
        send(address, message.as_bytes())?;
        messages.pop_front();
    }
    Ok(())
}

fn send(address: &[u8], text: &[u8]) -> io::Result<()> {
    let address = match address {
        // Without a place in the file system: how a manager in a container is reached.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    // Its queue may be full.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text, &address).map(drop)
}

/// Shows the service manager, at half its time-out, that this runtime still moves and that its
/// database works: a host that cannot write is better started anew.
pub(crate) async fn watchdog(store: Store) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut beats = tokio::time::interval((limit / 2).max(Duration::from_millis(100)));
    loop {
        beats.tick().await;
        if store.trouble().is_none() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// How often it is tried whether the database can be written, and how often while it cannot.
const PROBE: Duration = Duration::from_secs(5);
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// Finds out whether the database can be written, says so when that changes, and goes on for ever.
pub(crate) async fn watch_database(store: Store) {
    let mut failing = Condition::new("the database cannot be written; nothing is acknowledged");
    loop {
        if store.trouble().is_some() {
            tokio::time::sleep(PROBE_AGAIN).await;
        } else {
            tokio::select! {
                () = tokio::time::sleep(PROBE) => {}
                () = store.failed() => {}
            }
        }
        // What failed first says more than the write that is made to find out.
        if let Some(trouble) = store.trouble() {
            failed(&mut failing, &trouble.text);
        }
        tell(&[]);
        match store.probe().await {
            Ok(()) => {
                if failing.is_over() {
                    tell(&[NotifyState::Status("running")]);
                }
            }
            Err(error) => failed(&mut failing, &privatix_plugin_api::chain(&error)),
        }
    }
}

/// Says that the database fails, where that is news.
fn failed(failing: &mut Condition, reason: &str) {
    if failing.holds(reason) {
        tell(&[NotifyState::Status(&format!("the database cannot be written: {reason}"))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_under_either_kind_of_address() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        let name = format!("privatix-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let by_name = UnixDatagram::bind_addr(&address).expect("bound");
        let shown = path.into_os_string().into_vec();
        for (socket, address) in [(by_path, shown), (by_name, format!("@{name}").into_bytes())] {
            send(&address, b"READY=1\n").expect("sent");
            let mut bytes = [0; 16];
            let length = socket.recv(&mut bytes).expect("received");
            assert_eq!(&bytes[..length], b"READY=1\n");
        }
        send(b"@privatix-nobody-is-here", b"x").expect_err("nobody listens");
        send(b"/privatix/nobody", b"x").expect_err("nobody listens");
    }

    #[test]
    fn a_manager_that_does_not_read_is_told_later_and_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        manager.set_nonblocking(true).expect("set");
        let address = path.as_os_str().as_bytes();
        let all: Vec<String> = (0..1000).map(|number| format!("STATUS={number}\n")).collect();
        let mut messages = VecDeque::from(all.clone());
        let error = send_all(address, &mut messages).expect_err("the queue is full");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let mut heard = Vec::new();
        while heard.len() < all.len() {
            let mut bytes = [0; 64];
            match manager.recv(&mut bytes) {
                Ok(length) => heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned()),
                Err(_) => drop(send_all(address, &mut messages)),
            }
        }
        assert_eq!((heard, messages.len()), (all, 0));
    }
}

//! Connections at a time: so many in total, and so many of one address, so that nobody takes all.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::rate::network;
use crate::condition::Seldom;

/// How long to wait where the system has no descriptor left.
const RETRY: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Places {
    total: Arc<Semaphore>,
    limit: u32,
    taken: Arc<Taken>,
}

/// Connections by network; those without one are not in it.
type Taken = Mutex<HashMap<IpAddr, u32>>;

/// One connection's place, until it is dropped.
pub(super) struct Place {
    _total: Option<OwnedSemaphorePermit>,
    _own: Own,
}

struct Own {
    network: IpAddr,
    taken: Arc<Taken>,
}

impl Places {
    pub(super) fn new(total: usize, by_address: u32) -> Self {
        let total = Arc::new(Semaphore::new(total));
        Self { total, limit: by_address, taken: Arc::default() }
    }

    /// The next connection that has a place. Where there is none in total, the others wait in the
    /// system's queue; where an address has all of its own, a further one is closed at once.
    pub(super) async fn next(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Place) {
        // Nobody closes the semaphore.
        let total = Arc::clone(&self.total).acquire_owned().await.ok();
        loop {
            match listener.accept().await {
                Ok((stream, address)) => match self.own(address.ip()) {
                    Some(own) => return (stream, address, Place { _total: total, _own: own }),
                    None => tracing::debug!(%address, "closed: too many connections"),
                },
                Err(error) => {
                    static UNABLE: Seldom = Seldom::new("connections are not accepted");
                    UNABLE.happened(&error);
                    sleep(RETRY).await;
                }
            }
        }
    }

    fn own(&self, address: IpAddr) -> Option<Own> {
        let network = network(address);
        let mut taken = lock(&self.taken);
        let count = taken.entry(network).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Own { network, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

fn lock(taken: &Taken) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_own_places_and_gives_them_back() {
        let places = Places::new(9, 2);
        let own = |text: &str| places.own(text.parse().expect("an address"));
        let (first, _second) = (own("192.0.2.1").expect("one"), own("::ffff:192.0.2.1"));
        assert!(own("192.0.2.1").is_none());
        assert!(own("192.0.2.2").is_some(), "another address");
        drop(first);
        let _third = own("192.0.2.1").expect("given back");
        assert!(own("192.0.2.1").is_none());
        let _of_one_network = [own("2001:db8::1"), own("2001:db8::2")];
        assert!(own("2001:db8::3").is_none());
        assert!(own("2001:db8:0:1::3").is_some(), "another network");
        drop((_second, _third, _of_one_network));
        assert!(lock(&places.taken).is_empty(), "nothing is remembered of who is gone");
    }
}

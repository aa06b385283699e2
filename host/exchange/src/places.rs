//! Connections at a time: so many in total, and so many of one network, so that nobody takes all.
//!
//! A connection costs a stranger nothing, and there are more strange addresses than places. So a
//! stranger's connection that does nothing, or is long about its request, gives way to a new one where
//! there is no room; and some places are kept for addresses from which a client of a channel has signed
//! something lately.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::networks::{Network, own, share, shares};

/// How long to wait where the system has no descriptor left.
const RETRY: Duration = Duration::from_secs(1);

/// Of the places, one in so many is kept for known addresses.
const KEPT: usize = 4;

/// How long an address is known, and how many are.
const KNOWN_FOR: Duration = Duration::from_secs(60 * 60);
const KNOWN: usize = 10_000;

/// How long a stranger's request may be under way before it has to give way. An honest one takes
/// milliseconds.
const REQUEST: Duration = Duration::from_secs(2);

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places {
    total: usize,
    limit: u32,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// In the order in which they came.
    open: BTreeMap<u64, Open>,
    /// Connections by network; those without one are not in it.
    networks: HashMap<Network, u64>,
    /// Until when an address is known.
    known: HashMap<IpAddr, Instant>,
}

struct Open {
    address: IpAddr,
    known: bool,
    /// Since when a request is under way, if one is.
    request: Option<Instant>,
    end: Arc<Notify>,
}

/// One connection's place, until it is dropped.
pub(super) struct Place {
    id: u64,
    end: Arc<Notify>,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    /// So many in total, and so many of one address.
    pub(super) fn new(total: usize, by_address: u32) -> Self {
        Self { total, limit: by_address, taken: Arc::default() }
    }

    /// The next connection that has a place. One that has none is closed at once.
    pub(super) async fn next(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Place) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => match self.admit(address.ip(), Instant::now()) {
                    Some(place) => return (stream, address, place),
                    None => tracing::debug!(%address, "closed: too many connections"),
                },
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// A client of a channel has signed something from this address.
    pub(super) fn know(&self, address: IpAddr, now: Instant) {
        let mut taken = lock(&self.taken);
        if taken.known.len() >= KNOWN {
            taken.known.retain(|_, until| now < *until);
        }
        if taken.known.len() < KNOWN {
            taken.known.insert(own(address), now + KNOWN_FOR);
        }
    }

    fn admit(&self, address: IpAddr, now: Instant) -> Option<Place> {
        let mut taken = lock(&self.taken);
        let full = |(network, halves): &(Network, u64)| {
            taken.networks.get(network).is_some_and(|count| *count >= share(self.limit, *halves))
        };
        if shares(address).iter().any(full) {
            return None;
        }
        let known = taken.known.get(&own(address)).is_some_and(|until| now < *until);
        let room = if known { self.total } else { self.total - self.total / KEPT };
        if taken.open.len() >= room {
            let victim = taken.victim(now)?;
            taken.remove(victim, true);
        }
        Some(self.enter(&mut taken, address, known))
    }

    fn enter(&self, taken: &mut Taken, address: IpAddr, known: bool) -> Place {
        let (id, end) = (taken.next, Arc::new(Notify::new()));
        taken.next += 1;
        for (network, _) in shares(address) {
            *taken.networks.entry(network).or_insert(0) += 1;
        }
        taken.open.insert(id, Open { address, known, request: None, end: Arc::clone(&end) });
        Place { id, end, taken: Arc::clone(&self.taken) }
    }
}

impl Taken {
    /// Which connection gives way: a stranger's that does nothing, or is long about its request; of
    /// the network with the most of them, the oldest.
    fn victim(&self, now: Instant) -> Option<u64> {
        let idle = |open: &Open| {
            !open.known && open.request.is_none_or(|since| now.duration_since(since) >= REQUEST)
        };
        let crowd = |open: &Open| {
            let counts = shares(open.address).into_iter().map(|(network, halves)| {
                // By how much of its share each network has, so that a large one counts no more.
                self.networks.get(&network).copied().unwrap_or(0) * 8 / halves
            });
            counts.max().unwrap_or(0)
        };
        let idle = self.open.iter().filter(|(_, open)| idle(open));
        idle.max_by_key(|(id, open)| (crowd(open), u64::MAX - **id)).map(|(id, _)| *id)
    }

    fn remove(&mut self, id: u64, tell: bool) {
        let Some(open) = self.open.remove(&id) else { return };
        for (network, _) in shares(open.address) {
            if let Some(count) = self.networks.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    self.networks.remove(&network);
                }
            }
        }
        if tell {
            open.end.notify_one();
        }
    }
}

impl Place {
    /// Completes when the connection has to give way.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + use<> {
        let end = Arc::clone(&self.end);
        async move { end.notified().await }
    }

    /// What notes that a request is under way.
    pub(super) fn requests(&self) -> Requests {
        Requests { id: self.id, taken: Arc::clone(&self.taken) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.taken).remove(self.id, false);
    }
}

/// Notes when a connection's requests begin and end. Cheap to clone.
#[derive(Clone)]
pub(super) struct Requests {
    id: u64,
    taken: Arc<Mutex<Taken>>,
}

impl Requests {
    /// Its headers are there.
    pub(super) fn begin(&self, now: Instant) {
        self.note(Some(now));
    }

    /// It is answered.
    pub(super) fn end(&self) {
        self.note(None);
    }

    fn note(&self, request: Option<Instant>) {
        if let Some(open) = lock(&self.taken).open.get_mut(&self.id) {
            open.request = request;
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(places: &Places, address: &str, now: Instant) -> Option<Place> {
        places.admit(address.parse().expect("an address"), now)
    }

    fn is_open(place: &Place) -> bool {
        lock(&place.taken).open.contains_key(&place.id)
    }

    #[test]
    fn an_address_has_its_own_places_and_gives_them_back() {
        let (places, now) = (Places::new(40, 2), Instant::now());
        let own = |text: &str| admit(&places, text, now);
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
        assert!(lock(&places.taken).networks.is_empty(), "nothing is remembered of who is gone");
    }

    #[test]
    fn one_ipv6_address_leaves_room_for_its_neighbours_and_a_48_for_others() {
        let (places, now) = (Places::new(900, 4), Instant::now());
        let mut held = Vec::new();
        let mut count = |address: &str| {
            let admitted = (0..90).map_while(|_| admit(&places, address, now));
            let admitted: Vec<_> = admitted.collect();
            let count = admitted.len();
            held.extend(admitted);
            count
        };
        assert_eq!(count("2001:db8:1:1::1"), 2, "half of the limit");
        assert_eq!(count("2001:db8:1:1::2"), 2, "the rest of the /64");
        assert_eq!(count("2001:db8:1:1::3"), 0);
        for number in 2..=7 {
            assert_eq!(count(&format!("2001:db8:1:{number}::1")), 2, "{number}");
        }
        assert_eq!(count("2001:db8:1:8::1"), 0, "four times the limit in a /48");
        assert_eq!(count("2001:db8:2:1::1"), 2);
        assert_eq!((1..=9).map(|n| count(&format!("192.0.2.{n}"))).sum::<usize>(), 16);
        assert_eq!(count("192.0.3.1"), 4);
    }

    #[test]
    fn what_does_nothing_gives_way_to_what_comes() {
        let (places, now) = (Places::new(8, 64), Instant::now());
        // Six for strangers: a crowd of one address, and one of another.
        let crowd: Vec<_> =
            (0..5).map(|_| admit(&places, "192.0.2.1", now).expect("one")).collect();
        let other = admit(&places, "198.51.100.1", now).expect("one");
        let honest = admit(&places, "203.0.113.1", now).expect("the oldest of the crowd goes");
        assert_eq!(crowd.iter().map(is_open).collect::<Vec<_>>(), [false, true, true, true, true]);
        assert!(is_open(&other));
        // Whatever is being answered stays, for a while.
        honest.requests().begin(now);
        other.requests().begin(now);
        crowd.iter().for_each(|place| place.requests().begin(now));
        assert!(admit(&places, "203.0.113.2", now).is_none());
        let later = now + REQUEST;
        honest.requests().end();
        honest.requests().begin(later);
        let late = admit(&places, "203.0.113.2", later).expect("one is long about it");
        assert!(!is_open(&crowd[1]) && is_open(&honest));
        drop((crowd, late));
        assert_eq!(lock(&places.taken).open.len(), 2);
    }

    #[test]
    fn places_are_kept_for_addresses_that_are_known() {
        let (places, now) = (Places::new(8, 64), Instant::now());
        let mine = "203.0.113.1".parse().expect("an address");
        places.know(mine, now);
        let strangers: Vec<_> =
            (0..9).map(|n| admit(&places, &format!("192.0.{n}.1"), now)).collect();
        strangers.iter().flatten().for_each(|place| place.requests().begin(now));
        let full = || admit(&places, "198.51.100.1", now);
        assert!(full().is_none(), "all are being answered");
        let (one, two) = (places.admit(mine, now), places.admit(mine, now));
        assert!(one.is_some() && two.is_some());
        assert!(places.admit(mine, now).is_none(), "there are no more");
        // A known one that does nothing does not give way to strangers.
        assert!(full().is_none());
        drop((one, two));
        assert!(places.admit(mine, now + KNOWN_FOR).is_some(), "as a stranger, for what is slow");
    }
}

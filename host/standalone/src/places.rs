//! Connections at a time. Who has shown a token has a place of its own, of which each product keeps a
//! few; strangers have others, of which the oldest goes when one more comes. Each has a moment to show
//! its token before that, however many come at once: until then the next ones wait to be accepted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep, timeout};
use uuid::Uuid;

/// How long a connection may be there without having shown a token.
const UNPROVEN: Duration = Duration::from_secs(10);

/// Connections that have shown no token yet.
const STRANGERS: usize = 256;

/// How long a connection may be there, whatever comes, before it has to make room. A token is in the
/// first bytes of a request, so that is many times what an honest one needs.
const MOMENT: Duration = Duration::from_millis(250);

/// Places that are kept for each product that has a token.
const RESERVED: usize = 4;

/// Connections of one product that may wait for a place, and for how long.
const WAITING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places {
    inner: Arc<Inner>,
}

struct Inner {
    /// Places of who has shown a token.
    connections: usize,
    state: Mutex<State>,
    /// A place has become free.
    freed: Notify,
}

#[derive(Default)]
struct State {
    strangers: BTreeMap<u64, Stranger>,
    last: u64,
    proven: HashMap<Uuid, usize>,
    waiting: HashMap<Uuid, usize>,
}

struct Stranger {
    since: Instant,
    evicted: Arc<Notify>,
}

/// A connection's place; shared by all that serves it, and by calls that were begun by it.
#[derive(Clone)]
pub(super) struct Place {
    inner: Arc<Taken>,
}

struct Taken {
    places: Places,
    standing: Mutex<Standing>,
    number: u64,
    evicted: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Stranger,
    Waiting(Uuid),
    Proven(Uuid),
}

/// There is no place for a further connection of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoPlace;

impl Places {
    pub(super) fn new(connections: usize) -> Self {
        let inner = Inner { connections, state: Mutex::default(), freed: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Returns when there is a place that somebody new could have.
    pub(super) async fn some(&self) {
        loop {
            let freed = self.inner.freed.notified();
            let (taken, moment) = {
                let state = self.lock();
                (state.proven.values().sum::<usize>(), state.moment_left(Instant::now()))
            };
            match (taken < self.inner.connections, moment) {
                (true, None) => return,
                // Others may leave before.
                (true, Some(left)) => drop(timeout(left, freed).await),
                (false, _) => freed.await,
            }
        }
    }

    /// A place for who has shown nothing yet.
    pub(super) fn enter(&self) -> Place {
        let evicted = Arc::new(Notify::new());
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        let stranger = Stranger { since: Instant::now(), evicted: Arc::clone(&evicted) };
        state.strangers.insert(number, stranger);
        if state.strangers.len() > STRANGERS
            && let Some((_, oldest)) = state.strangers.pop_first()
        {
            // Kept for it, if it does not listen yet.
            oldest.evicted.notify_one();
        }
        drop(state);
        let standing = Mutex::new(Standing::Stranger);
        Place { inner: Arc::new(Taken { places: self.clone(), standing, number, evicted }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How long the next stranger has to wait, so that the oldest one has had its moment.
    fn moment_left(&self, now: Instant) -> Option<Duration> {
        if self.strangers.len() < STRANGERS {
            return None;
        }
        let (_, oldest) = self.strangers.first_key_value()?;
        MOMENT.checked_sub(now.duration_since(oldest.since)).filter(|left| !left.is_zero())
    }

    /// Whether one more connection of a product may be there, of so many products with tokens.
    fn has_room(&self, connections: usize, product: Uuid, products: usize) -> bool {
        let products = products.max(1);
        let reserved = RESERVED.min(connections / products);
        let shared = connections - reserved * products;
        let used = |of: &usize| of.saturating_sub(reserved);
        let own = self.proven.get(&product).copied().unwrap_or(0);
        let all: usize = self.proven.values().sum();
        all < connections
            && (own < reserved || self.proven.values().map(used).sum::<usize>() < shared)
    }
}

impl Place {
    /// It has shown the token of a product, of so many that there are. Waits for a place, for a while.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub(super) async fn prove(&self, product: Uuid, products: usize) -> Result<(), NoPlace> {
        let freed = &self.inner.places.inner.freed;
        let wait = async {
            loop {
                let mut news = std::pin::pin!(freed.notified());
                // From here on nothing is missed.
                news.as_mut().enable();
                match self.try_prove(product, products)? {
                    true => return Ok(()),
                    false => news.await,
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or(Err(NoPlace))
    }

    fn try_prove(&self, product: Uuid, products: usize) -> Result<bool, NoPlace> {
        let places = &self.inner.places;
        let mut state = places.lock();
        let mut standing = self.inner.standing();
        if matches!(*standing, Standing::Proven(_)) {
            return Ok(true);
        }
        if state.has_room(places.inner.connections, product, products) {
            self.inner.leave(&mut state, *standing);
            *state.proven.entry(product).or_default() += 1;
            *standing = Standing::Proven(product);
            return Ok(true);
        }
        if *standing == Standing::Stranger {
            let waiting = state.waiting.entry(product).or_default();
            if *waiting >= WAITING {
                return Err(NoPlace);
            }
            *waiting += 1;
            self.inner.leave(&mut state, Standing::Stranger);
            *standing = Standing::Waiting(product);
        }
        Ok(false)
    }

    /// Returns when it has been there for too long without having shown a token, or has to make room.
    pub(super) async fn forfeited(&self) {
        tokio::select! {
            () = self.inner.evicted.notified() => {}
            () = sleep(UNPROVEN) => {}
        }
        if *self.inner.standing() != Standing::Stranger {
            std::future::pending().await
        }
    }
}

impl Taken {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, state: &mut State, standing: Standing) {
        let less = |counts: &mut HashMap<Uuid, usize>, product| {
            if let Some(count) = counts.get_mut(&product) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&product);
                }
            }
        };
        match standing {
            Standing::Stranger => drop(state.strangers.remove(&self.number)),
            Standing::Waiting(product) => less(&mut state.waiting, product),
            Standing::Proven(product) => less(&mut state.proven, product),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let standing = *self.standing();
        let mut state = self.places.lock();
        self.leave(&mut state, standing);
        drop(state);
        self.places.inner.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    impl Place {
        fn since_entered(&self) -> Duration {
            let state = self.inner.places.lock();
            state.strangers.get(&self.inner.number).expect("a stranger").since.elapsed()
        }
    }

    fn proven(places: &Places, product: Uuid, products: usize) -> Option<Place> {
        let place = places.enter();
        matches!(place.try_prove(product, products), Ok(true)).then_some(place)
    }

    #[test]
    fn each_product_has_places_that_no_other_can_take() {
        for (connections, products, most_of_one, left) in
            [(3, 1, 3, 0), (3, 2, 2, 1), (10, 2, 6, 4), (2, 3, 2, 0), (100, 5, 84, 4)]
        {
            let places = Places::new(connections);
            let of_one: Vec<_> =
                std::iter::from_fn(|| proven(&places, ONE, products)).take(200).collect();
            assert_eq!(of_one.len(), most_of_one, "{connections} of {products}");
            let others: Vec<_> =
                std::iter::from_fn(|| proven(&places, OTHER, products)).take(200).collect();
            assert_eq!(others.len(), left, "{connections} of {products}");
            drop(of_one);
            assert!(proven(&places, OTHER, products).is_some(), "given back");
        }
    }

    #[tokio::test]
    async fn the_oldest_stranger_makes_room() {
        let places = Places::new(5);
        let first = places.enter();
        let second = places.enter();
        let known = proven(&places, ONE, 1).expect("a place");
        let more: Vec<_> = (0..STRANGERS - 1).map(|_| places.enter()).collect();
        first.forfeited().await;
        let stays = tokio::time::timeout(Duration::from_millis(1), second.forfeited()).await;
        assert!(stays.is_err(), "only one too many");
        let _one_more = places.enter();
        second.forfeited().await;
        let stays = tokio::time::timeout(Duration::from_millis(1), known.forfeited()).await;
        assert!(stays.is_err(), "it has shown a token");
        drop((first, second, more, known, _one_more));
        let state = places.lock();
        assert!(state.strangers.is_empty() && state.proven.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn each_stranger_has_a_moment_before_it_makes_room() {
        let places = Places::new(5);
        let mut all = Vec::new();
        for number in 0..STRANGERS {
            if number == STRANGERS / 2 {
                tokio::time::advance(MOMENT / 2).await;
            }
            places.some().await;
            all.push(places.enter());
        }
        assert_eq!(all[0].since_entered(), MOMENT / 2, "there was room");
        for expected in [MOMENT, MOMENT, MOMENT] {
            places.some().await;
            let oldest = all.remove(0);
            assert_eq!(oldest.since_entered(), expected);
            all.push(places.enter());
            oldest.forfeited().await;
        }
        // One that leaves makes room at once.
        all.drain(..STRANGERS / 2);
        let full: Vec<_> = (0..STRANGERS / 2).map(|_| places.enter()).collect();
        let waits = tokio::time::timeout(MOMENT / 4, places.some()).await;
        assert!(waits.is_err(), "all have come lately");
        drop(full);
        tokio::time::timeout(Duration::ZERO, places.some()).await.expect("there is room");
    }

    #[tokio::test]
    async fn who_waits_for_a_place_has_it_when_one_is_free() {
        let places = Places::new(1);
        let first = proven(&places, ONE, 1).expect("a place");
        let second = places.enter();
        let waiting = tokio::spawn(async move { second.prove(ONE, 1).await.map(|()| second) });
        while places.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (1..WAITING)
            .map(|_| places.enter())
            .inspect(|place| assert_eq!(place.try_prove(ONE, 1), Ok(false)))
            .collect();
        assert_eq!(places.enter().try_prove(ONE, 1), Err(NoPlace));
        drop((first, others));
        let second = waiting.await.expect("no panic").expect("a place");
        assert_eq!(second.prove(OTHER, 1).await, Ok(()), "it has one already");
        drop(second);
        assert!(places.lock().waiting.is_empty() && places.lock().proven.is_empty());
    }
}

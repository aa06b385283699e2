//! What one product's programs can make the host hold at a time; beside it, the same for all who have
//! shown no token. How many calls are carried out at a time is the affair of the product's door.
//!
//! A text is charged before anything is built of it, with the most that answering it can take, and the
//! charge is held until its answer is written. So who sends too much waits for itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// The memory of one product, in KiB.
const MEMORY: usize = 16 * 1024;

/// Questions for commands of one product that wait at a time.
const WAITS: usize = 16;

/// What a text costs at least, in bytes: most answers are in it.
const TEXT: usize = 32 * 1024;

/// The most bytes of a batch's answers together; calls behind it are not carried out.
pub(super) const MOST_ANSWERS: usize = 1024 * 1024;

/// What a batch costs at least: room for its answers.
const BATCH: usize = 2 * 1024 * 1024;

/// The most that a text may cost.
const MOST: usize = 8 * 1024 * 1024;

/// The same of who has shown no token.
const MOST_OF_STRANGER: usize = 3 * 1024 * 1024;

/// See the module's documentation. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Budgets {
    of: Arc<Mutex<HashMap<Option<Uuid>, Budget>>>,
}

/// What there is for one product. Cheap to clone.
#[derive(Clone)]
pub(super) struct Budget {
    owner: Option<Uuid>,
    memory: Arc<Semaphore>,
    waits: Arc<Semaphore>,
}

/// Memory that is spoken for, until it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    owner: Option<Uuid>,
    kib: u32,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budgets {
    /// That of a product whose token was shown, or that of all strangers.
    pub(super) fn of(&self, owner: Option<Uuid>) -> Budget {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody is in it who has no token, so it does not grow.
        of.entry(owner).or_insert_with(|| Budget::new(owner)).clone()
    }
}

impl Budget {
    fn new(owner: Option<Uuid>) -> Self {
        let [memory, waits] = [MEMORY, WAITS].map(|count| Arc::new(Semaphore::new(count)));
        Self { owner, memory, waits }
    }

    /// Waits until there is room for so many bytes.
    pub(super) async fn hold(&self, bytes: usize) -> Ticket {
        let kib = kib(bytes);
        // Nobody closes the semaphore.
        let permit = Arc::clone(&self.memory).acquire_many_owned(kib).await.ok();
        Ticket { owner: self.owner, kib, permit }
    }

    /// The same, if there is room now.
    pub(super) fn try_hold(&self, bytes: usize) -> Option<Ticket> {
        let kib = kib(bytes);
        let permit = Arc::clone(&self.memory).try_acquire_many_owned(kib).ok()?;
        Some(Ticket { owner: self.owner, kib, permit: Some(permit) })
    }

    /// A place among those that wait for commands, if there is one.
    pub(super) fn wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waits).try_acquire_owned().ok()
    }
}

impl Ticket {
    /// Has so many bytes held from now on. What was held before is given back first where it is less:
    /// who waits keeps nothing that others wait for.
    pub(super) async fn resize(&mut self, bytes: usize, budget: &Budget) {
        let less = self.kib.saturating_sub(kib(bytes));
        if less == 0 && self.kib < kib(bytes) {
            self.permit = None;
            *self = budget.hold(bytes).await;
            return;
        }
        if let Some(permit) = &mut self.permit {
            drop(permit.split(usize::try_from(less).unwrap_or(usize::MAX)));
        }
        self.kib -= less;
    }

    /// Has as much held for another owner. What was held before is given back first: who waits for
    /// one keeps nothing of the other.
    pub(super) async fn move_to(&mut self, budget: &Budget) {
        if self.owner == budget.owner {
            return;
        }
        self.permit = None;
        *self = budget.hold(usize::try_from(self.kib).unwrap_or(0) * 1024).await;
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.min(MOST).div_ceil(1024)).unwrap_or(u32::MAX)
}

/// The largest message in bytes. A program that has not shown a token yet may send less than one that has, which
/// may name all the channels that it serves, some 26,000.
pub(super) fn max_message(proven: bool) -> usize {
    if proven { 1024 * 1024 } else { 64 * 1024 }
}

/// The most bytes that answering a text takes, beside the text itself; nothing where that is more than
/// a text may cost.
///
/// It counts what begins a value, outside strings: an element, a member, an array, an object. What is
/// no JSON may be counted wrongly from its first fault on, and nothing is built of it from there on.
pub(super) fn cost(text: &[u8], proven: bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    let mut cost = base(text);
    cost += 4 * text.len();
    for byte in text {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        // A value in an array that grows; a name; the first room of an array, and of a map.
        cost += match byte {
            b'"' => {
                quoted = true;
                0
            }
            b',' => 128,
            b':' => 64,
            b'[' => 320,
            b'{' => 768,
            _ => 0,
        };
    }
    (cost <= most(proven)).then_some(cost)
}

/// The most that a text can cost which has not come yet, without its answers.
pub(super) fn cost_at_most(length: usize) -> usize {
    // All of it `{`.
    length.saturating_mul(4 + 768).saturating_add(TEXT).min(MOST)
}

fn base(text: &[u8]) -> usize {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') { BATCH } else { TEXT }
}

fn most(proven: bool) -> usize {
    if proven { MOST } else { MOST_OF_STRANGER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_whether_they_are_too_much() {
        let values = |count: usize| format!("[{}0]", "0,".repeat(count));
        let keys = |count: usize| {
            let key = format!("\"{}\"", Uuid::nil());
            format!("{{\"serving\":[{}{key}]}}", format!("{key},").repeat(count))
        };
        for (text, proven, may) in [
            ("{}".to_owned(), false, true),
            (String::new(), false, true),
            (values(500_000), true, false),
            (values(60_000), true, false),
            (values(10_000), true, true),
            (values(40_000), false, false),
            ("{\"\":".repeat(20_000), true, false),
            // All the channels that a program serves.
            (keys(26_000), true, true),
            // What is in a string is one value, whatever it looks like.
            (format!("\"{}\"", "[,{:\\\"".repeat(100_000)), true, true),
        ] {
            assert_eq!(cost(text.as_bytes(), proven).is_some(), may, "{text:.40} {proven}");
        }
    }

    #[tokio::test]
    async fn one_owner_waits_for_itself_alone() {
        let budgets = Budgets::default();
        let [one, other] = [1, 2].map(|number| budgets.of(Some(Uuid::from_u128(number))));
        let first = one.try_hold(MOST).expect("room");
        let mut second = one.try_hold(MOST).expect("room");
        assert!(one.try_hold(1).is_none());
        assert!(other.try_hold(MOST).is_some());
        second.resize(MOST / 2, &one).await;
        let third = one.try_hold(MOST / 2).expect("what was given back");
        assert!(one.try_hold(1).is_none());
        drop((first, second, third));
        let mut ticket = budgets.of(None).try_hold(MOST).expect("room");
        ticket.move_to(&one).await;
        assert!(budgets.of(None).try_hold(MOST).is_some() && one.try_hold(MOST).is_some());
        ticket.resize(1024, &one).await;
        ticket.resize(MOST, &one).await;
        assert!(
            one.try_hold(MOST).is_some_and(|_held| one.try_hold(1).is_none()),
            "no more than that"
        );
    }
}

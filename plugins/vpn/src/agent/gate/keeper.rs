//! The task that keeps the gate.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::barrier::Barrier;
use super::rules::{self, ALARM, CREDIT, Listing};
use super::shaping::{Shaper, Speeds, Wanted};
use super::{Order, forward};
use crate::agent::Board;
use crate::agent::tally::{self, Carried, Passed, Tally};
use crate::full;
use crate::journal::{Entry, Journal};
use crate::run::{self, RunError};
use crate::session::Limit;
use crate::settings::Settings;
use crate::watch::Watch;

/// How often the counters are read while somebody is served.
const COUNT: Duration = Duration::from_secs(1);

/// How often the table is verified while nobody is, in such turns.
const IDLE_TURNS: u32 = 10;

/// A client that is let through.
struct Served {
    tally: Arc<Tally>,
    /// What was counted by tables before the present one.
    before: Passed,
    /// What the present one has counted.
    now: Passed,
    /// The usage up to which the core allows use.
    limit: Limit,
    credit: Credit,
    quota: Option<Quota>,
    speeds: Speeds,
    /// How fast it may be now, for its credit's sake, in kbit/s.
    pace: Option<u64>,
}

/// What the core has allowed last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Credit {
    limit: u64,
    /// How much of it was left then.
    granted: u64,
}

impl Credit {
    /// What is left of a limit, as the firewall counts it. A part is kept back, since usage is known for
    /// sure only when OpenVPN has spoken of it: a channel that has used all that is paid is suspended.
    fn left(&mut self, limit: u64, taken: u64) -> u64 {
        let left = limit.saturating_sub(taken);
        if limit > self.limit {
            self.granted = left;
        }
        self.limit = limit;
        let kept = (self.granted / KEPT).min(MOST_KEPT);
        tally::without_headers(left.saturating_sub(kept))
    }
}

/// Of a credit one part in so many is kept back, and no more than so many bytes.
const KEPT: u64 = 20;
const MOST_KEPT: u64 = 256 << 10;

/// The quota of a client in the present table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quota {
    /// What the table had counted when it was made.
    since: u64,
    /// So much passes from then on.
    over: u64,
}

/// What a quota has to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    /// The same one goes on counting: nothing that passes meanwhile is forgotten.
    Extend(u64),
    /// It has counted what it has dropped, and nothing passes: another one begins.
    Begin(u64),
    /// There is no limit any more.
    Free,
}

/// What has to become of a quota, if anything, when `left` may still be used and the table has
/// counted `passed`.
fn renewal(
    quota: Option<Quota>,
    depleted: bool,
    left: Option<u64>,
    passed: u64,
) -> Option<Renewal> {
    let Some(left) = left else { return quota.map(|_| Renewal::Free) };
    let Some(quota) = quota else { return Some(Renewal::Begin(left)) };
    if depleted {
        // What cannot be a packet is not worth a process.
        return (left >= PACKET).then_some(Renewal::Begin(left));
    }
    let counted = passed.saturating_sub(quota.since);
    let kernel = quota.over.saturating_sub(counted);
    // Each renewal costs a process; half of the credit is enough until the next report.
    let little = kernel < left / 2;
    let much = kernel > left + SLACK;
    (little || much).then_some(Renewal::Extend(counted + left))
}

/// How fast a client may be, in kbit/s, so that what is left lasts until more is paid. It gets slower
/// with what is left, so that its connections adapt and do not run into the end of its credit, from
/// which TCP recovers late. Where much is left there is no pace.
fn pace(left: Option<u64>) -> Option<u64> {
    let milliseconds = u64::try_from(PAYMENT.as_millis()).unwrap_or(u64::MAX);
    let pace = left?.saturating_mul(8) / milliseconds;
    (pace <= FAST).then_some(pace.max(SLOW))
}

/// Whether a pace differs so much from the one before that it is worth a process.
fn differs(pace: Option<u64>, before: Option<u64>) -> bool {
    match (pace, before) {
        (Some(pace), Some(before)) => pace.abs_diff(before) > before / 8,
        (pace, before) => pace != before,
    }
}

/// The time from a report of what is used to the reply that tells of the next payment.
const PAYMENT: Duration = Duration::from_secs(1);

/// An address whose credit lasts a second at this rate, in kbit/s, is not paced: no tunnel is faster.
const FAST: u64 = 1_000_000;

/// The least pace, in kbit/s: what is paid can be used up.
const SLOW: u64 = 1_000;

/// The largest packet that has to fit.
const PACKET: u64 = 1500;

/// More than this may not pass beyond what is left.
const SLACK: u64 = 64 << 10;

/// What is left of a credit when the keeper is to be told, as a part of it.
const ALARM_AT: u64 = 4;

impl Served {
    fn count(&mut self, passed: Passed, carried: Carried) {
        self.now = passed;
        self.tally.passed(self.before.and(passed), carried);
    }

    fn count_last(&mut self, passed: Passed) {
        self.now = passed;
        self.tally.passed_last(self.before.and(passed));
    }

    /// What the core still allows to pass, as the firewall counts it.
    fn left(&mut self) -> Option<u64> {
        let limit = *self.limit.borrow();
        limit.map(|limit| self.credit.left(limit, self.tally.taken()))
    }

    /// Whether a look at the counters may be worth it.
    fn needs_renewal(&mut self) -> bool {
        let passed = self.now.bytes();
        renewal(self.quota, false, self.left(), passed).is_some()
            || self.quota.is_some_and(|quota| passed + PACKET >= quota.since + quota.over)
    }

    /// Has the kernel let through what the core allows, and no more; and say again when a part of
    /// what is left has passed, so that the less is left, the sooner it is looked at and reported.
    fn renew(&mut self, script: &mut String, table: &str, address: Ipv4Addr, state: State) {
        let (left, passed) = (self.left(), self.now.bytes());
        let renewal = renewal(self.quota, state.depleted, left, passed);
        let known = self.quota.is_some();
        if renewal.is_none() && !(known && state.alarmed && !state.depleted) {
            return;
        }
        if known {
            rules::free(script, table, address, ALARM);
        }
        match renewal {
            None => {}
            Some(Renewal::Free) => {
                rules::free(script, table, address, CREDIT);
                self.quota = None;
                return;
            }
            Some(Renewal::Begin(bytes)) => {
                if known {
                    rules::free(script, table, address, CREDIT);
                }
                rules::limit(script, table, address, CREDIT, bytes);
                self.quota = Some(Quota { since: passed, over: bytes });
            }
            Some(Renewal::Extend(over)) => {
                rules::extend(script, table, address, over);
                self.quota = self.quota.map(|quota| Quota { over, ..quota });
            }
        }
        let alarm = left.unwrap_or_default() / ALARM_AT;
        rules::limit(script, table, address, ALARM, alarm.max(SLACK));
    }
}

/// What the kernel has said of a client's quotas.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    depleted: bool,
    alarmed: bool,
}

pub(super) struct Keeper {
    device: String,
    /// What the device had carried when it was looked at last.
    device_sent: u64,
    table: String,
    rules: String,
    /// The table as it was made, without clients.
    skeleton: String,
    barrier: Barrier,
    journal: Arc<Journal>,
    board: Board,
    served: HashMap<Ipv4Addr, Served>,
    shaper: Shaper,
    /// Whether this machine has what pacing needs, as far as is known.
    paces: bool,
    orders: mpsc::WeakUnboundedSender<Order>,
    idle: u32,
}

/// What is to be told to the kernel for orders that were taken together.
#[derive(Default)]
struct Batch {
    script: String,
    shaping: Vec<(Ipv4Addr, Option<Wanted>)>,
    /// Clients whose last count is to be read.
    closing: Vec<Ipv4Addr>,
    /// All of them, since the device is new.
    emptied: bool,
    /// Whether limits have changed.
    renew: bool,
}

/// Tells the keeper of each change of a limit.
async fn tell(mut limit: Limit, address: Ipv4Addr, orders: mpsc::WeakUnboundedSender<Order>) {
    while limit.changed().await.is_ok() {
        let Some(orders) = orders.upgrade() else { return };
        let _ = orders.send(Order::Limit(address));
    }
}

impl Keeper {
    pub(super) async fn new(
        settings: &Settings,
        table: String,
        rules: String,
        barrier: Barrier,
        journal: Arc<Journal>,
        board: Board,
        orders: mpsc::WeakUnboundedSender<Order>,
    ) -> Result<Self, RunError> {
        let shaper = Shaper::new(&settings.device, settings.capacity_kbit, Arc::clone(&journal));
        let (skeleton, served) = (String::new(), HashMap::new());
        let mut keeper = Self {
            device: settings.device.clone(),
            device_sent: 0,
            table,
            rules,
            skeleton,
            barrier,
            journal,
            board,
            served,
            shaper,
            paces: true,
            orders,
            idle: 0,
        };
        keeper.skeleton = keeper.list().await?.unwrap_or_default().skeleton;
        Ok(keeper)
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        let watch = Watch::firewall()
            .inspect_err(|error| tracing::warn!(%error, "the firewall is looked at, not watched"))
            .ok();
        let mut tick = interval(COUNT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut put_off = None;
        loop {
            let order = match put_off.take() {
                Some(order) => Some(order),
                None => tokio::select! {
                    order = inbox.recv() => match order {
                        Some(order) => Some(order),
                        None => return,
                    },
                    () = changed(watch.as_ref()) => None,
                    _ = tick.tick() => {
                        self.idle += 1;
                        if self.served.is_empty() && self.idle < IDLE_TURNS {
                            continue;
                        }
                        None
                    }
                },
            };
            let Some(first) = order else {
                self.idle = 0;
                self.verify().await;
                self.pace().await;
                continue;
            };
            let mut batch = Batch::default();
            let (mut next, mut end) = (Some(first), None);
            while let Some(order) = next {
                match order {
                    Order::Down(done) => {
                        end = Some(done);
                        break;
                    }
                    // What was counted of the one before it has to be read first.
                    Order::Open(address, ..) if batch.closing.contains(&address) => {
                        put_off = Some(order);
                        break;
                    }
                    Order::Empty if !batch.script.is_empty() => {
                        put_off = Some(order);
                        break;
                    }
                    order => self.take(order, &mut batch),
                }
                next = if batch.emptied { None } else { inbox.try_recv().ok() };
            }
            self.carry_out(batch).await;
            if let Some(done) = end {
                self.down(done).await;
                return;
            }
        }
    }

    fn take(&mut self, order: Order, batch: &mut Batch) {
        let table = &self.table;
        match order {
            Order::Empty => {
                self.shaper.forget();
                self.board.change(|report| report.speeds = None);
                batch.closing.extend(self.served.keys());
                batch.emptied = true;
                for address in self.served.keys() {
                    rules::shut(&mut batch.script, table, *address);
                }
            }
            Order::Open(address, speeds, tally, limit) if !self.served.contains_key(&address) => {
                let (before, now) = (Passed::default(), Passed::default());
                tokio::spawn(tell(limit.clone(), address, self.orders.clone()));
                let (quota, pace) = (None, None);
                let credit = Credit::default();
                let mut served = Served { tally, before, now, limit, credit, quota, speeds, pace };
                // With its limit from the first packet on.
                served.renew(&mut batch.script, table, address, State::default());
                rules::open(&mut batch.script, table, address);
                self.served.insert(address, served);
                batch.shaping.push((address, Some(Wanted { speeds, pace })));
            }
            Order::Limit(address) if self.served.contains_key(&address) => batch.renew = true,
            Order::Shut(address)
                if self.served.contains_key(&address) && !batch.closing.contains(&address) =>
            {
                batch.shaping.push((address, None));
                batch.closing.push(address);
                rules::shut(&mut batch.script, table, address);
            }
            Order::Open(..) | Order::Limit(_) | Order::Shut(_) | Order::Down(_) => {}
        }
    }

    async fn carry_out(&mut self, batch: Batch) {
        if !batch.script.is_empty()
            && let Err(error) = run::nft(&batch.script).await
        {
            // The table may be gone: then it is made again, for those who are served now.
            tracing::warn!(error = &error as &dyn std::error::Error, "the gate");
            let gone: Vec<_> =
                batch.closing.iter().filter_map(|address| self.served.remove(address)).collect();
            self.restore("the rules could not be changed").await;
            drop(gone);
        } else if !batch.closing.is_empty() {
            self.close(&batch.closing).await;
        }
        if batch.renew && self.served.values_mut().any(Served::needs_renewal) {
            self.verify().await;
        }
        let shaped = self.shaper.shape(batch.shaping).await;
        if let Err(error) = shaped {
            tracing::error!(error = &error as &dyn std::error::Error, "speeds");
            let text = format!("clients do not have their speeds: {error}");
            self.board.change(|report| report.speeds = Some(text));
        }
        self.pace().await;
    }

    /// Slows clients down whose credit runs low, and lets them go on when it does not.
    async fn pace(&mut self) {
        if !self.paces {
            return;
        }
        let mut wanted = Vec::new();
        for (address, served) in &mut self.served {
            let pace = pace(served.left());
            if differs(pace, served.pace) {
                tracing::debug!(%address, kbit = pace, "pace");
                served.pace = pace;
                wanted.push((*address, Some(Wanted { speeds: served.speeds, pace })));
            }
        }
        if let Err(error) = self.shaper.shape(wanted).await {
            // The quota holds all the same.
            tracing::warn!(
                error = full(&error),
                "clients are not slowed down as their credit runs low, but stopped"
            );
            self.paces = false;
            let own = self.served.iter().filter(|(_, served)| served.pace.is_some());
            let own = own.map(|(address, served)| {
                (*address, Some(Wanted { speeds: served.speeds, pace: None }))
            });
            // They are the offering's again; that this fails is no other problem.
            let _ = self.shaper.shape(own.collect()).await;
        }
    }

    /// Reads the last counts of clients that are shut out. With their tallies end their sessions.
    async fn close(&mut self, addresses: &[Ipv4Addr]) {
        let listing = self.list().await.ok().flatten().unwrap_or_default();
        let mut script = String::new();
        for address in addresses {
            let Some(mut served) = self.served.remove(address) else { continue };
            if let Some(passed) = listing.passed.get(address) {
                served.count_last(*passed);
                rules::forget(&mut script, &self.table, *address, served.quota.is_some());
            }
        }
        if let Err(error) = run::nft(&script).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "counters were not removed");
        }
    }

    /// The table as it is; `None` if it is gone.
    async fn list(&self) -> Result<Option<Listing>, RunError> {
        match run::run("nft", &["-j", "list", "table", "inet", &self.table]).await {
            Ok(text) => Ok(Listing::read(&text)),
            Err(error) if error.to_string().contains("No such file") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Counts, and puts back what somebody else has taken away.
    async fn verify(&mut self) {
        match forward(&self.journal) {
            Ok(false) => {}
            Ok(true) => self.told("forwarding was switched off by another program; it is on again"),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "forwarding");
            }
        }
        if self.barrier.has_fallen() {
            match self.barrier.raise().await {
                Ok(()) => self.told("another program has ended the `nft` that holds the barrier"),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the barrier");
                }
            }
        }
        let listing = match self.list().await {
            Ok(listing) => listing,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the gate");
                let text = format!("the rules of the firewall cannot be read: {error}");
                return self.board.change(|report| report.rules = Some(text));
            }
        };
        let Some(listing) = listing else {
            return self.restore("another program has removed the rules of the firewall").await;
        };
        let carried = self.carried(&listing);
        for (address, passed) in &listing.passed {
            if let Some(served) = self.served.get_mut(address) {
                served.count(*passed, carried);
            }
        }
        let served: BTreeSet<_> = self.served.keys().copied().collect();
        let counted = served.iter().all(|address| listing.passed.contains_key(address));
        if listing.skeleton != self.skeleton || listing.served != served || !counted {
            return self.restore("another program has changed the rules of the firewall").await;
        }
        self.board.change(|report| report.rules = None);
        let mut script = String::new();
        for (address, served) in &mut self.served {
            let state = State {
                depleted: listing.depleted.contains(address),
                alarmed: listing.alarmed.contains(address),
            };
            served.renew(&mut script, &self.table, *address, state);
        }
        if !script.is_empty()
            && let Err(error) = run::nft(&script).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the gate");
            self.restore("the limits of clients could not be changed").await;
        }
    }

    /// Makes the table again, with all who are served.
    async fn restore(&mut self, why: &str) {
        let mut script = self.rules.clone();
        for (address, served) in &mut self.served {
            served.before = served.before.and(served.now);
            (served.now, served.quota) = (Passed::default(), None);
            served.renew(&mut script, &self.table, *address, State::default());
            rules::open(&mut script, &self.table, *address);
        }
        match run::nft(&script).await {
            Ok(()) => {
                self.told(&format!("{why}; they are restored"));
                self.board.change(|report| report.rules = None);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the gate");
                let text = format!("{why}, and they cannot be restored: {error}");
                self.board.change(|report| report.rules = Some(text));
            }
        }
    }

    /// What the device has carried since the last look, of what the firewall has let through to clients.
    fn carried(&mut self, listing: &Listing) -> Carried {
        let grown = |(address, passed): (&Ipv4Addr, &Passed)| {
            let known = self.served.get(address)?.now.down.bytes;
            Some(passed.down.bytes.saturating_sub(known))
        };
        let seen = listing.passed.iter().filter_map(grown).sum();
        // Without a device nothing is carried; a new one counts anew.
        let before = std::mem::replace(&mut self.device_sent, sent_to(&self.device));
        Carried { carried: self.device_sent.saturating_sub(before), seen }
    }

    fn told(&self, what: &str) {
        tracing::warn!("{what}");
        self.board.change(|report| report.restored.note(what));
    }

    async fn down(&mut self, done: oneshot::Sender<()>) {
        let all: Vec<_> = self.served.keys().copied().collect();
        self.close(&all).await;
        self.barrier.lower().await;
        let ours = |entry: &Entry| {
            matches!(
                entry,
                Entry::Table { kill_switch: None, .. }
                    | Entry::Device { .. }
                    | Entry::Setting { .. }
            )
        };
        let (_, problem) = self.journal.recover(|entry| !ours(entry)).await;
        if let Some(error) = problem {
            tracing::error!(error = &error as &dyn std::error::Error, "not all was put back");
        }
        // Whoever asked may have gone.
        let _ = done.send(());
    }
}

/// The bytes that a device has carried to its other end, which is OpenVPN.
fn sent_to(device: &str) -> u64 {
    let path = format!("/sys/class/net/{device}/statistics/tx_bytes");
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

async fn changed(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_each_credit_is_kept_back() {
        const MIB: u64 = 1 << 20;
        let mut credit = Credit::default();
        for (limit, taken, kept) in [
            (MIB, 0, MIB / 20),
            (MIB, MIB / 2, MIB / 20),
            // It was raised: what was left then is the credit.
            (9 * MIB, MIB, 8 * MIB / 32),
            (9 * MIB, 9 * MIB, 0),
            // A limit that falls raises nothing.
            (8 * MIB, 7 * MIB, 8 * MIB / 32),
        ] {
            let expected = tally::without_headers((limit - taken).saturating_sub(kept));
            assert_eq!(credit.left(limit, taken), expected, "{limit} {taken}");
        }
    }

    #[test]
    fn the_less_is_left_the_slower_it_goes() {
        const MIB: u64 = 1 << 20;
        for (left, expected) in [
            (None, None),
            (Some(1 << 30), None),
            (Some(120 * MIB), None),
            (Some(119 * MIB), Some(998_244)),
            (Some(4 * MIB), Some(33_554)),
            (Some(MIB), Some(8_388)),
            (Some(1_500), Some(SLOW)),
            (Some(0), Some(SLOW)),
        ] {
            assert_eq!(pace(left), expected, "{left:?}");
        }
        for (pace, before, expected) in [
            (None, None, false),
            (Some(800), None, true),
            (None, Some(800), true),
            (Some(800), Some(800), false),
            (Some(900), Some(800), false),
            (Some(901), Some(800), true),
            (Some(699), Some(800), true),
        ] {
            assert_eq!(differs(pace, before), expected, "{pace:?} after {before:?}");
        }
    }

    #[test]
    fn quota_follows_the_credit() {
        use Renewal::{Begin, Extend, Free};
        const MIB: u64 = 1 << 20;
        let quota = |since, over| Some(Quota { since, over });
        for (quota, depleted, left, passed, expected) in [
            // The core states no limit.
            (None, false, None, 0, None),
            (quota(0, MIB), false, None, 9, Some(Free)),
            // The first one; also if nothing may be used.
            (None, false, Some(MIB), 0, Some(Begin(MIB))),
            (None, false, Some(0), 0, Some(Begin(0))),
            // Enough is left in the kernel.
            (quota(0, MIB), false, Some(MIB), 100, None),
            (quota(0, MIB), false, Some(MIB), MIB / 2, None),
            // Less than half of what may be used: what passes meanwhile is still counted.
            (quota(0, MIB), false, Some(MIB), MIB / 2 + 1, Some(Extend(MIB / 2 + 1 + MIB))),
            (quota(7 * MIB, MIB), false, Some(MIB), 8 * MIB, Some(Extend(2 * MIB))),
            // It lets through more than may be used.
            (quota(0, 8 * MIB), false, Some(MIB), 0, Some(Extend(MIB))),
            // It is used up: it begins anew with what there is, or waits.
            (quota(0, MIB), true, Some(3 * MIB), MIB, Some(Begin(3 * MIB))),
            (quota(0, MIB), true, Some(0), MIB, None),
            (quota(0, MIB), true, Some(1400), MIB, None),
        ] {
            let found = renewal(quota, depleted, left, passed);
            assert_eq!(found, expected, "{quota:?} {depleted} {left:?} {passed}");
        }
    }
}

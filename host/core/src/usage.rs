//! `UpdateSession`: reports are committed in groups, each answered after its commit.
//!
//! One commit costs far more than one row, so whatever arrives while one is being made goes into
//! the next. Nothing waits for a group to fill.

use std::collections::HashMap;
use std::sync::Arc;

use privatix_plugin_api::message::{ApiError, ClientKey, ErrorName, SessionId, StatusReply, Usage};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::attention::Attention;
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::usage::{self, Account, UsageError};
use privatix_store::{ReportTarget, Store, StoreError};

/// How long after its end a session still takes reports, in seconds.
const LATE_REPORTS: UnixSeconds = 60;

/// The most reports in one commit.
const GROUP: usize = 4096;

/// How often others get their turn before a group is taken that is still growing.
const GATHER: usize = 32;

/// One report on its way to the disk.
struct Report {
    product: Uuid,
    channel: ClientKey,
    session: SessionId,
    usage: Reported,
    answer: oneshot::Sender<Outcome>,
}

/// What is reported.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reported {
    /// As the Service API has it.
    Usage(Usage),
    /// So much more, by a module that does not number its reports.
    More(u64),
}

/// The way in.
#[derive(Clone)]
pub(super) struct UsageWriter {
    reports: mpsc::Sender<Report>,
}

impl UsageWriter {
    /// Starts the writer; it ends with its last handle.
    pub(super) fn start(store: Store, attention: Arc<Attention>, max_unreported: u64) -> Self {
        let (reports, queue) = mpsc::channel(GROUP);
        tokio::spawn(write(store, attention, max_unreported, queue));
        Self { reports }
    }

    /// Returns once the report is on disk, with the status and the credit after it.
    pub(super) async fn report(
        &self,
        product: Uuid,
        channel: ClientKey,
        session: SessionId,
        usage: Reported,
    ) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let report = Report { product, channel, session, usage, answer };
        let sent = self.reports.send(report).await;
        sent.map_err(|_| ApiError::new(ErrorName::Internal))?;
        answered.await.map_err(|_| ApiError::new(ErrorName::Internal))?
    }
}

async fn write(
    store: Store,
    attention: Arc<Attention>,
    max_unreported: u64,
    mut queue: mpsc::Receiver<Report>,
) {
    let mut group = Vec::new();
    while queue.recv_many(&mut group, GROUP).await > 0 {
        gather(&mut queue, &mut group).await;
        // In key order: a page of the database is then touched once.
        group.sort_by_key(|report| report.session);
        let outcomes =
            save(&store, &attention, max_unreported, &group).await.unwrap_or_else(|error| {
                let failed = super::internal(error);
                group.iter().map(|_| Err(failed.clone())).collect()
            });
        for (report, outcome) in group.drain(..).zip(outcomes) {
            // The caller may have given up.
            let _ = report.answer.send(outcome);
        }
    }
}

/// A module that was answered a moment ago is about to report again: to let it is cheaper than a commit
/// of their own. It takes no time where nobody comes.
async fn gather(queue: &mut mpsc::Receiver<Report>, group: &mut Vec<Report>) {
    for _ in 0..GATHER {
        tokio::task::yield_now().await;
        let before = group.len();
        while group.len() < GROUP
            && let Ok(report) = queue.try_recv()
        {
            group.push(report);
        }
        if group.len() == before {
            return;
        }
    }
}

type Outcome = Result<StatusReply, ApiError>;

async fn save(
    store: &Store,
    attention: &Attention,
    max_unreported: u64,
    group: &[Report],
) -> Result<Vec<Outcome>, StoreError> {
    let mut ids: Vec<SessionId> = group.iter().map(|report| report.session).collect();
    ids.dedup();
    let mut txn = store.begin().await?;
    let targets = txn.session_targets(&ids).await?;
    let mut targets: HashMap<SessionId, ReportTarget> =
        targets.into_iter().map(|target| (target.id, target)).collect();
    let now = clock::unix_now();
    let mut changes = Changes::default();
    let outcomes = group
        .iter()
        .map(|report| {
            let target = targets.get_mut(&report.session).ok_or(ErrorName::SessionNotFound)?;
            let account = decide(report, *target, now)?;
            if target.account != account {
                changes.note(target, account);
            }
            Ok(StatusReply { status: target.status, credit: credit(target, max_unreported) })
        })
        .collect();
    if !changes.accounts.is_empty() {
        txn.session_set_accounts(&changes.accounts, now).await?;
        if !changes.late.is_empty() {
            txn.billing_add_used(&changes.late, now).await?;
        }
        txn.commit().await?;
        attention.draw(changes.alarmed);
    }
    Ok(outcomes)
}

/// What a group of reports changes.
#[derive(Default)]
struct Changes {
    /// New accounts of sessions, in the order of the group.
    accounts: Vec<(SessionId, Account)>,
    /// What has to be added to channels because the session is closed already.
    late: Vec<(ClientKey, u64)>,
    /// Channels that are to be judged at once.
    alarmed: Vec<ClientKey>,
}

impl Changes {
    fn note(&mut self, target: &mut ReportTarget, account: Account) {
        let more = account.usage - target.account.usage;
        if target.stopped_at.is_some() && more > 0 {
            self.late.push((target.channel, more));
            target.used += more;
        }
        target.account = account;
        match self.accounts.last_mut() {
            Some((id, last)) if *id == target.id => *last = account,
            _ => self.accounts.push((target.id, account)),
        }
        if target.alarm.is_some_and(|alarm| channel_usage(target) >= alarm) {
            self.alarmed.push(target.channel);
        }
    }
}

/// What the channel has used in all of its sessions.
fn channel_usage(target: &ReportTarget) -> u64 {
    let open = if target.stopped_at.is_some() { 0 } else { target.account.usage };
    usage::of_channel(target.used, open)
}

/// How much may be used beyond what is reported now; see [`privatix_domain::billing::Bounds`].
fn credit(target: &ReportTarget, max_unreported: u64) -> Option<u64> {
    let usable = target.status.allows_use() && target.stopped_at.is_none();
    let credit = || target.bounds.credit(channel_usage(target), max_unreported);
    (!target.measured).then(|| if usable { credit() } else { 0 })
}

/// The rules for one report: the session's account after it.
fn decide(report: &Report, target: ReportTarget, now: UnixSeconds) -> Result<Account, ApiError> {
    if target.channel != report.channel || target.product != report.product {
        return Err(ErrorName::SessionNotFound.into());
    }
    if target.stopped_at.is_some_and(|stopped| now.saturating_sub(stopped) > LATE_REPORTS) {
        return Err(ErrorName::SessionNotFound.into());
    }
    if target.measured {
        // The core counts the seconds; what the module counts is of no account.
        return Ok(target.account);
    }
    let usage = match report.usage {
        Reported::Usage(usage) => usage,
        Reported::More(amount) => {
            Usage::Incremental { sequence: target.account.sequence.saturating_add(1), amount }
        }
    };
    match usage::report(target.account, usage) {
        Ok(account) => Ok(account),
        Err(error @ UsageError::WentBackwards { .. }) => {
            Err(ApiError::with(ErrorName::UsageWentBackwards, error))
        }
        Err(error @ (UsageError::TooLarge | UsageError::NoSequence)) => {
            Err(ApiError::with(ErrorName::BadRequest, error))
        }
    }
}

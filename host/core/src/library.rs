//! How libraries of modules fare: what they are told is noted before they are told it, and at the next
//! start the one to blame for a host that died is set aside.
//!
//! Only what may happen once for each start of a module is noted; calls and commands of a module that
//! serves cost nothing.

use uuid::Uuid;

use super::{Registration, Upkeep};
use privatix_base::clock;
use privatix_domain::suspects::{self, CRASH_WINDOW, CRASHES, End, Note, Verdict};
use privatix_store::{LibraryRow, QuarantineRow, StepRow, StoreError, Txn};

/// The name of the note that stands in the database as long as a host runs.
const RUNNING: &str = "running";

/// What the operator and the host itself have to say of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is switched off.
    pub disabled: bool,
    /// Which module the product belongs to, by its name; nobody's as long as none was registered.
    pub owner: Option<String>,
}

impl Upkeep {
    /// The host begins to run. If the last run did not end in order, libraries that were coming up by
    /// then are judged. `boot` names this run of the machine, `words` are the last of the run before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run_begun(&self, boot: &str, words: &str) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        let before = txn.note_take(RUNNING).await?;
        txn.note_changed(RUNNING, boot).await?;
        let steps = txn.library_steps_take().await?;
        let end = match before {
            None => End::Clean,
            Some(known) if known != boot => End::Machine,
            Some(_) => suspects::last_words(words),
        };
        match &end {
            End::Clean => {}
            End::Machine => tracing::warn!("the last run ended with the machine"),
            End::Crashed { what, thread } => {
                tracing::error!(cause = what, thread, "the last run ended in a crash");
            }
            End::Unknown => tracing::warn!("the last run was killed, or ended without a word"),
        }
        let blamed = judged(&mut txn, &end, &steps).await?;
        if let End::Crashed { what, thread } = &end
            && !blamed
        {
            crashed_while_serving(&mut txn, what, thread).await?;
        }
        txn.commit().await.map(drop)
    }

    /// The host has ended in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run_ended(&self) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        txn.note_take(RUNNING).await?;
        txn.library_steps_take().await?;
        // It may have been set since all channels were looked at.
        self.core.clock_note(&mut txn).await?;
        txn.commit().await.map(drop)
    }

    /// Registers a product, and notes what its library is about to be told first; both are on disk when
    /// this returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_registered(
        &self,
        registration: Registration<'_>,
        library: &str,
        step: &str,
    ) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        self.core.register_in_txn(&mut txn, &registration).await?;
        txn.library_step(registration.name, library, step, clock::unix_now()).await?;
        txn.commit().await.map(drop)
    }

    /// Notes what a library is about to be told. The note outlives the process when this returns; that the
    /// machine goes down is no library's fault.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_step(
        &self,
        module: &str,
        library: &str,
        step: &str,
    ) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin_note().await?;
        txn.library_step(module, library, step, clock::unix_now()).await?;
        txn.commit().await.map(drop)
    }

    /// Notes that a library has come up, or has failed to without harm to the host.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_settled(
        &self,
        module: &str,
        library: &str,
        up: bool,
    ) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin_note().await?;
        txn.library_step_done(module).await?;
        if up {
            txn.library_up(library, module, clock::unix_now()).await?;
        }
        txn.commit().await.map(drop)
    }

    /// How a library fared.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_record(&self, library: &str) -> Result<LibraryRow, StoreError> {
        self.core.inner.store.library_get(library).await
    }

    /// Why a library is set aside, if it is. Another version of the host gives it another try.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantined(&self, library: &str) -> Result<Option<QuarantineRow>, StoreError> {
        let row = self.core.inner.store.quarantine_get(library).await?;
        Ok(row.filter(|row| row.host_version == env!("CARGO_PKG_VERSION")))
    }

    /// What the operator says of a module, and whose its product is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn standing(
        &self,
        module: &str,
        product: Option<Uuid>,
    ) -> Result<Standing, StoreError> {
        let disabled = self.core.inner.store.module_disabled(module).await?.is_some();
        let owner = match product {
            Some(product) => self.core.inner.store.product_get(product).await?,
            None => None,
        };
        Ok(Standing { disabled, owner: owner.map(|product| product.name) })
    }

    /// Ends the sessions that were measured by a process of this host that is no more, at their last
    /// marks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions_recovered(&self) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        for session in txn.session_measured().await? {
            txn.session_close_as_known(session, clock::unix_now()).await?;
        }
        self.core.commit(txn).await
    }
}

/// Judges what was under way; returns whether any of it is to blame.
async fn judged(txn: &mut Txn, end: &End, steps: &[StepRow]) -> Result<bool, StoreError> {
    let notes: Vec<_> = steps
        .iter()
        .map(|row| Note { module: row.module.clone(), proven: row.proven, deaths: row.deaths })
        .collect();
    let mut blamed = false;
    for (row, verdict) in steps.iter().zip(suspects::judge(end, &notes)) {
        let StepRow { module, library, step, .. } = row;
        match verdict {
            Verdict::Innocent => {
                tracing::info!(module, step, library, "was under way when the last run ended");
            }
            Verdict::Watched => {
                txn.library_died(library, module).await?;
                tracing::warn!(
                    module,
                    step,
                    library,
                    "was under way when the last run ended; it is tried again, after the others"
                );
            }
            Verdict::Guilty => {
                blamed = true;
                let how = match end {
                    End::Crashed { what, .. } => format!("ended by {what}"),
                    _ => "died".to_owned(),
                };
                let reason = format!("the host {how} while it had the module {module} do: {step}");
                set_aside(txn, library, module, reason).await?;
            }
        }
    }
    Ok(blamed)
}

/// A crash of a module that was serving: not the first one, but the third within a while sets it aside.
async fn crashed_while_serving(txn: &mut Txn, what: &str, thread: &str) -> Result<(), StoreError> {
    let all = txn.library_newest().await?;
    let Some((module, library)) = all.into_iter().find(|(name, _)| suspects::is_of(thread, name))
    else {
        return Ok(());
    };
    let now = clock::unix_now();
    let since = now.saturating_sub(CRASH_WINDOW);
    let crashes = txn.library_crashed(&library, now, since).await?;
    tracing::error!(module, cause = what, crashes, library, "the module ended the host");
    if crashes >= CRASHES {
        let reason = format!(
            "the module {module} ended the host {crashes} times within {} min, the last time by {what}",
            CRASH_WINDOW / 60
        );
        set_aside(txn, &library, &module, reason).await?;
    }
    Ok(())
}

async fn set_aside(
    txn: &mut Txn,
    library: &str,
    module: &str,
    reason: String,
) -> Result<(), StoreError> {
    tracing::error!(module, library, reason, "set aside; see: privatix module explain {module}");
    let host_version = env!("CARGO_PKG_VERSION").to_owned();
    let row = QuarantineRow { reason, host_version, since: clock::unix_now() };
    txn.quarantine_add(library, module, &row).await
}

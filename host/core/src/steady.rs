//! What becomes of the host's own time where the wall clock was set while the host ran. See
//! [`privatix_base::clock`].

use std::sync::atomic::{AtomicI64, Ordering};

use super::{Service, Upkeep};
use privatix_base::clock;
use privatix_store::{StoreError, Txn};

/// Where the difference between the two times is noted.
const NOTE: &str = "clock offset";

/// Less is rounding, and what a time server does all day.
const NOTEWORTHY: i64 = 2;

/// The difference that was noted last.
#[derive(Default)]
pub(super) struct Noted(AtomicI64);

impl Upkeep {
    /// At the start: the host's time begins with the wall clock. Where that was set while the host ran
    /// last, what was written then is moved along, so that every span stays as long as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clock_followed(&self) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        let noted = txn.note_take(NOTE).await?.and_then(|text| text.parse::<i64>().ok());
        if let Some(by) = noted.filter(|by| *by != 0) {
            // What is later than the last run could have written is of another time altogether.
            let until = clock::unix_now().saturating_add_signed(-by);
            txn.clock_move(by, until).await?;
            tracing::info!(seconds = by, "the clock was set during the last run; times were moved");
        }
        txn.commit().await.map(drop)
    }
}

impl Service {
    /// Notes how far the wall clock is from the host's time, where that has changed.
    pub(crate) async fn clock_note(&self, txn: &mut Txn) -> Result<(), StoreError> {
        let offset = clock::offset();
        let noted = self.inner.clock.0.load(Ordering::Relaxed);
        if offset.saturating_sub(noted).abs() < NOTEWORTHY {
            return Ok(());
        }
        txn.note_changed(NOTE, &offset.to_string()).await?;
        self.inner.clock.0.store(offset, Ordering::Relaxed);
        tracing::warn!(
            seconds = offset,
            "the wall clock was set; channels go by the time that has really passed"
        );
        Ok(())
    }
}

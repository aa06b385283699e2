//! Which channels somebody should look at because something has changed that money depends on.
//!
//! Only a hint, kept in memory: what is to be done follows from the database, and everything is
//! looked at now and then anyway.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use privatix_plugin_api::message::ClientKey;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Attention {
    touched: Mutex<HashSet<ClientKey>>,
    wake: Notify,
}

impl Attention {
    /// Something has changed; it is on disk already.
    pub(super) fn draw(&self, channels: impl IntoIterator<Item = ClientKey>) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.extend(channels);
        if !touched.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Waits until something has changed.
    pub(super) async fn drawn(&self) {
        self.wake.notified().await;
    }

    /// What has changed since this was last called.
    pub(super) fn take(&self) -> Vec<ClientKey> {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *touched).into_iter().collect()
    }
}

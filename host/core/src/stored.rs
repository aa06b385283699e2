//! What was checked when it came, read again: the messages, keys and terms in stored rows.

use std::sync::{Arc, PoisonError};

use privatix_plugin_api::json;
use serde_json::Value;

use super::{Refused, Service};
use privatix_domain::billing::Terms;
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::offering::{self, Offering};
use privatix_store::{ChannelRow, OfferingRow, StoreError};

impl Service {
    /// The terms of an offering, read once; none where its message cannot be read, which was checked
    /// when it came.
    pub(crate) async fn terms(&self, offering: &str) -> Result<Option<Arc<Terms>>, StoreError> {
        let known = || self.inner.terms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(terms) = known().get(offering) {
            return Ok(Some(Arc::clone(terms)));
        }
        let Some(row) = self.inner.store.offering_get(offering).await? else { return Ok(None) };
        let Ok(read) = parsed(&row) else { return Ok(None) };
        let terms = Arc::new(Terms::from(&read));
        known().insert(offering.to_owned(), Arc::clone(&terms));
        Ok(Some(terms))
    }

    /// The terms of a channel's offering.
    pub(crate) async fn terms_of(&self, offering: &str) -> Result<Arc<Terms>, Refused> {
        let terms = self.terms(offering).await?;
        terms.ok_or_else(|| Refused::not_found("the channel's offering"))
    }
}

/// The offering of a row.
pub(crate) fn parsed(row: &OfferingRow) -> Result<Offering, Refused> {
    offering::parse(&message(&row.message)?, None).map_err(|error| Refused::internal(&error))
}

/// A message that was kept as text.
pub(crate) fn message(text: &str) -> Result<Value, Refused> {
    serde_json::from_str(text).map_err(|error| Refused::internal(&error))
}

/// The other party's key of a channel.
pub(crate) fn key(row: &ChannelRow) -> Result<PublicKey, Refused> {
    row.peer.parse().map_err(|error| Refused::internal(&error))
}

/// The fingerprint of a key that was kept as text; the text itself where it is no key.
pub(crate) fn fingerprint(key: String) -> String {
    key.parse::<PublicKey>().map(|key| key.fingerprint()).unwrap_or(key)
}

/// The hash by which others name a message.
pub(crate) fn hash(message: &Value) -> Result<String, Refused> {
    json::hash(message).map_err(|error| Refused::new(Code::from(&error), error))
}

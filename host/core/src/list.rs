//! Lists in pages, for the operator: bounded whatever the history holds.

use privatix_domain::code::Code;
use privatix_plugin_api::message::{ClientKey, SessionId, Status};
use serde::{Deserialize, Serialize};

use super::Refused;
use privatix_store::{Alike, Page};

/// The most entries of one reply.
pub const MAX_PAGE: u32 = 1000;

/// Which entries of a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListQuery {
    /// Only those of this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// After this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// So many at most; [`MAX_PAGE`] where absent or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl ListQuery {
    fn page<'a, I>(&'a self, after: Option<I>, statuses: &[&str]) -> Result<Page<'a, I>, Refused> {
        let status = self.status.as_deref().unwrap_or_default();
        if !status.is_empty() && !statuses.contains(&status) {
            let text =
                format!("{status:?} is no status here; write one of {}", statuses.join(", "));
            return Err(Refused::new(Code::BadRequest, text));
        }
        Ok(Page { after, status, limit: self.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE) })
    }

    pub(super) fn by_hash(&self, statuses: &[&str]) -> Result<Page<'_, &str>, Refused> {
        self.page(self.after.as_deref(), statuses)
    }

    pub(super) fn by_channel(&self, statuses: &[&str]) -> Result<Page<'_, ClientKey>, Refused> {
        let after = self.after.as_deref().map(|id| id.parse().map_err(|_| unknown(id)));
        self.page(after.transpose()?, statuses)
    }

    pub(super) fn by_session(&self) -> Result<Page<'_, SessionId>, Refused> {
        let after = self.after.as_deref();
        let after = after.map(|id| id.parse().map(SessionId).map_err(|_| unknown(id)));
        self.page(after.transpose()?, &["open", "closed"])
    }

    /// The rows, or that there is nothing to go on after.
    pub(super) fn found<T>(&self, rows: Option<Vec<T>>) -> Result<Vec<T>, Refused> {
        rows.ok_or_else(|| unknown(self.after.as_deref().unwrap_or_default()))
    }
}

fn unknown(after: &str) -> Refused {
    Refused::not_found(format!("the list has no entry {after:?} to go on after"))
}

/// The one row whose hash begins with a text, as a person writes it. `what` names such rows.
pub(super) fn the_one<T>(what: &str, beginning: &str, found: Alike<T>) -> Result<T, Refused> {
    match (found.first, found.number) {
        (Some(row), 1) => Ok(row),
        (None, _) => Err(Refused::not_found(format!("no {what}'s hash begins with {beginning:?}"))),
        (Some(_), number) => {
            Err(Refused::not_found(format!("{number} {what}s begin with {beginning:?}")))
        }
    }
}

/// The statuses of channels.
pub(super) const CHANNEL_STATUSES: [&str; 7] = [
    Status::Pending.as_str(),
    Status::Activating.as_str(),
    Status::Active.as_str(),
    Status::Suspending.as_str(),
    Status::Suspended.as_str(),
    Status::Terminating.as_str(),
    Status::Terminated.as_str(),
];

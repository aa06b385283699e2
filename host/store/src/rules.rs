//! Rules of the domain as statements need them. A predicate is handed over as the list of the words for
//! which it holds. A few conditions have to be spelled here, because an index is made for them or
//! because a page has to be counted by them; a test compares each with its predicate.

use privatix_plugin_api::message::Status;

/// The statuses for which a predicate holds, as a parameter that `json_each` reads.
pub(super) fn statuses(holds: impl Fn(Status) -> bool) -> String {
    let found = Status::ALL.into_iter().filter(|status| holds(*status));
    super::json(&found.map(Status::as_str).collect::<Vec<_>>())
}

/// Not `privatix_domain::status::has_ended`; the index `channels_live` has such channels.
macro_rules! not_ended {
    () => {
        "status <> 'terminated'"
    };
}
pub(super) use not_ended;

/// Not `privatix_domain::offering::Closed`.
macro_rules! is_open {
    () => {
        "withdrawn_at IS NULL AND supply_left > 0"
    };
}
pub(super) use is_open;

/// `privatix_domain::usage::of_channel` of a channel `c` and its open session `s`.
macro_rules! of_channel {
    () => {
        "MIN(c.used + COALESCE(s.usage, 0), 9007199254740991)"
    };
}
pub(super) use of_channel;

/// `privatix_domain::usage::measured`, at the time `$1`, with `MOST_BETWEEN_MARKS` as `$2`.
macro_rules! measured {
    () => {
        "usage + MIN(MAX($1 - used_at, 0), $2)"
    };
}
pub(super) use measured;

/// `privatix_domain::back_off::is_due`, with the two times of `due`.
macro_rules! is_due {
    () => {
        "(due <= $1 OR due > $2)"
    };
}
pub(super) use is_due;

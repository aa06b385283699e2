//! How single values are read. A message from here says what the value is and what would do; the
//! caller adds the key and the place.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

const DAY: u64 = 86_400;

/// A time of whole seconds, from 1 to a day.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 1)
}

/// A time of whole seconds, from 0 to a day.
pub(super) fn seconds_or_zero<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    bounded(deserializer, 0)
}

fn bounded<'de, D: Deserializer<'de>>(deserializer: D, least: u64) -> Result<Duration, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    if !(least..=DAY).contains(&seconds) {
        return Err(D::Error::custom(format!("{seconds} is not from {least} to {DAY} seconds")));
    }
    Ok(Duration::from_secs(seconds))
}

/// How many of something are allowed; at least one.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(D::Error::custom("0 is not 1 or more")),
        count => Ok(count),
    }
}

/// An amount of smallest units, at least one.
pub(super) fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(D::Error::custom("0 is not 1 or more")),
        amount => Ok(amount),
    }
}

/// A part of a hundred.
pub(super) fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    match u8::deserialize(deserializer)? {
        percent @ 0..=100 => Ok(percent),
        other => Err(D::Error::custom(format!("{other} is not from 0 to 100"))),
    }
}

/// A path that can name something other than the home directory itself.
pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = path_or_none(deserializer)?;
    path.ok_or_else(|| D::Error::custom("a path may not be empty"))
}

/// A path, or nothing where it is empty.
pub(super) fn path_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let path = String::deserialize(deserializer)?;
    if path.contains('\0') {
        return Err(D::Error::custom("a path may not hold a NUL character"));
    }
    Ok((!path.is_empty()).then(|| PathBuf::from(path)))
}

//! What can be wrong with the database, as a word that callers can decide by.

use std::error::Error;
use std::fmt;

use sqlx::migrate::MigrateError;
use strum::{EnumString, IntoStaticStr, VariantArray};

/// Why a step of the database failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Fault {
    /// Another connection or program holds the write lock, or all connections are in use.
    Busy,
    /// The disk, or what the host may use of it, is full.
    Full,
    /// The file or its directory cannot be written.
    ReadOnly,
    /// The content is damaged, or the file is no database.
    Corrupt,
    /// The system reported an error while it read or wrote.
    Io,
    /// The file, or one that belongs to it, cannot be opened.
    Unopenable,
    /// There is no memory left.
    Memory,
    /// The file was removed or replaced while the host has it open.
    Replaced,
    /// A newer version of the host wrote the tables.
    Newer,
    /// A statement broke a rule of the tables, or anything else.
    Other,
}

impl Fault {
    /// Every word, in the order of the documentation.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The word used in JSON.
    pub fn code(self) -> &'static str {
        self.into()
    }

    /// Whether the connection on which it was seen may be used on: only waiting was in vain.
    pub(super) fn spares_connection(self) -> bool {
        matches!(self, Self::Busy | Self::Replaced)
    }

    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            return Self::of_sqlx(error);
        }
        match error.downcast_ref::<MigrateError>() {
            Some(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                Self::of_sqlx(error)
            }
            Some(MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..)) => Self::Newer,
            Some(_) => Self::Other,
            None => error.downcast_ref::<Replaced>().map_or(Self::Other, |_| Self::Replaced),
        }
    }

    fn of_sqlx(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code().and_then(|code| code.parse().ok());
                code.map_or(Self::Other, Self::of_result)
            }
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Io(error)
                if error.get_ref().is_some_and(|error| error.is::<Replaced>()) =>
            {
                Self::Replaced
            }
            sqlx::Error::Io(_) => Self::Io,
            _ => Self::Other,
        }
    }

    /// By SQLite's extended result code; its lowest byte is the primary one.
    fn of_result(code: u32) -> Self {
        const IOERR_NOMEM: u32 = 10 | (12 << 8);
        match (code, code & 0xff) {
            (IOERR_NOMEM, _) | (_, 7) => Self::Memory,
            (_, 5 | 6) => Self::Busy,
            (_, 3 | 8) => Self::ReadOnly,
            (_, 10) => Self::Io,
            (_, 11 | 26) => Self::Corrupt,
            (_, 13) => Self::Full,
            (_, 14) => Self::Unopenable,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Busy => "another program holds its write lock",
            Self::Full => "the disk is full",
            Self::ReadOnly => "it is read-only for this host",
            Self::Corrupt => "its content is damaged",
            Self::Io => "the system reports an input/output error",
            Self::Unopenable => "its files cannot be opened",
            Self::Memory => "there is no memory left",
            Self::Replaced => "its file was removed or replaced while this host has it open",
            Self::Newer => "a newer version of the host wrote it",
            Self::Other => "a statement failed",
        })
    }
}

/// The file that the host has open is not the one under its name any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{0} was removed or replaced while this host has it open; what is written now would be lost"
)]
pub(super) struct Replaced(pub(super) String);

#[cfg(test)]
mod tests {
    use privatix_domain::foreign::AnyCode;

    use super::*;

    #[test]
    fn every_fault_keeps_its_word_through_json() {
        let words = [
            "busy",
            "full",
            "read-only",
            "corrupt",
            "io",
            "unopenable",
            "memory",
            "replaced",
            "newer",
            "other",
        ];
        assert_eq!(Fault::ALL.iter().map(|fault| fault.code()).collect::<Vec<_>>(), words);
        for fault in Fault::ALL {
            let text = serde_json::to_string(&AnyCode::Known(*fault)).expect("JSON");
            let read: AnyCode<Fault> = serde_json::from_str(&text).expect("a fault");
            assert_eq!(read, *fault, "{text}");
        }
        let newer: AnyCode<Fault> = serde_json::from_str("\"on-fire\"").expect("a fault");
        assert_eq!((newer.known(), newer.code()), (None, "on-fire"));
    }

    #[test]
    fn every_code_of_sqlite_has_its_word() {
        for (code, expected) in [
            (5, Fault::Busy),
            (261, Fault::Busy),
            (6, Fault::Busy),
            (517, Fault::Busy),
            (13, Fault::Full),
            (8, Fault::ReadOnly),
            (1032, Fault::ReadOnly),
            (10, Fault::Io),
            (778, Fault::Io),
            (1034, Fault::Io),
            (3082, Fault::Memory),
            (7, Fault::Memory),
            (11, Fault::Corrupt),
            (26, Fault::Corrupt),
            (14, Fault::Unopenable),
            (19, Fault::Other),
            (2067, Fault::Other),
            (1, Fault::Other),
        ] {
            assert_eq!(Fault::of_result(code), expected, "{code}");
        }
    }
}

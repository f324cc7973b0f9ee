//! What can go wrong in the store, sorted by what to do next.

use tokio_postgres::error::SqlState;

use super::History;

/// A failed use of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection could be had; nothing was sent.
    #[error("PostgreSQL is unreachable: {0}")]
    Unreachable(String),
    /// The connection ended before the answer came, was given up because none came, or the server
    /// is going down.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(String),
    /// The server takes no writes (any more); nothing was written. Another host may.
    #[error("PostgreSQL takes no writes: {0}")]
    ReadOnly(String),
    /// The server may lack what was committed before: the cache must be given up first.
    #[error("PostgreSQL has another history than the one in use ({0})")]
    OtherHistory(History),
    /// The statement took longer than `postgres.statement_timeout`, or waited too long for a lock;
    /// the server has cancelled it.
    #[error("PostgreSQL took too long: {}", describe(.0))]
    TooSlow(#[source] tokio_postgres::Error),
    /// Another transaction was in the way; the same work may be tried again.
    #[error("conflict with another transaction: {0}")]
    Conflict(#[source] tokio_postgres::Error),
    /// The cache is in another generation or state than the write was made for.
    #[error("the fence has moved")]
    FenceMoved,
    /// This proxy's registration is marked as dead.
    #[error("this proxy is declared dead")]
    DeclaredDead,
    /// The server refused the statement.
    #[error("PostgreSQL refused: {}", describe(.0))]
    Refused(#[source] tokio_postgres::Error),
    /// More would have to be loaded at once than so many bytes.
    #[error("this needs more than {} MB of data at once (postgres.load_limit)", .0 >> 20)]
    TooLarge(usize),
    /// The schema is newer than this program, or not Freshet's.
    #[error("{0}")]
    Schema(String),
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}

impl StoreError {
    /// Whether the store as a whole is away, rather than this statement at fault.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Lost(_) | Self::ReadOnly(_) | Self::OtherHistory(_)
        )
    }

    /// Whether a statement that commits may have done so.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Whether the connection is of no use any more although it is open.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::ReadOnly(_))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        if error.is_closed() {
            return Self::Lost(error.to_string());
        }
        match error.code() {
            Some(code) if *code == SqlState::T_R_SERIALIZATION_FAILURE => Self::Conflict(error),
            Some(code) if *code == SqlState::T_R_DEADLOCK_DETECTED => Self::Conflict(error),
            Some(code) if code.code() == "FR001" => Self::FenceMoved,
            Some(code) if code.code() == "FR002" => Self::DeclaredDead,
            // Cancelled by a time-out of a statement or of a lock.
            Some(code) if matches!(code.code(), "57014" | "55P03") => Self::TooSlow(error),
            // Class 57P: the server is shutting down, or cut this session; 25P03: it was idle too long.
            Some(code) if code.code().starts_with("57P") || code.code() == "25P03" => {
                Self::Lost(describe(&error))
            }
            // Class 08: connection exceptions.
            Some(code) if code.code().starts_with("08") => Self::Lost(describe(&error)),
            // A standby, or a server that was made read-only.
            Some(code) if code.code() == "25006" => Self::ReadOnly(describe(&error)),
            // Class 53: out of disk, memory or connections.
            Some(code) if code.code().starts_with("53") => Self::Unreachable(describe(&error)),
            Some(_) => Self::Refused(error),
            // Without a code it is the connection, or a value that cannot be sent.
            None => match std::error::Error::source(&error) {
                Some(cause) if !cause.is::<std::io::Error>() => Self::Refused(error),
                Some(cause) => Self::Lost(cause.to_string()),
                None => Self::Lost(error.to_string()),
            },
        }
    }
}

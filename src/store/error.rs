//! What can go wrong in the store, sorted by what to do next.

use tokio_postgres::error::SqlState;

/// A failed use of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection could be had; nothing was sent.
    #[error("PostgreSQL is unreachable: {0}")]
    Unreachable(String),
    /// The connection ended before the answer came, or the server is going down.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(#[source] tokio_postgres::Error),
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
        matches!(self, Self::Unreachable(_) | Self::Lost(_))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        if error.is_closed() {
            return Self::Lost(error);
        }
        match error.code() {
            Some(code) if *code == SqlState::T_R_SERIALIZATION_FAILURE => Self::Conflict(error),
            Some(code) if *code == SqlState::T_R_DEADLOCK_DETECTED => Self::Conflict(error),
            Some(code) if code.code() == "FR001" => Self::FenceMoved,
            Some(code) if code.code() == "FR002" => Self::DeclaredDead,
            // Class 57P: the server is shutting down, or cut this session.
            Some(code) if code.code().starts_with("57P") => Self::Lost(error),
            // Class 08: connection exceptions.
            Some(code) if code.code().starts_with("08") => Self::Lost(error),
            // Class 53: out of disk, memory or connections; 25006: read-only, a standby.
            Some(code) if code.code().starts_with("53") || code.code() == "25006" => {
                Self::Unreachable(describe(&error))
            }
            Some(_) => Self::Refused(error),
            // Without a code it is the connection, or a value that cannot be sent.
            None => match std::error::Error::source(&error) {
                Some(cause) if !cause.is::<std::io::Error>() => Self::Refused(error),
                _ => Self::Lost(error),
            },
        }
    }
}

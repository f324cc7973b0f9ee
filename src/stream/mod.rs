//! What changes in the store, as it is committed: PostgreSQL's logical replication.
//!
//! A connection of its own, since the driver knows no replication: it logs in as any other (TLS, all hosts of
//! the URL), and then takes what `pgoutput` tells of the table of keys from a slot.

mod changes;
mod message;
mod wire;

pub use changes::{Changes, Event};
pub use message::Lsn;

/// Why nothing comes (any more).
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No connection could be had.
    #[error("PostgreSQL is unreachable for replication: {0}")]
    Unreachable(String),
    /// It ended.
    #[error("the replication connection was lost: {0}")]
    Lost(String),
    /// The server refuses what was asked for.
    #[error("PostgreSQL refused: {message} ({code})")]
    Refused {
        /// Its SQLSTATE.
        code: String,
        /// Its words.
        message: String,
    },
    /// It tells something that this program does not understand.
    #[error("PostgreSQL told something that is not understood: {0}")]
    Unknown(&'static str),
}

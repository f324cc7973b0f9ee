//! Further Redis servers, kept as the store is: all keys at first, then what changes.
//!
//! What is told of a change is only which key it was of: its state is read from the store, and set at the replica.
//! So it does no harm to be told twice, late or of many changes together, and a replica never goes back. Each is fed
//! by one proxy, from a replication slot of its own: one that is away hinders no other.

mod batch;
mod follow;
mod run;
mod schedule;
mod status;

pub use schedule::replicate_forever;
pub use status::Status;

use crate::moving;
use crate::store::StoreError;
use crate::stream::StreamError;

/// Why a replica is not fed (any more).
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It or its data.
    #[error(transparent)]
    Moving(#[from] moving::Failure),
    /// PostgreSQL failed.
    #[error("PostgreSQL: {0}")]
    Store(#[from] StoreError),
    /// Its stream of changes did.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// PostgreSQL is not set to tell changes.
    #[error(
        "PostgreSQL's wal_level is '{0}': set `wal_level = logical` and restart it (all else goes on without it)"
    )]
    WalLevel(String),
    /// Another proxy has gone on in this one's place.
    #[error("another proxy feeds it")]
    Overtaken,
    /// It has been away or slow for too long.
    #[error("{0} bytes of PostgreSQL's log would have to be kept for it: more than `max_behind`")]
    TooFarBehind(u64),
    /// It has lost what was brought there: it was flushed, or is another server.
    #[error("it is not as it was left")]
    Lost,
    /// It is the cache.
    #[error("it is Freshet's own cache")]
    OwnCache,
}

//! Why a request could not be done, and what its client is told.

use crate::model::Reply;
use crate::store::StoreError;

/// A request that failed for reasons that are not its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The store is away: nothing was written, and nothing will be.
    #[error("TRYAGAIN PostgreSQL is out of reach: nothing was written ({0})")]
    StoreAway(String),
    /// The store is away and the cache could not answer.
    #[error("TRYAGAIN PostgreSQL is out of reach and the cache has no answer ({0})")]
    ReadsAway(String),
    /// The fence did not settle in time: nothing was written.
    #[error("TRYAGAIN the cache is being taken out of use: nothing was done")]
    Unsettled,
    /// Other writers were in the way too often: nothing was written.
    #[error("TRYAGAIN too many conflicts with other writers: nothing was written")]
    Contended,
    /// The store took too long, and cancelled the statement: nothing was written.
    #[error("TRYAGAIN nothing was written: {0}")]
    TooSlow(String),
    /// Other proxies use the cache, and this one cannot reach it: nothing was done.
    #[error("TRYAGAIN this proxy cannot reach the cache that others use: nothing was done")]
    Apart,
    /// The store refused the statement: nothing was written.
    #[error("ERR nothing was written: {0}")]
    Refused(String),
    /// The answer needs more of the store at once than may be loaded.
    #[error("ERR {0}")]
    TooLarge(String),
    /// COMMIT was sent, and what became of it could not be learnt.
    #[error("UNKNOWN the write may or may not have been committed ({0})")]
    Unknown(String),
    /// A script was ended by a client (`SCRIPT KILL`).
    #[error("ERR Error running script: it was ended by SCRIPT KILL; nothing was written")]
    Killed,
    /// A script took too long.
    #[error("ERR the script ran for longer than {0:?} and was ended; nothing was written")]
    TooLong(std::time::Duration),
    /// The program is stopping.
    #[error("TRYAGAIN this proxy is shutting down: nothing was done")]
    Stopping,
}

impl Refusal {
    /// What the client hears whose unit alone the store refused.
    pub(super) fn of_poison(error: &StoreError) -> Self {
        match error {
            StoreError::TooSlow(_) => Self::TooSlow(error.to_string()),
            error => Self::Refused(error.to_string()),
        }
    }

    /// As an error reply.
    pub fn reply(&self) -> Reply {
        // Line ends would break the protocol.
        Reply::error(self.to_string().replace(['\r', '\n'], " "))
    }
}

//! Data that comes in from another Redis or a file.

mod count;
mod import;
mod peer;
mod rdb;
mod target;
mod verify;

pub use count::Counts;
pub use import::{Conflict, Import, Options, import_file, import_live};
pub use peer::Peer;
pub use target::Target;
pub use verify::Differences;

use crate::cache::CacheError;
use crate::engine::rdb_file::Unreadable;
use crate::store::StoreError;

/// Why data could not be moved. Started again, it goes on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// PostgreSQL failed.
    #[error("PostgreSQL: {0}")]
    Store(#[from] StoreError),
    /// The other Redis failed.
    #[error("the other server: {0}")]
    Peer(#[from] CacheError),
    /// The file could not be read.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// The file is none that Freshet reads.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The TLS settings cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// Anything else that keeps it from being done.
    #[error("{0}")]
    Other(String),
}

//! Data that comes in from another Redis or a file, or goes there.

mod count;
mod export;
mod import;
mod peer;
mod rdb;
mod target;
mod to_file;
mod to_redis;
mod verify;
mod walk;

pub use count::Counts;
pub use export::{Export, ExportOptions, Start, export_to_file, export_to_redis};
pub use import::{Conflict, Import, Options, import_file, import_live};
pub use peer::Peer;
pub use target::Target;
pub use to_redis::{ask, put, unlink};
pub use verify::Differences;
pub use walk::{Page, Position, Sink, Walk, is_chosen};

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

//! PostgreSQL, the system of record. All SQL is here.

mod commit;
mod connect;
mod elements;
mod ended;
mod error;
mod fence;
mod keyspace;
mod load;
mod parts;
mod purge;
mod schema;
mod scripts;

pub use commit::{Attempt, Change, Guard, Outcome, RowState, Session, Written};
pub use connect::Store;
pub use error::StoreError;
pub use fence::{FenceRow, FenceState, Registration};
pub use keyspace::{FlushScope, ScanPage};
pub use load::{Large, LoadRequest, Locked, Snapshot};
pub use purge::Position;
pub use schema::{SCHEMA_VERSION, migrate};
pub use scripts::Epochs;

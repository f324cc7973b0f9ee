//! PostgreSQL, the system of record. All SQL is here.

mod commit;
mod connect;
mod elements;
mod ended;
mod error;
mod fence;
mod findings;
mod hosts;
mod journal;
mod keyspace;
mod lineage;
mod load;
mod once;
mod parts;
mod purge;
mod scans;
mod schema;
mod scripts;

pub use commit::{Attempt, Change, Guard, Outcome, RowState, Session, Written};
pub use connect::Store;
pub use error::StoreError;
pub use fence::{FenceRow, FenceState, OldContent, Registration, Return, Sight};
pub use findings::Turn;
pub use journal::{Advance, JournalRow, JournalTurn, TakenTurn};
pub use keyspace::{FlushScope, ScanPage};
pub use lineage::History;
pub use load::{Large, LoadRequest, Locked, Snapshot};
pub use once::Kept;
pub use purge::Position;
pub use schema::{SCHEMA_VERSION, migrate};
pub use scripts::Epochs;

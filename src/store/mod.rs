//! PostgreSQL, the system of record. All SQL is here.

mod changes;
mod commit;
mod connect;
mod elements;
mod ended;
mod error;
mod fence;
mod findings;
mod hosts;
mod imports;
mod journal;
mod keyspace;
mod lineage;
mod load;
mod mapped;
mod once;
mod parts;
mod purge;
mod replicas;
mod scans;
mod schema;
mod scripts;
mod view;

pub use changes::{ChangeLog, ChangePage, Noting, SqlChange};
pub use commit::{Attempt, Change, Guard, Outcome, RowState, Session, Written};
pub use connect::Store;
pub use error::StoreError;
pub use fence::{FenceRow, FenceState, OldContent, Registration, Return, Sight};
pub use findings::Turn;
pub use imports::FilePlace;
pub use journal::{Advance, JournalRow, JournalTurn, TakenTurn};
pub use keyspace::{FlushScope, ScanPage};
pub use lineage::History;
pub use load::{Large, LoadRequest, Locked, Snapshot};
pub use mapped::{RowWrite, RowWritten};
pub use once::Kept;
pub use purge::Position;
pub use replicas::{
    PUBLICATION, Phase, ReplicaName, ReplicaRow, ReplicaStatus, ReplicaTurn, Replication, Slot,
};
pub use schema::{SCHEMA_VERSION, migrate};
pub use scripts::Epochs;
pub use view::{Held, Keys, LargeKey, Place, Stored, View};

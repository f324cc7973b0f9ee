//! Pure semantics: (what was loaded, call, time) -> (reply, effects).
//!
//! No socket, no clock, no database: single commands, MULTI blocks and scripts
//! run on the same [`Workspace`], which gathers what they did to each key.
//!
//! A key ends at its expiry: at that very millisecond it is gone.

mod bitfield;
mod bits;
mod dispatch;
mod events;
mod expiry;
mod float;
mod footprint;
mod hash;
mod keyspace;
mod lcs;
mod lzf;
mod need;
mod rdb;
mod refusal;
mod set;
mod string;
mod workspace;

pub use dispatch::{execute, needs};
pub use events::execute_telling;
pub use need::{Found, Need, Needs};
pub use refusal::Refusal;
pub use workspace::{Content, Loaded, Workspace};

/// The most bytes that a string may have, as Redis's `proto-max-bulk-len`.
pub const STRING_MAX: usize = 512 * 1024 * 1024;

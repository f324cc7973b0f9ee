//! Pure semantics: (what was loaded, call, time) -> (reply, effects).
//!
//! No socket, no clock, no database: single commands, MULTI blocks and scripts
//! run on the same [`Workspace`], which gathers what they did to each key.
//!
//! A key ends at its expiry: at that very millisecond it is gone.

mod bitfield;
mod bits;
mod digest;
mod dispatch;
mod double;
mod draw;
mod encoding;
mod events;
mod expiry;
mod first_key;
mod float;
mod footprint;
mod geo;
mod hash;
mod hyperloglog;
mod keyspace;
mod lcs;
mod list;
mod lzf;
mod need;
mod rdb;
mod refusal;
pub mod replay;
mod scan;
mod set;
mod sets;
mod sort;
mod stream;
mod string;
mod timeout;
mod woken;
mod workspace;
mod zset;

pub use crate::model::NotLoaded;
pub use digest::{Digest, digest};
pub use dispatch::{execute, is_for_the_store, needs};
pub use events::execute_telling;
pub use need::{Found, Need, Needs, Position};
pub use rdb::file as rdb_file;
pub use rdb::{dump_libraries, payload_of as dumped, restore_libraries, value_of as restored};
pub use refusal::Refusal;
pub use scan::{CURSORS, Scan};
pub use timeout::{Timeout, waited_keys, waits};
pub use woken::{awaited_ends, narrowed, refused_always, with_arguments};
pub use workspace::{Content, Loaded, Workspace};

/// The most bytes that a string may have, as Redis's `proto-max-bulk-len`.
pub const STRING_MAX: usize = 512 * 1024 * 1024;

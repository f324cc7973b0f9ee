//! The only place where store and cache meet.

mod batch;
mod fence;
mod gather;
mod keyspace;
mod lane;
mod loader;
mod meters;
mod read;
mod refusal;
mod sweep;
mod waiting;

pub use fence::{Fence, FenceTask, Order, Phase};
pub use keyspace::Keyspace;
pub use lane::{Lane, Unit};
pub use loader::Loader;
pub use read::Reads;
pub use refusal::Refusal;
pub use sweep::purge_forever;
pub use waiting::{Ticket, Waiting};

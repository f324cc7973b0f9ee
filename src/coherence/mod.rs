//! The only place where store and cache meet.

mod audience;
mod batch;
mod expiry;
mod fence;
mod gather;
mod keyspace;
mod lane;
mod loader;
mod meters;
mod plan;
mod read;
mod refusal;
mod sweep;
mod telling;
mod unit;
mod waiting;
mod worker;

pub use audience::{Audience, Change, Ear};
pub use expiry::expire_forever;
pub use fence::{Fence, FenceTask, Order, Phase};
pub use keyspace::Keyspace;
pub use lane::Lane;
pub use loader::Loader;
pub use read::Reads;
pub use refusal::Refusal;
pub use sweep::purge_forever;
pub use unit::{Acknowledge, Answer, Seen, Step, Unit};
pub use waiting::{Ticket, Waiting};

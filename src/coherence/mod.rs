//! The only place where store and cache meet.

mod aside;
mod audience;
mod batch;
mod expiry;
mod fence;
mod gather;
mod keyspace;
mod lane;
mod loader;
mod meters;
mod once;
mod plan;
mod read;
mod refusal;
mod run;
mod scripts;
mod sweep;
mod telling;
mod unit;
mod waiting;
mod worker;

pub use aside::Asides;
pub use audience::{Audience, Change, Ear};
pub use expiry::expire_forever;
pub use fence::{Fence, FenceTask, Order, Phase};
pub use keyspace::Keyspace;
pub use lane::Lane;
pub use loader::Loader;
pub use once::Once;
pub use read::Reads;
pub use refusal::Refusal;
pub use scripts::Scripts;
pub use sweep::{forget_forever, purge_forever};
pub use unit::{Answer, Seen, Step, Unit};
pub use waiting::{Ticket, Waiting};

//! The backing Redis. All Lua is here, and all connections to it.

mod call;
mod connection;
mod error;
mod frame;
mod functions;
mod journal;
mod link;
mod pipe;
mod sentinel;

pub use call::{Applied, Fill, Look, Op, Told};
pub use connection::{Connection, Manager};
pub use error::CacheError;

pub use functions::{
    Cache, Companion, Found, Held, Inspected, Lives, Name, Probe, RESERVED_PREFIX, SOLE_PREFIX,
    is_reserved,
};
pub use journal::{
    Guarded, Journal, JournalFound, JournalPage, RESTING_PREFIX, Resting, RestingKey,
    WORKING_PREFIX, finish, guard, look, tail,
};
pub use link::{Identity, Link, LinkOptions, OnRecord};
pub use pipe::{Pipe, Replies};
pub use sentinel::LastKnown;

//! The backing Redis. All Lua is here, and all connections to it.

mod call;
mod connection;
mod error;
mod frame;
mod functions;
mod link;
mod pipe;

pub use call::{Applied, Fill, Look, Op, Told};
pub use connection::{Connection, Manager};
pub use error::CacheError;

pub use functions::{Cache, Lives, RESERVED_PREFIX, SOLE_PREFIX};
pub use link::{Identity, Link, LinkOptions};
pub use pipe::{Pipe, Replies};

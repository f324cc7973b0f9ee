//! What the tests and benchmarks stand on: private servers, and a client that
//! shows the exact bytes of a reply.

pub mod client;
pub mod detour;
pub mod packages;
pub mod port;
pub mod postgres;
pub mod process;
pub mod program;
pub mod redis;
pub mod relay;
pub mod seed;
pub mod sentinel;
pub mod sql;
pub mod stack;

pub use client::{Client, Value};
pub use detour::Detour;
pub use postgres::{Fsync, Postgres};
pub use program::Program;
pub use redis::Redis;
pub use relay::Relay;
pub use sentinel::Sentinel;
pub use sql::Sql;
pub use stack::Stack;

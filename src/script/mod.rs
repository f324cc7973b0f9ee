//! Lua 5.1 in Redis's sandbox: a script runs on a workspace as a command does.
//!
//! No socket, no clock but to end what takes too long, no database. What a script did
//! stands in the workspace; what it wants done once that is committed are its [`Deed`]s.

mod api;
mod bits;
mod body;
mod cjson;
mod cmsgpack;
mod control;
mod convert;
mod interpreter;
mod library;
mod number;
mod packed;
mod pool;
mod program;
mod raise;
mod session;

pub use body::{Flags, Script, sha1_hex};
pub use control::Ended;
pub use library::{Function, Library};
pub use pool::{Invocation, Pool, Ran, Room, RunningFunction, Source};
pub use program::Program;
pub use session::{Access, Deed};

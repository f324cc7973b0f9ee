//! Lists: items at positions with room between them.
//!
//! Each change is logged as the command that repeats it, since the cache knows
//! nothing of positions.

mod commands;
mod ends;
mod log;
mod middle;
mod needs;
mod options;
mod place;
mod read;
mod transfer;

pub(super) use commands::{COMMANDS, of};

//! What the differential tests send, of every command and type, and what Redis
//! leaves open of its replies: for the engine alone and for the whole program.

pub mod commands;
pub mod geo;
pub mod hash;
pub mod hyperloglog;
pub mod list;
pub mod open;
pub mod rdb;
pub mod sets;
pub mod stream;
pub mod zset;

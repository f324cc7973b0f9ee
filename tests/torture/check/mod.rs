//! Whether a history could have happened to one object, one operation at a time, each at some moment
//! between being sent and being answered. Operations of unknown outcome may have happened at any moment
//! after they were sent, or never; refused ones have not.
//!
//! That property is local: a history of many objects has it if the history of each has. Keys that
//! are written together are therefore one object here.

pub mod bank;
pub mod cell;
#[cfg(test)]
pub mod hand_made;
pub mod ordered;
pub mod register;

/// What is wrong, if something is.
pub type Verdict = Result<(), String>;

//! `SORT` and `SORT_RO`.
//!
//! Patterns behind `BY` and `GET` name keys that are known only when the sorted
//! key is. The call then tells the [`Workspace`](super::Workspace) which it
//! [wants](super::Workspace::take_wanted), and is run again: once for all keys of
//! `BY`, and once for those of `GET` if `LIMIT` leaves out some of them.

mod command;
mod number;
mod options;
mod pattern;

pub(super) use command::{COMMANDS, reads_other_keys};

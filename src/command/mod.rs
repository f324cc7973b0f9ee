//! What a command is: its name, arity, flags, key positions and class, and a
//! request resolved against that table.

mod table;

pub use table::{TABLE, lookup};

use bytes::Bytes;

use crate::model::{Db, Key, Request};

/// Who answers a command, and so which path it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Answered from the connection's or the server's own state: `PING`, `HELLO`, `CLIENT`.
    Local,
    /// Reads named keys; runs on the native in the cache: `GET`.
    Read,
    /// Reads the true expiry of one key: `TTL`.
    Expiry,
    /// Changes named keys, or may: `SET`. Goes through the commit lane.
    Write,
    /// Reads over all keys of a database; answered from the store: `SCAN`.
    Keyspace,
    /// Changes all keys of a database or of all: `FLUSHALL`.
    Flush,
    /// A Redis command that Freshet does not serve.
    Unserved,
}

/// Where a command's keys stand among its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// It names none.
    None,
    /// From `first` to `last` (negative: counted from the end) in steps of `step`.
    Range {
        /// Index of the first key; the command's name is 0.
        first: u8,
        /// Index of the last key; -1 is the last argument.
        last: i8,
        /// Distance between two keys.
        step: u8,
    },
}

/// One row of the command table.
#[derive(Debug)]
pub struct Command {
    /// Its name in upper case.
    pub name: &'static str,
    /// The number of arguments, the name included; negative: at least that many.
    pub arity: i8,
    /// Where its keys stand.
    pub keys: Keys,
    /// Who answers it.
    pub class: Class,
}

/// A request that names a known command with a right number of arguments.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its row in the table.
    pub command: &'static Command,
    /// The arguments.
    pub request: Request,
}

impl Call {
    /// The argument indices of the keys, in order; duplicates stay.
    pub fn key_indices(&self) -> impl Iterator<Item = usize> + use<> {
        let count = self.request.len();
        let (first, last, step) = match self.command.keys {
            Keys::None => (1, 0, 1),
            Keys::Range { first, last, step } => {
                let last = if last < 0 {
                    count as isize + isize::from(last)
                } else {
                    isize::from(last)
                };
                (
                    usize::from(first),
                    last.min(count as isize - 1).max(0) as usize,
                    usize::from(step),
                )
            }
        };
        (first..=last).step_by(step)
    }

    /// The names of the keys, in order; duplicates stay.
    pub fn key_names(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.key_indices()
            .map(|index| self.request.arg_bytes(index))
    }

    /// The keys in `db`, in order; duplicates stay.
    pub fn keys(&self, db: Db) -> impl Iterator<Item = Key> + '_ {
        self.key_names().map(move |name| Key { db, name })
    }
}

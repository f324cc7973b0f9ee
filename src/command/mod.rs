//! What a command is: its name, arity, flags, key positions and class, and a
//! request resolved against that table.

pub mod args;
pub mod docs;
pub mod flags;
mod getkeys;
pub mod once;
mod resolve;
mod table;

pub use flags::Flags;
pub use getkeys::{Access, accessed};
pub use once::Token;
pub use resolve::{find, resolve, wrong_arity};
pub use table::{EXPIRED, ONCE, TABLE, lookup};

use bytes::Bytes;

pub use crate::model::glob;
use crate::model::{Db, Key, Reply, Request};

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
    /// Runs a script: what it does is one unit in the commit lane. `EVAL`, `FCALL`.
    Script,
    /// Opens, ends or guards a MULTI block: `MULTI`, `EXEC`, `WATCH`.
    Transaction,
    /// A Redis command that Freshet does not serve.
    Unserved,
}

/// Whether a command does what it does in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// All of it.
    Fully,
    /// With the limit or difference that the text names.
    But(&'static str),
    /// Nothing, and the text says why.
    Not(&'static str),
}

/// Where a command's keys stand among its arguments.
///
/// For a few commands with the flag [`flags::MOVABLEKEYS`] (`SORT`, `MIGRATE`)
/// keywords say where further keys are; only [`docs`] knows these, for `COMMAND GETKEYS`. Of
/// `GEORADIUS` only the first key is told here; [`Call::key_indices`] knows the other.
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
    /// As many as an argument says, directly behind it: `EVAL script numkeys key ...`.
    Counted {
        /// Index of one more key that stands before the number (`ZUNIONSTORE`); 0: none.
        fixed: u8,
        /// Index of the number.
        count: u8,
    },
    /// The first half of what stands behind the word `STREAMS` (`XREAD`, `XREADGROUP`).
    BehindStreams,
}

/// One row of the command table.
#[derive(Debug)]
pub struct Command {
    /// Its name in upper case; of a subcommand, `FAMILY|SUBCOMMAND`.
    pub name: &'static str,
    /// The number of arguments, the name included; negative: at least that many.
    pub arity: i8,
    /// What Redis says of it.
    pub flags: Flags,
    /// Where its keys stand.
    pub keys: Keys,
    /// Who answers it.
    pub class: Class,
    /// What of it is not served.
    pub served: Served,
    /// The rows of its subcommands, if it is a family such as `OBJECT`.
    pub subcommands: &'static [Command],
}

impl Command {
    /// The first word of its name: `OBJECT` for `OBJECT|ENCODING`.
    pub fn family(&self) -> &'static str {
        self.name.split('|').next().unwrap_or(self.name)
    }

    /// Its second word, if it is a subcommand: `ENCODING` for `OBJECT|ENCODING`.
    pub fn subcommand(&self) -> Option<&'static str> {
        self.name.split_once('|').map(|(_, second)| second)
    }

    /// The error that it is answered with, if Freshet does not serve it.
    pub fn refusal(&self) -> Option<Reply> {
        let Served::Not(why) = self.served else {
            return None;
        };
        let name = self.name.to_ascii_lowercase();
        let text = format!("ERR Freshet does not serve '{name}': {why}");
        Some(Reply::error(text))
    }

    /// Whether it takes `count` arguments, its name (two for a subcommand) included.
    pub fn accepts(&self, count: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            count >= arity
        } else {
            count == arity
        }
    }
}

/// A request that names a known command with a right number of arguments.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its row in the table; of a family, the row of the subcommand.
    pub command: &'static Command,
    /// The arguments.
    pub request: Request,
    /// Under which token it is made once, if it is (`FRESHET.ONCE`).
    pub token: Option<Token>,
}

impl Call {
    /// A call of `command`.
    pub fn new(command: &'static Command, request: Request) -> Self {
        Self {
            command,
            request,
            token: None,
        }
    }

    /// The argument indices of the keys, in order; duplicates stay.
    pub fn key_indices(&self) -> impl Iterator<Item = usize> + use<> {
        let count = self.request.len();
        let (fixed, first, last, step) = match self.command.keys {
            Keys::None => (0, 1, 0, 1),
            Keys::Range { first, last, step } => {
                let last = if last < 0 {
                    count as isize + isize::from(last)
                } else {
                    isize::from(last)
                };
                (
                    0,
                    usize::from(first),
                    last.max(0) as usize,
                    usize::from(step),
                )
            }
            Keys::Counted { fixed, count: at } => {
                let at = usize::from(at);
                let named = self.request.args().nth(at).and_then(args::integer);
                let named = named.map_or(0, |n| n.clamp(0, count as i64) as usize);
                (usize::from(fixed), at + 1, at + named, 1)
            }
            Keys::BehindStreams => match self.streams_word() {
                Some(at) => (0, at + 1, at + (count - at - 1) / 2, 1),
                None => (0, 1, 0, 1),
            },
        };
        let fixed = (fixed > 0).then_some(fixed);
        let last = last.min(count.saturating_sub(1));
        let named = fixed.into_iter().chain((first..=last).step_by(step));
        named.chain(self.stored_at())
    }

    /// Where `GEORADIUS` names the key that its result is put under: behind
    /// `STORE` or `STOREDIST`, of several the last.
    fn stored_at(&self) -> Option<usize> {
        if !matches!(self.command.name, "GEORADIUS" | "GEORADIUSBYMEMBER") {
            return None;
        }
        let is_store = |index: &usize| {
            let arg = self.request.arg(*index);
            args::is_word(arg, "STORE") || args::is_word(arg, "STOREDIST")
        };
        let mut found = None;
        let mut index = 5;
        while index + 1 < self.request.len() {
            if is_store(&index) {
                index += 1;
                found = Some(index);
            }
            index += 1;
        }
        found
    }

    /// Where `STREAMS` stands among the options of `XREAD` and `XREADGROUP`.
    pub fn streams_word(&self) -> Option<usize> {
        let mut index = 1;
        while index < self.request.len() {
            let arg = self.request.arg(index);
            index += match () {
                () if args::is_word(arg, "STREAMS") => return Some(index),
                () if args::is_word(arg, "GROUP") => 3,
                () if args::is_word(arg, "COUNT") || args::is_word(arg, "BLOCK") => 2,
                () if args::is_word(arg, "NOACK") => 1,
                () => return None,
            };
        }
        None
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

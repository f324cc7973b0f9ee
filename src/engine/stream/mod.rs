//! Streams: entries under their ids, and consumer groups.
//!
//! The commands are those of Redis 7.0
//! (<https://redis.io/docs/latest/develop/data-types/streams/>). `state` says
//! what is kept where. Each change is also logged as the command that repeats
//! it on the key in the cache; of `XGROUP` the key stands behind the second
//! word, as in Redis.
//!
//! A consumer counts as seen when a command delivers something to it or
//! creates it: reading in vain writes nothing.

mod claim;
mod deliver;
mod digest;
mod entries;
mod entry;
mod groups;
mod id;
mod info;
mod options;
mod pending;
mod read;
mod rebuild;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod trim;

use bytes::Bytes;

use super::dispatch::{Family, Run};
use super::{Need, Needs, Refusal};
use crate::command::{Call, args};
use crate::model::{CacheCommand, Collection, Db, Key};
use id::Id;

pub(super) use digest::add_to_digest;
pub use rebuild::rebuild;
pub(super) use snapshot::{Layout, read as read_snapshot, write as write_snapshot};

/// The commands of streams.
pub(super) const COMMANDS: &[&[Family]] = &[
    entries::COMMANDS,
    read::COMMANDS,
    groups::COMMANDS,
    claim::COMMANDS,
    pending::COMMANDS,
    info::COMMANDS,
];

/// Ids in one command to the cache at most: Redis's Lua can pass some thousands
/// of arguments.
const IDS_MAX: usize = 900;

fn first_key(call: &Call, db: Db) -> Key {
    Key::new(db, call.request.arg_bytes(1))
}

fn every(call: &Call, db: Db, need: &Need) -> Needs {
    call.keys(db).map(|key| (key, need.clone())).collect()
}

fn header(call: &Call, db: Db) -> Needs {
    every(call, db, &Need::header())
}

fn whole(call: &Call, db: Db) -> Needs {
    every(call, db, &Need::value())
}

/// The beginning of a command to the cache.
fn words(words: &[&'static str]) -> CacheCommand {
    words
        .iter()
        .map(|word| Bytes::from_static(word.as_bytes()))
        .collect()
}

/// Logs a command about many ids, as several where they are too many for one.
fn log_ids(stream: &mut Collection, before: &[Bytes], ids: &[Id], behind: &[Bytes]) {
    for some in ids.chunks(IDS_MAX) {
        let ids: Vec<Bytes> = some.iter().map(|id| id.text()).collect();
        stream.log([before, &ids, behind].concat());
    }
}

/// An error text that quotes names which the client gave.
fn quoted(parts: [&[u8]; 5]) -> Refusal {
    let mut text = Vec::new();
    for part in parts {
        args::quote_into(&mut text, part, usize::MAX);
    }
    Refusal::Quoted(Bytes::from(text))
}

/// What `XCLAIM` and `XPENDING` say where key or group is not there.
fn no_key_or_group(run: &Run<'_>) -> Refusal {
    quoted([
        b"NOGROUP No such key '",
        run.arg(1),
        b"' or consumer group '",
        run.arg(2),
        b"'",
    ])
}

/// What `XGROUP` and `XINFO` say where the group is not there.
fn no_group(run: &Run<'_>) -> Refusal {
    quoted([
        b"NOGROUP No such consumer group '",
        run.arg(3),
        b"' for key name '",
        run.arg(2),
        b"'",
    ])
}

/// What Redis says of a subcommand whose arguments it cannot make sense of.
fn subcommand_syntax(run: &Run<'_>) -> Refusal {
    let mut text = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
    args::quote_into(&mut text, run.arg(1), 128);
    text.extend_from_slice(format!("'. Try {} HELP.", run.call.command.family()).as_bytes());
    Refusal::Quoted(Bytes::from(text))
}

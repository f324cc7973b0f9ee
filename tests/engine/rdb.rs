//! `DUMP` and `RESTORE` of collections. The payloads of Redis and of the engine need
//! not be the same bytes; but each must restore what the other dumped, so both are
//! kept, and given to both.

use anyhow::{Result, bail};

use super::commands::Arguments;
use super::support::client::{Client, Value};

pub const PATTERNS: &[&str] = &[
    "DUMP k",
    "RESTORE k 0 p REPLACE",
    "RESTORE k m p REPLACE",
    "OBJECT ENCODING k",
    "COPY k k REPLACE",
    "RENAME k k",
    "DEL k",
];

/// Whether a payload is of a string; these must be the same bytes.
pub fn is_of_string(payload: &[u8]) -> bool {
    payload.first() == Some(&0)
}

/// What Redis dumps of the key of this `DUMP`.
pub fn dumped(arguments: &Arguments, redis: &mut Client) -> Result<Vec<u8>> {
    match redis.ok(arguments)? {
        Value::Bulk(payload) => Ok(payload),
        other => bail!("Redis dumps {other:?}"),
    }
}

/// Whether two replies differ only since a value in Redis was changed where it stands:
/// what was made larger does not return to its small form.
pub fn equal_but_for_history(name: &str, ours: &[u8], theirs: &[u8]) -> bool {
    let is_one_of = |reply: &[u8], names: &[&str]| {
        let encoded = |name: &&str| format!("${}\r\n{name}\r\n", name.len());
        names.iter().any(|name| encoded(name).as_bytes() == reply)
    };
    name == "OBJECT|ENCODING"
        && is_one_of(ours, &["int", "embstr", "listpack", "intset"])
        && is_one_of(theirs, &["embstr", "raw", "hashtable", "skiplist"])
}

//! `DUMP` and `RESTORE` of collections. The payloads of Redis and of the engine need
//! not be the same bytes; but each must restore what the other dumped, so both are
//! kept, and given to both.

use anyhow::{Result, bail};

use super::commands::Arguments;
use crate::support::client::{Client, Value};

pub const PATTERNS: &[&str] = &[
    "DUMP k",
    "RESTORE k 0 p REPLACE",
    "RESTORE k m p REPLACE",
    "OBJECT ENCODING k",
    "COPY k k REPLACE",
    "RENAME k k",
    "DEL k",
];

/// What older versions of Redis dumped, by the forms that they kept values in.
pub const OLD: &[&[u8]] = &[
    // A list of strings.
    b"\x01\x03\x01a\xc0\x07\x00\x03\x00\xcdKS:z\x9b8\x98",
    // A list in one ziplist.
    b"\x0aAaa\x01\x00\x00Z\x01\x00\x00\x09\x00\x00\x01a\x03\xf6\x02\xfe\xff\x03\xc0,\x01\x04\xf0`y\xfe\x05\xd0\x00\x00\x00@\x06\xe0\x00\x00\x00\x00\x00\x01\x00\x00\x0aA,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\xfe/\x01\x00\x00\x00\xff\x06\x00\x1b\x94*R\x1al\x99\x19",
    // A list of ziplists.
    b"\x0e\x02\x10\x10\x00\x00\x00\x0d\x00\x00\x00\x02\x00\x00\x01a\x03\xf2\xff\x0e\x0e\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x01b\xff\x07\x00\x9cQ\x0c\xb3\x95\x02\xf6\xce",
    // A set in an intset.
    b"\x0b\x14\x04\x00\x00\x00\x03\x00\x00\x00\x90\xee\xfe\xff\x05\x00\x00\x00p\x11\x01\x00\x06\x00)5\x0f\xeer\xaa\x1a\x0f",
    // A set of strings.
    b"\x02\x02\x01a\xc0\x07\x03\x00\x11\xe4\xdc\x9a\x95\xb2 w",
    // A sorted set with scores as texts.
    b"\x03\x04\x01a\x031.5\x01b\xfe\x01c\xff\x01d\x02-2\x03\x00z\x1e\xfc\x19S\xd5h\xd7",
    // A sorted set in a ziplist.
    b"\x0c\x1e\x1e\x00\x00\x00\x1b\x00\x00\x00\x06\x00\x00\x01a\x03\xfe\xfd\x03\x01b\x03\x031.5\x05\x01c\x03\xf8\xff\x06\x00\x8c\xdb\xd1\xf6\xebo\x13I",
    // A hash in a zipmap.
    b"\x09\x0f\x02\x01a\x02\x01xy_\x03bcd\x00\x00\xff\x02\x00\x1c\xd3Q\x96\xf4>$\xf3",
    // A hash in a ziplist.
    b"\x0d@VV\x00\x00\x00\x12\x00\x00\x00\x04\x00\x00\x01a\x03\xf2\x02\x01f\x03@@xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\xff\x06\x004p,\x85\x85x`\x8f",
    // A set of no members.
    b"\x02\x00\x06\x00\xac#Q\x80n\xdc\x05{",
    // A stream of Redis 6.
    b"\x0f\x01\x10\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00@@@\x00\x00\x00\x18\x00\x02\x01\x01\x01\x01\x01\x81f\x02\x00\x01\x02\x01\x00\x01\x00\x01\x81v\x02\x04\x01\x03\x01\x00\x01\x01\x01\x84gone\x05\x04\x01\x00\x01\x01\x01\x00\x01\x02\x01\x81x\x02\x07\x01\x81y\x02\x81z\x02\x08\x01\xff\x02\x06\x00\x01\x01g\x05\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00h\xe5\xcf\x8b\x01\x00\x00\x03\x01\x01c\x01h\xe5\xcf\x8b\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x09\x00Y5R\x8b\xe9\x8eW\x8c",
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

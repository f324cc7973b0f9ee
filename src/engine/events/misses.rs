//! Keys that a call looks for to read them: `keymiss` is told of those that are not there.

use crate::command::{Call, Class, args};
use crate::model::{Db, Key, Reply};

/// Redis looks for the key of these without telling.
const SILENT: &[&str] = &[
    "OBJECT|ENCODING",
    "OBJECT|FREQ",
    "OBJECT|IDLETIME",
    "OBJECT|REFCOUNT",
    "MEMORY|USAGE",
];

/// Writes whose first key is where the result goes, and whose others are read.
const FROM_OTHERS: &[&str] = &[
    "BITOP",
    "SINTERSTORE",
    "SUNIONSTORE",
    "SDIFFSTORE",
    "ZINTERSTORE",
    "ZUNIONSTORE",
    "ZDIFFSTORE",
    "ZRANGESTORE",
    "GEOSEARCHSTORE",
];

/// Writes that read their first key.
const FROM_FIRST: &[&str] = &[
    "GETEX",
    "GETDEL",
    "GETSET",
    "COPY",
    "SORT",
    "GEORADIUS",
    "GEORADIUSBYMEMBER",
    "XACK",
    "XCLAIM",
    "XAUTOCLAIM",
];

/// Writes that read all their keys.
const FROM_ALL: &[&str] = &["PFMERGE", "XREADGROUP"];

/// The keys that `call` looks for to read them, in order, as often as it does.
pub(super) fn looked_for(call: &Call, db: Db) -> Vec<Key> {
    let name = call.command.name;
    let keys = call.keys(db);
    let is_option = |word| {
        call.request
            .args()
            .skip(2)
            .any(|arg| args::is_word(arg, word))
    };
    match call.command.class {
        Class::Read | Class::Expiry if SILENT.contains(&name) => Vec::new(),
        Class::Read | Class::Expiry => keys.collect(),
        Class::Write if FROM_OTHERS.contains(&name) => keys.skip(1).collect(),
        Class::Write if FROM_FIRST.contains(&name) => keys.take(1).collect(),
        Class::Write if FROM_ALL.contains(&name) => keys.collect(),
        Class::Write if name == "SET" && gets_old(call) => keys.collect(),
        Class::Write if name == "BITFIELD" && !is_option("SET") && !is_option("INCRBY") => {
            keys.collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a `SET` has the option `GET`, which no value is.
fn gets_old(call: &Call) -> bool {
    let mut options = call.request.args().skip(3);
    options.any(|option| args::is_word(option, "GET"))
}

/// Whether the call looked for its keys before it was refused, if it was.
pub(super) fn has_looked(reply: &Reply) -> bool {
    match reply {
        Reply::Error(text) => text.starts_with(b"NOGROUP") || text.starts_with(b"ERR no such key"),
        _ => true,
    }
}

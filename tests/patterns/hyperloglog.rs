//! HyperLogLog commands with likely and unlikely arguments; see `commands` for the pattern letters.

use anyhow::Result;

use super::commands::Arguments;
use super::open::as_sent;
use crate::support::client::{Client, Value};

/// Whether a string was refused whose registers are not as many as they should be.
pub fn is_damaged(reply: &Value) -> bool {
    reply
        .error()
        .is_some_and(|text| text.starts_with("INVALIDOBJ"))
}

/// Whether damage has cut the last run of registers in two. Redis then reads whatever
/// stands behind the string in memory.
pub fn is_cut(string: &[u8]) -> bool {
    let mut runs = match string {
        [b'H', b'Y', b'L', b'L', 1, ..] if string.len() >= 16 => &string[16..],
        _ => return false,
    };
    loop {
        runs = match runs {
            [] => return false,
            [0x40..=0x7f] => return true,
            [0x40..=0x7f, _, rest @ ..] | [_, rest @ ..] => rest,
        };
    }
}

/// Redis's reply to a command on such a string. A `PFADD` leaves what it did there
/// before it met the damage; here a refused command changes nothing, so the
/// string is put back.
pub fn sent_without_effect(
    name: &str,
    arguments: &Arguments,
    redis: &mut Client,
) -> Result<Vec<u8>> {
    let key = &arguments[1];
    let kept = redis.ok(&[&b"DUMP"[..], key])?;
    let end = redis.integer(&[&b"PEXPIRETIME"[..], key])?;
    redis.send(&as_sent(name, arguments))?;
    let reply = redis.read_with_bytes()?.1;
    if let Value::Bulk(payload) = kept {
        let end = end.max(0).to_string();
        redis.ok(&[
            &b"RESTORE"[..],
            key,
            end.as_bytes(),
            &payload,
            b"ABSTTL",
            b"REPLACE",
        ])?;
    }
    Ok(reply)
}

pub const PATTERNS: &[&str] = &[
    "PFADD k",
    "PFADD k a *a",
    "PFADD k a v v v v",
    "PFADD k v v v v v v v v v v v v v v v v v v v v",
    "PFADD k r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r",
    "PFCOUNT k",
    "PFCOUNT k *k",
    "PFMERGE k *k",
    "PFMERGE k k k",
    "GET k",
    "STRLEN k",
    "DUMP k",
];

/// Strings that are damaged now and then, and made anew.
pub const DAMAGING_PATTERNS: &[&str] = &[
    "PFADD k r r r r",
    "PFADD k r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r",
    "PFADD k a v",
    "PFADD k r",
    "PFADD k",
    "PFCOUNT k",
    "PFCOUNT k k",
    "PFMERGE k k k",
    "SETBIT k 136 n",
    "SETBIT k 150 1",
    "SETBIT k 181 1",
    "SETRANGE k 20 v",
    "APPEND k a",
    "DEL k",
    "GET k",
];

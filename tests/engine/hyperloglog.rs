//! HyperLogLog commands with likely and unlikely arguments; see `commands` for the pattern letters.

use anyhow::Result;
use freshet::model::Reply;

use super::commands::Arguments;
use super::support::client::Client;

/// Whether a string was refused whose registers are not as many as they should be.
pub fn is_damaged(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with(b"INVALIDOBJ"))
}

/// Redis's reply to a command on such a string. A `PFADD` leaves what it did there
/// before it met the damage; here a refused command changes nothing, so the
/// string is put back.
pub fn sent_without_effect(arguments: &Arguments, redis: &mut Client) -> Result<Vec<u8>> {
    let key = &arguments[1];
    let kept = redis.ok(&[&b"DUMP"[..], key])?;
    let end = redis.integer(&[&b"PEXPIRETIME"[..], key])?;
    redis.send(arguments)?;
    let reply = redis.read_with_bytes()?.1;
    if let super::support::client::Value::Bulk(payload) = kept {
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

//! Which replies of the cache only a key that is there can have given.

use crate::command::{Call, Class};

/// Whether only a key that is there can have given this encoded reply.
pub(super) fn is_certain(call: &Call, reply: &[u8]) -> bool {
    if call.command.class == Class::Expiry {
        return false;
    }
    let keys = call.key_indices().count();
    if reply.starts_with(b"-") {
        // Redis looks at the type first: had the key been there, the error might be another.
        return keys == 0 || keys == 1 && reply.starts_with(b"-WRONGTYPE");
    }
    match reply {
        [b':', digits @ ..] if keys > 1 => {
            counts_keys(call) && digits.strip_suffix(b"\r\n") == Some(keys.to_string().as_bytes())
        }
        [b'*', ..] if call.command.name == "MGET" => !has_null(reply),
        _ if keys > 1 => false,
        b"+none\r\n" | b"$0\r\n\r\n" => false,
        [b'$', b'1'..=b'9', ..] | [b'+' | b',', ..] => true,
        [b':', b'1'..=b'9', ..] => true,
        [b'*' | b'%' | b'~', b'1'..=b'9', ..] => !answers_each(call) && !reply.ends_with(b"*0\r\n"),
        _ => false,
    }
}

/// Commands that reply with as many elements as were asked for, though the key
/// is missing.
fn answers_each(call: &Call) -> bool {
    matches!(
        call.command.name,
        "HMGET"
            | "SMISMEMBER"
            | "ZMSCORE"
            | "GEOPOS"
            | "GEOHASH"
            | "LPOS"
            | "BITFIELD_RO"
            | "BITFIELD"
    )
}

/// Commands whose reply is the number of their keys that are there.
fn counts_keys(call: &Call) -> bool {
    matches!(call.command.name, "EXISTS" | "TOUCH")
}

/// Whether an array of bulk strings has a null among them.
fn has_null(array: &[u8]) -> bool {
    let mut rest = array;
    let mut is_header = true;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, after) = rest.split_at(end + 1);
        rest = after;
        if std::mem::take(&mut is_header) {
            continue;
        }
        let length = line
            .strip_prefix(b"$")
            .and_then(|line| line.strip_suffix(b"\r\n"));
        match length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok()) {
            Some(length) => rest = rest.get(length + 2..).unwrap_or_default(),
            None => return true,
        }
    }
    false
}

//! How much memory a key would take in Redis, for `MEMORY USAGE`.
//!
//! An estimate after Redis 7.0 with jemalloc; spare room that Redis leaves
//! behind strings that grew is not known.

use super::STRING_MAX;
use crate::command::args;
use crate::model::Value;

/// The header of every value.
const OBJECT: usize = 16;
/// The entry in the dictionary of keys.
const ENTRY: usize = 24;
/// Strings up to this length share one piece of memory with their header.
const EMBEDDED_MAX: usize = 44;

/// The bytes that `name` with `value` would take.
pub(super) fn key(name: &[u8], value: &Value) -> usize {
    let Value::String(bytes) = value else {
        return 0;
    };
    let value = if args::integer(bytes).is_some() {
        OBJECT
    } else if bytes.len() <= EMBEDDED_MAX {
        // The header of such a string is the 3-byte one whatever its length.
        allocated(OBJECT + 3 + bytes.len() + 1)
    } else {
        OBJECT + string(bytes.len())
    };
    ENTRY + string(name.len()) + value
}

/// A string of its own: header, bytes, and a zero at the end.
fn string(len: usize) -> usize {
    let header = match len {
        1..32 => 1,
        0..256 => 3,
        256..65536 => 5,
        _ => 9,
    };
    allocated(header + len + 1)
}

/// The size class of jemalloc that holds `bytes`: steps of 16 up to 128, then
/// four steps for each doubling.
fn allocated(bytes: usize) -> usize {
    debug_assert!(bytes <= STRING_MAX + 64);
    if bytes <= 8 {
        return 8;
    }
    if bytes <= 128 {
        return bytes.next_multiple_of(16);
    }
    let step = bytes.next_power_of_two() / 8;
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn as_redis_says() {
        // Replies of Redis 7.0.15 to MEMORY USAGE after SET.
        let (digits, long) = ("0123456789".repeat(4), "0123456789".repeat(8));
        let key_name = "k".repeat(42);
        for (name, value, bytes) in [
            ("k", "1", 48),
            ("k", "x", 64),
            ("key", "abc", 64),
            ("k", &digits, 96),
            (&key_name, &long, 184),
        ] {
            let value = Value::String(Bytes::copy_from_slice(value.as_bytes()));
            assert_eq!(key(name.as_bytes(), &value), bytes, "{name}");
        }
    }
}

//! How much memory a key would take in Redis, for `MEMORY USAGE`.
//!
//! An estimate after Redis 7.0 with jemalloc; spare room that Redis leaves
//! behind strings that grew is not known, nor how full its tables are.

use super::encoding::{EMBEDDED_MAX, Encoding};
use super::{Refusal, STRING_MAX, rdb};
use crate::command::args;
use crate::model::{Collection, Kind, Value};

/// The header of every value.
const OBJECT: usize = 16;
/// The entry in the dictionary of keys, or in any other.
const ENTRY: usize = 24;
/// A dictionary without its table.
const DICTIONARY: usize = 56;
/// The least slots that a table has.
const SLOTS_MIN: usize = 4;
/// A listpack without elements.
const LISTPACK: usize = 7;
/// An intset without members.
const INTSET: usize = 8;
/// A list without nodes, and one of its nodes without the listpack.
const QUICKLIST: usize = 40;
const NODE: usize = 40;
/// A listpack in a list takes no more than this, and one element in it that more beside
/// its bytes.
const NODE_MAX: usize = 8192;
const NODE_OVERHEAD: usize = 8;
/// A sorted set with its list and that list's head.
const SKIPLIST: usize = 16 + 32 + 640;
/// A node of that list on average: a quarter of them is one level higher.
const SKIPLIST_NODE: usize = 53;
/// A stream without entries, and what an entry takes beside its bytes in blocks.
const STREAM: usize = 104;
const STREAM_ENTRY: usize = 8;

/// The bytes that `name` with `value` would take.
///
/// # Errors
/// If not all of a collection is known.
pub(super) fn key(name: &[u8], value: &Value) -> Result<usize, Refusal> {
    let value = match value {
        Value::String(bytes) if args::integer(bytes).is_some() => OBJECT,
        // The header of such a string is the 3-byte one whatever its length.
        Value::String(bytes) if bytes.len() <= EMBEDDED_MAX => {
            allocated(OBJECT + 3 + bytes.len() + 1)
        }
        Value::String(bytes) => OBJECT + string(bytes.len()),
        Value::Collection(collection) => OBJECT + content(collection, Encoding::of(value)?)?,
    };
    Ok(ENTRY + string(name.len()) + value)
}

fn content(collection: &Collection, encoding: Encoding) -> Result<usize, Refusal> {
    let elements = collection.iter()?;
    Ok(match encoding {
        Encoding::Intset => intset(collection)?,
        Encoding::Listpack => {
            let packed = elements.map(|(field, element)| {
                let second = match collection.kind() {
                    Kind::SortedSet => score_len(element.rank),
                    _ => rdb::element_len(&element.value),
                };
                rdb::element_len(field) + second
            });
            allocated(LISTPACK + packed.sum::<usize>())
        }
        Encoding::Quicklist => QUICKLIST + nodes(elements.map(|(_, item)| &item.value[..])),
        Encoding::Hashtable => {
            let of_value = |value: &[u8]| match collection.kind() {
                Kind::Hash => string(value.len()),
                _ => 0,
            };
            let entries = elements
                .map(|(field, element)| ENTRY + string(field.len()) + of_value(&element.value));
            table(collection) + entries.sum::<usize>()
        }
        Encoding::Skiplist => {
            let entries = elements.map(|(member, _)| ENTRY + SKIPLIST_NODE + string(member.len()));
            SKIPLIST + table(collection) + entries.sum::<usize>()
        }
        Encoding::Stream => {
            let entries = elements.map(|(_, entry)| STREAM_ENTRY + entry.value.len());
            STREAM + entries.sum::<usize>()
        }
        // The forms of strings.
        Encoding::Integer | Encoding::Embedded | Encoding::Raw => 0,
    })
}

/// The table of a dictionary that has grown with its elements.
fn table(collection: &Collection) -> usize {
    let slots = (collection.len() as usize).next_power_of_two();
    DICTIONARY + slots.max(SLOTS_MIN) * size_of::<u64>()
}

fn intset(set: &Collection) -> Result<usize, Refusal> {
    let members = set.iter()?.filter_map(|(member, _)| args::integer(member));
    let width = |number: i64| match (i16::try_from(number), i32::try_from(number)) {
        (Ok(_), _) => 2,
        (_, Ok(_)) => 4,
        _ => 8,
    };
    let width: usize = members.map(width).max().unwrap_or(2);
    Ok(allocated(INTSET + width * set.len() as usize))
}

/// A score in a listpack: an integer or a text, of 17 digits unless fewer are exact.
fn score_len(score: f64) -> usize {
    const FEW_BITS: f64 = 1_048_576.0;
    let text = score.to_string();
    if (score * FEW_BITS).fract() == 0.0 && text.len() < 17 {
        rdb::element_len(text.as_bytes())
    } else {
        rdb::element_len(&[b'.'; 19])
    }
}

/// The nodes of a list of these items.
fn nodes<'a>(items: impl Iterator<Item = &'a [u8]>) -> usize {
    let (mut total, mut node) = (0, LISTPACK);
    for item in items {
        if node > LISTPACK && node + item.len() + NODE_OVERHEAD > NODE_MAX {
            total += NODE + allocated(node);
            node = LISTPACK;
        }
        node += rdb::element_len(item);
    }
    total + NODE + allocated(node)
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
    debug_assert!(bytes <= 4 * STRING_MAX);
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
    use super::super::dispatch::testing::Session;
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
            assert_eq!(key(name.as_bytes(), &value), Ok(bytes), "{name}");
        }
    }

    #[test]
    fn small_collections_are_as_redis_says() {
        let mut s = Session::default();
        // Replies of Redis 7.0.15.
        for (line, reply) in [
            ("HSET h f v", ":64"),
            ("HSET k a 1 b 2 c 300 d hello", ":96"),
            ("SADD s 1 2 3", ":64"),
            ("SADD i 100000 2 3 4", ":80"),
            ("RPUSH l a b c", ":144"),
        ] {
            s.text(line);
            let key = line.split(' ').nth(1).unwrap();
            assert_eq!(s.text(&format!("MEMORY USAGE {key}")), reply, "{line}");
        }
    }

    #[test]
    fn large_collections_are_about_as_redis_says() {
        let mut s = Session::default();
        for number in 0..1000 {
            s.run(&["HSET", "h", &format!("field{number}"), "value"]);
            s.run(&["SADD", "s", &format!("member{number}")]);
            s.run(&["RPUSH", "l", &format!("item{number}")]);
        }
        // Replies of Redis 7.0.15.
        for (key, about) in [("h", 56_216), ("s", 48_296), ("l", 9128)] {
            let bytes = s.text(&format!("MEMORY USAGE {key} SAMPLES 0"));
            let bytes: i64 = bytes.trim_start_matches(':').parse().unwrap();
            assert!((bytes - about).abs() < about / 10, "{key}: {bytes}");
        }
    }
}

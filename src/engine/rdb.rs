//! `DUMP` and `RESTORE`: values in the format of Redis's RDB files, version 10.
//!
//! A payload is: type, content, RDB version (2 bytes), CRC-64 of all before.
//! Numbers are little-endian, lengths big-endian.

mod content;
pub mod file;
mod libraries;
mod packed;
mod text;

use bytes::Bytes;

use super::Refusal;
use super::dispatch::Run;
use crate::model::{Reply, UnixMs, Value};
pub use libraries::{dump_libraries, restore_libraries};
pub(super) use packed::{Listpack, element_len, listpack};
pub(super) use text::{Reader, write_length, write_string};

/// The newest version that is read, and the one that is written: Redis 7.0's.
const VERSION: u16 = 10;

const BAD_FORMAT: Refusal = Refusal::Other("ERR Bad data format");

pub(super) fn dump(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let live = run.live(&run.key(1))?;
    let Some(live) = live else {
        return Ok(Reply::Null);
    };
    payload_of(live.value()?).map(Reply::bulk)
}

/// The options of `RESTORE`. `IDLETIME` and `FREQ` are checked and then
/// dropped: only the cache has either.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    replace: bool,
    absolute: bool,
}

impl Options {
    fn of(run: &Run<'_>) -> Result<Self, Refusal> {
        let mut options = Self::default();
        let (mut idle_given, mut freq_given) = (false, false);
        let mut index = 4;
        while index < run.len() {
            let has_next = index + 1 < run.len();
            if run.is(index, "REPLACE") {
                options.replace = true;
            } else if run.is(index, "ABSTTL") {
                options.absolute = true;
            } else if run.is(index, "IDLETIME") && has_next && !freq_given {
                index += 1;
                idle_given = true;
                if run.integer(index)? < 0 {
                    return Err(Refusal::Other("ERR Invalid IDLETIME value, must be >= 0"));
                }
            } else if run.is(index, "FREQ") && has_next && !idle_given {
                index += 1;
                freq_given = true;
                if !(0..=255).contains(&run.integer(index)?) {
                    return Err(Refusal::Other(
                        "ERR Invalid FREQ value, must be >= 0 and <= 255",
                    ));
                }
            } else {
                return Err(Refusal::Syntax);
            }
            index += 1;
        }
        Ok(options)
    }
}

pub(super) fn restore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = Options::of(run)?;
    let key = run.key(1);
    let is_there = run.live(&key)?.is_some();
    if is_there && !options.replace {
        return Err(Refusal::BusyKey);
    }
    let ttl = run.integer(2)?;
    if ttl < 0 {
        return Err(Refusal::Other("ERR Invalid TTL value, must be >= 0"));
    }
    let value = value_of(&run.arg_bytes(3))?;
    let expires_at = match (ttl, options.absolute) {
        (0, _) => None,
        (end, true) => Some(UnixMs(end)),
        // Redis lets the sum overflow, which ends the key at once.
        (ttl, false) => Some(UnixMs(ttl.wrapping_add(run.now.0))),
    };
    match expires_at {
        Some(end) if end <= run.now => {
            if is_there {
                run.workspace.delete(key);
            }
        }
        _ => run.workspace.put(key, value, expires_at, run.now),
    }
    Ok(Reply::OK)
}

/// The payload that `RESTORE` takes back.
///
/// # Errors
/// Unless all of a collection is known.
pub fn payload_of(value: &Value) -> Result<Vec<u8>, Refusal> {
    let mut payload = Vec::new();
    content::write(&mut payload, value)?;
    seal(&mut payload);
    Ok(payload)
}

/// Appends version and checksum.
fn seal(payload: &mut Vec<u8>) {
    payload.extend_from_slice(&VERSION.to_le_bytes());
    let checksum = crc64(payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
}

/// The payload of this content, its type before it.
fn sealed(content: &[u8]) -> Bytes {
    let mut payload = Vec::with_capacity(content.len() + 10);
    payload.extend_from_slice(content);
    seal(&mut payload);
    Bytes::from(payload)
}

/// The value that a payload holds.
///
/// # Errors
/// As `RESTORE` tells them.
pub fn value_of(payload: &Bytes) -> Result<Value, Refusal> {
    check_footer(payload)?;
    // Redis, too, lets content run on into the footer.
    let mut reader = Reader::of(payload);
    let kind = reader.byte().ok_or(BAD_FORMAT)?;
    content::read(kind, &mut reader).ok_or(BAD_FORMAT)
}

fn check_footer(payload: &[u8]) -> Result<(), Refusal> {
    let wrong = Refusal::Other("ERR DUMP payload version or checksum are wrong");
    let Some((content, checksum)) = payload.split_last_chunk::<8>() else {
        return Err(wrong);
    };
    let Some((_, version)) = content.split_last_chunk::<2>() else {
        return Err(wrong);
    };
    if u16::from_le_bytes(*version) > VERSION || crc64(content) != u64::from_le_bytes(*checksum) {
        return Err(wrong);
    }
    Ok(())
}

/// CRC-64 as Redis computes it: the polynomial of Jones, reflected, start 0.
fn crc64(bytes: &[u8]) -> u64 {
    crc64_from(0, bytes)
}

/// The same, where it was `crc` for what stands before `bytes`.
fn crc64_from(crc: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(crc, |crc, byte| {
        CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

static CRC_TABLE: [u64; 256] = crc_table();

const fn crc_table() -> [u64; 256] {
    const REFLECTED: u64 = 0x95ac_9329_ac4b_c9b5;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ REFLECTED
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checksum_is_that_of_redis() {
        // The check value in Redis's own crc64.c.
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn payloads_are_those_of_redis() {
        let payload = |text: &str| {
            payload_of(&Value::String(Bytes::copy_from_slice(text.as_bytes()))).unwrap()
        };
        // DUMP of "10" as the Redis documentation shows it, with version 10.
        assert_eq!(payload("10")[..5], *b"\x00\xc0\n\n\x00");
        assert_eq!(payload("-300")[..4], *b"\x00\xc1\xd4\xfe");
        assert_eq!(payload("70000")[..6], *b"\x00\xc2\x70\x11\x01\x00");
        assert_eq!(payload("abc")[..5], *b"\x00\x03abc");
        assert_eq!(payload(&"a".repeat(30))[..2], *b"\x00\xc3");
    }

    #[test]
    fn restore_checks_before_it_writes() {
        let mut s = Session {
            now: UnixMs(1000),
            ..Session::default()
        };
        let payload = payload_of(&Value::String("v".into())).unwrap();
        let mut run = |args: &[&[u8]]| super::super::dispatch::testing::show(&s.run(args));
        assert_eq!(run(&[b"RESTORE", b"k", b"0", &payload]), "OK");
        assert_eq!(
            run(&[b"RESTORE", b"k", b"0", &payload]),
            "-BUSYKEY Target key name already exists."
        );
        assert_eq!(run(&[b"RESTORE", b"k", b"5", &payload, b"replace"]), "OK");
        assert_eq!(run(&[b"PTTL", b"k"]), ":5");
        assert_eq!(
            run(&[b"RESTORE", b"k", b"7", &payload, b"ABSTTL", b"REPLACE"]),
            "OK"
        );
        assert_eq!(run(&[b"EXISTS", b"k"]), ":0");
        let mut damaged = payload.clone();
        damaged[2] ^= 1;
        assert_eq!(
            run(&[b"RESTORE", b"k", b"0", &damaged]),
            "-ERR DUMP payload version or checksum are wrong"
        );
        assert_eq!(
            run(&[b"RESTORE", b"k", b"-1", &payload]),
            "-ERR Invalid TTL value, must be >= 0"
        );
    }

    #[test]
    fn collections_come_back() {
        let mut s = Session::default();
        for line in [
            "HSET h b 1 a 300",
            "SADD s x 5 y",
            "RPUSH l 1 b 1",
            "ZADD z 1.5 a -3 b inf c",
            "XADD x 5-1 f v",
            "XADD x 5-2 g 12 h 13",
            "XADD x 6-0 f w",
            "XDEL x 5-2",
            "XGROUP CREATE x g 0",
            "XREADGROUP GROUP g c COUNT 1 STREAMS x >",
        ] {
            s.text(line);
        }
        for (key, shown) in [
            ("h", "HGETALL"),
            ("s", "SMEMBERS"),
            ("l", "LRANGE 0 -1"),
            ("z", "ZRANGE 0 -1 WITHSCORES"),
            ("x", "XINFO STREAM FULL"),
        ] {
            let (command, rest) = shown.split_once(' ').unwrap_or((shown, ""));
            let of = |key: &str| match command {
                "XINFO" => format!("XINFO STREAM {key} FULL"),
                _ => format!("{command} {key} {rest}"),
            };
            let Reply::Bulk(payload) = s.run(&["DUMP", key]) else {
                panic!("no payload of {key}");
            };
            assert_eq!(
                s.run(&[&b"RESTORE"[..], b"copy", b"0", &payload, b"REPLACE"]),
                Reply::OK
            );
            assert_eq!(s.text(&of("copy")), s.text(&of(key)), "{key}");
        }
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text: Vec<u8>) {
            let value = Value::String(Bytes::from(text));
            let payload = Bytes::from(payload_of(&value).unwrap());
            prop_assert_eq!(value_of(&payload), Ok(value));
        }

        #[test]
        fn damaged_content_is_refused_or_read_but_never_panics(content: Vec<u8>) {
            let mut payload = Vec::new();
            payload.extend_from_slice(&content);
            payload.extend_from_slice(&VERSION.to_le_bytes());
            let checksum = crc64(&payload);
            payload.extend_from_slice(&checksum.to_le_bytes());
            let _ = value_of(&Bytes::from(payload));
        }
    }
}

//! Strings: reading, counting, and writing parts of them.

use bytes::{Bytes, BytesMut};

use super::dispatch::Run;
use super::{Refusal, STRING_MAX, float};
use crate::command::args;
use crate::model::{Reply, UnixMs};

/// A bulk reply.
pub(super) fn bulk(value: Bytes) -> Reply {
    Reply::Bulk(value)
}

/// Refuses a string of `len` bytes if it is too long.
pub(super) fn check_length(len: usize) -> Result<(), Refusal> {
    if len > STRING_MAX {
        return Err(Refusal::TooLong);
    }
    Ok(())
}

pub(super) fn get(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let value = run.string(&run.key(1))?;
    Ok(value.map_or(Reply::Null, bulk))
}

/// A key of another type counts as missing, as in Redis.
pub(super) fn mget(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let mut values = Vec::with_capacity(run.len() - 1);
    for index in 1..run.len() {
        values.push(match run.string(&run.key(index)) {
            Ok(Some(value)) => bulk(value),
            Ok(None) | Err(Refusal::WrongType) => Reply::Null,
            Err(other) => return Err(other),
        });
    }
    Ok(Reply::Array(values))
}

pub(super) fn getdel(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let key = run.key(1);
    let Some(value) = run.string(&key)? else {
        return Ok(Reply::Null);
    };
    run.workspace.delete(key);
    Ok(bulk(value))
}

pub(super) fn getset(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let key = run.key(1);
    let before = run.string(&key)?;
    run.put(key, run.arg_bytes(2), None);
    Ok(before.map_or(Reply::Null, bulk))
}

pub(super) fn mset(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    set_pairs(run)?;
    Ok(Reply::OK)
}

pub(super) fn msetnx(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    check_pairs(run)?;
    for index in (1..run.len()).step_by(2) {
        if run.live(&run.key(index))?.is_some() {
            return Ok(Reply::Integer(0));
        }
    }
    set_pairs(run)?;
    Ok(Reply::Integer(1))
}

fn check_pairs(run: &Run<'_>) -> Result<(), Refusal> {
    if run.len().is_multiple_of(2) {
        return Err(Refusal::arity(run.call.command));
    }
    Ok(())
}

/// Sets every key to the argument behind it; of a key named twice the last counts.
fn set_pairs(run: &mut Run<'_>) -> Result<(), Refusal> {
    check_pairs(run)?;
    for index in (1..run.len()).step_by(2) {
        run.put(run.key(index), run.arg_bytes(index + 1), None);
    }
    Ok(())
}

pub(super) fn strlen(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let value = run.string(&run.key(1))?.unwrap_or_default();
    Ok(Reply::Integer(value.len() as i64))
}

pub(super) fn append(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let key = run.key(1);
    let tail = run.arg_bytes(2);
    let Some((before, expires_at)) = run.string_and_expiry(&key)? else {
        let len = tail.len();
        run.put(key, tail, None);
        return Ok(Reply::Integer(len as i64));
    };
    let len = before.len() + tail.len();
    check_length(len)?;
    if !tail.is_empty() {
        let mut value = BytesMut::with_capacity(len);
        value.extend_from_slice(&before);
        value.extend_from_slice(&tail);
        run.put(key, value, expires_at);
    }
    Ok(Reply::Integer(len as i64))
}

pub(super) fn setrange(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let offset = run.integer(2)?;
    let offset =
        usize::try_from(offset).map_err(|_| Refusal::Other("ERR offset is out of range"))?;
    let key = run.key(1);
    let patch = run.arg_bytes(3);
    let (before, expires_at) = run.string_and_expiry(&key)?.unwrap_or_default();
    if patch.is_empty() {
        return Ok(Reply::Integer(before.len() as i64));
    }
    let end = offset.saturating_add(patch.len());
    check_length(end)?;
    let mut value = grown(&before, end);
    value[offset..end].copy_from_slice(&patch);
    let len = value.len();
    run.put(key, value, expires_at);
    Ok(Reply::Integer(len as i64))
}

/// A copy of `value` with zero bytes behind it up to `len`, if it is shorter.
pub(super) fn grown(value: &[u8], len: usize) -> BytesMut {
    let mut copy = BytesMut::with_capacity(len.max(value.len()));
    copy.extend_from_slice(value);
    if copy.len() < len {
        copy.resize(len, 0);
    }
    copy
}

/// `GETRANGE` and `SUBSTR`.
pub(super) fn getrange(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (start, end) = (run.integer(2)?, run.integer(3)?);
    let value = run.string(&run.key(1))?.unwrap_or_default();
    let part = match range_within(start, end, value.len()) {
        Some((first, last)) => value.slice(first..=last),
        None => Bytes::new(),
    };
    Ok(bulk(part))
}

/// The inclusive range that `start` and `end` mean in a sequence of `len`
/// items, where negative numbers count from the end; `None` if it is empty.
pub(super) fn range_within(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    let len = len as i64;
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let from_end = |index: i64| {
        if index < 0 {
            len.saturating_add(index)
        } else {
            index
        }
    };
    let start = from_end(start).max(0);
    let end = from_end(end).max(0).min(len - 1);
    (start <= end && len > 0).then_some((start as usize, end as usize))
}

pub(super) fn incr(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    add(run, 1)
}

pub(super) fn decr(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    add(run, -1)
}

pub(super) fn incrby(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    add(run, run.integer(2)?)
}

pub(super) fn decrby(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let delta = run
        .integer(2)?
        .checked_neg()
        .ok_or(Refusal::Other("ERR decrement would overflow"))?;
    add(run, delta)
}

fn add(run: &mut Run<'_>, delta: i64) -> Result<Reply, Refusal> {
    let key = run.key(1);
    let (number, expires_at) = match run.string_and_expiry(&key)? {
        Some((text, end)) => (args::integer(&text).ok_or(Refusal::NotInteger)?, end),
        None => (0, None),
    };
    let sum = number
        .checked_add(delta)
        .ok_or(Refusal::Other("ERR increment or decrement would overflow"))?;
    run.put(key, sum.to_string(), expires_at);
    Ok(Reply::Integer(sum))
}

pub(super) fn incrbyfloat(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let key = run.key(1);
    let (before, expires_at): (Bytes, Option<UnixMs>) = run
        .string_and_expiry(&key)?
        .unwrap_or_else(|| (Bytes::from_static(b"0"), None));
    let before = float::parse(&before).ok_or(Refusal::NotFloat)?;
    let delta = float::parse(run.arg(2)).ok_or(Refusal::NotFloat)?;
    let sum = before.incremented(&delta)?;
    run.put(key, sum.clone(), expires_at);
    Ok(bulk(sum))
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;

    fn check(session: &mut Session, lines: &[(&str, &str)]) {
        for (line, reply) in lines {
            assert_eq!(session.text(line), *reply, "{line}");
        }
    }

    #[test]
    fn counters() {
        check(
            &mut Session::default(),
            &[
                ("INCR n", ":1"),
                ("INCRBY n 41", ":42"),
                ("DECR n", ":41"),
                ("DECRBY n 1", ":40"),
                ("SET n 9223372036854775807", "OK"),
                ("INCR n", "-ERR increment or decrement would overflow"),
                (
                    "DECRBY n -9223372036854775808",
                    "-ERR decrement would overflow",
                ),
                ("SET n x", "OK"),
                ("INCR n", "-ERR value is not an integer or out of range"),
                ("INCRBYFLOAT f 10.50", "\"10.5\""),
                ("INCRBYFLOAT f 0.1", "\"10.6\""),
                ("INCRBYFLOAT f -10.6", "\"0\""),
                (
                    "INCRBYFLOAT f inf",
                    "-ERR increment would produce NaN or Infinity",
                ),
                ("INCRBYFLOAT f x", "-ERR value is not a valid float"),
            ],
        );
    }

    #[test]
    fn parts() {
        check(
            &mut Session::default(),
            &[
                ("APPEND k Hello", ":5"),
                ("APPEND k World", ":10"),
                ("GETRANGE k 0 -1", "\"HelloWorld\""),
                ("GETRANGE k -5 -1", "\"World\""),
                ("GETRANGE k -1 -5", "\"\""),
                ("GETRANGE k 5 100", "\"World\""),
                ("SUBSTR k 0 -100", "\"H\""),
                ("SETRANGE k 12 !", ":13"),
                ("GET k", "\"HelloWorld\\x00\\x00!\""),
                ("SETRANGE k -1 !", "-ERR offset is out of range"),
                (
                    "SETRANGE k 536870912 !",
                    "-ERR string exceeds maximum allowed size (proto-max-bulk-len)",
                ),
                ("STRLEN k", ":13"),
                ("STRLEN none", ":0"),
            ],
        );
    }

    #[test]
    fn several_keys() {
        check(
            &mut Session::default(),
            &[
                ("MSET a 1 b 2 a 3", "OK"),
                ("MGET a b c", "[\"3\" \"2\" nil]"),
                ("MSETNX c 1 a 1", ":0"),
                ("MSETNX c 1 d 1", ":1"),
                (
                    "MSET a 1 b",
                    "-ERR wrong number of arguments for 'mset' command",
                ),
                ("GETSET a 9", "\"3\""),
                ("GETDEL a", "\"9\""),
                ("GETDEL a", "nil"),
            ],
        );
    }

    #[test]
    fn partial_writes_keep_the_expiry() {
        let mut session = Session::default();
        check(
            &mut session,
            &[
                ("SET k 1 PX 100", "OK"),
                ("INCR k", ":2"),
                ("APPEND k 0", ":2"),
                ("SETRANGE k 0 3", ":2"),
                ("INCRBYFLOAT k 1", "\"31\""),
                ("PTTL k", ":100"),
                ("GETSET k 5", "\"31\""),
                ("PTTL k", ":-1"),
            ],
        );
    }
}

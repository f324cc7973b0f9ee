//! Strings as bits: `SETBIT`, `GETBIT`, `BITCOUNT`, `BITPOS`, `BITOP`.
//!
//! Bit 0 is the highest bit of the first byte.

use bytes::Bytes;

use super::dispatch::Run;
use super::string::{grown, range_within};
use super::{Refusal, STRING_MAX};
use crate::command::args;
use crate::model::Reply;

pub(super) const BAD_OFFSET: Refusal =
    Refusal::Other("ERR bit offset is not an integer or out of range");

/// The bit offset that `arg` gives; `None` if it is not one.
pub(super) fn offset(arg: &[u8]) -> Result<u64, Refusal> {
    let offset = args::integer(arg).ok_or(BAD_OFFSET)?;
    check_offset(offset)
}

/// Refuses an offset that is negative or beyond the longest string.
pub(super) fn check_offset(offset: i64) -> Result<u64, Refusal> {
    u64::try_from(offset)
        .ok()
        .filter(|offset| offset / 8 < STRING_MAX as u64)
        .ok_or(BAD_OFFSET)
}

/// The bit at `offset`; those behind the end are 0.
fn bit_at(value: &[u8], offset: u64) -> bool {
    let byte = value.get((offset / 8) as usize).copied().unwrap_or(0);
    byte & mask(offset) != 0
}

fn mask(offset: u64) -> u8 {
    0x80 >> (offset % 8)
}

pub(super) fn setbit(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let offset = offset(run.arg(2))?;
    let bit = match args::integer(run.arg(3)) {
        Some(0) => false,
        Some(1) => true,
        _ => {
            return Err(Refusal::Other("ERR bit is not an integer or out of range"));
        }
    };
    let key = run.key(1);
    let (before, expires_at) = run.string_and_expiry(&key)?.unwrap_or_default();
    let old = bit_at(&before, offset);
    let at = (offset / 8) as usize;
    if old != bit || at >= before.len() {
        let mut value = grown(&before, at + 1);
        value[at] = if bit {
            value[at] | mask(offset)
        } else {
            value[at] & !mask(offset)
        };
        run.put(key, value, expires_at);
    }
    Ok(Reply::Integer(i64::from(old)))
}

pub(super) fn getbit(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let offset = offset(run.arg(2))?;
    let value = run.string(&run.key(1))?.unwrap_or_default();
    Ok(Reply::Integer(i64::from(bit_at(&value, offset))))
}

/// What the positions of a range count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Byte,
    Bit,
}

fn unit(run: &Run<'_>, index: usize) -> Result<Unit, Refusal> {
    if index >= run.len() || run.is(index, "BYTE") {
        Ok(Unit::Byte)
    } else if run.is(index, "BIT") {
        Ok(Unit::Bit)
    } else {
        Err(Refusal::Syntax)
    }
}

/// The inclusive range of bits that `start` and `end` mean in a string of
/// `len` bytes; `None` if it is empty.
fn bits_within(start: i64, end: i64, unit: Unit, len: usize) -> Option<(u64, u64)> {
    match unit {
        Unit::Byte => {
            let (first, last) = range_within(start, end, len)?;
            Some((first as u64 * 8, last as u64 * 8 + 7))
        }
        Unit::Bit => {
            let (first, last) = range_within(start, end, len * 8)?;
            Some((first as u64, last as u64))
        }
    }
}

pub(super) fn bitcount(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    // Redis looks at the arguments only when the key is there.
    let Some(value) = run.string(&run.key(1))? else {
        return Ok(Reply::Integer(0));
    };
    let range = match run.len() {
        2 => bits_within(0, -1, Unit::Byte, value.len()),
        4 | 5 => {
            let (start, end) = (run.integer(2)?, run.integer(3)?);
            if start < 0 && end < 0 && start > end {
                return Ok(Reply::Integer(0));
            }
            bits_within(start, end, unit(run, 4)?, value.len())
        }
        _ => return Err(Refusal::Syntax),
    };
    let count = range.map_or(0, |(first, last)| count_ones(&value, first, last));
    Ok(Reply::Integer(count as i64))
}

/// The ones among the bits from `first` to `last`, which are within `value`.
fn count_ones(value: &[u8], first: u64, last: u64) -> u64 {
    let bytes = &value[(first / 8) as usize..=(last / 8) as usize];
    let all: u64 = bytes.iter().map(|b| u64::from(b.count_ones())).sum();
    let before = value[(first / 8) as usize] & !(0xff >> (first % 8));
    let behind = value[(last / 8) as usize] & (0x7f >> (last % 8));
    all - u64::from(before.count_ones()) - u64::from(behind.count_ones())
}

pub(super) fn bitpos(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let wanted = match run.integer(2)? {
        0 => false,
        1 => true,
        _ => {
            return Err(Refusal::Other("ERR The bit argument must be 1 or 0."));
        }
    };
    let Some(value) = run.string(&run.key(1))? else {
        return Ok(Reply::Integer(if wanted { -1 } else { 0 }));
    };
    let (start, end, unit) = match run.len() {
        3 => (0, -1, Unit::Byte),
        4 => (run.integer(3)?, -1, Unit::Byte),
        5 | 6 => {
            let start = run.integer(3)?;
            let unit = unit(run, 5)?;
            (start, run.integer(4)?, unit)
        }
        _ => return Err(Refusal::Syntax),
    };
    let Some((first, last)) = position_range(start, end, unit, value.len()) else {
        return Ok(Reply::Integer(-1));
    };
    let found = first_bit(&value, wanted, first, last);
    Ok(Reply::Integer(match found {
        Some(position) => position as i64,
        // Without an explicit end, zeros go on behind the string.
        None if !wanted && run.len() < 5 => value.len() as i64 * 8,
        None => -1,
    }))
}

/// As [`bits_within`], except that a start behind the end is not looked at
/// before both are brought into the string, as in Redis's `BITPOS`.
fn position_range(start: i64, end: i64, unit: Unit, len: usize) -> Option<(u64, u64)> {
    let total = match unit {
        Unit::Byte => len as i64,
        Unit::Bit => len as i64 * 8,
    };
    let inside = |index: i64| {
        let index = if index < 0 {
            total.saturating_add(index)
        } else {
            index
        };
        index.max(0)
    };
    bits_within(inside(start), inside(end), unit, len)
}

/// The position of the first bit that is `wanted`, from `first` to `last`.
fn first_bit(value: &[u8], wanted: bool, first: u64, last: u64) -> Option<u64> {
    // Every byte is turned so that a one is looked for.
    let turn = if wanted { 0x00 } else { 0xff };
    let (first_byte, last_byte) = ((first / 8) as usize, (last / 8) as usize);
    let head = (value[first_byte] ^ turn) & (0xff >> (first % 8));
    let found = if head != 0 {
        first_byte as u64 * 8 + u64::from(head.leading_zeros())
    } else {
        let skipped = value[first_byte + 1..=last_byte]
            .iter()
            .position(|byte| *byte ^ turn != 0)?;
        let at = first_byte + 1 + skipped;
        at as u64 * 8 + u64::from((value[at] ^ turn).leading_zeros())
    };
    (found <= last).then_some(found)
}

/// A bitwise operation over strings; shorter ones count as filled with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

impl Operation {
    fn of(run: &Run<'_>) -> Result<Self, Refusal> {
        let operation = [
            ("AND", Self::And),
            ("OR", Self::Or),
            ("XOR", Self::Xor),
            ("NOT", Self::Not),
        ]
        .into_iter()
        .find(|(word, _)| run.is(1, word))
        .ok_or(Refusal::Syntax)?
        .1;
        if operation == Self::Not && run.len() != 4 {
            return Err(Refusal::Other(
                "ERR BITOP NOT must be called with a single source key.",
            ));
        }
        Ok(operation)
    }

    fn apply(self, sources: &[Bytes], len: usize) -> Vec<u8> {
        let mut result = grown(&sources[0], len).to_vec();
        if self == Self::Not {
            result.iter_mut().for_each(|byte| *byte = !*byte);
        }
        for source in &sources[1..] {
            let (shared, rest) = result.split_at_mut(source.len());
            for (byte, other) in shared.iter_mut().zip(source) {
                match self {
                    Self::And => *byte &= other,
                    Self::Or => *byte |= other,
                    Self::Xor => *byte ^= other,
                    Self::Not => {}
                }
            }
            if self == Self::And {
                rest.fill(0);
            }
        }
        result
    }
}

pub(super) fn bitop(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let operation = Operation::of(run)?;
    let mut sources = Vec::with_capacity(run.len() - 3);
    for index in 3..run.len() {
        sources.push(run.string(&run.key(index))?.unwrap_or_default());
    }
    let target = run.key(2);
    let target_lives = run.live(&target)?.is_some();
    let len = sources.iter().map(Bytes::len).max().unwrap_or(0);
    if len > 0 {
        run.put(target, operation.apply(&sources, len), None);
    } else if target_lives {
        run.workspace.delete(target);
    }
    Ok(Reply::Integer(len as i64))
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;

    #[test]
    fn bits_are_set_read_and_counted() {
        let mut s = Session::default();
        for (line, reply) in [
            ("SETBIT k 7 1", ":0"),
            ("SETBIT k 7 1", ":1"),
            ("GETBIT k 7", ":1"),
            ("GETBIT k 100", ":0"),
            ("GET k", "\"\\x01\""),
            ("SETBIT k 16 0", ":0"),
            ("STRLEN k", ":3"),
            (
                "SETBIT k -1 0",
                "-ERR bit offset is not an integer or out of range",
            ),
            (
                "SETBIT k 4294967296 0",
                "-ERR bit offset is not an integer or out of range",
            ),
            ("SETBIT k 1 2", "-ERR bit is not an integer or out of range"),
            ("SET k foobar", "OK"),
            ("BITCOUNT k", ":26"),
            ("BITCOUNT k 0 0", ":4"),
            ("BITCOUNT k 1 1 BYTE", ":6"),
            ("BITCOUNT k 5 30 BIT", ":17"),
            ("BITCOUNT k -1 -2", ":0"),
            ("BITCOUNT k 1", "-ERR syntax error"),
            ("BITCOUNT none x", ":0"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }

    #[test]
    fn positions() {
        let mut s = Session::default();
        s.run(&[&b"SET"[..], b"k", b"\xff\xf0\x00"]);
        s.run(&[&b"SET"[..], b"ones", b"\xff\xff"]);
        for (line, reply) in [
            ("BITPOS k 0", ":12"),
            ("BITPOS k 1 2", ":-1"),
            ("BITPOS ones 0", ":16"),
            ("BITPOS ones 0 0", ":16"),
            ("BITPOS ones 0 0 -1", ":-1"),
            ("BITPOS k 0 2 15 BIT", ":12"),
            ("BITPOS k 1 5 7 BIT", ":5"),
            ("BITPOS none 1", ":-1"),
            ("BITPOS none 0", ":0"),
            ("BITPOS k 2", "-ERR The bit argument must be 1 or 0."),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }

    #[test]
    fn operations() {
        let mut s = Session::default();
        for (line, reply) in [
            ("MSET a abc b a", "OK"),
            ("BITOP AND d a b", ":3"),
            ("GET d", "\"a\\x00\\x00\""),
            ("BITOP XOR d a a", ":3"),
            ("GET d", "\"\\x00\\x00\\x00\""),
            ("BITOP OR d a b none", ":3"),
            ("GET d", "\"abc\""),
            ("BITOP NOT d d", ":3"),
            ("BITOP NOT d none", ":0"),
            ("EXISTS d", ":0"),
            (
                "BITOP NOT d a b",
                "-ERR BITOP NOT must be called with a single source key.",
            ),
            ("BITOP NAND d a b", "-ERR syntax error"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
        s.text("BITOP OR none2 none none3");
        assert!(s.effects.is_empty());
    }
}

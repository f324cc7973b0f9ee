//! `HSCAN`, `SSCAN`, `ZSCAN`: all elements at once, with cursor 0, as Redis
//! answers for small collections; so no element can be missed.

use bytes::Bytes;

use super::Refusal;
use super::dispatch::Run;
use crate::command::args;
use crate::command::glob::{self, Case};
use crate::model::{Collection, Element, Kind, Reply};

/// Answers a scan of the collection of type `kind` at the first argument; `in_order`
/// lists its elements, and `shown` is what the reply tells of one.
pub(super) fn scan(
    run: &Run<'_>,
    kind: Kind,
    in_order: impl FnOnce(&Collection) -> Result<Vec<(&Bytes, &Element)>, Refusal>,
    shown: impl Fn(&Bytes, &Element, &mut Vec<Reply>),
) -> Result<Reply, Refusal> {
    if !is_cursor(run.arg(2)) {
        return Err(Refusal::Other("ERR invalid cursor"));
    }
    let mut items = Vec::new();
    // As in Redis, nobody looks at the options if there is nothing to scan.
    if let Some(collection) = run.collection(&run.key(1), kind)? {
        let pattern = pattern(run)?;
        for (field, element) in in_order(collection)? {
            if pattern.is_none_or(|p| glob::matches(p, field, Case::Sensitive)) {
                shown(field, element, &mut items);
            }
        }
    }
    Ok(Reply::Array(vec![Reply::bulk("0"), Reply::Array(items)]))
}

/// Checks the options; the last `MATCH`.
fn pattern<'a>(run: &'a Run<'_>) -> Result<Option<&'a [u8]>, Refusal> {
    let mut pattern = None;
    for index in (3..run.len()).step_by(2) {
        if index + 1 == run.len() {
            return Err(Refusal::Syntax);
        }
        if run.is(index, "COUNT") {
            if run.integer(index + 1)? < 1 {
                return Err(Refusal::Syntax);
            }
        } else if run.is(index, "MATCH") {
            pattern = Some(run.arg(index + 1));
        } else {
            return Err(Refusal::Syntax);
        }
    }
    Ok(pattern)
}

/// Whether `text` is a cursor as C's `strtoul` reads it: digits with a sign
/// before them, up to the first zero byte, or nothing; within 64 bits.
fn is_cursor(text: &[u8]) -> bool {
    let text = args::c_text(text);
    let digits = match text {
        [b'+' | b'-', rest @ ..] if !rest.is_empty() => rest,
        _ => text,
    };
    let value = digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    });
    value.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_in_c() {
        for text in ["0", "", "-1", "+5", "007", "18446744073709551615", "1\0x"] {
            assert!(is_cursor(text.as_bytes()), "{text:?}");
        }
        for text in ["x", " 1", "1 ", "-", "18446744073709551616", "1x"] {
            assert!(!is_cursor(text.as_bytes()), "{text:?}");
        }
    }
}

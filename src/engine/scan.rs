//! `HSCAN`, `SSCAN`, `ZSCAN`: a page where one was loaded; else all elements at once, with cursor 0, as
//! Redis answers for small collections; so no element can be missed.

use std::ops::Range;

use bytes::Bytes;

use super::dispatch::Run;
use super::{Need, Needs, Refusal, first_key};
use crate::command::Call;
use crate::command::args;
use crate::command::glob::{self, Case};
use crate::model::{Collection, Db, Element, Kind, Reply};

/// The cursors of scans that the store answers. No table of Redis is so large that it has
/// such a cursor, and every client can read them: JavaScript's numbers end there.
pub const CURSORS: Range<u64> = 1 << 52..1 << 53;

/// `COUNT`, if none is given.
const COUNT_DEFAULT: u64 = 10;

/// The arguments of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The cursor.
    pub cursor: u64,
    /// About how many elements are wanted.
    pub count: u64,
}

impl Scan {
    /// Those of `call`; `None`: it is no scan of a key, or it is refused.
    pub fn of(call: &Call) -> Option<Self> {
        if !matches!(call.command.name, "HSCAN" | "SSCAN" | "ZSCAN") {
            return None;
        }
        let cursor = cursor(call.request.arg(2))?;
        Options::of(call).ok().map(|options| Self {
            cursor,
            count: options.count,
        })
    }

    /// Whether the store gave the cursor, so that it alone can go on.
    pub fn is_of_the_store(&self) -> bool {
        CURSORS.contains(&self.cursor)
    }
}

/// What a scan needs is asked for by whoever knows where it stands.
pub(super) fn needs(call: &Call, db: Db) -> Needs {
    first_key::header(call, db)
}

/// Answers a scan of the collection of type `kind` at the first argument; `in_order`
/// lists its elements, and `shown` is what the reply tells of one.
pub(super) fn scan(
    run: &mut Run<'_>,
    kind: Kind,
    in_order: impl FnOnce(&Collection) -> Result<Vec<(&Bytes, &Element)>, Refusal>,
    shown: impl Fn(&Bytes, &Element, &mut Vec<Reply>),
) -> Result<Reply, Refusal> {
    if cursor(run.arg(2)).is_none() {
        return Err(Refusal::Other("ERR invalid cursor"));
    }
    let mut items = Vec::new();
    let mut next = None;
    // As in Redis, nobody looks at the options if there is nothing to scan.
    if let Some(collection) = run.collection(&run.key(1), kind)? {
        let options = Options::of(run.call)?;
        let is_whole = collection.is_whole();
        let elements = match collection.page() {
            Ok((elements, behind)) if run.workspace.is_paged() && !is_whole => {
                next = behind.cloned();
                elements
            }
            _ if is_whole => in_order(collection)?,
            _ => return Err(run.want(1, Need::value())),
        };
        for (field, element) in elements {
            let pattern = options.pattern.as_ref();
            if pattern.is_none_or(|p| glob::matches(p, field, Case::Sensitive)) {
                shown(field, element, &mut items);
            }
        }
    }
    let cursor = next.map_or(0, |next| run.workspace.note_next(next));
    let cursor = Reply::bulk(cursor.to_string());
    Ok(Reply::Array(vec![cursor, Reply::Array(items)]))
}

struct Options {
    count: u64,
    /// The last `MATCH`.
    pattern: Option<Bytes>,
}

impl Options {
    fn of(call: &Call) -> Result<Self, Refusal> {
        let request = &call.request;
        let (mut count, mut pattern) = (COUNT_DEFAULT, None);
        for index in (3..request.len()).step_by(2) {
            let is = |word| args::is_word(request.arg(index), word);
            if index + 1 == request.len() {
                return Err(Refusal::Syntax);
            }
            if is("COUNT") {
                let number = args::integer(request.arg(index + 1)).ok_or(Refusal::NotInteger)?;
                if number < 1 {
                    return Err(Refusal::Syntax);
                }
                count = number.unsigned_abs();
            } else if is("MATCH") {
                pattern = Some(request.arg_bytes(index + 1));
            } else {
                return Err(Refusal::Syntax);
            }
        }
        Ok(Self { count, pattern })
    }
}

/// `text` as a cursor as C's `strtoul` reads it: digits with a sign
/// before them, up to the first zero byte, or nothing; within 64 bits.
fn cursor(text: &[u8]) -> Option<u64> {
    let text = args::c_text(text);
    let digits = match text {
        [b'+' | b'-', rest @ ..] if !rest.is_empty() => rest,
        _ => text,
    };
    let value = digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    Some(match text {
        [b'-', ..] => value.wrapping_neg(),
        _ => value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_in_c() {
        for text in ["0", "", "-1", "+5", "007", "18446744073709551615", "1\0x"] {
            assert!(cursor(text.as_bytes()).is_some(), "{text:?}");
        }
        for text in ["x", " 1", "1 ", "-", "18446744073709551616", "1x"] {
            assert!(!cursor(text.as_bytes()).is_some(), "{text:?}");
        }
    }
}

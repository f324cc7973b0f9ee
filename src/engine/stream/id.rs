//! The ids of a stream's entries: `<milliseconds>-<number>`.

use bytes::Bytes;

use super::super::Refusal;
use crate::command::args;
use crate::model::{Reply, STREAM_ENTRY};

/// The id of an entry: milliseconds in the upper half, a number in the lower,
/// so that ids are ordered as the number they make together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(u128);

/// How long the text of an id may be, as in Redis.
const TEXT_MAX: usize = 127;

/// What an id says that is to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewId {
    /// `*`: made from the time.
    Auto,
    /// `<ms>-*`: the next number of that millisecond.
    Next(u64),
    /// A whole id.
    Given(Id),
}

impl Id {
    pub const MIN: Self = Self(0);
    pub const MAX: Self = Self(u128::MAX);

    pub fn new(ms: u64, seq: u64) -> Self {
        Self(u128::from(ms) << 64 | u128::from(seq))
    }

    pub fn ms(self) -> u64 {
        (self.0 >> 64) as u64
    }

    pub fn seq(self) -> u64 {
        self.0 as u64
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// What stands in the first 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
        Some(Self(u128::from_be_bytes(bytes)))
    }

    /// The field of the entry with this id.
    pub fn field(self) -> Bytes {
        let mut field = Vec::with_capacity(17);
        field.push(STREAM_ENTRY);
        field.extend_from_slice(&self.to_bytes());
        Bytes::from(field)
    }

    /// The id of the entry under `field`, if it is one.
    pub fn of_field(field: &[u8]) -> Option<Self> {
        let (kind, id) = field.split_first()?;
        (*kind == STREAM_ENTRY && id.len() == 16)
            .then(|| Self::from_bytes(id))
            .flatten()
    }

    /// The field behind which the entries from this id on stand.
    pub fn field_before(self) -> Bytes {
        match self.previous() {
            Some(previous) => previous.field(),
            None => Bytes::from_static(&[STREAM_ENTRY]),
        }
    }

    pub fn text(self) -> Bytes {
        Bytes::from(format!("{}-{}", self.ms(), self.seq()))
    }

    pub fn reply(self) -> Reply {
        Reply::Bulk(self.text())
    }

    /// An id as most commands take it; `missing` is the number where the text
    /// gives milliseconds only.
    pub fn parse_strict(text: &[u8], missing: u64) -> Result<Self, Refusal> {
        match parse(text, missing) {
            Some(NewId::Given(id)) => Ok(id),
            _ => Err(INVALID),
        }
    }

    /// The same, or `-` and `+` for the lowest and the highest.
    pub fn parse(text: &[u8], missing: u64) -> Result<Self, Refusal> {
        match bounded(text) {
            Some(b"-") => Ok(Self::MIN),
            Some(b"+") => Ok(Self::MAX),
            _ => Self::parse_strict(text, missing),
        }
    }

    /// The lower end of a range, perhaps open: `(1-0`.
    pub fn parse_start(text: &[u8]) -> Result<Self, Refusal> {
        let Some(open) = open_end(text) else {
            return Self::parse(text, 0);
        };
        let next = Self::parse_strict(open, 0)?.next();
        next.ok_or(Refusal::Other("ERR invalid start ID for the interval"))
    }

    /// The upper end of a range, perhaps open.
    pub fn parse_end(text: &[u8]) -> Result<Self, Refusal> {
        let Some(open) = open_end(text) else {
            return Self::parse(text, u64::MAX);
        };
        let previous = Self::parse_strict(open, u64::MAX)?.previous();
        previous.ok_or(Refusal::Other("ERR invalid end ID for the interval"))
    }
}

const INVALID: Refusal =
    Refusal::Other("ERR Invalid stream ID specified as stream command argument");

impl NewId {
    /// The id that `XADD` is given, `*` excepted.
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        parse(text, 0).ok_or(INVALID)
    }

    /// The id that an entry gets which is added at `now_ms` behind `last`;
    /// `None` if it would not be higher.
    pub fn choose(self, last: Id, now_ms: u64) -> Option<Id> {
        match self {
            Self::Auto if now_ms > last.ms() => Some(Id::new(now_ms, 0)),
            Self::Auto => last.next(),
            Self::Next(ms) if ms == last.ms() => {
                let seq = last.seq().checked_add(1)?;
                Some(Id::new(ms, seq))
            }
            Self::Next(ms) => Some(Id::new(ms, 0)).filter(|id| *id > last),
            Self::Given(id) => (id > last).then_some(id),
        }
    }
}

/// What follows `(`, if anything does.
fn open_end(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => Some(rest),
        _ => None,
    }
}

/// The text as C code sees it, unless it is too long for an id.
fn bounded(text: &[u8]) -> Option<&[u8]> {
    (text.len() <= TEXT_MAX).then(|| args::c_text(text))
}

fn parse(text: &[u8], missing: u64) -> Option<NewId> {
    let text = bounded(text)?;
    let Some(dash) = text.iter().position(|byte| *byte == b'-') else {
        return Some(NewId::Given(Id::new(unsigned(text)?, missing)));
    };
    let ms = unsigned(&text[..dash])?;
    match &text[dash + 1..] {
        b"*" => Some(NewId::Next(ms)),
        seq => Some(NewId::Given(Id::new(ms, unsigned(seq)?))),
    }
}

/// A number as Redis reads it in ids: in its own strict form, or else whatever
/// `strtoull` accepts, which skips spaces and wraps negative numbers around.
fn unsigned(text: &[u8]) -> Option<u64> {
    if let Some(strict) = args::integer(text) {
        return u64::try_from(strict).ok();
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_space(byte))?;
    let (is_negative, digits) = match &text[start..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number: u64 = 0;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    Some(if is_negative {
        number.wrapping_neg()
    } else {
        number
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        let max = u64::MAX;
        for (text, id) in [
            ("1-2", Some(Id::new(1, 2))),
            ("1", Some(Id::new(1, 7))),
            (
                "18446744073709551615-18446744073709551615",
                Some(Id::new(max, max)),
            ),
            ("18446744073709551616-0", None),
            ("01- +2", Some(Id::new(1, 2))),
            ("1--1", None),
            ("1--01", Some(Id::new(1, max))),
            ("1-", None),
            ("-1", None),
            ("1-2-3", None),
            ("1-*", None),
            ("", None),
            ("x", None),
            ("-", None),
        ] {
            let read = Id::parse_strict(text.as_bytes(), 7).ok();
            assert_eq!(read, id, "{text}");
        }
        assert_eq!(NewId::parse(b"5-*"), Ok(NewId::Next(5)));
        assert_eq!(Id::parse(b"+", 0), Ok(Id::MAX));
        assert_eq!(Id::parse_start(b"(1-2"), Ok(Id::new(1, 3)));
        assert_eq!(Id::parse_end(b"(1-0"), Ok(Id::new(0, max)));
        assert!(Id::parse_end(b"(0-0").is_err());
        assert!(Id::parse_start(b"(").is_err());
    }

    #[test]
    fn new_ids_only_grow() {
        let last = Id::new(5, u64::MAX);
        assert_eq!(NewId::Auto.choose(last, 9), Some(Id::new(9, 0)));
        assert_eq!(NewId::Auto.choose(last, 4), Some(Id::new(6, 0)));
        assert_eq!(NewId::Next(5).choose(last, 9), None);
        assert_eq!(NewId::Next(6).choose(last, 9), Some(Id::new(6, 0)));
        assert_eq!(NewId::Next(4).choose(last, 9), None);
        assert_eq!(NewId::Given(last).choose(last, 9), None);
        assert_eq!(NewId::Next(0).choose(Id::MIN, 9), Some(Id::new(0, 1)));
    }
}

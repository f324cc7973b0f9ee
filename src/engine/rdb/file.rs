//! A whole RDB file (<https://rdb.fnordig.de/file_format.html>, and `rdb.c` of Redis 7.0), of
//! which bytes come in pieces: what stands at their beginning, and how long that is; and the pieces
//! from which one is made.

use bytes::Bytes;

use super::content;
use super::text::{Reader, write_length, write_string};
use super::{VERSION, crc64_from};
use crate::engine::Refusal;
use crate::model::{Db, Element, Kind, UnixMs, Value};

/// How a file begins, behind which its version stands in four digits.
const MAGIC: &[u8; 5] = b"REDIS";
/// Bytes of the whole header.
const HEADER_BYTES: usize = 9;

const MODULE_AUX: u8 = 0xf7;
const FUNCTION: u8 = 0xf5;
const IDLE: u8 = 0xf8;
const FREQUENCY: u8 = 0xf9;
const AUX: u8 = 0xfa;
const SIZES: u8 = 0xfb;
const EXPIRES_MS: u8 = 0xfc;
const EXPIRES_S: u8 = 0xfd;
const SELECT: u8 = 0xfe;
const END: u8 = 0xff;

/// What stands at one place of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// What follows is in this database.
    Select(u64),
    /// A key.
    Key {
        /// Its name.
        name: Bytes,
        /// Its content as a payload of `DUMP`.
        payload: Bytes,
        /// When it ends.
        expires_at: Option<UnixMs>,
    },
    /// Nothing that is kept: what the server noted of itself, a library of functions.
    Other,
    /// The end; the checksum follows.
    End,
}

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It does not begin as an RDB file does.
    #[error("it is no RDB file")]
    NoRdb,
    /// A newer version than Freshet knows.
    #[error("it is of RDB version {0}; versions up to 10 (Redis 7.0) are read")]
    Version(u32),
    /// It holds what a module of Redis wrote.
    #[error("it holds data of a module, which Freshet does not know")]
    Module,
}

/// The length of a file's header; `None` if more bytes are needed.
pub fn header(bytes: &[u8]) -> Result<Option<usize>, Unreadable> {
    let Some((head, _)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Ok(None);
    };
    let digits = head.strip_prefix(MAGIC).ok_or(Unreadable::NoRdb)?;
    let version: Option<u32> = std::str::from_utf8(digits)
        .ok()
        .and_then(|v| v.parse().ok());
    match version.ok_or(Unreadable::NoRdb)? {
        0 => Err(Unreadable::NoRdb),
        version if version > u32::from(VERSION) => Err(Unreadable::Version(version)),
        _ => Ok(Some(HEADER_BYTES)),
    }
}

/// What `bytes` begin with behind the header, and its length; `None` if more bytes are needed, or,
/// if there are no more, it is damaged or of a type that is not known.
pub fn item(bytes: &[u8]) -> Result<Option<(Item, usize)>, Unreadable> {
    if bytes.first() == Some(&MODULE_AUX) {
        return Err(Unreadable::Module);
    }
    let mut reader = Reader::of(bytes);
    let found = read(bytes, &mut reader);
    Ok(found.map(|item| (item, bytes.len() - reader.left())))
}

fn read(bytes: &[u8], reader: &mut Reader<'_>) -> Option<Item> {
    let mut expires_at = None;
    loop {
        let start = bytes.len() - reader.left();
        match reader.byte()? {
            EXPIRES_MS => expires_at = Some(UnixMs(i64::from_le_bytes(reader.array()?))),
            EXPIRES_S => {
                let seconds = i64::from(i32::from_le_bytes(reader.array()?));
                expires_at = Some(UnixMs(seconds * 1000));
            }
            IDLE => {
                reader.number()?;
            }
            FREQUENCY => {
                reader.byte()?;
            }
            SELECT => return reader.number().map(Item::Select),
            END => return Some(Item::End),
            AUX => {
                reader.string()?;
                reader.string()?;
                return Some(Item::Other);
            }
            SIZES => {
                reader.number()?;
                reader.number()?;
                return Some(Item::Other);
            }
            FUNCTION => return reader.string().map(|_| Item::Other),
            kind => {
                let name = reader.string()?;
                let from = bytes.len() - reader.left();
                content::read(kind, reader)?;
                let content = &bytes[from..bytes.len() - reader.left()];
                let payload = super::sealed(&[&bytes[start..=start], content].concat());
                return Some(Item::Key {
                    name,
                    payload,
                    expires_at,
                });
            }
        }
    }
}

/// Appends what a file begins with, as Redis 7.0 writes it; it was made at this second since 1970.
pub fn write_start(out: &mut Vec<u8>, made_at_s: i64) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(format!("{VERSION:04}").as_bytes());
    let made_at = made_at_s.to_string();
    let notes = [
        ("redis-ver", "7.0.0"),
        ("redis-bits", "64"),
        ("ctime", &made_at),
        ("freshet-ver", env!("CARGO_PKG_VERSION")),
    ];
    for (name, value) in notes {
        out.push(AUX);
        write_string(out, name.as_bytes());
        write_string(out, value.as_bytes());
    }
}

/// Appends that what follows is in `db`, and, if that is known, how many keys there are and how many
/// of these end.
pub fn write_select(out: &mut Vec<u8>, db: Db, sizes: Option<(usize, usize)>) {
    out.push(SELECT);
    write_length(out, usize::from(db.index()));
    if let Some((keys, ending)) = sizes {
        out.push(SIZES);
        write_length(out, keys);
        write_length(out, ending);
    }
}

/// Appends a key.
///
/// # Errors
/// Unless all of its value is known.
pub fn write_key(
    out: &mut Vec<u8>,
    name: &[u8],
    value: &Value,
    expires_at: Option<UnixMs>,
) -> Result<(), Refusal> {
    let mut content = Vec::new();
    content::write(&mut content, value)?;
    let Some((kind, content)) = content.split_first() else {
        return Ok(());
    };
    write_end_of_key(out, expires_at);
    out.push(*kind);
    write_string(out, name);
    out.extend_from_slice(content);
    Ok(())
}

/// Appends a collection of so many elements, which follow; no stream.
pub fn write_large(
    out: &mut Vec<u8>,
    name: &[u8],
    (kind, elements): (Kind, u64),
    expires_at: Option<UnixMs>,
) {
    let mut content = Vec::new();
    content::start(&mut content, kind, elements);
    write_end_of_key(out, expires_at);
    out.push(content[0]);
    write_string(out, name);
    out.extend_from_slice(&content[1..]);
}

/// Appends the next of these elements.
pub fn write_element(out: &mut Vec<u8>, kind: Kind, field: &[u8], element: &Element) {
    content::write_element(out, kind, field, element);
}

/// Appends the end, which the checksum of all before follows.
pub fn write_end(out: &mut Vec<u8>) {
    out.push(END);
}

fn write_end_of_key(out: &mut Vec<u8>, expires_at: Option<UnixMs>) {
    if let Some(at) = expires_at {
        out.push(EXPIRES_MS);
        out.extend_from_slice(&at.0.to_le_bytes());
    }
}

/// The checksum of a file, as its bytes come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(u64);

impl Checksum {
    /// `bytes` follow.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = crc64_from(self.0, bytes);
    }

    /// As a number, to be kept.
    pub fn number(self) -> u64 {
        self.0
    }

    /// From that number.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }

    /// Whether the eight bytes behind the end of a file are right; zeros say that there is none.
    pub fn is(self, footer: [u8; 8]) -> bool {
        let told = u64::from_le_bytes(footer);
        told == 0 || told == self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::write_string;
    use super::super::value_of;
    use super::*;
    use crate::model::Value;

    fn written() -> Vec<u8> {
        let mut out = b"REDIS0010".to_vec();
        for (name, value) in [("redis-ver", "7.0.0"), ("redis-bits", "64")] {
            out.push(AUX);
            write_string(&mut out, name.as_bytes());
            write_string(&mut out, value.as_bytes());
        }
        out.extend_from_slice(&[SELECT, 3, EXPIRES_MS]);
        out.extend_from_slice(&77i64.to_le_bytes());
        out.push(0);
        write_string(&mut out, b"k");
        write_string(&mut out, b"v");
        out.push(END);
        out
    }

    #[test]
    fn what_is_written_is_read_from_pieces() {
        let bytes = written();
        let mut at = header(&bytes).unwrap().unwrap();
        let mut items = Vec::new();
        loop {
            let (item, length) = item(&bytes[at..]).unwrap().unwrap();
            for cut in 0..length {
                assert_eq!(super::item(&bytes[at..at + cut]), Ok(None), "{item:?}");
            }
            at += length;
            items.push(item);
            if items.last() == Some(&Item::End) {
                break;
            }
        }
        assert_eq!(at, bytes.len());
        let Item::Key {
            name,
            payload,
            expires_at,
        } = &items[3]
        else {
            panic!("{items:?}");
        };
        assert_eq!(items[2], Item::Select(3));
        assert_eq!((&name[..], *expires_at), (&b"k"[..], Some(UnixMs(77))));
        assert_eq!(value_of(payload), Ok(Value::String("v".into())));
    }

    #[test]
    fn what_is_no_file_of_a_known_version_is_refused() {
        assert_eq!(header(b"REDIS0010"), Ok(Some(9)));
        assert_eq!(header(b"REDIS00"), Ok(None));
        assert_eq!(header(b"REDIS0011"), Err(Unreadable::Version(11)));
        assert_eq!(header(b"SQLite format"), Err(Unreadable::NoRdb));
        assert_eq!(item(&[MODULE_AUX]), Err(Unreadable::Module));
    }

    #[test]
    fn a_checksum_of_zeros_is_none() {
        let mut checksum = Checksum::default();
        checksum.add(b"1234");
        checksum.add(b"56789");
        assert!(checksum.is(0xe9c6_d914_c4b8_d9ca_u64.to_le_bytes()));
        assert!(checksum.is([0; 8]) && !checksum.is([1; 8]));
    }
}

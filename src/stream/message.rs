//! What `pgoutput` tells, in version 1 of its protocol with binary values
//! (PostgreSQL's documentation, "Logical Replication Message Formats").

use bytes::{Buf, Bytes};

use super::StreamError;
use crate::model::{Db, Key};

/// A place in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// A change, or where one ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// What follows is of the transaction of this number.
    Begin { transaction: u32 },
    /// All before `end` was told; it was committed at `at` (microseconds since 2000).
    Commit { end: Lsn, at: i64 },
    /// The row of a key was written or deleted.
    Key(Key),
    /// All rows were deleted.
    Truncate,
    /// Nothing that counts.
    Other,
}

/// Which columns of the table of keys are which.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    db: usize,
    key: usize,
}

/// Reads one message after the other; what it learns of the table is kept.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// By the table's number, which is another one after it was made anew.
    tables: Vec<(u32, Columns)>,
}

/// It ends before it should.
const SHORT: StreamError = StreamError::Unknown("a message that is cut off");

impl Decoder {
    pub fn read(&mut self, mut bytes: Bytes) -> Result<Message, StreamError> {
        let bytes = &mut bytes;
        match byte(bytes)? {
            b'B' => {
                take(bytes, 8 + 8)?;
                let transaction = int(bytes)?.cast_unsigned();
                Ok(Message::Begin { transaction })
            }
            b'C' => {
                take(bytes, 1 + 8)?;
                let end = Lsn(long(bytes)?.cast_unsigned());
                let at = long(bytes)?;
                Ok(Message::Commit { end, at })
            }
            b'R' => self.relation(bytes).map(|()| Message::Other),
            b'I' => {
                let columns = self.columns(bytes)?;
                expect(bytes, b"N")?;
                named(tuple(bytes, columns)?)
            }
            b'U' => self.update(bytes),
            b'D' => {
                let columns = self.columns(bytes)?;
                expect(bytes, b"KO")?;
                named(tuple(bytes, columns)?)
            }
            b'T' => Ok(Message::Truncate),
            _ => Ok(Message::Other),
        }
    }

    fn relation(&mut self, bytes: &mut Bytes) -> Result<(), StreamError> {
        let number = int(bytes)?.cast_unsigned();
        text(bytes)?;
        text(bytes)?;
        take(bytes, 1)?;
        let count = short(bytes)?;
        let (mut db, mut key) = (None, None);
        for index in 0..usize::from(count.cast_unsigned()) {
            take(bytes, 1)?;
            match &text(bytes)?[..] {
                b"db" => db = Some(index),
                b"key" => key = Some(index),
                _ => {}
            }
            take(bytes, 8)?;
        }
        let (Some(db), Some(key)) = (db, key) else {
            return Err(StreamError::Unknown("a table that is not freshet.keys"));
        };
        self.tables.retain(|(other, _)| *other != number);
        self.tables.push((number, Columns { db, key }));
        Ok(())
    }

    fn columns(&self, bytes: &mut Bytes) -> Result<Columns, StreamError> {
        let number = int(bytes)?.cast_unsigned();
        let table = self.tables.iter().find(|(known, _)| *known == number);
        let table = table.ok_or(StreamError::Unknown("a table that was not told of"))?;
        Ok(table.1)
    }

    /// The key as it is now; if it is so long that it stands elsewhere, as it was: it does not change.
    fn update(&self, bytes: &mut Bytes) -> Result<Message, StreamError> {
        let columns = self.columns(bytes)?;
        let mut before = None;
        if bytes.first().is_some_and(|kind| b"KO".contains(kind)) {
            take(bytes, 1)?;
            before = tuple(bytes, columns)?;
        }
        expect(bytes, b"N")?;
        named(tuple(bytes, columns)?.or(before))
    }
}

fn named(key: Option<Key>) -> Result<Message, StreamError> {
    key.map(Message::Key)
        .ok_or(StreamError::Unknown("a row without its key"))
}

/// The key in a row; nothing if it is not told.
fn tuple(bytes: &mut Bytes, columns: Columns) -> Result<Option<Key>, StreamError> {
    let (mut db, mut name) = (None, None);
    let count = usize::from(short(bytes)?.cast_unsigned());
    for index in 0..count {
        match byte(bytes)? {
            b'n' | b'u' => continue,
            b'b' => {}
            _ => return Err(StreamError::Unknown("a value that is not binary")),
        }
        let length = usize::try_from(int(bytes)?).map_err(|_| SHORT)?;
        let mut value = take(bytes, length)?;
        if index == columns.db {
            db = u8::try_from(short(&mut value)?).ok().and_then(Db::new);
        } else if index == columns.key {
            name = Some(value);
        }
    }
    Ok(db.zip(name).map(|(db, name)| Key { db, name }))
}

fn expect(bytes: &mut Bytes, kinds: &[u8]) -> Result<(), StreamError> {
    match kinds.contains(&byte(bytes)?) {
        true => Ok(()),
        false => Err(StreamError::Unknown("a row of another kind")),
    }
}

/// A text that ends with a zero.
fn text(bytes: &mut Bytes) -> Result<Bytes, StreamError> {
    let length = bytes.iter().position(|byte| *byte == 0).ok_or(SHORT)?;
    let text = take(bytes, length)?;
    take(bytes, 1)?;
    Ok(text)
}

pub(super) fn take(bytes: &mut Bytes, length: usize) -> Result<Bytes, StreamError> {
    match length <= bytes.len() {
        true => Ok(bytes.split_to(length)),
        false => Err(SHORT),
    }
}

pub(super) fn byte(bytes: &mut Bytes) -> Result<u8, StreamError> {
    bytes.try_get_u8().map_err(|_| SHORT)
}

fn short(bytes: &mut Bytes) -> Result<i16, StreamError> {
    bytes.try_get_i16().map_err(|_| SHORT)
}

pub(super) fn int(bytes: &mut Bytes) -> Result<i32, StreamError> {
    bytes.try_get_i32().map_err(|_| SHORT)
}

pub(super) fn long(bytes: &mut Bytes) -> Result<i64, StreamError> {
    bytes.try_get_i64().map_err(|_| SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `R` for a table 7 with the columns version, db, key.
    fn relation() -> Vec<u8> {
        let mut bytes = b"R\0\0\0\x07freshet\0keys\0d\0\x03".to_vec();
        for name in ["version", "db", "key"] {
            bytes.push(1);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b"\0\0\0\0\x14\xff\xff\xff\xff");
        }
        bytes
    }

    /// A row of database 2; without a key its value is one that is told elsewhere.
    fn row(key: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = b"\0\x03nb\0\0\0\x02\0\x02".to_vec();
        match key {
            None => bytes.push(b'u'),
            Some(key) => {
                bytes.push(b'b');
                bytes.extend_from_slice(&(key.len() as u32).to_be_bytes());
                bytes.extend_from_slice(key);
            }
        }
        bytes
    }

    fn key(name: &'static [u8]) -> Message {
        Message::Key(Key::new(Db::new(2).unwrap(), name))
    }

    #[test]
    fn rows_tell_of_their_keys() {
        let mut decoder = Decoder::default();
        let mut read = |parts: &[&[u8]]| decoder.read(Bytes::from(parts.concat()));
        assert_eq!(read(&[&relation()]).unwrap(), Message::Other);
        let at = b"\0\0\0\x07";
        let (a, none) = (row(Some(b"a\0")), row(None));
        assert_eq!(read(&[b"I", at, b"N", &a]).unwrap(), key(b"a\0"));
        assert_eq!(read(&[b"U", at, b"N", &a]).unwrap(), key(b"a\0"));
        assert_eq!(
            read(&[b"U", at, b"K", &a, b"N", &none]).unwrap(),
            key(b"a\0")
        );
        assert_eq!(read(&[b"D", at, b"K", &a]).unwrap(), key(b"a\0"));
        assert_eq!(read(&[b"T\0\0\0\x01\0", at]).unwrap(), Message::Truncate);
        let commit = [&b"C\0"[..], &[0; 8], &[0, 0, 0, 0, 0, 0, 1, 2], &[0; 8]].concat();
        let end = Message::Commit {
            end: Lsn(258),
            at: 0,
        };
        assert_eq!(read(&[&commit]).unwrap(), end);
        let begin = [&b"B"[..], &[0; 16], &[0, 0, 1, 3]].concat();
        let transaction = 259;
        assert_eq!(read(&[&begin]).unwrap(), Message::Begin { transaction });
        assert!(read(&[b"U", at, b"N", &none]).is_err());
        assert!(read(&[b"I\0\0\0\x08N", &a]).is_err());
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = [&b"U\0\0\0\x07K"[..], &row(Some(b"abc")), b"N", &row(None)].concat();
        for message in [relation(), whole] {
            for cut in 0..message.len() {
                let mut decoder = Decoder::default();
                if message[0] != b'R' {
                    decoder.read(Bytes::from(relation())).unwrap();
                }
                let cut = Bytes::copy_from_slice(&message[..cut]);
                assert!(decoder.read(cut).is_err());
            }
        }
    }
}

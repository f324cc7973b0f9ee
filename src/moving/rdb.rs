//! An RDB file, read key by key.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::Failure;
use super::peer::Incoming;
use crate::engine::rdb_file::{self, Checksum, Item};
use crate::model::{Db, Key};
use crate::store::FilePlace;

/// Bytes that are read at once; a longer key takes more.
const PIECE: usize = 1 << 20;
const FOOTER_BYTES: usize = 8;

/// A file under way.
pub(super) struct RdbFile {
    name: String,
    file: File,
    length: u64,
    /// What was read and not taken yet begins at `at`.
    buffer: Vec<u8>,
    at: usize,
    is_at_end: bool,
    checksum: Checksum,
    /// Bytes that were taken.
    taken: u64,
    db: Db,
    is_over: bool,
}

impl RdbFile {
    /// Opens it, and checks that it is one.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let broken = |error| Failure::File(name.clone(), error);
        let file = File::open(path).map_err(broken)?;
        let length = file.metadata().map_err(broken)?.len();
        let mut opened = Self {
            name,
            file,
            length,
            buffer: Vec::new(),
            at: 0,
            is_at_end: false,
            checksum: Checksum::default(),
            taken: 0,
            db: Db::default(),
            is_over: false,
        };
        opened.read_more()?;
        match rdb_file::header(&opened.buffer)? {
            Some(header) => opened.take(header),
            None => return Err(opened.damaged()),
        }
        Ok(opened)
    }

    /// Where it is: behind the last key that was told.
    pub fn place(&self) -> FilePlace {
        FilePlace {
            bytes: self.taken,
            checksum: self.checksum.number(),
            db: self.db,
        }
    }

    /// Goes on at `place`, where it once was.
    pub fn resume(&mut self, place: FilePlace) -> Result<(), Failure> {
        let sought = self.file.seek(SeekFrom::Start(place.bytes));
        sought.map_err(|error| Failure::File(self.name.clone(), error))?;
        self.buffer.clear();
        self.at = 0;
        self.is_at_end = false;
        self.taken = place.bytes;
        self.checksum = Checksum::of_number(place.checksum);
        self.db = place.db;
        Ok(())
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next key; `None` behind the last, when the checksum was right. `read` is told of the bytes
    /// that were taken.
    pub fn next_key(&mut self, mut read: impl FnMut(u64)) -> Result<Option<Incoming>, Failure> {
        while !self.is_over {
            let Some((item, length)) = rdb_file::item(&self.buffer[self.at..])? else {
                if self.is_at_end {
                    return Err(self.damaged());
                }
                self.read_more()?;
                continue;
            };
            self.take(length);
            read(length as u64);
            match item {
                Item::Select(number) => {
                    let db = u8::try_from(number).ok().and_then(Db::new);
                    self.db = db.ok_or_else(|| {
                        Failure::Other(format!("database {number} has keys; Freshet has 0 to 15"))
                    })?;
                }
                Item::Key {
                    name,
                    payload,
                    expires_at,
                } => {
                    let key = Key::new(self.db, name);
                    return Ok(Some(Incoming {
                        key,
                        payload,
                        expires_at,
                    }));
                }
                Item::Other => {}
                Item::End => self.check_end()?,
            }
        }
        Ok(None)
    }

    fn check_end(&mut self) -> Result<(), Failure> {
        while !self.is_at_end && self.buffer.len() - self.at < FOOTER_BYTES {
            self.read_more()?;
        }
        let Some(footer) = self.buffer[self.at..].first_chunk::<FOOTER_BYTES>() else {
            return Err(self.damaged());
        };
        if !self.checksum.is(*footer) {
            return Err(Failure::Other(format!(
                "{}: its checksum is wrong",
                self.name
            )));
        }
        self.is_over = true;
        Ok(())
    }

    fn take(&mut self, length: usize) {
        self.checksum.add(&self.buffer[self.at..self.at + length]);
        self.at += length;
        self.taken += length as u64;
    }

    /// Twice as much as is there, so that a long key is not tried again too often.
    fn read_more(&mut self) -> Result<(), Failure> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let wanted = PIECE.max(self.buffer.len()) as u64;
        let read = self
            .file
            .by_ref()
            .take(wanted)
            .read_to_end(&mut self.buffer);
        let read = read.map_err(|error| Failure::File(self.name.clone(), error))?;
        self.is_at_end = read == 0;
        Ok(())
    }

    fn damaged(&self) -> Failure {
        let place = self
            .length
            .saturating_sub((self.buffer.len() - self.at) as u64);
        Failure::Other(format!(
            "{}: damaged, cut off or of a type that is not known, at byte {place} or before",
            self.name
        ))
    }
}

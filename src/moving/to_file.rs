//! An RDB file that is being made: under another name until it is whole and on the disk.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Failure;
use super::count::Counts;
use super::walk::{Page, Position, Sink};
use crate::engine::rdb_file::{self, Checksum};
use crate::model::{Db, Kind, Value};
use crate::store::{Held, LargeKey, Place, Stored, View};

/// Bytes that are gathered before they go to the file.
const PIECE: usize = 256 << 10;
/// Between two notes of how far it is.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// How many keys a database has, and how many of these end.
pub(super) type Sizes = Vec<(Db, i64, i64)>;

/// What is on the disk: written beside the file while that is made.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    pattern: String,
    /// Where the first key is that is not in the file.
    next: Position,
    /// The database that the file is in.
    selected: Option<u8>,
    /// Bytes of the file that count, and their checksum.
    bytes: u64,
    checksum: u64,
    keys: u64,
    /// Of how many moments it tells: each start is one.
    moments: u32,
}

/// A file under way.
pub(super) struct ToFile<'a> {
    path: PathBuf,
    file: BufWriter<File>,
    checksum: Checksum,
    bytes: u64,
    buffer: Vec<u8>,
    selected: Option<Db>,
    sizes: Sizes,
    pattern: String,
    keys: u64,
    moments: u32,
    noted_at: Instant,
    counts: &'a Counts,
}

impl<'a> ToFile<'a> {
    /// Begins the file that will be at `path`. Of how many keys there are the file tells unless
    /// `pattern` chooses some.
    pub fn create(
        path: &Path,
        pattern: &str,
        sizes: Sizes,
        counts: &'a Counts,
    ) -> Result<Self, Failure> {
        let partial = beside(path, "partial");
        let file = File::create(&partial).map_err(|error| failure(&partial, error))?;
        let mut created = Self::on(path, file, pattern, counts);
        created.sizes = sizes;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        rdb_file::write_start(&mut created.buffer, now.as_secs().cast_signed());
        created.write_out()?;
        Ok(created)
    }

    /// Goes on where an export to `path` ended before it was over; where that is. Nothing if there is none.
    pub fn resume(
        path: &Path,
        pattern: &str,
        sizes: Sizes,
        counts: &'a Counts,
    ) -> Result<Option<(Self, Position)>, Failure> {
        let (partial, note) = (beside(path, "partial"), beside(path, "progress"));
        if !note.exists() {
            return Ok(None);
        }
        let text = fs::read(&note).map_err(|error| failure(&note, error))?;
        let note: Note = serde_json::from_slice(&text)
            .map_err(|error| Failure::Other(format!("{}: {error}", note.display())))?;
        if note.pattern != pattern {
            return Err(Failure::Other(format!(
                "what is there is of keys that match '{}', not '{pattern}'",
                note.pattern
            )));
        }
        let broken = |error| failure(&partial, error);
        let mut file = File::options().write(true).open(&partial).map_err(broken)?;
        if file.metadata().map_err(broken)?.len() < note.bytes {
            return Err(Failure::Other(format!(
                "{} is shorter than it was",
                partial.display()
            )));
        }
        file.set_len(note.bytes).map_err(broken)?;
        file.seek(SeekFrom::End(0)).map_err(broken)?;
        let mut resumed = Self::on(path, file, pattern, counts);
        resumed.bytes = note.bytes;
        resumed.checksum = Checksum::of_number(note.checksum);
        resumed.selected = note.selected.and_then(Db::new);
        resumed.sizes = sizes;
        resumed.keys = note.keys;
        resumed.moments = note.moments + 1;
        Ok(Some((resumed, note.next)))
    }

    fn on(path: &Path, file: File, pattern: &str, counts: &'a Counts) -> Self {
        Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(PIECE, file),
            checksum: Checksum::default(),
            bytes: 0,
            buffer: Vec::new(),
            selected: None,
            sizes: Sizes::new(),
            pattern: pattern.to_owned(),
            keys: 0,
            moments: 1,
            noted_at: Instant::now(),
            counts,
        }
    }

    /// Of how many moments it tells.
    pub fn moments(&self) -> u32 {
        self.moments
    }

    /// Ends the file, and gives it its name once it is on the disk. How many keys it holds.
    pub fn finish(mut self) -> Result<u64, Failure> {
        rdb_file::write_end(&mut self.buffer);
        self.write_out()?;
        let checksum = self.checksum.number().to_le_bytes();
        let partial = beside(&self.path, "partial");
        let broken = |error| failure(&partial, error);
        self.file.write_all(&checksum).map_err(broken)?;
        self.file.flush().map_err(broken)?;
        self.file.get_ref().sync_all().map_err(broken)?;
        fs::rename(&partial, &self.path).map_err(broken)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failure(folder, error))?;
        // It need not be there: of a short export there never was one.
        let _ = fs::remove_file(beside(&self.path, "progress"));
        Ok(self.keys)
    }

    fn write_out(&mut self) -> Result<(), Failure> {
        self.checksum.add(&self.buffer);
        self.bytes += self.buffer.len() as u64;
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| failure(&beside(&self.path, "partial"), error))
    }

    fn select(&mut self, db: Db) {
        if self.selected == Some(db) {
            return;
        }
        self.selected = Some(db);
        let sizes = self.sizes.iter().find(|(of, ..)| *of == db);
        let sizes = sizes.filter(|_| self.pattern == "*");
        let sizes = sizes.map(|(_, keys, ending)| (*keys as usize, *ending as usize));
        rdb_file::write_select(&mut self.buffer, db, sizes);
    }

    async fn put_key(&mut self, view: &View, stored: &Stored) -> Result<(), Failure> {
        match &stored.held {
            Held::Value(value) => self.put_value(stored, value),
            Held::Large(large) if large.kind == Kind::Stream => match view.whole(large).await? {
                Some(value) => self.put_value(stored, &value),
                None => {
                    self.counts.too_large(&stored.key);
                    Ok(())
                }
            },
            Held::Large(large) => self.put_pieces(view, stored, large).await,
        }
    }

    fn put_value(&mut self, stored: &Stored, value: &Value) -> Result<(), Failure> {
        self.select(stored.key.db);
        let (name, end) = (&stored.key.name, stored.expires_at);
        rdb_file::write_key(&mut self.buffer, name, value, end)
            .map_err(|_| Failure::Other(format!("{:?} was not loaded whole", stored.key)))?;
        self.note_key();
        match self.buffer.len() {
            0..PIECE => Ok(()),
            _ => self.write_out(),
        }
    }

    async fn put_pieces(
        &mut self,
        view: &View,
        stored: &Stored,
        large: &LargeKey,
    ) -> Result<(), Failure> {
        let count = view.count(large).await?;
        if count == 0 {
            return Ok(());
        }
        self.select(stored.key.db);
        let (name, end) = (&stored.key.name, stored.expires_at);
        rdb_file::write_large(&mut self.buffer, name, (large.kind, count), end);
        let mut place = Place::default();
        while let Some(piece) = view.piece(large, &mut place).await? {
            for (field, element) in piece.present() {
                rdb_file::write_element(&mut self.buffer, large.kind, field, element);
            }
            self.write_out()?;
        }
        self.note_key();
        Ok(())
    }

    fn note_key(&mut self) {
        self.keys += 1;
        self.counts.written(1);
    }

    /// Everything before is on the disk when the note is.
    fn note(&mut self, next: &Position) -> Result<(), Failure> {
        self.write_out()?;
        let partial = beside(&self.path, "partial");
        let broken = |error| failure(&partial, error);
        self.file.flush().map_err(broken)?;
        self.file.get_ref().sync_data().map_err(broken)?;
        let note = Note {
            pattern: self.pattern.clone(),
            next: next.clone(),
            selected: self.selected.map(Db::index),
            bytes: self.bytes,
            checksum: self.checksum.number(),
            keys: self.keys,
            moments: self.moments,
        };
        let text = serde_json::to_vec(&note).map_err(|error| Failure::Other(error.to_string()))?;
        let (path, new) = (
            beside(&self.path, "progress"),
            beside(&self.path, "progress-new"),
        );
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        written.map_err(|error| failure(&path, error))?;
        self.noted_at = Instant::now();
        Ok(())
    }
}

impl Sink for ToFile<'_> {
    async fn put(&mut self, page: &Page) -> Result<(), Failure> {
        for stored in &page.keys {
            self.put_key(&page.view, stored).await?;
        }
        Ok(())
    }

    async fn reached(&mut self, next: &Position) -> Result<(), Failure> {
        match self.noted_at.elapsed() < NOTE_EVERY {
            true => Ok(()),
            false => self.note(next),
        }
    }
}

/// The path of a file that belongs to the one at `path`.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    PathBuf::from(name)
}

fn failure(path: &Path, error: std::io::Error) -> Failure {
    Failure::File(path.display().to_string(), error)
}

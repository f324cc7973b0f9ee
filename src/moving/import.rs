//! From another Redis, or from an RDB file, into the store.
//!
//! A live import goes over the source by SCAN in rounds, and in each brings in what is new or has changed
//! since. It needs nothing of the source but `SCAN`, `DUMP`, `PEXPIRETIME` (or `PTTL`), `EXISTS`.
//! What is guaranteed: when nobody writes to the source any more, one whole round makes everything
//! here as it is there, and deletes what the import had brought in and is gone there. What is said of
//! a key that is being written is as old as its last round.
//!
//! A key that a client has written here is kept (or replaced, if that is wanted): a write of the import is
//! guarded by the version that it saw, so it never overwrites what it has not seen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use ahash::AHashMap;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Failure;
use super::count::Counts;
use super::export::Start;
use super::peer::{Incoming, Peer};
use super::rdb::RdbFile;
use super::target::{Target, What, Write, Written, seen};
use super::verify::Differences;
use crate::command::glob::{self, Case};
use crate::engine::{self, Content, Digest, Loaded};
use crate::model::{Db, Key, UnixMs};
use crate::progress::Progress;
use crate::store::FilePlace;

/// Keys that are brought in together, and batches under way at once.
pub(super) const BATCH: usize = 1000;
const PARALLEL: usize = 4;
/// Bytes of a file's keys that are brought in together; a longer key goes alone.
const BATCH_BYTES: usize = 16 << 20;
/// Ends this close are the same: an old Redis tells only how long a key has left.
const END_SLACK_MS: u64 = 1000;
/// Between two rounds.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// Between two notes of how far a file is.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Keys of a file that are worked on together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) keys: Vec<Incoming>,
    bytes: usize,
}

impl Batch {
    pub(super) fn push(&mut self, key: Incoming) {
        self.bytes += key.payload.len();
        self.keys.push(key);
    }

    /// Whether no more should be put in.
    pub(super) fn is_full(&self) -> bool {
        self.keys.len() == BATCH || self.bytes > BATCH_BYTES
    }
}

/// Which value stays where a client has written a key here too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// That which is here.
    Keep,
    /// That of the source.
    Replace,
}

/// What an import does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which keys, as `KEYS` matches them.
    pub pattern: String,
    /// Keys a second at most; 0: no bound.
    pub rate: u32,
    /// Which value stays.
    pub conflict: Conflict,
    /// Whether rounds go on until [`import_live`] is told to finish.
    pub follow: bool,
    /// Whether every key is compared at the end.
    pub verify: bool,
    /// Where an import of a file begins. (One of a server always goes over all keys: what is here as it
    /// is there costs only the look at it.)
    pub start: Start,
}

/// What a value was that was brought in. Small: there is one for each key.
pub(super) type Imported = (Digest, Option<UnixMs>);

/// What an import came to.
#[derive(Debug)]
pub struct Import {
    /// What became of the keys.
    pub counts: Arc<Counts>,
    /// Rounds over the source.
    pub rounds: u32,
    /// Whether one that was not over went on.
    pub resumed: bool,
    /// Keys that differ at the end, if that was asked for; the first by name.
    pub differences: Option<Differences>,
}

pub(super) struct Work {
    pub(super) target: Target,
    pub(super) options: Options,
    counts: Arc<Counts>,
    /// What this import has brought in, or found to be here.
    ledger: Mutex<AHashMap<Key, Imported>>,
}

/// Brings in all keys of `source`. While it follows, `finish` says when the last round begins.
pub async fn import_live(
    target: Target,
    source: Peer,
    options: Options,
    (progress, finish): (&Progress, watch::Receiver<bool>),
) -> Result<Import, Failure> {
    let source = Arc::new(source);
    let work = Arc::new(Work::new(target, options));
    let mut rounds = 0;
    loop {
        let is_last = !work.options.follow || *finish.borrow();
        rounds += 1;
        work.counts.begin_round();
        work.round(&source, progress).await?;
        if work.options.follow {
            work.delete_gone(&source).await?;
        }
        if is_last {
            break;
        }
        let mut finish = finish.clone();
        // The sender lives as long as the command.
        let _ = tokio::time::timeout(ROUND_PAUSE, finish.wait_for(|finish| *finish)).await;
    }
    let differences = match work.options.verify {
        true => Some(work.verify(&source, progress).await?),
        false => None,
    };
    work.end(rounds, differences).await
}

/// Brings in all keys of the RDB file at `path`.
pub async fn import_file(
    target: Target,
    path: &Path,
    options: Options,
    progress: &Progress,
) -> Result<Import, Failure> {
    let work = Arc::new(Work::new(target, options));
    let mut file = RdbFile::open(path)?;
    let source = named(path)?;
    let (store, pattern) = (work.target.store(), &work.options.pattern);
    let known = match work.options.start {
        Start::Resume => store.import_place(&source, pattern).await?,
        Start::Anew => None,
    };
    progress.begin("bytes read", file.length());
    if let Some(place) = known {
        file.resume(place)?;
        progress.advance(place.bytes);
    }
    work.bring_file_in(&mut file, &source, progress).await?;
    store.forget_import_place(&source, pattern).await?;
    let differences = match work.options.verify {
        true => Some(work.verify_file(path, progress).await?),
        false => None,
    };
    let mut import = work.end(1, differences).await?;
    import.resumed = known.is_some();
    Ok(import)
}

/// A file as it is known again: the same path, length and time.
fn named(path: &Path) -> Result<String, Failure> {
    let broken = |error| Failure::File(path.display().to_string(), error);
    let whole = path.canonicalize().map_err(broken)?;
    let metadata = path.metadata().map_err(broken)?;
    let changed = metadata.modified().map_err(broken)?;
    let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!(
        "{} ({} bytes of {}.{:09})",
        whole.display(),
        metadata.len(),
        changed.as_secs(),
        changed.subsec_nanos()
    ))
}

/// Which batches of a file are done, in whatever order they end.
#[derive(Default)]
struct Done {
    started: u64,
    /// All batches of lower numbers are done.
    next: u64,
    /// Later ones that are.
    later: BTreeMap<u64, FilePlace>,
    /// Before it all is here.
    place: Option<FilePlace>,
}

impl Done {
    fn start(&mut self) -> u64 {
        self.started += 1;
        self.started - 1
    }

    fn end(&mut self, number: u64, place: FilePlace) {
        self.later.insert(number, place);
        while let Some(place) = self.later.remove(&self.next) {
            self.place = Some(place);
            self.next += 1;
        }
    }
}

impl Work {
    fn new(target: Target, options: Options) -> Self {
        Self {
            target,
            options,
            counts: Arc::default(),
            ledger: Mutex::default(),
        }
    }

    async fn end(
        self: Arc<Self>,
        rounds: u32,
        differences: Option<Differences>,
    ) -> Result<Import, Failure> {
        let counts = Arc::clone(&self.counts);
        if let Ok(work) = Arc::try_unwrap(self) {
            work.target.stop().await;
        }
        Ok(Import {
            counts,
            rounds,
            resumed: false,
            differences,
        })
    }

    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let pattern = &self.options.pattern;
        pattern == "*" || glob::matches(pattern.as_bytes(), name, Case::Sensitive)
    }

    fn imported(&self, key: &Key) -> Option<Imported> {
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.get(key).copied()
    }

    fn remember(&self, key: Key, imported: Option<Imported>) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        match imported {
            // Only who comes again wants to know.
            Some(imported) if self.options.follow => drop(ledger.insert(key, imported)),
            Some(_) => {}
            None => drop(ledger.remove(&key)),
        }
    }

    async fn hold_to_rate(&self, started: Instant) {
        if self.options.rate > 0 {
            let keys = self.counts.all_read() as f64;
            let due = Duration::from_secs_f64(keys / f64::from(self.options.rate));
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        }
    }

    /// One round over the source.
    async fn round(
        self: &Arc<Self>,
        source: &Arc<Peer>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let databases = source.databases().await?;
        progress.begin("keys read", databases.iter().map(|(_, keys)| keys).sum());
        let (started, before) = (Instant::now(), self.counts.all_read());
        let mut tasks = JoinSet::new();
        for (db, _) in databases {
            let mut cursor = 0;
            loop {
                let step = (self.options.pattern.as_str(), BATCH);
                let (next, mut names) = source.scan(db, cursor, step).await?;
                names.sort_unstable();
                names.dedup();
                progress.advance(names.len() as u64);
                make_room(&mut tasks).await?;
                let (work, source) = (Arc::clone(self), Arc::clone(source));
                tasks.spawn(async move { work.bring_in(&source, db, names).await });
                if self.options.rate > 0 {
                    let keys = (self.counts.all_read() - before) as f64;
                    let due = Duration::from_secs_f64(keys / f64::from(self.options.rate));
                    tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        finish_all(&mut tasks).await
    }

    async fn bring_in(&self, source: &Peer, db: Db, names: Vec<Bytes>) -> Result<(), Failure> {
        let found = source.read(db, &names).await?;
        self.put(found.into_iter().flatten().collect()).await
    }

    async fn bring_file_in(
        self: &Arc<Self>,
        file: &mut RdbFile,
        source: &str,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let done: Arc<Mutex<Done>> = Arc::default();
        let (mut batch, mut tasks) = (Batch::default(), JoinSet::new());
        let (started, mut noted_at) = (Instant::now(), Instant::now());
        loop {
            let next = file.next_key(|bytes| progress.advance(bytes))?;
            let is_last = next.is_none();
            if let Some(key) = next.filter(|key| self.matches(&key.key.name)) {
                batch.push(key);
            }
            if is_last || batch.is_full() {
                make_room(&mut tasks).await?;
                let batch = std::mem::take(&mut batch).keys;
                let place = (locked(&done).start(), file.place());
                tasks.spawn(Arc::clone(self).put_of_file(batch, place, Arc::clone(&done)));
                self.hold_to_rate(started).await;
            }
            if is_last {
                return finish_all(&mut tasks).await;
            }
            if noted_at.elapsed() >= NOTE_EVERY {
                noted_at = Instant::now();
                let place = locked(&done).place;
                if let Some(place) = place {
                    let (store, pattern) = (self.target.store(), &self.options.pattern);
                    store.keep_import_place(source, pattern, place).await?;
                }
            }
        }
    }

    /// Brings in the batch of this number, behind which the file stood at `place`.
    async fn put_of_file(
        self: Arc<Self>,
        batch: Vec<Incoming>,
        (number, place): (u64, FilePlace),
        done: Arc<Mutex<Done>>,
    ) -> Result<(), Failure> {
        self.put(batch).await?;
        locked(&done).end(number, place);
        Ok(())
    }

    /// Brings these keys in.
    async fn put(&self, incoming: Vec<Incoming>) -> Result<(), Failure> {
        self.counts.read(incoming.len() as u64);
        let mut unknown = Vec::new();
        let mut known = Vec::new();
        for one in incoming {
            let Some(imported) = self.describe(&one) else {
                continue;
            };
            match self.imported(&one.key) {
                None => unknown.push((one, imported)),
                Some(before) if is_same(before, imported) => self.counts.same(1),
                Some(before) => known.push((one, imported, Some(before))),
            }
        }
        // Most are not here yet, which need not be looked at first.
        let writes = unknown.iter().map(|(one, _)| write(one, None)).collect();
        let written = self.target.write(writes).await?;
        for ((one, imported), written) in unknown.into_iter().zip(written) {
            match written {
                Written::Busy => known.push((one, imported, None)),
                written => self.conclude(one.key, imported, written),
            }
        }
        self.put_over(known).await
    }

    /// Brings in keys that are here, or were: where that is what the import left, or if it may.
    async fn put_over(
        &self,
        known: Vec<(Incoming, Imported, Option<Imported>)>,
    ) -> Result<(), Failure> {
        let keys: Vec<Key> = known.iter().map(|(one, ..)| one.key.clone()).collect();
        let here = self.target.load(&keys).await?;
        let (mut writes, mut kept) = (Vec::new(), Vec::new());
        for ((one, imported, before), here) in known.into_iter().zip(here) {
            let now = here.as_ref().and_then(present);
            let is_absent = here
                .as_ref()
                .is_some_and(|here| here.content == Content::Absent);
            if now.is_some_and(|now| is_same(now, imported)) {
                self.counts.same(1);
                self.remember(one.key, Some(imported));
                continue;
            }
            let is_ours = before.is_some_and(|before| now.is_some_and(|now| is_same(now, before)));
            if is_absent || is_ours || self.options.conflict == Conflict::Replace {
                writes.push(write(&one, here.as_ref()));
                kept.push((one.key, imported));
            } else {
                self.counts.conflict(format!("{:?}", one.key));
            }
        }
        let written = self.target.write(writes).await?;
        for ((key, imported), written) in kept.into_iter().zip(written) {
            self.conclude(key, imported, written);
        }
        Ok(())
    }

    fn conclude(&self, key: Key, imported: Imported, written: Written) {
        match written {
            Written::Done => {
                self.counts.written(1);
                self.remember(key, Some(imported));
            }
            // A client writes it here at this moment: the next round looks again.
            Written::Busy | Written::Changed => self.counts.conflict(format!("{key:?}")),
            Written::Refused(why) => self.counts.refused(&format!("{key:?}"), &why),
        }
    }

    /// What a key of the source holds; nothing, and noted, if that cannot be read.
    fn describe(&self, one: &Incoming) -> Option<Imported> {
        let digest = engine::restored(&one.payload)
            .ok()
            .and_then(|value| engine::digest(&value).ok());
        if digest.is_none() {
            let key = format!("{:?}", one.key);
            self.counts
                .refused(&key, "its content is of a form that Freshet does not know");
        }
        Some((digest?, one.expires_at))
    }

    /// Deletes what the import has brought in, is as it was, and is gone at the source.
    async fn delete_gone(&self, source: &Peer) -> Result<(), Failure> {
        let mut keys: Vec<(Key, Imported)> = {
            let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger
                .iter()
                .map(|(key, imported)| (key.clone(), *imported))
                .collect()
        };
        keys.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        for keys in keys.chunk_by(|one, other| one.0.db == other.0.db) {
            for keys in keys.chunks(BATCH) {
                let names: Vec<Bytes> = keys.iter().map(|(key, _)| key.name.clone()).collect();
                let present = source.present(keys[0].0.db, &names).await?;
                let gone = keys.iter().zip(present).filter(|(_, present)| !present);
                self.delete(gone.map(|(key, _)| key.clone()).collect())
                    .await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, gone: Vec<(Key, Imported)>) -> Result<(), Failure> {
        let keys: Vec<Key> = gone.iter().map(|(key, _)| key.clone()).collect();
        let here = self.target.load(&keys).await?;
        let mut writes = Vec::new();
        for ((key, imported), here) in gone.into_iter().zip(here) {
            match here.as_ref().map(|here| (present(here), here)) {
                Some((Some(now), here)) if is_same(now, imported) => writes.push(Write {
                    key,
                    what: What::Delete,
                    seen: Some(seen(here)),
                }),
                // It ended, or a client has changed it here.
                _ => self.remember(key, None),
            }
        }
        let keys: Vec<Key> = writes.iter().map(|write| write.key.clone()).collect();
        for (key, written) in keys.into_iter().zip(self.target.write(writes).await?) {
            if written == Written::Done {
                self.counts.deleted(1);
                self.remember(key, None);
            }
        }
        Ok(())
    }
}

fn locked(done: &Mutex<Done>) -> MutexGuard<'_, Done> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn make_room(tasks: &mut JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    while tasks.len() >= PARALLEL {
        join(tasks).await?;
    }
    Ok(())
}

async fn finish_all(tasks: &mut JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    while !tasks.is_empty() {
        join(tasks).await?;
    }
    Ok(())
}

async fn join(tasks: &mut JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    match tasks.join_next().await {
        None => Ok(()),
        Some(Ok(done)) => done,
        Some(Err(error)) => Err(Failure::Other(error.to_string())),
    }
}

/// Puts it where nothing is; or, if it was seen, in place of what was seen.
fn write(one: &Incoming, here: Option<&Loaded>) -> Write {
    Write {
        key: one.key.clone(),
        what: What::Put {
            payload: one.payload.clone(),
            expires_at: one.expires_at,
            replace: here.is_some(),
        },
        seen: here.map(seen),
    }
}

/// What is here, if anything is.
pub(super) fn present(here: &Loaded) -> Option<Imported> {
    let Content::Value(value) = &here.content else {
        return None;
    };
    Some((engine::digest(value).ok()?, here.expires_at))
}

pub(super) fn is_same(one: Imported, other: Imported) -> bool {
    one.0 == other.0
        && match (one.1, other.1) {
            (None, None) => true,
            (Some(one), Some(other)) => one.0.abs_diff(other.0) <= END_SLACK_MS,
            _ => false,
        }
}

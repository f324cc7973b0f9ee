//! From the store into another Redis, or into an RDB file.
//!
//! To a Redis each page of keys is read from one moment, and each key is there as it was at one moment;
//! to a file all of it is of one moment (unless it was resumed).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;

use super::Failure;
use super::count::Counts;
use super::import::{Batch, Imported, is_same};
use super::peer::{Incoming, Peer};
use super::rdb::RdbFile;
use super::to_file::ToFile;
use super::to_redis::{ToRedis, ask};
use super::verify::Differences;
use super::walk::{Position, Walk, end, total};
use crate::engine;
use crate::model::{Key, Kind, Reply};
use crate::progress::Progress;
use crate::store::{Held, LargeKey, Store, Stored, View};

/// Looks at a key that differs, before it counts, where clients go on writing.
const VERIFY_LOOKS: u32 = 5;
const VERIFY_PAUSE: Duration = Duration::from_millis(300);

/// Where an export begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first key.
    Anew,
    /// Where one that was not over stopped; if there is none, with the first key.
    Resume,
}

/// What an export does.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Which keys, as `KEYS` matches them.
    pub pattern: String,
    /// Keys a second at most; 0: no bound.
    pub rate: u32,
    /// Where it begins.
    pub start: Start,
    /// Whether every key is compared at the end.
    pub verify: bool,
}

/// What an export came to.
#[derive(Debug)]
pub struct Export {
    /// What became of the keys.
    pub counts: Counts,
    /// Whether one that was not over went on.
    pub resumed: bool,
    /// Of how many moments a file tells.
    pub moments: u32,
    /// Keys that differ at the end, if that was asked for; the first by name.
    pub differences: Option<Differences>,
}

/// Brings the keys of `store` to `peer`.
pub async fn export_to_redis(
    store: &Store,
    peer: &Peer,
    options: &ExportOptions,
    progress: &Progress,
) -> Result<Export, Failure> {
    let counts = Counts::default();
    let patterns = [options.pattern.clone()];
    let walk = Walk::new(store, None, &patterns, options.rate);
    let mut sink = ToRedis::new(peer, &options.pattern, &counts);
    let noted = match options.start {
        Start::Resume => sink.noted().await?,
        Start::Anew => None,
    };
    let resumed = noted.is_some();
    progress.begin("keys written", total(&store.sizes().await?));
    let start = noted.unwrap_or_default();
    Box::pin(walk.run(start, &mut sink, (&counts, progress))).await?;
    sink.finish().await?;
    let differences = match options.verify {
        true => Some(verify_redis(store, peer, options, progress).await?),
        false => None,
    };
    Ok(Export {
        counts,
        resumed,
        moments: 1,
        differences,
    })
}

/// Writes the keys of `store` into an RDB file at `path`.
pub async fn export_to_file(
    store: &Store,
    path: &Path,
    options: &ExportOptions,
    progress: &Progress,
) -> Result<Export, Failure> {
    let counts = Counts::default();
    let view = Arc::new(store.view().await?);
    let sizes = view.sizes().await?;
    progress.begin("keys written", total(&sizes));
    let pattern = &options.pattern;
    let resumed = match options.start {
        Start::Resume => ToFile::resume(path, pattern, sizes.clone(), &counts)?,
        Start::Anew => None,
    };
    let is_resumed = resumed.is_some();
    let (mut sink, start) = match resumed {
        Some(resumed) => resumed,
        None => {
            let created = ToFile::create(path, pattern, sizes, &counts)?;
            (created, Position::default())
        }
    };
    let patterns = [pattern.clone()];
    let walk = Walk::new(store, Some(Arc::clone(&view)), &patterns, options.rate);
    Box::pin(walk.run(start, &mut sink, (&counts, progress))).await?;
    let moments = sink.moments();
    let keys = sink.finish()?;
    let differences = match options.verify {
        true => Some(verify_file(&view, path, keys, progress).await?),
        false => None,
    };
    Ok(Export {
        counts,
        resumed: is_resumed,
        moments,
        differences,
    })
}

/// Compares every key of the store with what is at `peer`. One that differs is looked at again: it may have
/// been changed here since.
async fn verify_redis(
    store: &Store,
    peer: &Peer,
    options: &ExportOptions,
    progress: &Progress,
) -> Result<Differences, Failure> {
    let mut differences = Differences::default();
    let patterns = [options.pattern.clone()];
    let walk = Walk::new(store, None, &patterns, options.rate);
    progress.begin("keys compared", total(&store.sizes().await?));
    let mut at = Some(Position::default());
    while let Some(position) = at {
        let page = walk.page(&position).await?;
        progress.advance(page.keys.len() as u64);
        let mut wrong = differing(&page.view, &page.keys, peer).await?;
        at = page.next.clone();
        end(page).await?;
        for _ in 1..VERIFY_LOOKS {
            if wrong.is_empty() {
                break;
            }
            tokio::time::sleep(VERIFY_PAUSE).await;
            let view = store.view().await?;
            let keys = view.named(&wrong).await?;
            wrong = differing(&view, &keys, peer).await?;
            view.end().await?;
        }
        wrong.iter().for_each(|key| differences.note(key));
    }
    Ok(differences)
}

/// Those of `keys`, all in one database, that are not at `peer` as they are here.
async fn differing(view: &View, keys: &[Stored], peer: &Peer) -> Result<Vec<Key>, Failure> {
    let mut wrong = Vec::new();
    let mut compared = Vec::with_capacity(keys.len());
    for stored in keys {
        match described(view, stored).await? {
            Ok(here) => compared.push((stored, here)),
            Err(large) => {
                let length = length_at(peer, &stored.key, large.kind).await?;
                if length != view.count(&large).await? {
                    wrong.push(stored.key.clone());
                }
            }
        }
    }
    for some in compared.chunk_by(|one, other| one.0.key.db == other.0.key.db) {
        let names: Vec<_> = some.iter().map(|(s, _)| s.key.name.clone()).collect();
        let there = peer.read(some[0].0.key.db, &names).await?;
        for ((stored, here), there) in some.iter().zip(there) {
            if !there
                .and_then(describe)
                .is_some_and(|there| is_same(*here, there))
            {
                wrong.push(stored.key.clone());
            }
        }
    }
    Ok(wrong)
}

/// What a key holds; or the key itself, if that is too much to be compared.
async fn described(view: &View, stored: &Stored) -> Result<Result<Imported, LargeKey>, Failure> {
    let loaded;
    let value = match &stored.held {
        Held::Value(value) => value,
        Held::Large(large) => match view.whole(large).await? {
            Some(value) => {
                loaded = value;
                &loaded
            }
            None => return Ok(Err(large.clone())),
        },
    };
    let digest = engine::digest(value)
        .map_err(|_| Failure::Other(format!("{:?} was not loaded whole", stored.key)))?;
    Ok(Ok((digest, stored.expires_at)))
}

fn describe(there: Incoming) -> Option<Imported> {
    let value = engine::restored(&there.payload).ok()?;
    Some((engine::digest(&value).ok()?, there.expires_at))
}

async fn length_at(peer: &Peer, key: &Key, kind: Kind) -> Result<u64, Failure> {
    let command: &[u8] = match kind {
        Kind::String => b"STRLEN",
        Kind::Hash => b"HLEN",
        Kind::List => b"LLEN",
        Kind::Set => b"SCARD",
        Kind::SortedSet => b"ZCARD",
        Kind::Stream => b"XLEN",
    };
    let replies = ask(peer, key.db, &[&[command, &key.name[..]]]).await?;
    Ok(match replies.as_slice() {
        [Reply::Integer(length)] => length.cast_unsigned(),
        _ => 0,
    })
}

/// Reads the file again, and compares it with the moment of which it tells.
async fn verify_file(
    view: &View,
    path: &Path,
    keys: u64,
    progress: &Progress,
) -> Result<Differences, Failure> {
    let mut differences = Differences::default();
    let mut file = RdbFile::open(path)?;
    progress.begin("bytes compared", file.length());
    let (mut batch, mut found) = (Batch::default(), 0);
    loop {
        let next = file.next_key(|bytes| progress.advance(bytes))?;
        let is_last = next.is_none();
        if let Some(key) = next {
            found += 1;
            batch.push(key);
        }
        if is_last || batch.is_full() {
            let keys = std::mem::take(&mut batch).keys;
            compare_with_view(view, &keys, &mut differences).await?;
        }
        if is_last {
            break;
        }
    }
    if found != keys {
        return Err(Failure::Other(format!(
            "{keys} keys were written, {found} are in the file"
        )));
    }
    Ok(differences)
}

async fn compare_with_view(
    view: &View,
    batch: &[Incoming],
    differences: &mut Differences,
) -> Result<(), Failure> {
    let keys: Vec<Key> = batch.iter().map(|one| one.key.clone()).collect();
    let mut here = AHashMap::new();
    for stored in view.named(&keys).await? {
        match described(view, &stored).await? {
            Ok(described) => drop(here.insert(stored.key, described)),
            // What was too much to be written whole was counted as it was written.
            Err(_) => drop(here.insert(stored.key, Default::default())),
        }
    }
    for one in batch {
        let there = describe(one.clone());
        let is_same = match (here.get(&one.key), there) {
            (Some(here), Some(there)) => *here == Imported::default() || is_same(*here, there),
            // It has ended since.
            (None, Some((_, at))) => at.is_some(),
            (_, None) => false,
        };
        if !is_same {
            differences.note(&one.key);
        }
    }
    Ok(())
}

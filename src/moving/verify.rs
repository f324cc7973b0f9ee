//! Whether what was brought in is here as it is there.

use std::path::Path;
use std::time::Duration;

use super::Failure;
use super::import::{BATCH, Batch, Work, is_same, present};
use super::peer::{Incoming, Peer};
use super::rdb::RdbFile;
use crate::engine;
use crate::model::Key;
use crate::progress::Progress;

/// Keys that are named at most.
const NAMED_MAX: usize = 20;
/// Looks at a key that differs, before it counts.
const VERIFY_LOOKS: u32 = 5;
const VERIFY_PAUSE: Duration = Duration::from_millis(300);

/// Keys that are not here as they are at the source.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl Differences {
    pub(super) fn note(&mut self, key: &Key) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(format!("{key:?}"));
        }
    }
}

impl Work {
    /// Compares every key of the source with what is here. One that differs is looked at again:
    /// it may just be changing.
    pub(super) async fn verify(
        &self,
        source: &Peer,
        progress: &Progress,
    ) -> Result<Differences, Failure> {
        let mut differences = Differences::default();
        let databases = source.databases().await?;
        progress.begin(
            "keys compared",
            databases.iter().map(|(_, keys)| keys).sum(),
        );
        for (db, _) in databases {
            let mut cursor = 0;
            loop {
                let step = (self.options.pattern.as_str(), BATCH);
                let (next, mut names) = source.scan(db, cursor, step).await?;
                progress.advance(names.len() as u64);
                for look in 0..VERIFY_LOOKS {
                    let found = source.read(db, &names).await?;
                    let found: Vec<Incoming> = found.into_iter().flatten().collect();
                    let is_here = self.is_here(&found).await?;
                    let wrong = found.into_iter().zip(is_here).filter(|(_, here)| !here);
                    names = wrong.map(|(one, _)| one.key.name).collect();
                    if names.is_empty() {
                        break;
                    }
                    if look + 1 < VERIFY_LOOKS {
                        tokio::time::sleep(VERIFY_PAUSE).await;
                    }
                }
                for name in names {
                    differences.note(&Key { db, name });
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(differences)
    }

    /// Compares every key of a file with what is here.
    pub(super) async fn verify_file(
        &self,
        path: &Path,
        progress: &Progress,
    ) -> Result<Differences, Failure> {
        let mut differences = Differences::default();
        let mut file = RdbFile::open(path)?;
        progress.begin("bytes compared", file.length());
        let mut batch = Batch::default();
        loop {
            let next = file.next_key(|bytes| progress.advance(bytes))?;
            let is_last = next.is_none();
            if let Some(key) = next.filter(|key| self.matches(&key.key.name)) {
                batch.push(key);
            }
            if is_last || batch.is_full() {
                let keys = std::mem::take(&mut batch).keys;
                let is_here = self.is_here(&keys).await?;
                let wrong = keys.iter().zip(is_here).filter(|(_, here)| !here);
                wrong.for_each(|(one, _)| differences.note(&one.key));
            }
            if is_last {
                return Ok(differences);
            }
        }
    }

    /// Whether each of these is here as it is there; one whose end has passed need not be.
    async fn is_here(&self, there: &[Incoming]) -> Result<Vec<bool>, Failure> {
        let keys: Vec<Key> = there.iter().map(|one| one.key.clone()).collect();
        let here = self.target.load(&keys).await?;
        let now = self.target.store().clock().now();
        let pairs = there.iter().zip(here);
        Ok(pairs
            .map(|(one, here)| {
                let value = engine::restored(&one.payload).ok();
                let digest = value.and_then(|value| engine::digest(&value).ok());
                let here = here.as_ref().and_then(present);
                match (digest, here) {
                    (Some(digest), Some(here)) => is_same(here, (digest, one.expires_at)),
                    _ => one.expires_at.is_some_and(|end| end <= now),
                }
            })
            .collect())
    }
}

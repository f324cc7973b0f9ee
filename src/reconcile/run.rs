//! One run over the cache.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compare::{Difference, Verdict, compare};
use super::report::{Finding, Report};
use crate::cache::{Applied, Cache, CacheError, Inspected, Name, Op};
use crate::command::glob::{self, Case};
use crate::engine::Need;
use crate::model::{DATABASES, Db, Generation, Key, Version};
use crate::progress::Progress;
use crate::store::{FenceState, LoadRequest, Snapshot, Store, StoreError};

/// Names that one step of SCAN asks for.
const SCAN_COUNT: u32 = 500;
/// Keys of one call to the cache: it keeps others waiting for less than a millisecond.
const LOOK_KEYS: usize = 100;
/// Keys that are judged together.
const SUSPECTS_MAX: usize = 1000;
/// How long a run waits for a cache that is out of use, or a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Whether keys that differ are taken out of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// They are.
    Invalidate,
    /// They are only told of.
    Nothing,
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which keys, as `KEYS` matches them; `*`: all.
    pub pattern: String,
    /// Keys a second at most; 0: no bound.
    pub rate: u32,
    /// Whether it repairs.
    pub repair: Repair,
}

/// Why a run could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// PostgreSQL failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cache failed for longer than a run waits.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The cache was out of use for longer than a run waits.
    #[error("the cache is not in use: no proxy serves, or it cannot be reached")]
    NotInUse,
}

/// A run under way.
pub struct Reconciler {
    store: Arc<Store>,
    cache: Arc<Cache>,
    generation: Generation,
}

impl Reconciler {
    /// Keys that are looked up together in the store.
    pub(super) const BATCH: usize = 500;

    /// On these servers.
    pub fn new(store: Arc<Store>, cache: Arc<Cache>) -> Self {
        Self {
            store,
            cache,
            generation: Generation::default(),
        }
    }

    /// Looks at every key of which the cache shows anything throughout the run.
    pub async fn run(&mut self, options: &Options, progress: &Progress) -> Result<Report, Failure> {
        let started = Instant::now();
        self.follow_fence().await?;
        let run = self.store.reconcile_begin(&options.pattern).await?;
        let mut report = Report::default();
        let mut suspects = Vec::new();
        progress.begin("comparing", self.name_count().await?);
        for db in (0..DATABASES).filter_map(Db::new) {
            let mut cursor = 0;
            loop {
                let (next, names) = self.scan(db, cursor).await?;
                let steps = names.len() as u64;
                let keys = wanted(db, names, &options.pattern);
                for batch in keys.chunks(Self::BATCH) {
                    self.compare_batch(batch, &mut report, &mut suspects)
                        .await?;
                }
                if suspects.len() >= SUSPECTS_MAX {
                    let suspects = std::mem::take(&mut suspects);
                    self.conclude(suspects, options.repair, &mut report).await?;
                }
                progress.advance(steps);
                hold_to(options.rate, report.keys, started).await;
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        self.conclude(suspects, options.repair, &mut report).await?;
        report.seconds = started.elapsed().as_secs_f64();
        let counts = (report.keys, report.differences, report.repaired);
        self.store.reconcile_end(run, counts).await?;
        Ok(report)
    }

    /// Waits until the cache is in use, and takes its generation as that of this run.
    async fn follow_fence(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let row = self.store.fence().await?;
            if row.state == FenceState::Active {
                self.cache
                    .set_holder(row.run_id.as_deref(), row.replication_id.as_deref());
                self.generation = row.generation;
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::NotInUse);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// After a failure of the cache: whether there is reason to try again.
    async fn recover(&mut self, error: CacheError, since: Instant) -> Result<(), Failure> {
        if since.elapsed() > PATIENCE {
            return Err(error.into());
        }
        tracing::debug!(%error, "the cache failed a comparison");
        tokio::time::sleep(RETRY_PAUSE).await;
        self.follow_fence().await
    }

    async fn name_count(&mut self) -> Result<u64, Failure> {
        let mut count = 0;
        for db in (0..DATABASES).filter_map(Db::new) {
            count += self.cache.name_count(db).await?;
        }
        Ok(count)
    }

    async fn scan(&mut self, db: Db, cursor: u64) -> Result<(u64, Vec<Name>), Failure> {
        let since = Instant::now();
        loop {
            match self.cache.scan(db, cursor, SCAN_COUNT).await {
                Ok(step) => return Ok(step),
                Err(error) => self.recover(error, since).await?,
            }
        }
    }

    /// A first look at `keys`. What seems to differ is put to the suspects.
    async fn compare_batch(
        &mut self,
        keys: &[Key],
        report: &mut Report,
        suspects: &mut Vec<Key>,
    ) -> Result<(), Failure> {
        let looked = self.look(keys).await?;
        report.keys += keys.len() as u64;
        for (key, (verdict, _)) in keys.iter().zip(looked) {
            match verdict {
                Some(Verdict::Same | Verdict::Uncached | Verdict::Written) => {}
                Some(Verdict::Differs(_)) => suspects.push(key.clone()),
                None => report.too_large += 1,
            }
        }
        Ok(())
    }

    /// Looks at `keys` in the cache, then in the store: a verdict on each (none on one that is
    /// too large to be loaded), and its version in the store.
    pub(super) async fn look(
        &mut self,
        keys: &[Key],
    ) -> Result<Vec<(Option<Verdict>, Version)>, Failure> {
        let (shown, asked) = self.inspect(keys).await?;
        let requests: Vec<LoadRequest> = keys
            .iter()
            .map(|key| LoadRequest::new(key.clone(), Need::value()))
            .collect();
        let stored = match self.load(requests.clone()).await {
            Ok(stored) => stored,
            Err(Failure::Store(StoreError::TooLarge(_))) => {
                return Box::pin(self.look_singly(requests, &shown)).await;
            }
            Err(error) => return Err(error),
        };
        let apart = asked.elapsed().as_millis() as i64;
        let pairs = shown.iter().zip(&stored.keys);
        Ok(pairs
            .map(|(shown, stored_key)| {
                let verdict = compare(shown, stored_key, stored.now, apart);
                (Some(verdict), stored_key.version)
            })
            .collect())
    }

    async fn look_singly(
        &mut self,
        requests: Vec<LoadRequest>,
        shown: &[Inspected],
    ) -> Result<Vec<(Option<Verdict>, Version)>, Failure> {
        let mut looked = Vec::with_capacity(shown.len());
        for (request, shown) in requests.into_iter().zip(shown) {
            looked.push(match self.load(vec![request]).await {
                Ok(stored) => {
                    let apart = self
                        .cache
                        .clock()
                        .now()
                        .0
                        .saturating_sub(shown.now.0)
                        .max(0);
                    let verdict = compare(shown, &stored.keys[0], stored.now, apart);
                    (Some(verdict), stored.keys[0].version)
                }
                Err(Failure::Store(StoreError::TooLarge(_))) => (None, Version::default()),
                Err(error) => return Err(error),
            });
        }
        Ok(looked)
    }

    /// What the cache shows of `keys`, and when the first was asked for.
    async fn inspect(&mut self, keys: &[Key]) -> Result<(Vec<Inspected>, Instant), Failure> {
        let since = Instant::now();
        'again: loop {
            let asked = Instant::now();
            let mut shown: Vec<Inspected> = Vec::with_capacity(keys.len());
            while shown.len() < keys.len() {
                let rest = &keys[shown.len()..];
                let some: Vec<&Key> = rest.iter().take(LOOK_KEYS).collect();
                match self.cache.inspect(self.generation, &some).await {
                    Ok(more) => shown.extend(more),
                    Err(error) => {
                        self.recover(error, since).await?;
                        continue 'again;
                    }
                }
            }
            return Ok((shown, asked));
        }
    }

    pub(super) async fn are_untold(&self, keys: &[Key]) -> Result<Vec<bool>, Failure> {
        Ok(self.store.are_untold(keys).await?)
    }

    pub(super) async fn load(&self, requests: Vec<LoadRequest>) -> Result<Snapshot, Failure> {
        Ok(self.store.snapshot(&requests).await?)
    }

    /// Judges the suspects, repairs them if that is wanted, and reports them.
    async fn conclude(
        &mut self,
        suspects: Vec<Key>,
        repair: Repair,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let judged = self.judge(suspects).await?;
        report.undecided += judged.undecided;
        for found in judged.differ.chunks(Self::BATCH) {
            let named: Vec<(&Key, &str)> = found
                .iter()
                .map(|(key, difference)| (key, difference.kind.name()))
                .collect();
            let since = self.store.remember_differences(&named).await?;
            let repaired = repair == Repair::Invalidate && self.invalidate(found).await?;
            for ((key, difference), since) in found.iter().zip(since) {
                let mut finding = Finding::new(key.clone(), difference.clone(), since);
                finding.repaired = repaired;
                report.add(finding);
            }
        }
        Ok(())
    }

    /// Tells the cache that these keys have changed, to what is not said: by an id that is
    /// registered nowhere, which deletes natives and raises floors, and lets writers go on.
    async fn invalidate(&mut self, found: &[(Key, Difference)]) -> Result<bool, Failure> {
        let changes: Vec<Applied<'_>> = found
            .iter()
            .map(|(key, difference)| Applied {
                key,
                op: Op::Invalidate,
                version: difference.version,
            })
            .collect();
        match self
            .cache
            .apply(self.generation, "reconcile", &changes)
            .await
        {
            // The cache that held them is void.
            Ok(()) | Err(CacheError::Fenced(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let keys: Vec<&Key> = found.iter().map(|(key, _)| key).collect();
        self.store.forget_differences(&keys).await?;
        Ok(true)
    }
}

/// The keys that these names speak of and that match, each once.
fn wanted(db: Db, names: Vec<Name>, pattern: &str) -> Vec<Key> {
    let mut keys: Vec<Key> = names
        .into_iter()
        .filter_map(|name| match name {
            Name::Native(name) | Name::Companion(name) => Some(name),
            Name::Internal => None,
        })
        .filter(|name| pattern == "*" || glob::matches(pattern.as_bytes(), name, Case::Sensitive))
        .map(|name| Key { db, name })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Waits until `done` keys since `started` are no more than `rate` a second.
async fn hold_to(rate: u32, done: u64, started: Instant) {
    if rate > 0 {
        let due = Duration::from_secs_f64(done as f64 / f64::from(rate));
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_and_its_companion_are_one_key() {
        let db = Db::default();
        let names = ["a", "\0fc{a}", "b", "\0f:gen", "\0fC{x}y", "\0fh{a}"];
        let names = names.map(|name| Name::of(name.into())).to_vec();
        let keys = |pattern| -> Vec<String> {
            let keys = wanted(db, names.clone(), pattern);
            keys.iter()
                .map(|key| String::from_utf8_lossy(&key.name).into_owned())
                .collect()
        };
        assert_eq!(keys("*"), ["a", "b", "{x}y"]);
        assert_eq!(keys("?"), ["a", "b"]);
    }
}

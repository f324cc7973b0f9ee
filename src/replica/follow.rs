//! Following the changes: what changed is read from the store as it is now, and set at the replica.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::Interval;

use super::Failure;
use super::batch::Batch;
use super::run::{Run, STEP_EVERY, name_of};
use crate::model::{Key, UnixMs};
use crate::moving;
use crate::store::{PUBLICATION, Stored, View};
use crate::stream::{Changes, Lsn};
use crate::telemetry;

/// How often it is asked how far the store is.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often the slot is looked at, and it is noted that this replica is wanted.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// An idle replica's time is noted this often.
const IDLE_STEP_EVERY: Duration = Duration::from_secs(5);
/// How long it takes at most until it is looked again whether a commit is visible.
const VISIBLE_PAUSE_MAX: Duration = Duration::from_millis(50);
/// Keys that are read from the store together.
const READ_KEYS: usize = 2000;

impl Run {
    /// Takes what the slot tells, for ever.
    pub(super) async fn follow(&mut self) -> Result<Infallible, Failure> {
        let mut changes = Changes::open(&self.postgres, &self.slot, PUBLICATION).await?;
        tracing::info!(
            replica = self.replica.name,
            "the replica follows the changes"
        );
        let mut ticks = tokio::time::interval(ASK_EVERY);
        let mut looked_at = Instant::now();
        // Up to where all is there that was not noted yet, and whether anything changed before.
        let (mut reached, mut has_news) = (None, false);
        loop {
            let mut batch = Batch::default();
            tokio::select! {
                event = changes.next() => {
                    batch.add(event?, &self.replica.patterns);
                    self.gather(&mut changes, &mut batch)?;
                }
                _ = ticks.tick() => changes.ask().await?,
            }
            has_news |= batch.events > 0;
            reached = batch.until.or(reached);
            self.apply_beside(batch, &mut changes, &mut ticks).await?;
            if let Some((lsn, at)) = reached {
                self.tell_lag(at);
                // The note is a change of the store too: it must not call for the next one.
                let pause = if has_news {
                    STEP_EVERY
                } else {
                    IDLE_STEP_EVERY
                };
                if self.stepped_at.elapsed() >= pause {
                    self.note(lsn, at).await?;
                    changes.confirm(lsn).await?;
                    (reached, has_news) = (None, false);
                }
            }
            if looked_at.elapsed() >= LOOK_EVERY {
                looked_at = Instant::now();
                self.look().await?;
            }
        }
    }

    /// Adds what has arrived besides.
    fn gather(&self, changes: &mut Changes, batch: &mut Batch) -> Result<(), Failure> {
        while !batch.is_full() {
            match changes.at_hand()? {
                Some(event) => batch.add(event, &self.replica.patterns),
                None => break,
            }
        }
        Ok(())
    }

    /// Brings to the replica what changed, and lets the server hear meanwhile that somebody is there.
    async fn apply_beside(
        &self,
        batch: Batch,
        changes: &mut Changes,
        ticks: &mut Interval,
    ) -> Result<(), Failure> {
        if !batch.is_due() {
            return Ok(());
        }
        let mut applied = std::pin::pin!(self.apply(batch));
        loop {
            tokio::select! {
                applied = &mut applied => return applied,
                _ = ticks.tick() => changes.ask().await?,
            }
        }
    }

    async fn note(&mut self, lsn: Lsn, at: UnixMs) -> Result<(), Failure> {
        self.row.lsn = self.row.lsn.max(lsn.0);
        self.row.current_ms = Some(at.0);
        self.step().await
    }

    /// Brings to the replica what changed.
    async fn apply(&self, batch: Batch) -> Result<(), Failure> {
        self.await_visible(&batch).await?;
        if batch.is_truncated {
            self.sweep().await?;
        }
        let mut keys: Vec<Key> = batch.keys.into_iter().collect();
        keys.sort_unstable();
        let mut parts = keys.chunks(READ_KEYS);
        let mut read = match parts.next() {
            Some(part) => Some(self.read(part).await?),
            None => None,
        };
        while let Some(part) = read {
            let following = async {
                match parts.next() {
                    Some(part) => self.read(part).await.map(Some),
                    None => Ok(None),
                }
            };
            let (set, following) = tokio::join!(self.set(&part), following);
            set?;
            part.view.end().await?;
            read = following?;
        }
        let name = self.replica.name.clone();
        tracing::debug!(
            replica = name,
            events = batch.events,
            keys = keys.len(),
            "changes are at the replica"
        );
        metrics::counter!(telemetry::REPLICA_CHANGES, "replica" => name).increment(batch.events);
        Ok(())
    }

    /// Waits until sessions see what the log has told of. (Where commits wait for a standby, that may take as long as that.)
    async fn await_visible(&self, batch: &Batch) -> Result<(), Failure> {
        let mut pause = Duration::from_micros(500);
        loop {
            let view = self.store.view().await?;
            let is_visible = view.sees(&batch.transactions).await?;
            view.end().await?;
            if is_visible {
                return Ok(());
            }
            tracing::debug!(replica = self.replica.name, "a commit is not visible yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(VISIBLE_PAUSE_MAX);
        }
    }

    async fn read(&self, keys: &[Key]) -> Result<Part, Failure> {
        let view = self.store.view().await?;
        let mut stored = Box::pin(view.named(keys)).await?;
        stored.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let is_there = |key: &Key| stored.binary_search_by(|s| s.key.cmp(key)).is_ok();
        let gone = keys.iter().filter(|key| !is_there(key)).cloned().collect();
        Ok(Part { view, stored, gone })
    }

    async fn set(&self, part: &Part) -> Result<(), Failure> {
        let gone: Vec<&Key> = part.gone.iter().collect();
        moving::unlink(&self.peer, &gone).await?;
        let stored: Vec<&Stored> = part.stored.iter().collect();
        moving::put(&self.peer, &part.view, &stored, &self.counts).await?;
        Ok(())
    }

    fn tell_lag(&self, at: UnixMs) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let lag = (now.as_millis() as i64 - at.0).max(0);
        metrics::gauge!(telemetry::REPLICA_LAG, "replica" => self.replica.name.clone())
            .set(lag as f64 / 1000.0);
    }

    /// Looks how much log is kept, and says that this replica is wanted.
    async fn look(&mut self) -> Result<(), Failure> {
        let store = Arc::clone(&self.store);
        store.replica(&name_of(&self.replica)).await?;
        self.tell_refused();
        self.counts = moving::Counts::default();
        self.check_server().await?;
        let Some(slot) = store.slot(&self.slot).await? else {
            return Ok(());
        };
        metrics::gauge!(telemetry::REPLICA_RETAINED, "replica" => self.replica.name.clone())
            .set(slot.retained as f64);
        match slot.retained > self.replica.max_behind.as_u64() {
            true => Err(Failure::TooFarBehind(slot.retained)),
            false => Ok(()),
        }
    }
}

/// What became of keys, at one moment.
struct Part {
    view: View,
    stored: Vec<Stored>,
    gone: Vec<Key>,
}

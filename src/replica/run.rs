//! One proxy's time with one replica: what is there, all keys, and then the changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Failure;
use crate::config;
use crate::model::{Db, Key, Reply};
use crate::moving::{self, Counts, Page, Peer, Position, Sink, Walk, ask, is_chosen};
use crate::progress::Progress;
use crate::store::{Phase, ReplicaName, ReplicaRow, Store};
use crate::telemetry;

/// The key of a replica that says of which snapshot it is, and how far it is.
pub(super) const MARK: &str = "freshet:replica";
/// Between two notes of how far it is.
pub(super) const STEP_EVERY: Duration = Duration::from_secs(1);
/// Keys of a replica that are looked at together.
const SWEEP_KEYS: usize = 1000;

/// A replica that this proxy feeds.
pub(super) struct Run {
    pub store: Arc<Store>,
    pub postgres: config::Postgres,
    pub replica: config::Replica,
    pub peer: Peer,
    pub slot: String,
    pub row: ReplicaRow,
    pub stepped_at: Instant,
    pub counts: Counts,
}

fn mark(epoch: i64, step: i64) -> String {
    format!("{epoch} {step}")
}

/// What the store notes of a replica.
pub(super) fn name_of(replica: &config::Replica) -> ReplicaName {
    ReplicaName {
        name: replica.name.clone(),
        url: replica.url.to_string(),
        patterns: replica.patterns.clone(),
    }
}

impl Run {
    /// Connects, and finds out what is there. The caller has the turn.
    pub async fn start(
        store: Arc<Store>,
        postgres: config::Postgres,
        replica: config::Replica,
    ) -> Result<Self, Failure> {
        let settings = store.replication().await?;
        if settings.wal_level != "logical" {
            return Err(Failure::WalLevel(settings.wal_level));
        }
        let (slot, row) = store.replica(&name_of(&replica)).await?;
        // First of all: that of a replica that is away must not grow.
        let mut run_slot = store.slot(&slot).await?;
        if let Some(found) = run_slot {
            let kept = found.retained;
            metrics::gauge!(telemetry::REPLICA_RETAINED, "replica" => replica.name.clone())
                .set(kept as f64);
            if kept > replica.max_behind.as_u64() {
                tracing::warn!(
                    replica = replica.name,
                    bytes = kept,
                    "its slot is dropped: it would need more than max_behind; all keys will be brought there anew"
                );
                store.drop_slot(&slot).await?;
                run_slot = None;
            }
        }
        let peer = Peer::connect(&replica.url).await?;
        let mut run = Self {
            store,
            postgres,
            replica,
            peer,
            slot,
            row,
            stepped_at: Instant::now(),
            counts: Counts::default(),
        };
        run.check_server().await?;
        // What was written while it was not published is not told.
        let was_published = run.store.publish_keys().await?;
        let is_complete =
            was_published && run_slot.is_some_and(|s| !s.is_lost && s.confirmed <= run.row.lsn);
        let why = match (run.row.phase, is_complete) {
            (Phase::New, _) => Some("it is new, or set up otherwise than before"),
            (_, false) => {
                Some("its replication slot or the publication is gone, or has lost changes")
            }
            _ if !run.has_mark().await? => Some("it is not as it was left"),
            _ => None,
        };
        if let Some(why) = why {
            run.begin_snapshot(why).await?;
        }
        Ok(run)
    }

    /// The cache is none, whatever name it goes by. (Before it was first used it is not known here.)
    pub async fn check_server(&self) -> Result<(), Failure> {
        let cache = self.store.fence().await?.run_id;
        match cache.is_some() && cache == Some(self.peer.run_id().await?) {
            true => Err(Failure::OwnCache),
            false => Ok(()),
        }
    }

    /// Whether the replica is that which was fed, and has lost nothing since; nor has the store, or it would be
    /// steps behind.
    async fn has_mark(&self) -> Result<bool, Failure> {
        let replies = ask(&self.peer, Db::default(), &[&["GET", MARK]]).await?;
        let [Reply::Bulk(text)] = replies.as_slice() else {
            return Ok(false);
        };
        let (epoch, step) = (self.row.epoch, self.row.step);
        let expected = [mark(epoch, step), mark(epoch, step + 1)];
        Ok(expected.iter().any(|mark| mark.as_bytes() == &text[..]))
    }

    /// Marks the replica as that of a new snapshot, whatever it was.
    async fn set_mark(&self) -> Result<(), Failure> {
        let mark = mark(self.row.epoch, self.row.step);
        ask(&self.peer, Db::default(), &[&["SET", MARK, &mark]]).await?;
        Ok(())
    }

    /// Moves the mark on, if it is as it was left: else what was there is lost, and must not seem to be there.
    async fn move_mark(&self) -> Result<(), Failure> {
        const MOVE: &str = "
            local there = redis.call('GET', KEYS[1])
            if there ~= ARGV[1] and there ~= ARGV[2] then return 0 end
            redis.call('SET', KEYS[1], ARGV[2])
            return 1";
        let (epoch, step) = (self.row.epoch, self.row.step);
        let (before, now) = (mark(epoch, step - 1), mark(epoch, step));
        let words = ["EVAL", MOVE, "1", MARK, &before, &now];
        match ask(&self.peer, Db::default(), &[&words]).await?.as_slice() {
            [Reply::Integer(1)] => Ok(()),
            _ => Err(Failure::Lost),
        }
    }

    async fn begin_snapshot(&mut self, why: &str) -> Result<(), Failure> {
        let name = &self.replica.name;
        tracing::info!(replica = name, why, "all keys are brought to the replica");
        metrics::counter!(telemetry::REPLICA_SNAPSHOTS, "replica" => name.clone()).increment(1);
        // What commits from now on is told by it; all before is in what is read after.
        let lsn = self.store.make_slot(&self.slot).await?;
        self.store.await_open_transactions().await?;
        self.row = self.store.begin_snapshot(name, lsn).await?;
        self.set_mark().await
    }

    /// Feeds the replica for as long as nothing fails.
    pub async fn feed(mut self) -> Result<Infallible, Failure> {
        if self.row.phase == Phase::Snapshot {
            Box::pin(self.snapshot()).await?;
        }
        Box::pin(self.follow()).await
    }

    async fn snapshot(&mut self) -> Result<(), Failure> {
        let store = Arc::clone(&self.store);
        let patterns = self.replica.patterns.clone();
        let (db, from) = self.row.next.clone();
        let (counts, progress) = (Counts::default(), Progress::hidden());
        let walk = Walk::new(&store, None, &patterns, 0);
        let mut sink = Snapshot {
            run: self,
            failure: None,
        };
        let walked = walk.run(Position { db, from }, &mut sink, (&counts, &progress));
        let walked = walked.await;
        if let Some(failure) = sink.failure {
            return Err(failure);
        }
        walked?;
        self.tell_refused();
        self.sweep().await?;
        self.row.phase = Phase::Following;
        self.row.next = (Db::default(), Bytes::new());
        self.step().await?;
        tracing::info!(
            replica = self.replica.name,
            keys = self.counts.all_written(),
            "all keys are at the replica"
        );
        Ok(())
    }

    /// Notes how far the replica is: there, and then here. So it is never less far than is noted here, unless it has
    /// lost something.
    pub async fn step(&mut self) -> Result<(), Failure> {
        self.row.step += 1;
        self.move_mark().await?;
        self.stepped_at = Instant::now();
        match self
            .store
            .replica_step(&self.replica.name, &self.row)
            .await?
        {
            true => Ok(()),
            false => Err(Failure::Overtaken),
        }
    }

    /// Deletes what is there and not in the store.
    pub async fn sweep(&self) -> Result<(), Failure> {
        for (db, _) in self.peer.databases().await? {
            let mut cursor = 0;
            loop {
                let (next, names) = self.peer.scan(db, cursor, ("*", SWEEP_KEYS)).await?;
                let keys: Vec<Key> = names
                    .into_iter()
                    .filter(|name| is_chosen(&self.replica.patterns, name))
                    .filter(|name| &name[..] != MARK.as_bytes())
                    .map(|name| Key { db, name })
                    .collect();
                let live = self.store.live(&keys).await?;
                let gone = keys.iter().zip(live).filter(|(_, live)| !live);
                let gone: Vec<&Key> = gone.map(|(key, _)| key).collect();
                moving::unlink(&self.peer, &gone).await?;
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Says which keys could not be brought there.
    pub fn tell_refused(&self) {
        let (count, first) = self.counts.not_moved();
        if count > 0 {
            tracing::error!(replica = self.replica.name, count, keys = ?first, "not at the replica");
        }
    }
}

/// Where the pages of a snapshot go.
struct Snapshot<'a> {
    run: &'a mut Run,
    failure: Option<Failure>,
}

impl Sink for Snapshot<'_> {
    async fn put(&mut self, page: &Page) -> Result<(), moving::Failure> {
        let is_mark = |key: &Key| &key.name[..] == MARK.as_bytes();
        let keys: Vec<_> = page.keys.iter().filter(|s| !is_mark(&s.key)).collect();
        moving::put(&self.run.peer, &page.view, &keys, &self.run.counts).await
    }

    async fn reached(&mut self, next: &Position) -> Result<(), moving::Failure> {
        if self.run.stepped_at.elapsed() < STEP_EVERY {
            return Ok(());
        }
        self.run.row.next = (next.db, next.from.clone());
        match self.run.step().await {
            Ok(()) => Ok(()),
            Err(failure) => {
                let text = failure.to_string();
                self.failure = Some(failure);
                Err(moving::Failure::Other(text))
            }
        }
    }
}

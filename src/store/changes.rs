//! Keys that SQL changed, and which proxy tells the cache of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use deadpool_postgres::{ClientWrapper, Object};

use super::{FenceState, Store, StoreError};
use crate::model::{Db, Generation, Key, Version};

/// Takes the turn, or keeps it. Who has just taken it looks often.
const CLAIM: &str = "
    UPDATE freshet.teller
       SET holder = $1, until = clock_timestamp() + make_interval(secs => $2),
           is_asleep = is_asleep AND coalesce(holder = $1, false)
     WHERE holder = $1 OR until < clock_timestamp()";

const RELEASE: &str = "UPDATE freshet.teller SET until = '-infinity' WHERE holder = $1";

const SLEEP: &str = "UPDATE freshet.teller SET is_asleep = $2 WHERE holder = $1";

const LIMIT: &str = "UPDATE freshet.change_limit SET changes = $1 WHERE changes <> $1";

/// Waits for the transactions that noted nothing, and share the lock of the row.
const NOTE_AGAIN: &str = "UPDATE freshet.change_limit SET state = 'voiding' WHERE state = 'full'";

const REOPEN: &str = "UPDATE freshet.change_limit SET state = 'open' WHERE state = 'voiding'";

/// The next changes, and the fence, in one snapshot: what was committed before it is seen.
const READ: &str = "
    SELECT f.generation, f.state, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, l.state,
           c.xact, c.id, c.db, c.key, c.version, c.event,
           extract(epoch FROM clock_timestamp() - c.made_at)::float8, s.last_value
      FROM freshet.fence f CROSS JOIN freshet.change_limit l CROSS JOIN freshet.change_id_seq s
      LEFT JOIN LATERAL (
           SELECT * FROM freshet.change WHERE xact >= $1 ORDER BY xact, id LIMIT $2) c ON true";

const FORGET: &str = "
    DELETE FROM freshet.change c USING unnest($1::bigint[], $2::bigint[]) AS u (xact, id)
     WHERE c.xact = u.xact AND c.id = u.id";

/// A change that SQL made to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlChange {
    /// The key; none if no proxy can have one of that name.
    pub key: Option<Key>,
    /// Its version then.
    pub version: Version,
    /// What happened, in the words of keyspace notifications.
    pub event: Option<String>,
    /// When it was made, as this proxy's clock goes.
    pub made_at: Instant,
    /// Its transaction, and its number.
    place: (i64, i64),
}

/// Whether changes are noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noting {
    /// They are.
    Open,
    /// There are too many already.
    Full,
    /// They are again, and the whole cache is to be voided for those that were not.
    Voiding,
}

/// The next changes.
#[derive(Debug)]
pub struct ChangePage {
    /// Not in any order that matters.
    pub changes: Vec<SqlChange>,
    /// The generation of the cache, in the same snapshot.
    pub generation: Generation,
    /// Its state.
    pub state: FenceState,
    /// Whether all changes are noted.
    pub noting: Noting,
    /// Whether there may be more.
    pub is_full: bool,
    /// How many there are in all, at most.
    pub backlog: u64,
    /// Where to go on once these are forgotten: all transactions before were over in this snapshot.
    pub next: i64,
}

/// The changes, as the proxy reads them whose turn it is to tell of them.
///
/// Nothing rests on there being one: what two tell, they tell twice.
pub struct ChangeLog<'a> {
    store: &'a Store,
    /// Out of the pool: it listens, and its commits do not wait for the disk.
    session: ClientWrapper,
    holder: i64,
}

impl Store {
    /// Takes the turn to tell of changes made by SQL, for `length` from now, if no other `holder` has it.
    pub async fn claim_changes(&self, holder: i64, length: Duration) -> Result<bool, StoreError> {
        let client = self.connection().await?;
        let claiming = async {
            Ok(client
                .execute(CLAIM, &[&holder, &length.as_secs_f64()])
                .await?)
        };
        let claimed = self.bounded(claiming).await;
        if claimed.as_ref().is_err_and(StoreError::ends_connection) {
            drop(Object::take(client));
        }
        Ok(claimed? == 1)
    }

    /// Opens the changes for the `holder` of the turn; no more than about `limit` are kept.
    pub async fn open_changes(&self, holder: i64, limit: u32) -> Result<ChangeLog<'_>, StoreError> {
        let session = Object::take(self.connection().await?);
        let preparing = async {
            session
                .batch_execute("SET synchronous_commit = off; LISTEN freshet_change")
                .await?;
            session.execute(LIMIT, &[&i64::from(limit)]).await?;
            Ok(())
        };
        self.bounded(preparing).await?;
        Ok(ChangeLog {
            store: self,
            session,
            holder,
        })
    }
}

impl ChangeLog<'_> {
    /// Keeps the turn for `length` from now; `false`: another has it.
    pub async fn keep(&self, length: Duration) -> Result<bool, StoreError> {
        let seconds = length.as_secs_f64();
        Ok(self.execute(CLAIM, &[&self.holder, &seconds]).await? == 1)
    }

    /// Leaves the turn to others.
    pub async fn release(&self) -> Result<(), StoreError> {
        self.execute(RELEASE, &[&self.holder]).await.map(drop)
    }

    /// Has whoever makes a change wake this proxy from now on, or no more.
    pub async fn sleep(&self, is_asleep: bool) -> Result<(), StoreError> {
        self.execute(SLEEP, &[&self.holder, &is_asleep])
            .await
            .map(drop)
    }

    /// Waits until somebody wakes this proxy.
    pub async fn woken(&self) {
        self.store.bell().notified().await;
    }

    /// Has changes noted again after [`Noting::Full`].
    pub async fn note_again(&self) -> Result<(), StoreError> {
        self.execute(NOTE_AGAIN, &[]).await.map(drop)
    }

    /// Says that the cache was voided after [`Noting::Voiding`] was read.
    pub async fn reopen(&self) -> Result<(), StoreError> {
        self.execute(REOPEN, &[]).await.map(drop)
    }

    /// Up to `rows` changes of transactions from `from` on.
    pub async fn read(&self, from: i64, rows: u16) -> Result<ChangePage, StoreError> {
        let limit = i64::from(rows);
        let reading = async {
            let statement = self.session.prepare_cached(READ).await?;
            Ok(self.session.query(&statement, &[&from, &limit]).await?)
        };
        let found = self.store.bounded(reading).await?;
        let now = Instant::now();
        let first = found.first();
        let first = first.ok_or_else(|| super::load::missing_row("freshet.fence"))?;
        let oldest: i64 = first.try_get(2)?;
        let mut changes = Vec::with_capacity(found.len());
        for row in &found {
            changes.extend(change(row, now)?);
        }
        let is_full = changes.len() == usize::from(rows);
        let last = changes.iter().map(|change| change.place.0).max();
        let lowest = changes.iter().map(|change| change.place.1).min();
        let highest: i64 = first.try_get(11)?;
        Ok(ChangePage {
            generation: Generation(first.try_get(0)?),
            state: FenceState::parse(first.try_get(1)?)?,
            noting: match first.try_get(3)? {
                "open" => Noting::Open,
                "full" => Noting::Full,
                _ => Noting::Voiding,
            },
            is_full,
            backlog: lowest.map_or(0, |lowest| (highest - lowest + 1).unsigned_abs()),
            next: last
                .filter(|_| is_full)
                .map_or(oldest, |xact| xact.min(oldest)),
            changes,
        })
    }

    /// Forgets changes that were told of.
    pub async fn forget(&self, told: &[SqlChange]) -> Result<(), StoreError> {
        let (transactions, numbers): (Vec<i64>, Vec<i64>) =
            told.iter().map(|change| change.place).unzip();
        self.execute(FORGET, &[&transactions, &numbers])
            .await
            .map(drop)
    }

    async fn execute(
        &self,
        sql: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<u64, StoreError> {
        let running = async {
            let statement = self.session.prepare_cached(sql).await?;
            Ok(self.session.execute(&statement, values).await?)
        };
        self.store.bounded(running).await
    }
}

/// The change in a row, if there is one.
fn change(row: &tokio_postgres::Row, now: Instant) -> Result<Option<SqlChange>, StoreError> {
    let Some(xact) = row.try_get(4)? else {
        return Ok(None);
    };
    let db = u8::try_from(row.try_get::<_, i16>(6)?)
        .ok()
        .and_then(Db::new);
    let name: &[u8] = row.try_get(7)?;
    let age = Duration::try_from_secs_f64(row.try_get(10)?).unwrap_or_default();
    Ok(Some(SqlChange {
        key: db.map(|db| Key::new(db, Bytes::copy_from_slice(name))),
        version: Version(row.try_get(8)?),
        event: row.try_get(9)?,
        made_at: now.checked_sub(age).unwrap_or(now),
        place: (xact, row.try_get(5)?),
    }))
}

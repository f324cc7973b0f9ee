//! Keys that SQL changed, and which proxy tells the cache of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use deadpool_postgres::{ClientWrapper, Object};
use tokio_postgres::types::ToSql;

use super::{FenceState, Store, StoreError, load};
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
    SELECT f.generation, f.state, l.state, s.last_value,
           pg_snapshot_xmax(n.now)::text::bigint,
           ARRAY(SELECT open::text::bigint FROM pg_snapshot_xip(n.now) open),
           c.xact, c.id, c.db, c.key, c.version, c.event,
           extract(epoch FROM clock_timestamp() - c.made_at)::float8
      FROM freshet.fence f CROSS JOIN freshet.change_limit l CROSS JOIN freshet.change_id_seq s
     CROSS JOIN (SELECT pg_current_snapshot() AS now) n
      LEFT JOIN LATERAL (
           SELECT * FROM (
               (SELECT late.* FROM unnest($2::bigint[]) AS was_open CROSS JOIN LATERAL (
                    SELECT * FROM freshet.change
                     WHERE xact = was_open AND (xact, id) > ($3, $4) ORDER BY xact, id LIMIT $5) late)
               UNION ALL
               (SELECT * FROM freshet.change
                 WHERE xact >= $1 AND (xact, id) > ($3, $4) ORDER BY xact, id LIMIT $5)) found
            ORDER BY xact, id LIMIT $5) c ON true";

const FORGET: &str = "
    DELETE FROM freshet.change c USING unnest($1::bigint[], $2::bigint[]) AS u (xact, id)
     WHERE c.xact = u.xact AND c.id = u.id";

/// Which keys have changes of which the cache was not told; all, while changes are not noted.
const NOTED: &str = "
    SELECT u.ord::int FROM unnest($1::smallint[], $2::bytea[]) WITH ORDINALITY AS u (db, key, ord)
     WHERE (u.db, u.key) IN (SELECT c.db, c.key FROM freshet.change c WHERE c.key = ANY ($2))
        OR (SELECT l.state <> 'open' FROM freshet.change_limit l)";

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
    /// The snapshot that they were read in.
    horizon: Horizon,
}

/// What a snapshot can see: all transactions that were over. Later ones, and those that
/// were open, are what the next may see besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Horizon {
    /// The first transaction that had not begun.
    next: i64,
    /// Those before it that were open.
    open: Vec<i64>,
}

/// Which changes are to be read next. Transactions do not commit in the order of their numbers, and rows that
/// were deleted lately are dear to pass over again; so changes are looked for only where they can newly have come.
/// (Numbers are given out twice only by a server that crashed, which ends the session.)
#[derive(Debug, Default, PartialEq, Eq)]
struct Position {
    /// All changes that it could see are told of.
    base: Horizon,
    /// The first snapshot in which those after it are being read, and how far they are.
    reading: Option<Horizon>,
    after: (i64, i64),
}

impl Position {
    /// The changes that were read are told of: all of them, or those up to `last`.
    fn advance(&mut self, horizon: Horizon, last: Option<(i64, i64)>) {
        // What came meanwhile to places before `last` is of transactions that were open in the first.
        let first = self.reading.take().unwrap_or(horizon);
        match last {
            Some(last) => {
                self.reading = Some(first);
                self.after = last;
            }
            None => {
                self.base = first;
                self.after = (0, 0);
            }
        }
    }
}

/// The changes, as the proxy reads them whose turn it is to tell of them.
///
/// Nothing rests on there being one: what two tell, they tell twice.
pub struct ChangeLog<'a> {
    store: &'a Store,
    /// Out of the pool: it listens, and its commits do not wait for the disk.
    session: ClientWrapper,
    holder: i64,
    position: Position,
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

    /// Of each of `keys`, whether SQL has changed it and the cache may not have been told yet.
    pub async fn are_untold(&self, keys: &[Key]) -> Result<Vec<bool>, StoreError> {
        let client = self.connection().await?;
        let (dbs, names) = load::columns(keys.iter());
        let mut untold = vec![false; keys.len()];
        let asking = async { Ok(client.query(NOTED, &[&dbs, &names]).await?) };
        for row in &self.bounded(asking).await? {
            untold[load::ordinal(row)?] = true;
        }
        Ok(untold)
    }

    /// Leaves the turn of `holder`, if it has it, to others.
    pub async fn leave_changes(&self, holder: i64) -> Result<(), StoreError> {
        let client = self.connection().await?;
        let leaving = async { Ok(client.execute(RELEASE, &[&holder]).await?) };
        self.bounded(leaving).await.map(drop)
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
            position: Position::default(),
        })
    }
}

impl ChangeLog<'_> {
    /// Keeps the turn for `length` from now; `false`: another has it.
    pub async fn keep(&self, length: Duration) -> Result<bool, StoreError> {
        let seconds = length.as_secs_f64();
        Ok(self.execute(CLAIM, &[&self.holder, &seconds]).await? == 1)
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

    /// Up to `rows` changes that were not told of.
    pub async fn read(&self, rows: u16) -> Result<ChangePage, StoreError> {
        let Position { base, after, .. } = &self.position;
        let limit = i64::from(rows);
        let reading = async {
            let statement = self.session.prepare_cached(READ).await?;
            let values: [&(dyn ToSql + Sync); 5] =
                [&base.next, &base.open, &after.0, &after.1, &limit];
            Ok(self.session.query(&statement, &values).await?)
        };
        let found = self.store.bounded(reading).await?;
        let now = Instant::now();
        let first = found.first();
        let first = first.ok_or_else(|| load::missing_row("freshet.fence"))?;
        let mut changes = Vec::with_capacity(found.len());
        for row in &found {
            changes.extend(change(row, now)?);
        }
        let is_full = changes.len() == usize::from(rows);
        let lowest = changes.iter().map(|change| change.place.1).min();
        let highest: i64 = first.try_get(3)?;
        Ok(ChangePage {
            generation: Generation(first.try_get(0)?),
            state: FenceState::parse(first.try_get(1)?)?,
            noting: match first.try_get(2)? {
                "open" => Noting::Open,
                "full" => Noting::Full,
                _ => Noting::Voiding,
            },
            is_full,
            backlog: lowest.map_or(0, |lowest| (highest - lowest + 1).unsigned_abs()),
            horizon: Horizon {
                next: first.try_get(4)?,
                open: first.try_get(5)?,
            },
            changes,
        })
    }

    /// Forgets the changes of a page, which were told of, and goes on behind them.
    pub async fn forget(&mut self, told: ChangePage) -> Result<(), StoreError> {
        let (transactions, numbers): (Vec<i64>, Vec<i64>) =
            told.changes.iter().map(|change| change.place).unzip();
        if !transactions.is_empty() {
            self.execute(FORGET, &[&transactions, &numbers]).await?;
        }
        let last = told.changes.iter().map(|change| change.place).max();
        self.position
            .advance(told.horizon, last.filter(|_| told.is_full));
        Ok(())
    }

    async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError> {
        let running = async {
            let statement = self.session.prepare_cached(sql).await?;
            Ok(self.session.execute(&statement, values).await?)
        };
        self.store.bounded(running).await
    }
}

/// The change in a row, if there is one.
fn change(row: &tokio_postgres::Row, now: Instant) -> Result<Option<SqlChange>, StoreError> {
    let Some(xact) = row.try_get(6)? else {
        return Ok(None);
    };
    let db = u8::try_from(row.try_get::<_, i16>(8)?)
        .ok()
        .and_then(Db::new);
    let name: &[u8] = row.try_get(9)?;
    let age = Duration::try_from_secs_f64(row.try_get(12)?).unwrap_or_default();
    Ok(Some(SqlChange {
        key: db.map(|db| Key::new(db, Bytes::copy_from_slice(name))),
        version: Version(row.try_get(10)?),
        event: row.try_get(11)?,
        made_at: now.checked_sub(age).unwrap_or(now),
        place: (xact, row.try_get(7)?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn horizon(next: i64, open: &[i64]) -> Horizon {
        Horizon {
            next,
            open: open.to_vec(),
        }
    }

    #[test]
    fn what_was_open_when_a_reading_began_is_read_again_after_it() {
        let mut position = Position::default();
        position.advance(horizon(10, &[7]), Some((5, 1)));
        assert_eq!(position.after, (5, 1));
        // Meanwhile 7 has ended, and is passed by. Its changes are found in the next reading.
        position.advance(horizon(12, &[]), Some((9, 3)));
        assert_eq!(
            (&position.base, position.after),
            (&Horizon::default(), (9, 3))
        );
        position.advance(horizon(13, &[]), None);
        assert_eq!(
            (&position.base, position.after),
            (&horizon(10, &[7]), (0, 0))
        );
        position.advance(horizon(15, &[14]), None);
        assert_eq!(position.base, horizon(15, &[14]));
        assert_eq!(position.reading, None);
    }
}

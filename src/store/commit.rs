//! The write transaction of a batch: guard, load, write, commit, and what
//! became of a COMMIT that got no answer.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::elements;
use super::journal::{self, Advance};
use super::load::{self, AFTER_LOCKS, LOCK_AND_LOAD, LoadRequest, Locked};
use super::once::{self, Kept};
use super::{FenceState, Store, StoreError};
use crate::model::{Collection, Effect, Generation, Key, UnixMs, Value, Version};

const GUARD: &str = "SELECT generation, state, alive, now_ms FROM freshet.guard($1, $2)";

/// Writes rows whatever was there: blind writes, and rows locked by the load.
/// Rows come back in the order of the arrays: a function scan keeps it, and so
/// does the insert above it.
const UPSERT: &str = "
    INSERT INTO freshet.keys AS k (db, key, kind, version, expires_ms, value, content, size, meta)
    SELECT u.db, u.key, u.kind, p.version + 1, u.expires_ms, u.value, u.content, u.size, u.meta
      FROM freshet.purge p CROSS JOIN
           unnest($1::smallint[], $2::bytea[], $3::smallint[], $4::bigint[], $5::bytea[],
                  $6::bigint[], $7::bigint[], $8::bytea[])
             AS u (db, key, kind, expires_ms, value, content, size, meta)
        ON CONFLICT (db, key) DO UPDATE
       SET kind = excluded.kind, version = k.version + 1,
           expires_ms = excluded.expires_ms, value = excluded.value,
           content = coalesce(excluded.content, k.content),
           size = excluded.size, meta = excluded.meta
    RETURNING version";

/// Creates rows that the load did not find. One that is there now gives no
/// row back: somebody else was first, and the batch runs again.
const CREATE: &str = "
    INSERT INTO freshet.keys AS k (db, key, kind, version, expires_ms, value, content, size, meta)
    SELECT u.db, u.key, u.kind, p.version + 1, u.expires_ms, u.value, u.content, u.size, u.meta
      FROM freshet.purge p CROSS JOIN
           unnest($1::smallint[], $2::bytea[], $3::smallint[], $4::bigint[], $5::bytea[],
                  $6::bigint[], $7::bigint[], $8::bytea[])
             AS u (db, key, kind, expires_ms, value, content, size, meta)
        ON CONFLICT (db, key) DO NOTHING
    RETURNING version";

/// Changes the rows of collections that the load locked: elements were changed.
const CHANGE: &str = "
    UPDATE freshet.keys k
       SET version = k.version + 1, expires_ms = u.expires_ms, size = u.size, meta = u.meta
      FROM unnest($1::smallint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[])
             WITH ORDINALITY AS u (db, key, expires_ms, size, meta, ord)
     WHERE k.db = u.db AND k.key = u.key
    RETURNING u.ord::int, k.version";

/// Remembers contents that were replaced.
const DISCARD: &str =
    "INSERT INTO freshet.garbage SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING";

/// Keeps keys that the load did not find from being created by others, without
/// a change: a placeholder has the version that no row means.
const HOLD_ABSENT: &str = "
    INSERT INTO freshet.keys AS k (db, key, kind, version, expires_ms, value)
    SELECT u.db, u.key, NULL, p.version, $3, NULL
      FROM freshet.purge p CROSS JOIN unnest($1::smallint[], $2::bytea[]) AS u (db, key)
        ON CONFLICT (db, key) DO NOTHING";

/// Changes the expiry of rows that the load locked.
const SET_EXPIRY: &str = "
    UPDATE freshet.keys k SET version = k.version + 1, expires_ms = u.expires_ms
      FROM unnest($1::smallint[], $2::bytea[], $3::bigint[])
             WITH ORDINALITY AS u (db, key, expires_ms, ord)
     WHERE k.db = u.db AND k.key = u.key
    RETURNING u.ord::int, k.version";

const WRITE_BLIND: &str = "
    SELECT now_ms, versions FROM freshet.write_blind($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Waits for an open transaction of the attempt; see the table's comment.
const DECIDE: &str = "INSERT INTO freshet.attempt VALUES ($1, $2) ON CONFLICT DO NOTHING";

const FORGET: &str = "
    DELETE FROM freshet.attempt a
     WHERE proxy = $1 AND number < $2
        OR EXISTS (SELECT FROM freshet.proxy p
                    WHERE p.id = a.proxy AND p.ended_at < now() - interval '1 hour')";

/// One attempt to commit a batch; no two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The proxy's registration.
    pub proxy: i32,
    /// Its number in that proxy, from 1.
    pub number: i64,
}

/// What the first statement of a write transaction tells; it stays true until the end.
#[derive(Debug)]
pub struct Guard {
    /// The generation of the cache.
    pub generation: Generation,
    /// Its state.
    pub state: FenceState,
    /// Whether this proxy's registration is alive. If not, nothing may be committed.
    pub alive: bool,
    /// The store's clock.
    pub now: UnixMs,
}

/// What the batch knows of a key's row when it writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// It was not loaded (a blind write), or it was and is locked.
    LockedOrBlind,
    /// It was loaded and was not there.
    Missing,
}

/// The effect of a batch on one key.
#[derive(Debug)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a Key,
    /// What the batch did to it.
    pub effect: &'a Effect,
    /// What is known of its row.
    pub row: RowState,
    /// The number under which its row's elements stand, if it was loaded and has one.
    pub content_id: Option<i64>,
}

impl<'a> Change<'a> {
    /// Whether it replaces or deletes what was there.
    fn is_whole(&self) -> bool {
        matches!(self.effect, Effect::Whole(_) | Effect::Delete)
    }

    /// When the key ends from now on.
    fn expires_at(&self) -> Option<UnixMs> {
        match self.effect {
            Effect::Whole(entry) | Effect::Delta(entry) => entry.expires_at,
            Effect::Expiry(at) => *at,
            Effect::Delete => None,
        }
    }

    fn collection(&self) -> Option<&'a Collection> {
        match self.effect {
            Effect::Whole(entry) | Effect::Delta(entry) => match &entry.value {
                Value::Collection(collection) => Some(collection),
                Value::String(_) => None,
            },
            Effect::Delete | Effect::Expiry(_) => None,
        }
    }
}

/// What writing the effects gave.
#[derive(Debug)]
pub enum Written {
    /// The new version of each change, in their order.
    Versions(Vec<Version>),
    /// A key that was missing exists now: roll back and run the batch again.
    Contended,
}

/// What became of a transaction whose COMMIT got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed.
    Committed,
    /// It is rolled back, or was never begun; it will never be committed.
    Aborted,
}

/// Bytes of collections that are loaded besides, in the middle of a transaction, at most.
const MORE_BYTES_MAX: usize = 1 << 20;

/// A connection that runs one write transaction after another.
pub struct Session {
    client: Object,
    guard: Statement,
    write_blind: Statement,
    load: Statement,
    load_at_once: Statement,
    after_locks: Statement,
    upsert: Statement,
    create: Statement,
    set_expiry: Statement,
    change: Statement,
    /// Numbers for new contents.
    contents: Mutex<Range<i64>>,
    /// How many bytes of collections may be loaded at once.
    load_limit: usize,
    /// How long an answer may take.
    answer_limit: Duration,
    /// The connection is open and of no use any more.
    is_spent: AtomicBool,
    /// The pool that it was taken from.
    pool_number: u64,
}

impl Session {
    /// Takes a connection from the pool and prepares the statements on it.
    pub async fn open(store: &Store) -> Result<Self, StoreError> {
        let pool_number = store.pool_number();
        let client = store.connection().await?;
        let at_once = load::lock_and_load_at_once();
        let preparing = async {
            Ok(tokio::try_join!(
                client.prepare_cached(GUARD),
                client.prepare_cached(WRITE_BLIND),
                client.prepare_cached(LOCK_AND_LOAD),
                client.prepare_cached(&at_once),
                client.prepare_cached(AFTER_LOCKS),
                client.prepare_cached(UPSERT),
                client.prepare_cached(CREATE),
                client.prepare_cached(SET_EXPIRY),
                client.prepare_cached(CHANGE),
            )?)
        };
        let prepared = store.bounded(Box::pin(preparing)).await;
        let (guard, write_blind, load, load_at_once, after_locks, upsert, create, expiry, change) =
            match prepared {
                Ok(prepared) => prepared,
                Err(error) => {
                    // Whatever is wrong with it, the next try is on another.
                    drop(Object::take(client));
                    return Err(error);
                }
            };
        Ok(Self {
            client,
            guard,
            write_blind,
            load,
            load_at_once,
            after_locks,
            upsert,
            create,
            set_expiry: expiry,
            change,
            contents: Mutex::new(0..0),
            load_limit: store.load_limit(),
            answer_limit: store.answer_limit(),
            is_spent: AtomicBool::new(false),
            pool_number,
        })
    }

    /// Whether the connection has ended, or is of no use any more.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed() || self.is_spent.load(Ordering::Relaxed)
    }

    /// The number of the pool that the connection is of: see [`Store::turn_to`].
    pub fn pool_number(&self) -> u64 {
        self.pool_number
    }

    /// Waits for `work` as long as an answer may take; see [`Store::bounded`].
    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.answer_limit;
        let done = tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(StoreError::Lost(format!("no answer within {limit:?}"))));
        if done.as_ref().is_err_and(StoreError::ends_connection) {
            self.is_spent.store(true, Ordering::Relaxed);
        }
        done
    }

    /// Writes blind `changes` in a transaction of their own: one statement, one
    /// round trip. What is deleted, is deleted at `now`. Returns the store's
    /// time and the new versions.
    ///
    /// # Errors
    /// [`StoreError::Lost`] leaves the outcome open: see [`super::Store::outcome`].
    pub async fn write_blind(
        &self,
        attempt: Attempt,
        (generation, state): (Generation, FenceState),
        changes: &[Change<'_>],
        now: UnixMs,
    ) -> Result<(UnixMs, Vec<Version>), StoreError> {
        let rows = Rows::of(changes.iter(), now);
        let state = state.name();
        let values: [&(dyn ToSql + Sync); 9] = [
            &attempt.proxy,
            &attempt.number,
            &generation.0,
            &state,
            &rows.dbs,
            &rows.names,
            &rows.kinds,
            &rows.expiries,
            &rows.values,
        ];
        let writing = async { Ok(self.client.query_one(&self.write_blind, &values).await?) };
        let row = self.bounded(writing).await?;
        let versions: Vec<i64> = row.try_get(1)?;
        let versions = versions.into_iter().map(Version).collect();
        Ok((UnixMs(row.try_get(0)?), versions))
    }

    /// Begins a transaction and loads `requests` (sorted by key, each once)
    /// under row locks: one round trip. The time is the store's, after the locks. So is what
    /// is kept under `tokens`: who waited for the locks of another that used one finds it.
    pub async fn begin_and_load(
        &self,
        attempt: Attempt,
        requests: &[LoadRequest],
        tokens: &[&[u8]],
    ) -> Result<(Guard, (Vec<Locked>, UnixMs), Vec<Kept>), StoreError> {
        let statements = (&self.load, &self.after_locks);
        let loading = async {
            tokio::try_join!(
                self.execute("BEGIN"),
                self.guard(attempt),
                load::lock_and_load(&self.client, statements, requests, self.load_limit),
                once::find(&self.client, tokens, self.load_limit),
            )
        };
        let (_, guard, locked, kept) = self.bounded(loading).await?;
        Ok((guard, locked, kept))
    }

    /// Locks and loads more within the transaction, and tells the time after that. `None` if that cannot be done here:
    /// a row is locked by another transaction, or it is too much. Then roll back, and begin with these too.
    pub async fn load_more(
        &self,
        requests: &[LoadRequest],
    ) -> Result<Option<(Vec<Locked>, UnixMs)>, StoreError> {
        let statements = (&self.load_at_once, &self.after_locks);
        let limit = self.load_limit.min(MORE_BYTES_MAX);
        let loading = load::lock_and_load(&self.client, statements, requests, limit);
        match self.bounded(Box::pin(loading)).await {
            Ok(loaded) => Ok(Some(loaded)),
            Err(error) if error.is_outage() => Err(error),
            // Of several statements that failed, any may be the one that is told of.
            Err(_) => Ok(None),
        }
    }

    /// Writes `changes`, sorted by key, each key once; what is deleted, at `now`.
    pub async fn write(&self, changes: &[Change<'_>], now: UnixMs) -> Result<Written, StoreError> {
        self.bounded(Box::pin(self.write_all(changes, now))).await
    }

    async fn write_all(&self, changes: &[Change<'_>], now: UnixMs) -> Result<Written, StoreError> {
        let mut versions = vec![Version::default(); changes.len()];
        let rows = |wanted: fn(&Change<'_>) -> bool| -> Vec<usize> {
            (0..changes.len())
                .filter(|&index| wanted(&changes[index]))
                .collect()
        };
        let expiries = rows(|c| matches!(c.effect, Effect::Expiry(_)));
        let deltas = rows(|c| matches!(c.effect, Effect::Delta(_)));
        let creates = rows(|c| c.row == RowState::Missing && c.is_whole());
        let upserts = rows(|c| c.row == RowState::LockedOrBlind && c.is_whole());
        let contents = self.contents(changes).await?;
        let (upserted, created, expired, changed, (), ()) = tokio::try_join!(
            self.insert(&self.upsert, (changes, &contents), &upserts, now),
            self.insert(&self.create, (changes, &contents), &creates, now),
            self.set_expiries(changes, &expiries),
            self.change(changes, &deltas),
            elements::write(&self.client, changes, &contents),
            self.discard(changes),
        )?;
        if created.len() < creates.len() {
            return Ok(Written::Contended);
        }
        for (index, version) in upserts
            .into_iter()
            .zip(upserted)
            .chain(creates.into_iter().zip(created))
        {
            versions[index] = version;
        }
        for (ordinal, version) in expired {
            versions[expiries[ordinal]] = version;
        }
        for (ordinal, version) in changed {
            versions[deltas[ordinal]] = version;
        }
        Ok(Written::Versions(versions))
    }

    /// Keeps `keys`, sorted, which have no row, from being created by others until
    /// the end of the transaction; purged some time after `now`. `false` if
    /// one of them has a row by now: roll back and run the batch again.
    pub async fn hold_absent(&self, keys: &[Key], now: UnixMs) -> Result<bool, StoreError> {
        if keys.is_empty() {
            return Ok(true);
        }
        let (dbs, names) = load::columns(keys.iter());
        let values: [&(dyn ToSql + Sync); 3] = [&dbs, &names, &now.0];
        let holding = async {
            let statement = self.client.prepare_cached(HOLD_ABSENT).await?;
            Ok(self.client.execute(&statement, &values).await?)
        };
        Ok(self.bounded(holding).await? == keys.len() as u64)
    }

    /// Keeps replies until `ends`, under tokens (sorted) that were not used. `false` if one is
    /// by now: roll back and run the batch again.
    pub async fn keep(&self, kept: &[Kept], ends: UnixMs) -> Result<bool, StoreError> {
        self.bounded(once::keep(&self.client, kept, ends)).await
    }

    /// Notes how far the journal is written, if this does any of it. `false`: it does not stand
    /// where this began; roll back.
    pub async fn advance(&self, step: Option<&Advance>) -> Result<bool, StoreError> {
        match step {
            None => Ok(true),
            Some(step) => self.bounded(journal::advance(&self.client, step)).await,
        }
    }

    /// Commits. [`StoreError::Lost`] leaves the outcome open: see [`super::Store::outcome`].
    pub async fn commit(&self) -> Result<(), StoreError> {
        self.bounded(self.execute("COMMIT")).await
    }

    /// Rolls back; returns once the server has confirmed it.
    pub async fn rollback(&self) -> Result<(), StoreError> {
        self.bounded(self.execute("ROLLBACK")).await
    }

    async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        Ok(self.client.batch_execute(sql).await?)
    }

    async fn guard(&self, attempt: Attempt) -> Result<Guard, StoreError> {
        let values: [&(dyn ToSql + Sync); 2] = [&attempt.proxy, &attempt.number];
        let row = self.client.query_opt(&self.guard, &values).await?;
        let row = row.ok_or_else(|| load::missing_row("freshet.fence"))?;
        // A registration that is not there at all gives NULLs.
        let generation: Option<i64> = row.try_get(0)?;
        let Some(generation) = generation else {
            return Err(load::missing_row("this proxy in freshet.proxy"));
        };
        Ok(Guard {
            generation: Generation(generation),
            state: FenceState::parse(row.try_get(1)?)?,
            alive: row.try_get(2)?,
            now: UnixMs(row.try_get(3)?),
        })
    }

    async fn insert(
        &self,
        statement: &Statement,
        (changes, contents): (&[Change<'_>], &[Option<i64>]),
        indices: &[usize],
        now: UnixMs,
    ) -> Result<Vec<Version>, StoreError> {
        if indices.is_empty() {
            return Ok(Vec::new());
        }
        let rows = Rows::of(indices.iter().map(|&index| &changes[index]), now);
        let contents: Vec<Option<i64>> = indices
            .iter()
            .map(|&index| contents[index].filter(|_| changes[index].collection().is_some()))
            .collect();
        let (sizes, metas) = sizes_and_metas(changes, indices);
        let values: [&(dyn ToSql + Sync); 8] = [
            &rows.dbs,
            &rows.names,
            &rows.kinds,
            &rows.expiries,
            &rows.values,
            &contents,
            &sizes,
            &metas,
        ];
        let rows = self.client.query(statement, &values).await?;
        rows.iter()
            .map(|row| Ok(Version(row.try_get(0)?)))
            .collect()
    }

    /// The number of each change's elements: a new one for a whole collection.
    async fn contents(&self, changes: &[Change<'_>]) -> Result<Vec<Option<i64>>, StoreError> {
        let mut contents = Vec::with_capacity(changes.len());
        for change in changes {
            contents.push(match change.effect {
                Effect::Delta(_) => change.content_id,
                Effect::Whole(_) if change.collection().is_some() => Some(self.content().await?),
                _ => None,
            });
        }
        Ok(contents)
    }

    async fn content(&self) -> Result<i64, StoreError> {
        let next = || {
            self.contents
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next()
        };
        if let Some(content) = next() {
            return Ok(content);
        }
        let mut more = elements::next_contents(&self.client).await?;
        let content = more.next().unwrap_or_default();
        *self.contents.lock().unwrap_or_else(PoisonError::into_inner) = more;
        Ok(content)
    }

    /// Leaves to the sweep what whole collections replace.
    async fn discard(&self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        let replaced: Vec<i64> = changes
            .iter()
            .filter(|change| change.is_whole() && change.collection().is_some())
            .filter_map(|change| change.content_id)
            .collect();
        if !replaced.is_empty() {
            let statement = self.client.prepare_cached(DISCARD).await?;
            self.client.execute(&statement, &[&replaced]).await?;
        }
        Ok(())
    }

    /// Changes the rows of collections whose elements were changed.
    async fn change(
        &self,
        changes: &[Change<'_>],
        indices: &[usize],
    ) -> Result<Vec<(usize, Version)>, StoreError> {
        let (sizes, metas) = sizes_and_metas(changes, indices);
        self.update(&self.change, changes, indices, &[&sizes, &metas])
            .await
    }

    async fn set_expiries(
        &self,
        changes: &[Change<'_>],
        indices: &[usize],
    ) -> Result<Vec<(usize, Version)>, StoreError> {
        self.update(&self.set_expiry, changes, indices, &[]).await
    }

    /// Runs a statement on rows that the load locked, whose arguments are these rows' keys, their
    /// new expiries and `more`. Returns which of `indices` got which version.
    async fn update(
        &self,
        statement: &Statement,
        changes: &[Change<'_>],
        indices: &[usize],
        more: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<(usize, Version)>, StoreError> {
        if indices.is_empty() {
            return Ok(Vec::new());
        }
        let (dbs, names) = load::columns(indices.iter().map(|&index| changes[index].key));
        let expiries: Vec<Option<i64>> = indices
            .iter()
            .map(|&index| changes[index].expires_at().map(|at| at.0))
            .collect();
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&dbs, &names, &expiries];
        values.extend_from_slice(more);
        let rows = self.client.query(statement, &values).await?;
        rows.iter()
            .map(|row| Ok((load::ordinal(row)?, Version(row.try_get(1)?))))
            .collect()
    }
}

/// Changes as the arrays that `unnest` takes.
struct Rows<'a> {
    dbs: Vec<i16>,
    names: Vec<&'a [u8]>,
    kinds: Vec<Option<i16>>,
    expiries: Vec<Option<i64>>,
    values: Vec<Option<&'a [u8]>>,
}

impl<'a> Rows<'a> {
    /// What is deleted becomes a tombstone, purged some time after `now`.
    fn of<'c: 'a>(changes: impl Iterator<Item = &'c Change<'c>>, now: UnixMs) -> Self {
        let capacity = changes.size_hint().0;
        let mut rows = Self {
            dbs: Vec::with_capacity(capacity),
            names: Vec::with_capacity(capacity),
            kinds: Vec::with_capacity(capacity),
            expiries: Vec::with_capacity(capacity),
            values: Vec::with_capacity(capacity),
        };
        for change in changes {
            rows.dbs.push(i16::from(change.key.db.index()));
            rows.names.push(&change.key.name[..]);
            if let Effect::Whole(entry) = change.effect {
                rows.kinds.push(Some(load::kind_code(entry.value.kind())));
                rows.expiries.push(entry.expires_at.map(|at| at.0));
                rows.values.push(match &entry.value {
                    Value::String(bytes) => Some(bytes),
                    Value::Collection(_) => None,
                });
            } else {
                rows.kinds.push(None);
                rows.expiries.push(Some(now.0));
                rows.values.push(None);
            }
        }
        rows
    }
}

/// The columns of collections; NULL for other changes.
fn sizes_and_metas<'a>(
    changes: &'a [Change<'_>],
    indices: &[usize],
) -> (Vec<Option<i64>>, Vec<Option<&'a [u8]>>) {
    let collections = indices.iter().map(|&index| changes[index].collection());
    collections
        .map(|found| (found.map(|c| c.len() as i64), found.map(|c| &c.meta()[..])))
        .unzip()
}

/// Decides what became of `attempt`: see the comment of `freshet.attempt`.
/// Waits while its transaction is open.
pub(super) async fn outcome(client: &Object, attempt: Attempt) -> Result<Outcome, StoreError> {
    let values: [&(dyn ToSql + Sync); 2] = [&attempt.proxy, &attempt.number];
    let inserted = client.execute(DECIDE, &values).await?;
    Ok(if inserted == 0 {
        Outcome::Committed
    } else {
        Outcome::Aborted
    })
}

/// Forgets the attempts of `before.proxy` below `before.number`, and those of
/// proxies that ended long ago.
pub(super) async fn forget(client: &Object, before: Attempt) -> Result<(), StoreError> {
    client
        .execute(FORGET, &[&before.proxy, &before.number])
        .await?;
    Ok(())
}

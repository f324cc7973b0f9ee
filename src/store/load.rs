//! Reads of named keys: what a batch needs under row locks, what a miss needs
//! from one snapshot.

use bytes::Bytes;
use deadpool_postgres::Object;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Row, Statement};

use super::{FenceState, StoreError};
use crate::engine::{Content, Loaded, Need};
use crate::model::{Generation, Key, Kind, UnixMs, Value, Version};

/// A value up to this many bytes is loaded even where only the header is
/// needed, so that the cache can be set instead of invalidated.
const SMALL_VALUE_BYTES: i32 = 4096;

/// Reads keys from one snapshot, with the fence as it was in that snapshot.
const SNAPSHOT: &str = "
    SELECT u.ord::int, k.kind, coalesce(k.version, p.version), k.expires_ms, k.value,
           freshet.now_ms(), f.generation, f.state
      FROM unnest($1::smallint[], $2::bytea[]) WITH ORDINALITY AS u (db, key, ord)
      LEFT JOIN freshet.keys k ON k.db = u.db AND k.key = u.key
      CROSS JOIN freshet.purge p CROSS JOIN freshet.fence f";

/// Locks those rows that are there, in key order, and reads them. A missing
/// row locks nothing: it is created by a guarded insert (see `commit`).
pub(super) const LOCK_AND_LOAD: &str = "
    SELECT u.ord::int, k.kind, k.version, k.expires_ms,
           CASE WHEN u.want_value OR octet_length(k.value) <= $4 THEN k.value END
      FROM unnest($1::smallint[], $2::bytea[], $3::bool[])
             WITH ORDINALITY AS u (db, key, want_value, ord)
      JOIN freshet.keys k ON k.db = u.db AND k.key = u.key
     ORDER BY k.db, k.key
       FOR UPDATE OF k";

/// The time after the locks were taken, and what a missing key's version is.
pub(super) const AFTER_LOCKS: &str = "SELECT freshet.now_ms(), (SELECT version FROM freshet.purge)";

/// A key that a batch loads under its row lock.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The key.
    pub key: Key,
    /// How much of it.
    pub need: Need,
}

/// What a batch found of a key, under its row lock.
#[derive(Clone, Debug)]
pub struct Locked {
    /// What calls run on.
    pub loaded: Loaded,
    /// Whether there is a row, live or tombstone, and so a lock. Without one
    /// somebody else may create the key until the batch does.
    pub has_row: bool,
}

/// Keys read from one snapshot of the store.
#[derive(Debug)]
pub struct Snapshot {
    /// One for each key asked for, in that order.
    pub keys: Vec<Loaded>,
    /// The store's clock.
    pub now: UnixMs,
    /// The fence, in the same snapshot.
    pub generation: Generation,
    /// Its state.
    pub state: FenceState,
}

/// Reads `keys`, at least one, from one snapshot.
pub(super) async fn snapshot(client: &Object, keys: &[Key]) -> Result<Snapshot, StoreError> {
    let statement = client.prepare_cached(SNAPSHOT).await?;
    let (dbs, names) = columns(keys.iter());
    let rows = client.query(&statement, &[&dbs, &names]).await?;
    let first = rows
        .first()
        .ok_or_else(|| missing_row("freshet.fence or freshet.purge"))?;
    let now = UnixMs(first.try_get(5)?);
    let generation = Generation(first.try_get(6)?);
    let state = FenceState::parse(first.try_get(7)?)?;
    let mut found: Vec<Option<Loaded>> = vec![None; keys.len()];
    for row in &rows {
        found[ordinal(row)?] = Some(loaded(row, row.try_get(5).map(UnixMs)?)?);
    }
    let keys = found
        .into_iter()
        .map(|loaded| loaded.ok_or_else(|| missing_row("freshet.purge")))
        .collect::<Result<_, _>>()?;
    Ok(Snapshot {
        keys,
        now,
        generation,
        state,
    })
}

/// Locks and loads `requests` (in key order, each key once) within a transaction.
/// Returns them in the same order, and the store's time after the locks.
pub(super) async fn lock_and_load(
    client: &tokio_postgres::Client,
    statements: (&Statement, &Statement),
    requests: &[LoadRequest],
) -> Result<(Vec<Locked>, UnixMs), StoreError> {
    let (dbs, names) = columns(requests.iter().map(|r| &r.key));
    let want: Vec<bool> = requests.iter().map(|r| r.need.whole).collect();
    let values: [&(dyn ToSql + Sync); 4] = [&dbs, &names, &want, &SMALL_VALUE_BYTES];
    let (rows, after) = tokio::try_join!(
        client.query(statements.0, &values),
        client.query_one(statements.1, &[]),
    )?;
    let now = UnixMs(after.try_get(0)?);
    let purged = Version(after.try_get(1)?);
    let absent = Loaded {
        version: purged,
        content: Content::Absent,
        expires_at: None,
    };
    let mut found = vec![
        Locked {
            loaded: absent,
            has_row: false
        };
        requests.len()
    ];
    for row in &rows {
        found[ordinal(row)?] = Locked {
            loaded: loaded(row, now)?,
            has_row: true,
        };
    }
    Ok((found, now))
}

/// `(ord, kind, version, expires_ms, value, ..)` as [`Loaded`].
fn loaded(row: &Row, now: UnixMs) -> Result<Loaded, StoreError> {
    let version = Version(row.try_get(2)?);
    let kind: Option<i16> = row.try_get(1)?;
    let expires_at = row.try_get::<_, Option<i64>>(3)?.map(UnixMs);
    let expired = expires_at.is_some_and(|at| at <= now);
    if kind.is_none() || expired {
        return Ok(Loaded {
            version,
            content: Content::Absent,
            expires_at: None,
        });
    }
    let content = match row.try_get::<_, Option<RowBytes<'_>>>(4)? {
        Some(value) => Content::Value(Value::String(value.0)),
        None => Content::Header(Kind::String),
    };
    Ok(Loaded {
        version,
        content,
        expires_at,
    })
}

/// A `bytea` copied once, straight from the row.
struct RowBytes<'a>(Bytes, std::marker::PhantomData<&'a ()>);

impl<'a> FromSql<'a> for RowBytes<'a> {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Bytes::copy_from_slice(raw), std::marker::PhantomData))
    }

    fn accepts(ty: &tokio_postgres::types::Type) -> bool {
        *ty == tokio_postgres::types::Type::BYTEA
    }
}

/// Databases and names as the arrays that `unnest` takes.
pub(super) fn columns<'a>(keys: impl Iterator<Item = &'a Key>) -> (Vec<i16>, Vec<&'a [u8]>) {
    keys.map(|key| (i16::from(key.db.index()), &key.name[..]))
        .unzip()
}

/// Column 0, counted from 1 by `WITH ORDINALITY`, as an index.
pub(super) fn ordinal(row: &Row) -> Result<usize, StoreError> {
    Ok(row.try_get::<_, i32>(0)? as usize - 1)
}

pub(super) fn missing_row(what: &str) -> StoreError {
    StoreError::Schema(format!(
        "the row of {what} is gone: the schema was tampered with"
    ))
}

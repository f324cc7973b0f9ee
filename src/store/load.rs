//! Reads of named keys: what a batch needs under row locks, what a miss needs
//! from one snapshot.

use bytes::Bytes;
use deadpool_postgres::Object;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Row, Statement};

use super::parts::{self, Header, Loading, Part, Room, Wanted};
use super::{FenceState, StoreError};
use crate::engine::{Content, Loaded, Need};
use crate::model::{Generation, Key, Kind, UnixMs, Value, Version};

/// A value up to this many bytes is loaded even where only the header is
/// needed, so that the cache can be set instead of invalidated.
const SMALL_VALUE_BYTES: i32 = 4096;

/// Reads keys from one snapshot, with the fence as it was in that snapshot.
const SNAPSHOT: &str = "
    SELECT u.ord::int, k.kind, coalesce(k.version, p.version), k.expires_ms, k.value,
           k.size, k.meta, freshet.now_ms(), f.generation, f.state
      FROM unnest($1::smallint[], $2::bytea[]) WITH ORDINALITY AS u (db, key, ord)
      LEFT JOIN freshet.keys k ON k.db = u.db AND k.key = u.key
      CROSS JOIN freshet.purge p CROSS JOIN freshet.fence f";

/// Locks those rows that are there, in key order, and reads them. A missing
/// row locks nothing: it is created by a guarded insert (see `commit`).
pub(super) const LOCK_AND_LOAD: &str = "
    SELECT u.ord::int, k.kind, k.version, k.expires_ms,
           CASE WHEN u.want_value OR octet_length(k.value) <= $4 THEN k.value END,
           k.size, k.meta, k.content
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
    /// Instead of the whole of a large collection, only this is loaded; of the
    /// reads alone, not of what a batch locks.
    pub of_large: Option<Large>,
}

/// What is loaded of a collection that is too large for the cache.
#[derive(Clone, Debug)]
pub struct Large {
    /// One with more elements than this is large.
    pub above: u64,
    /// What is needed of it.
    pub need: Need,
}

impl LoadRequest {
    /// All of `key`, or so much of it.
    pub fn new(key: Key, need: Need) -> Self {
        Self {
            key,
            need,
            of_large: None,
        }
    }

    /// Whether `key` is there, its version and expiry.
    pub fn header(key: Key) -> Self {
        Self::new(key, Need::header())
    }

    /// The same, but of a collection of more elements than `above`, or than it says
    /// itself, only what its own need for that says.
    fn cut(&self, header: Option<&Header>, above: u64) -> Self {
        let large = self.of_large.as_ref();
        let large = large.filter(|large| {
            let above = large.above.min(above);
            header.is_some_and(|header| header.size > above)
        });
        let need = large.map_or(&self.need, |large| &large.need);
        Self::new(self.key.clone(), need.clone())
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            key: &self.key,
            need: &self.need,
        }
    }
}

/// The same, where a lock that another transaction holds is an error: whoever holds locks already waits for none
/// out of the order of keys.
pub(super) fn lock_and_load_at_once() -> String {
    format!("{LOCK_AND_LOAD} NOWAIT")
}

/// What a batch found of a key, under its row lock.
#[derive(Clone, Debug)]
pub struct Locked {
    /// What calls run on.
    pub loaded: Loaded,
    /// Whether there is a row, live or tombstone, and so a lock. Without one
    /// somebody else may create the key until the batch does.
    pub has_row: bool,
    /// The number under which its row's elements stand, live or not.
    pub content_id: Option<i64>,
}

impl Locked {
    /// The same at a later time, by which its end may have passed.
    pub fn end_by(&mut self, now: UnixMs) {
        if self.loaded.expires_at.is_some_and(|end| end <= now) {
            self.loaded.content = Content::Absent;
        }
    }
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

/// Reads `requests`, at least one, from one snapshot, of which collections may be
/// `load_limit` bytes. Whoever asks for elements of a collection pays a second round trip.
pub(super) async fn snapshot(
    client: &mut Object,
    requests: &[LoadRequest],
    load_limit: usize,
) -> Result<Snapshot, StoreError> {
    let (found, headers) = read_rows(client, requests).await?;
    if headers.iter().all(Option::is_none) {
        return Ok(found);
    }
    match read_elements(client, requests, u64::MAX, load_limit).await {
        // Few elements, but long ones: then they count as a large collection.
        Err(StoreError::TooLarge(_)) if requests.iter().any(|r| r.of_large.is_some()) => {
            read_elements(client, requests, 0, load_limit).await
        }
        read => read,
    }
}

/// The rows once more, since they must be of the same snapshot as their elements,
/// and these. A collection of more elements than `above` is large in any case.
async fn read_elements(
    client: &mut Object,
    requests: &[LoadRequest],
    above: u64,
    load_limit: usize,
) -> Result<Snapshot, StoreError> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let room = Room::new(load_limit);
    let read = async {
        let (_, (mut found, headers)) = tokio::try_join!(
            async { Ok(client.batch_execute(BEGIN).await?) },
            read_rows(client, requests),
        )?;
        let requests: Vec<LoadRequest> = requests
            .iter()
            .zip(&headers)
            .map(|(request, header)| request.cut(header.as_ref(), above))
            .collect();
        let wanted: Vec<Wanted<'_>> = requests.iter().map(LoadRequest::wanted).collect();
        let loading = Loading {
            client,
            wanted: &wanted,
            room: &room,
        };
        let mut parts = Box::pin(loading.parts()).await?;
        fill_in(loading, &headers, &mut parts).await?;
        for (((loaded, header), request), part) in found
            .keys
            .iter_mut()
            .zip(&headers)
            .zip(&requests)
            .zip(parts)
        {
            complete(loaded, header.as_ref(), &request.need, part);
        }
        Ok(found)
    };
    let found: Result<Snapshot, StoreError> = read.await;
    client.batch_execute("COMMIT").await?;
    found
}

/// The headers of live collections among the rows, beside what strings hold.
async fn read_rows(
    client: &Object,
    requests: &[LoadRequest],
) -> Result<(Snapshot, Vec<Option<Header>>), StoreError> {
    let statement = client.prepare_cached(SNAPSHOT).await?;
    let (dbs, names) = columns(requests.iter().map(|request| &request.key));
    let rows = client.query(&statement, &[&dbs, &names]).await?;
    let first = rows
        .first()
        .ok_or_else(|| missing_row("freshet.fence or freshet.purge"))?;
    let now = UnixMs(first.try_get(7)?);
    let generation = Generation(first.try_get(8)?);
    let state = FenceState::parse(first.try_get(9)?)?;
    let mut found: Vec<Option<Loaded>> = vec![None; requests.len()];
    let mut headers: Vec<Option<Header>> = vec![None; requests.len()];
    for row in &rows {
        let index = ordinal(row)?;
        let (loaded, header) = loaded(row, now)?;
        found[index] = Some(loaded);
        headers[index] = header;
    }
    let keys = found
        .into_iter()
        .map(|loaded| loaded.ok_or_else(|| missing_row("freshet.purge")))
        .collect::<Result<_, _>>()?;
    let snapshot = Snapshot {
        keys,
        now,
        generation,
        state,
    };
    Ok((snapshot, headers))
}

/// Loads all elements of those collections of which the whole is wanted.
async fn fill_in(
    loading: Loading<'_>,
    headers: &[Option<Header>],
    parts: &mut [Part],
) -> Result<(), StoreError> {
    let whole: Vec<usize> = (0..headers.len())
        .filter(|&index| loading.wanted[index].need.whole && headers[index].is_some())
        .collect();
    loading.whole(&whole, parts).await
}

/// Puts the collection in place of its bare header.
fn complete(loaded: &mut Loaded, header: Option<&Header>, need: &Need, part: Part) {
    if let Some(header) = header {
        let collection = parts::assemble(header, need, part);
        loaded.content = Content::Value(Value::Collection(Box::new(collection)));
    }
}

/// Locks and loads `requests` (in key order, each key once) within a transaction.
/// Returns them in the same order, and the store's time after the locks. Of collections
/// no more than `load_limit` bytes are loaded.
pub(super) async fn lock_and_load(
    client: &Object,
    statements: (&Statement, &Statement),
    requests: &[LoadRequest],
    load_limit: usize,
) -> Result<(Vec<Locked>, UnixMs), StoreError> {
    let (dbs, names) = columns(requests.iter().map(|r| &r.key));
    let want: Vec<bool> = requests.iter().map(|r| r.need.whole).collect();
    let values: [&(dyn ToSql + Sync); 4] = [&dbs, &names, &want, &SMALL_VALUE_BYTES];
    let wanted: Vec<Wanted<'_>> = requests.iter().map(LoadRequest::wanted).collect();
    let room = Room::new(load_limit);
    let loading = Loading {
        client,
        wanted: &wanted,
        room: &room,
    };
    // Sent in this order, so that what follows the locks sees what they waited for.
    let (rows, after, mut parts) = tokio::try_join!(
        async { Ok(client.query(statements.0, &values).await?) },
        async { Ok(client.query_one(statements.1, &[]).await?) },
        // Several statements at once are a large future.
        Box::pin(loading.parts()),
    )?;
    let now = UnixMs(after.try_get(0)?);
    let purged = Version(after.try_get(1)?);
    let absent = Locked {
        loaded: Loaded {
            version: purged,
            content: Content::Absent,
            expires_at: None,
        },
        has_row: false,
        content_id: None,
    };
    let mut found = vec![absent; requests.len()];
    let mut headers: Vec<Option<Header>> = vec![None; requests.len()];
    for row in &rows {
        let index = ordinal(row)?;
        let (loaded, header) = loaded(row, now)?;
        headers[index] = header;
        found[index] = Locked {
            loaded,
            has_row: true,
            content_id: row.try_get(7)?,
        };
    }
    fill_in(loading, &headers, &mut parts).await?;
    for (((locked, header), request), part) in
        found.iter_mut().zip(&headers).zip(requests).zip(parts)
    {
        complete(&mut locked.loaded, header.as_ref(), &request.need, part);
    }
    Ok((found, now))
}

/// `(ord, kind, version, expires_ms, value, size, meta, ..)` as [`Loaded`]; of a
/// live collection also its header.
fn loaded(row: &Row, now: UnixMs) -> Result<(Loaded, Option<Header>), StoreError> {
    let version = Version(row.try_get(2)?);
    let kind: Option<i16> = row.try_get(1)?;
    let expires_at = row.try_get::<_, Option<i64>>(3)?.map(UnixMs);
    let expired = expires_at.is_some_and(|at| at <= now);
    let Some(code) = kind.filter(|_| !expired) else {
        let absent = Loaded {
            version,
            content: Content::Absent,
            expires_at: expires_at.filter(|_| kind.is_some()),
        };
        return Ok((absent, None));
    };
    let kind = kind_of(code)?;
    let content = match row.try_get::<_, Option<RowBytes<'_>>>(4)? {
        Some(value) => Content::Value(Value::String(value.0)),
        None => Content::Header(kind),
    };
    let header = if kind == Kind::String {
        None
    } else {
        let meta = row.try_get::<_, Option<RowBytes<'_>>>(6)?;
        Some(Header {
            kind,
            size: row.try_get::<_, Option<i64>>(5)?.unwrap_or(0) as u64,
            meta: meta.map_or_else(Bytes::new, |meta| meta.0),
        })
    };
    let loaded = Loaded {
        version,
        content,
        expires_at,
    };
    Ok((loaded, header))
}

/// The codes of `freshet.keys.kind` are the places in [`Kind::ALL`].
pub(super) fn kind_code(kind: Kind) -> i16 {
    kind as i16
}

pub(super) fn kind_of(code: i16) -> Result<Kind, StoreError> {
    let kind = usize::try_from(code)
        .ok()
        .and_then(|code| Kind::ALL.get(code));
    kind.copied()
        .ok_or_else(|| StoreError::Schema(format!("freshet.keys has a key of unknown kind {code}")))
}

/// A `bytea` copied once, straight from the row.
pub(super) struct RowBytes<'a>(pub(super) Bytes, std::marker::PhantomData<&'a ()>);

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

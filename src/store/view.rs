//! Keys as a whole, as they are at one moment: for what leaves Freshet.

use ahash::AHashSet;
use bytes::Bytes;
use deadpool_postgres::Object;
use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::load::{RowBytes, columns, kind_of};
use super::parts::element;
use super::{Store, StoreError};
use crate::model::{Collection, Db, Element, Key, Kind, Known, UnixMs, Value};

/// Longer strings are fetched one by one, so that a page of them fits into memory.
const STRING_OF_PAGE: i32 = 64 << 10;
/// Bytes of elements that are loaded at once; a collection of more is large.
const ELEMENTS_BYTES: usize = 32 << 20;
/// Elements of a collection that is not large, at most.
const ELEMENTS: i64 = 100_000;
/// Rows of elements in one piece of a large collection, at most.
const PIECE_ROWS: i64 = 1000;

const COLUMNS: &str = "k.db, k.key, k.kind, k.expires_ms,
    CASE WHEN octet_length(k.value) <= $1 THEN k.value END, k.size, k.meta, k.content, freshet.now_ms()";

/// What a key holds at that moment.
#[derive(Clone, Debug)]
pub enum Held {
    /// All of it.
    Value(Value),
    /// So much that it comes in pieces: see [`View::piece`].
    Large(LargeKey),
}

/// A collection that was not loaded.
#[derive(Clone, Debug)]
pub struct LargeKey {
    /// Its type.
    pub kind: Kind,
    /// What its row says of the number of its elements.
    pub size: u64,
    meta: Bytes,
    content: i64,
}

/// A live key.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Which.
    pub key: Key,
    /// What it holds.
    pub held: Held,
    /// When it ends.
    pub expires_at: Option<UnixMs>,
}

/// Where a piece of a large collection begins, and how much is asked for.
#[derive(Clone, Debug)]
pub struct Place {
    from: Vec<u8>,
    rows: i64,
}

impl Default for Place {
    /// The beginning.
    fn default() -> Self {
        Self {
            from: Vec::new(),
            rows: PIECE_ROWS,
        }
    }
}

/// Live keys in order.
#[derive(Debug, Default)]
pub struct Keys {
    /// The keys.
    pub keys: Vec<Stored>,
    /// Where the next page begins; nothing at the end.
    pub next: Option<Bytes>,
}

/// Everything as it is at the moment of the first use: a transaction.
pub struct View {
    /// Until it ends.
    client: Option<Object>,
    load_limit: usize,
}

/// A view that was not ended may be in the middle of something: its session ends with it.
impl Drop for View {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

/// A live key's row, its elements not yet loaded.
struct Header {
    key: Key,
    kind: Kind,
    expires_at: Option<UnixMs>,
    value: Option<Bytes>,
    size: i64,
    meta: Bytes,
    content: Option<i64>,
}

impl Store {
    /// Opens a view, which may be used for as long as it takes.
    pub async fn view(&self) -> Result<View, StoreError> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
            SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0";
        let view = View {
            client: Some(self.connection().await?),
            load_limit: self.load_limit(),
        };
        let begin = async { Ok(view.client()?.batch_execute(BEGIN).await?) };
        self.bounded(begin).await?;
        Ok(view)
    }
}

impl View {
    fn client(&self) -> Result<&Object, StoreError> {
        let client = self.client.as_ref();
        client.ok_or_else(|| StoreError::Lost("the view has ended".to_owned()))
    }

    /// Ends it, and gives its connection back.
    pub async fn end(mut self) -> Result<(), StoreError> {
        if let Some(client) = &self.client {
            client.batch_execute("COMMIT").await?;
        }
        // Nothing is left to be rolled back with the session.
        drop(self.client.take());
        Ok(())
    }

    /// Whether these transactions, which have committed, are visible at that moment.
    pub async fn sees(&self, transactions: &AHashSet<u32>) -> Result<bool, StoreError> {
        let client = self.client()?;
        let statement = client
            .prepare_cached("SELECT pg_current_snapshot()::text")
            .await?;
        let row = client.query_one(&statement, &[]).await?;
        visible(row.try_get(0)?, transactions)
            .ok_or_else(|| StoreError::Schema("pg_current_snapshot tells no snapshot".to_owned()))
    }

    /// The databases that have keys: `(database, keys, keys with an end)`.
    pub async fn sizes(&self) -> Result<Vec<(Db, i64, i64)>, StoreError> {
        super::keyspace::sizes(self.client()?).await
    }

    /// The first `count` keys of `db` from `from` on, of those that begin with `prefix`.
    pub async fn page(
        &self,
        db: Db,
        (from, prefix): (&[u8], &[u8]),
        count: i64,
    ) -> Result<Keys, StoreError> {
        // Tombstones and keys that have ended are read too, and left out here: a page of them alone
        // takes no longer than any other.
        let sql = format!(
            "SELECT {COLUMNS} FROM freshet.keys k
              WHERE k.db = $2 AND k.key >= $3 AND ($4::bytea IS NULL OR k.key < $4)
              ORDER BY k.db, k.key LIMIT $5"
        );
        let client = self.client()?;
        let statement = client.prepare_cached(&sql).await?;
        let from = from.max(prefix);
        let below = super::keyspace::below(prefix);
        let db = i16::from(db.index());
        let values: [&(dyn ToSql + Sync); 5] = [&STRING_OF_PAGE, &db, &from, &below, &count];
        let rows = client.query(&statement, &values).await?;
        let last = rows.last().filter(|_| rows.len() as i64 >= count);
        let next = match last {
            Some(last) => Some(successor(last.try_get(1)?)),
            None => None,
        };
        let keys = self.complete(&rows).await?;
        Ok(Keys { keys, next })
    }

    /// Those of `keys` that are live, in any order.
    pub async fn named(&self, keys: &[Key]) -> Result<Vec<Stored>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM unnest($2::smallint[], $3::bytea[]) AS u (db, key)
               JOIN freshet.keys k ON k.db = u.db AND k.key = u.key"
        );
        let client = self.client()?;
        let statement = client.prepare_cached(&sql).await?;
        let (dbs, names) = columns(keys.iter());
        let values: [&(dyn ToSql + Sync); 3] = [&STRING_OF_PAGE, &dbs, &names];
        self.complete(&client.query(&statement, &values).await?)
            .await
    }

    async fn complete(&self, rows: &[Row]) -> Result<Vec<Stored>, StoreError> {
        let mut headers = Vec::with_capacity(rows.len());
        for row in rows {
            headers.extend(header(row)?);
        }
        let is_small = |header: &&Header| header.kind != Kind::String && header.size <= ELEMENTS;
        let contents: Vec<i64> = headers
            .iter()
            .filter(is_small)
            .filter_map(|header| header.content)
            .collect();
        let mut loaded = Vec::with_capacity(contents.len());
        Box::pin(self.elements(&contents, &mut loaded)).await?;
        let mut loaded = loaded.into_iter();
        let mut keys = Vec::with_capacity(headers.len());
        for mut header in headers {
            let is_asked = is_small(&&header) && header.content.is_some();
            let elements = if is_asked {
                loaded.next().flatten()
            } else {
                None
            };
            let held = match (header.kind, header.value.take()) {
                (Kind::String, Some(value)) => Some(Held::Value(Value::String(value))),
                (Kind::String, None) => {
                    let value = self.string(&header.key).await?;
                    Some(Held::Value(Value::String(value)))
                }
                _ => held(&header, elements),
            };
            // Somebody has deleted its elements by SQL: Redis knows no empty key.
            let Some(held) = held else { continue };
            keys.push(Stored {
                key: header.key,
                held,
                expires_at: header.expires_at,
            });
        }
        Ok(keys)
    }

    async fn string(&self, key: &Key) -> Result<Bytes, StoreError> {
        const SQL: &str = "SELECT value FROM freshet.keys WHERE db = $1 AND key = $2";
        let client = self.client()?;
        let statement = client.prepare_cached(SQL).await?;
        let db = i16::from(key.db.index());
        let row = client.query_one(&statement, &[&db, &&key.name[..]]).await?;
        let value = row.try_get::<_, Option<RowBytes<'_>>>(0)?;
        Ok(value.map_or_else(Bytes::new, |value| value.0))
    }

    /// The elements under each of `contents`; `None` of one that has too many bytes of them.
    async fn elements(
        &self,
        contents: &[i64],
        loaded: &mut Vec<Option<Elements>>,
    ) -> Result<(), StoreError> {
        if contents.is_empty() {
            return Ok(());
        }
        match self.elements_within(contents, ELEMENTS_BYTES).await? {
            Some(all) => loaded.extend(all.into_iter().map(Some)),
            None if contents.len() == 1 => loaded.push(None),
            None => {
                let (one, other) = contents.split_at(contents.len() / 2);
                Box::pin(self.elements(one, loaded)).await?;
                Box::pin(self.elements(other, loaded)).await?;
            }
        }
        Ok(())
    }

    /// The same, unless all together take more than `room` bytes.
    async fn elements_within(
        &self,
        contents: &[i64],
        room: usize,
    ) -> Result<Option<Vec<Elements>>, StoreError> {
        const SQL: &str = "
            SELECT u.ord::int, coalesce(e.name, e.field), e.rank, e.value
              FROM unnest($1::bigint[]) WITH ORDINALITY AS u (content, ord)
              JOIN freshet.element e ON e.content = u.content";
        let client = self.client()?;
        let statement = client.prepare_cached(SQL).await?;
        let values: [&(dyn ToSql + Sync); 1] = [&contents];
        let rows = client.query_raw(&statement, values).await?;
        let mut rows = std::pin::pin!(rows);
        let mut left = room;
        let mut found: Vec<Elements> = vec![Elements::new(); contents.len()];
        while let Some(row) = rows.try_next().await? {
            match left.checked_sub(row.raw_size_bytes()) {
                Some(less) => left = less,
                None => return Ok(None),
            }
            found[super::load::ordinal(&row)?].push(element(&row)?);
        }
        Ok(Some(found))
    }

    /// All of a large collection, unless it takes more than `[postgres] load_limit` bytes.
    pub async fn whole(&self, large: &LargeKey) -> Result<Option<Value>, StoreError> {
        let contents = [large.content];
        let loaded = self.elements_within(&contents, self.load_limit);
        let elements = loaded.await?.and_then(|mut all| all.pop());
        Ok(elements.and_then(|elements| assembled(large, elements)))
    }

    /// How many elements it has.
    pub async fn count(&self, large: &LargeKey) -> Result<u64, StoreError> {
        const SQL: &str = "SELECT count(*) FROM freshet.element WHERE content = $1";
        let client = self.client()?;
        let statement = client.prepare_cached(SQL).await?;
        let row = client.query_one(&statement, &[&large.content]).await?;
        Ok(row.try_get::<_, i64>(0)?.cast_unsigned())
    }

    /// The next elements in the order of their fields, as a collection of them alone; nothing at the end.
    /// Not of a stream, which has more than entries.
    pub async fn piece(
        &self,
        large: &LargeKey,
        place: &mut Place,
    ) -> Result<Option<Collection>, StoreError> {
        // From the next possible field on.
        const SQL: &str = "
            SELECT e.field, coalesce(e.name, e.field), e.rank, e.value FROM freshet.element e
             WHERE e.content = $1 AND e.field >= $2 ORDER BY e.field LIMIT $3";
        let client = self.client()?;
        let statement = client.prepare_cached(SQL).await?;
        let values: [&(dyn ToSql + Sync); 3] = [&large.content, &place.from, &place.rows];
        let rows = client.query_raw(&statement, values).await?;
        let mut rows = std::pin::pin!(rows);
        let (mut found, mut left) = (Elements::new(), ELEMENTS_BYTES);
        while let Some(row) = rows.try_next().await? {
            left = left.saturating_sub(row.raw_size_bytes());
            place.from = successor(row.try_get(0)?).into();
            found.push(element(&row)?);
            if left == 0 {
                break;
            }
        }
        // As many as had room; fewer were asked for than there are, if there was room left.
        place.rows = match left {
            0 => found.len() as i64,
            _ => (place.rows * 2).min(PIECE_ROWS),
        };
        Ok(match found.is_empty() {
            true => None,
            false => Some(collection(large, found)),
        })
    }
}

/// Whether transactions that have ended are visible in this snapshot, `xmin:xmax:list of those still open`. (They are
/// known by the lower half of their number.)
fn visible(snapshot: &str, transactions: &AHashSet<u32>) -> Option<bool> {
    let mut parts = snapshot.split(':').skip(1);
    let next: u64 = parts.next()?.parse().ok()?;
    let open: Vec<u32> = parts
        .next()?
        .split(',')
        .filter(|text| !text.is_empty())
        .map(|text| Some(text.parse::<u64>().ok()? as u32))
        .collect::<Option<_>>()?;
    // Numbers wrap around: one is before another if it is so within half of them.
    let is_before = |number: &u32| (*number).wrapping_sub(next as u32).cast_signed() < 0;
    Some(transactions.iter().all(is_before) && !open.iter().any(|one| transactions.contains(one)))
}

/// No bytes follow these more closely.
fn successor(bytes: &[u8]) -> Bytes {
    Bytes::from([bytes, &[0]].concat())
}

/// Elements with their fields.
type Elements = Vec<(Bytes, Element)>;

/// A row as a header, unless the key has ended.
fn header(row: &Row) -> Result<Option<Header>, StoreError> {
    let Some(code) = row.try_get::<_, Option<i16>>(2)? else {
        return Ok(None);
    };
    let (expires_ms, now): (Option<i64>, i64) = (row.try_get(3)?, row.try_get(8)?);
    if expires_ms.is_some_and(|end| end <= now) {
        return Ok(None);
    }
    let db = u8::try_from(row.try_get::<_, i16>(0)?)
        .ok()
        .and_then(Db::new)
        .ok_or_else(|| StoreError::Schema("freshet.keys has a database over 15".into()))?;
    let bytes = |index| -> Result<Option<Bytes>, StoreError> {
        let bytes = row.try_get::<_, Option<RowBytes<'_>>>(index)?;
        Ok(bytes.map(|bytes| bytes.0))
    };
    Ok(Some(Header {
        key: Key::new(db, bytes(1)?.unwrap_or_default()),
        kind: kind_of(code)?,
        expires_at: expires_ms.map(UnixMs),
        value: bytes(4)?,
        size: row.try_get::<_, Option<i64>>(5)?.unwrap_or(0),
        meta: bytes(6)?.unwrap_or_default(),
        content: row.try_get(7)?,
    }))
}

/// What a collection holds, if its elements were loaded; nothing if there are none.
fn held(header: &Header, elements: Option<Elements>) -> Option<Held> {
    let large = LargeKey {
        kind: header.kind,
        size: header.size.cast_unsigned(),
        meta: header.meta.clone(),
        content: header.content?,
    };
    match elements {
        Some(elements) => assembled(&large, elements).map(Held::Value),
        None => Some(Held::Large(large)),
    }
}

/// The collection of these elements; nothing, if it is empty where that cannot be.
fn assembled(large: &LargeKey, elements: Elements) -> Option<Value> {
    if elements.is_empty() && large.kind != Kind::Stream {
        return None;
    }
    let collection = collection(large, elements);
    Some(Value::Collection(Box::new(collection)))
}

fn collection(large: &LargeKey, elements: Elements) -> Collection {
    // Who changed the rows by SQL may have left the count behind. (In a stream not every element counts.)
    let size = match large.kind {
        Kind::Stream => large.size,
        _ => elements.len() as u64,
    };
    let known = Known {
        whole: true,
        ..Known::default()
    };
    let elements = elements
        .into_iter()
        .map(|(field, element)| (field, Some(element)));
    Collection::loaded(
        large.kind,
        size,
        large.meta.clone(),
        known,
        elements.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_visible_when_a_snapshot_says_so() {
        let sees = |snapshot: &str, numbers: &[u32]| {
            visible(snapshot, &numbers.iter().copied().collect()).unwrap()
        };
        assert!(sees("10:20:12,15", &[3, 11, 19]));
        assert!(!sees("10:20:12,15", &[3, 12]));
        assert!(!sees("10:20:", &[20]));
        assert!(sees("10:20:", &[]));
        // The next one is number 5 of the second round.
        assert!(sees(
            "4294967290:4294967301:4294967299",
            &[4_294_967_295, 4]
        ));
        assert!(!sees("4294967290:4294967301:4294967299", &[3]));
        assert!(!sees("4294967290:4294967301:4294967299", &[6]));
        assert_eq!(visible("nothing", &AHashSet::new()), None);
    }
}

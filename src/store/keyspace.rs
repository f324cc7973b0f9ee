//! Commands over all keys of a database: SCAN, KEYS, RANDOMKEY, DBSIZE, and
//! those that empty or swap databases.

use bytes::Bytes;
use deadpool_postgres::Object;

use super::StoreError;
use super::load::kind_of;
use crate::model::{Db, Generation, Kind};

const LIVE: &str = "kind IS NOT NULL AND (expires_ms IS NULL OR expires_ms > freshet.now_ms())";

/// As the index `keys_scan` has it.
const POSITION: &str = "('x' || substr(md5(key), 1, 15))::bit(60)::bigint";

/// One step of a SCAN.
#[derive(Debug)]
pub struct ScanPage {
    /// Where the next step begins; 0 at the end.
    pub cursor: u64,
    /// The keys of this step with their types.
    pub keys: Vec<(Bytes, Kind)>,
}

/// Which databases a flush empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushScope {
    /// `FLUSHDB`.
    One(Db),
    /// `FLUSHALL`.
    All,
}

/// At least `count` keys (fewer at the end) from the position `cursor` on.
///
/// A key's position never changes, so a key that is there throughout a full
/// iteration is returned by it.
pub(super) async fn scan(
    client: &Object,
    db: Db,
    cursor: u64,
    count: i64,
) -> Result<ScanPage, StoreError> {
    let Ok(from) = i64::try_from(cursor) else {
        return Ok(ScanPage {
            cursor: 0,
            keys: Vec::new(),
        });
    };
    let sql = format!(
        "SELECT key, {POSITION}, kind FROM freshet.keys
          WHERE db = $1 AND {POSITION} >= $2 AND {LIVE}
          ORDER BY {POSITION} FETCH FIRST $3 ROWS WITH TIES"
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client
        .query(&statement, &[&index(db), &from, &count])
        .await?;
    let next = match rows.last() {
        Some(last) if rows.len() as i64 >= count => last.try_get::<_, i64>(1)? as u64 + 1,
        _ => 0,
    };
    let keys = rows
        .iter()
        .map(|row| Ok((name(row)?, kind_of(row.try_get(2)?)?)))
        .collect::<Result<_, StoreError>>()?;
    Ok(ScanPage { cursor: next, keys })
}

/// Above all that begins with `prefix`. One of nothing but bytes 255 has no end: then all from it on.
pub(super) fn below(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// All keys that begin with `prefix`.
pub(super) async fn keys(client: &Object, db: Db, prefix: &[u8]) -> Result<Vec<Bytes>, StoreError> {
    let end = below(prefix);
    let sql = format!(
        "SELECT key FROM freshet.keys
          WHERE db = $1 AND key >= $2 AND ($3::bytea IS NULL OR key < $3) AND {LIVE}"
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client
        .query(&statement, &[&index(db), &prefix, &end])
        .await?;
    rows.iter().map(name).collect()
}

/// A key at random, if there is one.
pub(super) async fn random_key(client: &Object, db: Db) -> Result<Option<Bytes>, StoreError> {
    let sql = format!(
        "SELECT key FROM freshet.keys
          WHERE db = $1 AND {POSITION} >= $2 AND {LIVE}
          ORDER BY {POSITION} LIMIT 1"
    );
    let statement = client.prepare_cached(&sql).await?;
    let somewhere: i64 = rand::random_range(0..1 << 60);
    for from in [somewhere, 0] {
        if let Some(row) = client.query_opt(&statement, &[&index(db), &from]).await? {
            return name(&row).map(Some);
        }
    }
    Ok(None)
}

/// The databases that have keys: `(database, keys, keys with an expiry)`.
pub(super) async fn sizes(client: &Object) -> Result<Vec<(Db, i64, i64)>, StoreError> {
    let sql = format!(
        "SELECT db, count(*), count(expires_ms) FROM freshet.keys WHERE {LIVE} GROUP BY db ORDER BY db"
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[]).await?;
    let mut sizes = Vec::with_capacity(rows.len());
    for row in rows {
        let db = u8::try_from(row.try_get::<_, i16>(0)?)
            .ok()
            .and_then(Db::new);
        let db =
            db.ok_or_else(|| StoreError::Schema("freshet.keys has a database over 15".into()))?;
        sizes.push((db, row.try_get(1)?, row.try_get(2)?));
    }
    Ok(sizes)
}

/// The number of live keys in `db`.
pub(super) async fn size(client: &Object, db: Db) -> Result<i64, StoreError> {
    let sql = format!("SELECT count(*) FROM freshet.keys WHERE db = $1 AND {LIVE}");
    let statement = client.prepare_cached(&sql).await?;
    Ok(client
        .query_one(&statement, &[&index(db)])
        .await?
        .try_get(0)?)
}

/// Deletes all rows of `scope`, and remembers the highest version among them.
/// Runs alone, while the cache of `generation` is in bypass; `false` if it is not.
pub(super) async fn flush(
    client: &mut Object,
    scope: FlushScope,
    generation: Generation,
) -> Result<bool, StoreError> {
    let sql = match scope {
        FlushScope::All => "
            UPDATE freshet.purge
               SET version = greatest(version, (SELECT max(version) FROM freshet.keys));
            TRUNCATE freshet.keys, freshet.element, freshet.garbage"
            .to_owned(),
        FlushScope::One(db) => format!(
            "WITH gone AS (DELETE FROM freshet.keys WHERE db = {} RETURNING version, content),
             unused AS (INSERT INTO freshet.garbage SELECT content FROM gone WHERE content IS NOT NULL)
             UPDATE freshet.purge SET version = greatest(version, (SELECT max(version) FROM gone))",
            db.index()
        ),
    };
    alone_in_bypass(client, generation, &sql).await
}

/// Exchanges the contents of two databases, like [`flush`]. All moved rows get
/// a version above every version either database had.
pub(super) async fn swap(
    client: &mut Object,
    one: Db,
    other: Db,
    generation: Generation,
) -> Result<bool, StoreError> {
    let (one, other) = (one.index(), other.index());
    let sql = format!(
        "UPDATE freshet.purge SET version = greatest(version,
             (SELECT max(version) FROM freshet.keys WHERE db IN ({one}, {other})));
         WITH moved AS (DELETE FROM freshet.keys WHERE db IN ({one}, {other}) RETURNING *)
         INSERT INTO freshet.keys (db, key, kind, version, expires_ms, value, content, size, meta)
         SELECT {one} + {other} - moved.db, key, kind, purge.version + 1, expires_ms, value, content, size, meta
           FROM moved, freshet.purge
          -- The sort reads all of moved, and so deletes all, before the first insert.
          ORDER BY key, moved.db"
    );
    alone_in_bypass(client, generation, &sql).await
}

async fn alone_in_bypass(
    client: &mut Object,
    generation: Generation,
    sql: &str,
) -> Result<bool, StoreError> {
    let transaction = client.transaction().await?;
    super::fence::lock_exclusively(&transaction).await?;
    let row = transaction
        .query_one("SELECT generation, state FROM freshet.fence", &[])
        .await?;
    if row.try_get::<_, i64>(0)? != generation.0 || row.try_get::<_, &str>(1)? != "bypass" {
        return Ok(false);
    }
    transaction.batch_execute(sql).await?;
    transaction.commit().await?;
    Ok(true)
}

fn index(db: Db) -> i16 {
    i16::from(db.index())
}

fn name(row: &tokio_postgres::Row) -> Result<Bytes, StoreError> {
    Ok(Bytes::copy_from_slice(row.try_get(0)?))
}

//! Keys whose end has passed, and that nobody was told of yet.

use bytes::Bytes;
use deadpool_postgres::Object;

use super::StoreError;
use crate::model::{Db, Key, UnixMs};

/// The lock of who makes the index.
const INDEX_CLASS: i32 = 1_179_796_830;

/// Whether the index is there and complete; NULL: it is not there at all.
const IS_INDEXED: &str =
    "SELECT (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('freshet.keys_end'))";

const INDEX: &str = "
    CREATE INDEX CONCURRENTLY keys_end ON freshet.keys (expires_ms)
     WHERE kind IS NOT NULL AND expires_ms IS NOT NULL";

/// An attempt that was cut off leaves an index that is not used, but kept up to date.
const DROP_INDEX: &str = "DROP INDEX CONCURRENTLY IF EXISTS freshet.keys_end";

/// By the index `keys_end`, whose predicate it repeats. (A function that is not
/// stable is no bound of an index scan, the value of a sub-select is.)
const ENDED: &str = "
    SELECT db, key, expires_ms FROM freshet.keys
     WHERE kind IS NOT NULL AND expires_ms IS NOT NULL
       AND expires_ms > $1 AND expires_ms <= (SELECT freshet.now_ms())
     ORDER BY expires_ms LIMIT $2";

/// The keys that ended after `since`, the first of them, in order; with their ends.
/// One that was told of is a tombstone since, and not among them.
pub(super) async fn ended(
    client: &Object,
    since: UnixMs,
    limit: i64,
) -> Result<Vec<(Key, UnixMs)>, StoreError> {
    let statement = client.prepare_cached(ENDED).await?;
    let rows = client.query(&statement, &[&since.0, &limit]).await?;
    rows.iter()
        .map(|row| {
            let index: i16 = row.try_get(0)?;
            let db = u8::try_from(index).ok().and_then(Db::new);
            let db = db.ok_or_else(|| {
                StoreError::Schema(format!("freshet.keys has a key in database {index}"))
            })?;
            let name: Vec<u8> = row.try_get(1)?;
            Ok((Key::new(db, Bytes::from(name)), UnixMs(row.try_get(2)?)))
        })
        .collect()
}

/// Sees to it that keys can be found by their ends. `false`: another proxy is about
/// to make the index.
///
/// It is no part of the schema, since it makes writes dearer that set or take away an
/// expiry: it is made when somebody first wants to hear of ends. Writes go on meanwhile.
pub(super) async fn index(client: &Object) -> Result<bool, StoreError> {
    if is_indexed(client).await? == Some(true) {
        return Ok(true);
    }
    // Two that make it at once would wait for each other.
    let row = client
        .query_one("SELECT pg_try_advisory_lock($1, 0)", &[&INDEX_CLASS])
        .await?;
    if !row.try_get::<_, bool>(0)? {
        return Ok(false);
    }
    let made = make(client).await;
    client
        .execute("SELECT pg_advisory_unlock($1, 0)", &[&INDEX_CLASS])
        .await?;
    made.map(|()| true)
}

async fn make(client: &Object) -> Result<(), StoreError> {
    let found = is_indexed(client).await?;
    if found == Some(false) {
        client.batch_execute(DROP_INDEX).await?;
    }
    if found != Some(true) {
        client.batch_execute(INDEX).await?;
        tracing::info!("freshet.keys has got an index on the ends of keys");
    }
    Ok(())
}

async fn is_indexed(client: &Object) -> Result<Option<bool>, StoreError> {
    Ok(client.query_one(IS_INDEXED, &[]).await?.try_get(0)?)
}

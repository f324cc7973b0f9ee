//! Removes what is over: rows of keys that ended long ago, and elements that no
//! key has any more.

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::StoreError;
use super::fence::{FENCE_CLASS, LOCK};

/// Looks at the next `$2` rows from the primary key `($3, $4)` on, deletes
/// those that ended more than `$1` ms ago, and raises the mark above which new
/// rows start. Tells where to go on; no row at the end of the table.
const PURGE: &str = "
    WITH page AS (
        SELECT db, key, version, content IS NOT NULL AND coalesce(kind, 0) = 0 AS is_left_over,
               coalesce(expires_ms < freshet.now_ms() - $1, false) AS is_old
          FROM freshet.keys
         WHERE (db, key) > ($3::smallint, $4::bytea) ORDER BY db, key LIMIT $2
    ), due AS MATERIALIZED (
        -- Writers wait for the purge, so it waits for nobody: an open transaction of SQL may hold a row.
        SELECT k.db, k.key, k.content, page.is_old FROM page JOIN freshet.keys k
            ON k.db = page.db AND k.key = page.key AND k.version = page.version
         WHERE page.is_old OR page.is_left_over
           FOR UPDATE OF k SKIP LOCKED
    ), gone AS (
        DELETE FROM freshet.keys k USING due
         WHERE k.db = due.db AND k.key = due.key AND due.is_old
        RETURNING k.version, k.content
    ), left_over AS (
        -- What a string or a deletion replaced: nobody has it any more.
        UPDATE freshet.keys k SET content = NULL, size = NULL, meta = NULL FROM due
         WHERE k.db = due.db AND k.key = due.key AND NOT due.is_old
    ), unused AS (
        INSERT INTO freshet.garbage
        SELECT content FROM due WHERE content IS NOT NULL
            ON CONFLICT DO NOTHING
    ), mark AS (
        UPDATE freshet.purge SET version = greatest(version, (SELECT max(version) FROM gone))
         WHERE EXISTS (SELECT FROM gone)
    )
    SELECT db, key, (SELECT count(*) FROM gone) FROM page ORDER BY db DESC, key DESC LIMIT 1";

/// Deletes up to `$1` elements of contents that no key has, and forgets those
/// contents of which none is left.
const COLLECT: &str = "
    WITH few AS (
        SELECT g.content AS content, e.field FROM freshet.garbage g
         CROSS JOIN LATERAL (SELECT field FROM freshet.element e
                              WHERE e.content = g.content LIMIT $1) e LIMIT $1
    ), gone AS (
        DELETE FROM freshet.element e USING few
         WHERE e.content = few.content AND e.field = few.field RETURNING 1
    ), done AS (
        DELETE FROM freshet.garbage g
         WHERE NOT EXISTS (SELECT FROM freshet.element e WHERE e.content = g.content)
    )
    SELECT count(*) FROM gone";

/// Where a purge goes on.
pub type Position = (i16, Vec<u8>);

/// Purges among the next `rows` rows; `None` at the end of the table. Runs
/// while no write transaction is open: an insert must see the raised mark.
pub(super) async fn purge(
    client: &Object,
    older_than_ms: i64,
    rows: i64,
    from: &Position,
) -> Result<Option<(Position, i64)>, StoreError> {
    let lock = client.prepare_cached(LOCK).await?;
    let purge = client.prepare_cached(PURGE).await?;
    let values: [&(dyn ToSql + Sync); 4] = [&older_than_ms, &rows, &from.0, &from.1];
    // All are sent at once: a proxy that stands still in between must not keep writers waiting.
    let (_, _, row, _) = tokio::try_join!(
        client.batch_execute("BEGIN"),
        client.execute(&lock, &[&FENCE_CLASS]),
        client.query_opt(&purge, &values),
        client.batch_execute("COMMIT"),
    )?;
    match row {
        None => Ok(None),
        Some(row) => Ok(Some(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))),
    }
}

/// Deletes up to `rows` elements that no key has any more; how many it found.
pub(super) async fn collect(client: &Object, rows: i64) -> Result<i64, StoreError> {
    let statement = client.prepare_cached(COLLECT).await?;
    Ok(client.query_one(&statement, &[&rows]).await?.try_get(0)?)
}

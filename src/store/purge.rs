//! Removes rows that ended long ago: expired keys and tombstones.

use deadpool_postgres::Object;

use super::StoreError;

/// Looks at the next `$2` rows from the primary key `($3, $4)` on, deletes
/// those that ended more than `$1` ms ago, and raises the mark above which new
/// rows start. Tells where to go on; no row at the end of the table.
const PURGE: &str = "
    WITH page AS (
        SELECT db, key, version, expires_ms FROM freshet.keys
         WHERE (db, key) > ($3::smallint, $4::bytea) ORDER BY db, key LIMIT $2
    ), gone AS (
        DELETE FROM freshet.keys k USING page
         WHERE k.db = page.db AND k.key = page.key AND k.version = page.version
           AND page.expires_ms < freshet.now_ms() - $1
        RETURNING k.version
    ), mark AS (
        UPDATE freshet.purge SET version = greatest(version, (SELECT max(version) FROM gone))
         WHERE EXISTS (SELECT FROM gone)
    )
    SELECT db, key, (SELECT count(*) FROM gone) FROM page ORDER BY db DESC, key DESC LIMIT 1";

/// Where a purge goes on.
pub type Position = (i16, Vec<u8>);

/// Purges among the next `rows` rows; `None` at the end of the table. Runs
/// while no write transaction is open: an insert must see the raised mark.
pub(super) async fn purge(
    client: &mut Object,
    older_than_ms: i64,
    rows: i64,
    from: &Position,
) -> Result<Option<(Position, i64)>, StoreError> {
    let transaction = client.transaction().await?;
    super::fence::lock_exclusively(&transaction).await?;
    let row = transaction
        .query_opt(PURGE, &[&older_than_ms, &rows, &from.0, &from.1])
        .await?;
    transaction.commit().await?;
    match row {
        None => Ok(None),
        Some(row) => Ok(Some(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))),
    }
}

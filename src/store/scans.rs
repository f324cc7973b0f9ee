//! Where scans of keys stand that the store answers.

use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::Object;

use super::StoreError;

/// The same number twice is no error: whoever has the other one goes on where this one stands, or
/// begins anew.
const KEEP: &str = "INSERT INTO freshet.scan (cursor, field) VALUES ($1, $2)
    ON CONFLICT (cursor) DO UPDATE SET field = excluded.field, made_at = excluded.made_at";

const FORGET: &str = "DELETE FROM freshet.scan WHERE cursor IN (
    SELECT cursor FROM freshet.scan
     WHERE made_at < now() - make_interval(secs => $1) ORDER BY made_at LIMIT $2)";

/// Keeps what `cursor` means: the next element has this field, or one behind it.
pub(super) async fn keep(client: &Object, cursor: i64, field: &Bytes) -> Result<(), StoreError> {
    let statement = client.prepare_cached(KEEP).await?;
    client.execute(&statement, &[&cursor, &&field[..]]).await?;
    Ok(())
}

/// What `cursor` means, if that is still kept.
pub(super) async fn find(client: &Object, cursor: i64) -> Result<Option<Bytes>, StoreError> {
    const FIND: &str = "SELECT field FROM freshet.scan WHERE cursor = $1";
    let statement = client.prepare_cached(FIND).await?;
    let row = client.query_opt(&statement, &[&cursor]).await?;
    let field = row.map(|row| row.try_get::<_, Vec<u8>>(0)).transpose()?;
    Ok(field.map(Bytes::from))
}

/// Forgets up to `rows` cursors that are older than `age`; how many it found.
pub(super) async fn forget(client: &Object, age: Duration, rows: i64) -> Result<u64, StoreError> {
    let statement = client.prepare_cached(FORGET).await?;
    Ok(client
        .execute(&statement, &[&age.as_secs_f64(), &rows])
        .await?)
}

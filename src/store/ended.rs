//! Keys whose end has passed, and that nobody was told of yet.

use bytes::Bytes;
use deadpool_postgres::Object;

use super::StoreError;
use crate::model::{Db, Key, UnixMs};

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

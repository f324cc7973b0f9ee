//! Replies kept under tokens of clients: `FRESHET.ONCE`.

use bytes::Bytes;
use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::StoreError;
use super::load::RowBytes;
use crate::model::UnixMs;

/// Replies are loaded only if all together have no more than `$2` bytes.
const FIND: &str = "
    SELECT o.token, o.fingerprint,
           CASE WHEN sum(octet_length(o.reply)) OVER () <= $2 THEN o.reply END
      FROM unnest($1::bytea[]) AS u (token) JOIN freshet.once o ON o.token = u.token";

/// A token that is there by now gives no row back: somebody else was first, and
/// the batch runs again. (The insert waits for one whose transaction is open.)
const KEEP: &str = "
    INSERT INTO freshet.once (token, fingerprint, reply, ends_ms)
    SELECT u.token, u.fingerprint, u.reply, $4
      FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS u (token, fingerprint, reply)
        ON CONFLICT (token) DO NOTHING";

/// Several proxies may do this at once: each takes others.
const FORGET: &str = "
    DELETE FROM freshet.once WHERE token = ANY (ARRAY(
        SELECT token FROM freshet.once WHERE ends_ms < freshet.now_ms()
         ORDER BY ends_ms LIMIT $1 FOR UPDATE SKIP LOCKED))";

/// A reply kept under a token.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The client's token.
    pub token: Bytes,
    /// What tells the unit from others: a digest.
    pub fingerprint: Bytes,
    /// The reply, packed.
    pub reply: Bytes,
}

/// What is kept under those of `tokens` that are used.
///
/// # Errors
/// [`StoreError::TooLarge`] if that is more than `load_limit` bytes.
pub(super) async fn find(
    client: &Object,
    tokens: &[&[u8]],
    load_limit: usize,
) -> Result<Vec<Kept>, StoreError> {
    if tokens.is_empty() {
        return Ok(Vec::new());
    }
    let statement = client.prepare_cached(FIND).await?;
    let limit = i64::try_from(load_limit).unwrap_or(i64::MAX);
    let rows = client.query(&statement, &[&tokens, &limit]).await?;
    let kept = rows.iter().map(|row| {
        let reply: Option<RowBytes<'_>> = row.try_get(2)?;
        Ok(Kept {
            token: row.try_get::<_, RowBytes<'_>>(0)?.0,
            fingerprint: row.try_get::<_, RowBytes<'_>>(1)?.0,
            reply: reply.ok_or(StoreError::TooLarge(load_limit))?.0,
        })
    });
    kept.collect()
}

/// Keeps these, of tokens that were not used, until `ends`, in the transaction that is
/// open. `false` if one has been used meanwhile: roll back and run the batch again.
pub(super) async fn keep(client: &Object, kept: &[Kept], ends: UnixMs) -> Result<bool, StoreError> {
    if kept.is_empty() {
        return Ok(true);
    }
    let statement = client.prepare_cached(KEEP).await?;
    let column = |of: fn(&Kept) -> &Bytes| kept.iter().map(|one| &of(one)[..]).collect();
    let tokens: Vec<&[u8]> = column(|one| &one.token);
    let fingerprints: Vec<&[u8]> = column(|one| &one.fingerprint);
    let replies: Vec<&[u8]> = column(|one| &one.reply);
    let values: [&(dyn ToSql + Sync); 4] = [&tokens, &fingerprints, &replies, &ends.0];
    let inserted = client.execute(&statement, &values).await?;
    Ok(inserted == kept.len() as u64)
}

/// Forgets up to `rows` tokens whose time is over; how many it found.
pub(super) async fn forget(client: &Object, rows: i64) -> Result<u64, StoreError> {
    let statement = client.prepare_cached(FORGET).await?;
    Ok(client.execute(&statement, &[&rows]).await?)
}

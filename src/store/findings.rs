//! What runs of `reconcile` found, and that only one runs in the background at a time.

use deadpool_postgres::Object;

use super::{Store, StoreError, load};
use crate::model::Key;

/// Class of the advisory lock of the proxy that compares in the background (object 0).
const LOCK_CLASS: i32 = 1_179_796_823;

/// ISO 8601 in UTC.
const TIME: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'";

const BEGIN: &str = "INSERT INTO freshet.reconciliation (pattern) VALUES ($1) RETURNING id";

/// A run that did not look at every key proves nothing of the others.
const END: &str = "
    WITH run AS (
        UPDATE freshet.reconciliation SET finished_at = now(), keys = $2, differences = $3, repaired = $4
         WHERE id = $1 RETURNING started_at, pattern),
    gone AS (
        DELETE FROM freshet.difference d USING run WHERE run.pattern = '*' AND d.last_seen < run.started_at)
    DELETE FROM freshet.reconciliation r USING run
     WHERE r.id < $1 - 1000 OR r.finished_at IS NULL AND r.started_at < now() - interval '7 days'";

const FORGET: &str = "
    DELETE FROM freshet.difference d USING unnest($1::smallint[], $2::bytea[]) AS u (db, key)
     WHERE d.db = u.db AND d.key = u.key";

/// One background run at a time: as long as this lives.
pub struct Turn(Option<Object>);

/// The lock goes with the session, which must not return to the pool with it.
impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            drop(Object::take(session));
        }
    }
}

impl Store {
    /// The right to compare in the background, unless another proxy has it, or did so less than
    /// `interval_seconds` ago.
    pub async fn reconcile_turn(&self, interval_seconds: f64) -> Result<Option<Turn>, StoreError> {
        let session = self.connection().await?;
        let row = session
            .query_one("SELECT pg_try_advisory_lock($1, 0)", &[&LOCK_CLASS])
            .await?;
        if !row.try_get::<_, bool>(0)? {
            return Ok(None);
        }
        let turn = Turn(Some(session));
        let recent = "SELECT EXISTS (SELECT FROM freshet.reconciliation
             WHERE pattern = '*' AND finished_at > now() - make_interval(secs => $1))";
        let client = self.connection().await?;
        let row = client.query_one(recent, &[&interval_seconds]).await?;
        Ok((!row.try_get::<_, bool>(0)?).then_some(turn))
    }

    /// Notes that a run over the keys of `pattern` begins; its number.
    pub async fn reconcile_begin(&self, pattern: &str) -> Result<i64, StoreError> {
        let client = self.connection().await?;
        Ok(client.query_one(BEGIN, &[&pattern]).await?.try_get(0)?)
    }

    /// Notes that the run has looked at all its keys, and forgets differences that it did not see.
    pub async fn reconcile_end(
        &self,
        run: i64,
        (keys, differences, repaired): (u64, u64, u64),
    ) -> Result<(), StoreError> {
        let client = self.connection().await?;
        let counts = [keys as i64, differences as i64, repaired as i64];
        client
            .execute(END, &[&run, &counts[0], &counts[1], &counts[2]])
            .await?;
        Ok(())
    }

    /// Remembers that `keys` differ, of which each stands there once. Of each, when that was first
    /// seen, and when the last run over all keys began that did not see it.
    pub async fn remember_differences(
        &self,
        keys: &[(&Key, &str)],
    ) -> Result<Vec<(String, Option<String>)>, StoreError> {
        let sql = format!(
            "INSERT INTO freshet.difference AS d (db, key, kind, absent_at)
             SELECT u.db, u.key, u.kind, (SELECT max(started_at) FROM freshet.reconciliation
                                           WHERE finished_at IS NOT NULL AND pattern = '*')
               FROM unnest($1::smallint[], $2::bytea[], $3::text[]) AS u (db, key, kind)
                 ON CONFLICT (db, key) DO UPDATE SET last_seen = now(), kind = excluded.kind
             RETURNING to_char(first_seen AT TIME ZONE 'UTC', {TIME}),
                       to_char(absent_at AT TIME ZONE 'UTC', {TIME})"
        );
        let client = self.connection().await?;
        let (dbs, names) = load::columns(keys.iter().map(|(key, _)| *key));
        let kinds: Vec<&str> = keys.iter().map(|(_, kind)| *kind).collect();
        let rows = client.query(&sql, &[&dbs, &names, &kinds]).await?;
        let times = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        times.collect()
    }

    /// Forgets differences: they are repaired.
    pub async fn forget_differences(&self, keys: &[&Key]) -> Result<(), StoreError> {
        let client = self.connection().await?;
        let (dbs, names) = load::columns(keys.iter().copied());
        client.execute(FORGET, &[&dbs, &names]).await?;
        Ok(())
    }
}

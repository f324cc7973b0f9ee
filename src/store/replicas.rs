//! What is noted of further Redis servers, and the replication slots from which they are fed.

use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::Object;
use tokio_postgres::Row;

use super::load::columns;
use super::{Store, StoreError};
use crate::model::{Db, Key};

/// Class of the advisory locks of the proxies that feed a replica (object: hash of its name).
const REPLICA_CLASS: i32 = 1_179_796_840;

/// The publication of the table of keys.
pub const PUBLICATION: &str = "freshet_keys";

/// The log position of PostgreSQL's text as a number, and back.
const LSN: &str = "(%s - '0/0')::bigint";

/// What a replica is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was brought there yet, or what is there cannot be relied on.
    New,
    /// All keys are being brought there.
    Snapshot,
    /// It has all keys, and follows the changes.
    Following,
}

impl Phase {
    /// As in the column `freshet.replica.phase`.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Snapshot => "snapshot",
            Self::Following => "following",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "snapshot" => Self::Snapshot,
            "following" => Self::Following,
            _ => Self::New,
        }
    }
}

/// What is noted of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// What it is at.
    pub phase: Phase,
    /// Counts its snapshots.
    pub epoch: i64,
    /// Counts steps within one.
    pub step: i64,
    /// Where a snapshot goes on.
    pub next: (Db, Bytes),
    /// Changes before this place in the log are there.
    pub lsn: u64,
    /// The time of the store of which it tells, in milliseconds since 1970.
    pub current_ms: Option<i64>,
}

/// Which replica: what the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaName {
    /// Its name.
    pub name: String,
    /// Where it is, without its password.
    pub url: String,
    /// Which keys are there.
    pub patterns: Vec<String>,
}

/// A replication slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Changes before this place are not told any more.
    pub confirmed: u64,
    /// Whether PostgreSQL has thrown away changes that were not told.
    pub is_lost: bool,
    /// Bytes of log that are kept for it.
    pub retained: u64,
}

/// What PostgreSQL is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// `wal_level`.
    pub wal_level: String,
    /// Whether a slot may keep any amount of log (`max_slot_wal_keep_size` is -1).
    pub is_unbounded: bool,
}

/// A line of `freshet replica status`.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Which keys are there.
    pub patterns: Vec<String>,
    /// What it is at.
    pub phase: Phase,
    /// How many snapshots were begun.
    pub snapshots: i64,
    /// Seconds since the moment of which it tells.
    pub lag_seconds: Option<f64>,
    /// Bytes of log that were written since what it has.
    pub behind_bytes: i64,
    /// Bytes of log that are kept for it; `None` if it has no slot.
    pub retained_bytes: Option<i64>,
    /// Whether a proxy feeds it at this moment.
    pub is_fed: bool,
    /// Why nothing goes on, if that is so, and since when.
    pub error: Option<(String, String)>,
}

/// The right to feed a replica: as long as this lives.
pub struct ReplicaTurn(Option<Object>);

/// The lock goes with the session, which must not return to the pool with it.
impl Drop for ReplicaTurn {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            drop(Object::take(session));
        }
    }
}

fn lsn(expression: &str) -> String {
    LSN.replace("%s", expression)
}

impl Store {
    /// What PostgreSQL is set to.
    pub async fn replication(&self) -> Result<Replication, StoreError> {
        const SQL: &str =
            "SELECT current_setting('wal_level'), current_setting('max_slot_wal_keep_size') = '-1'";
        let row = self.connection().await?.query_one(SQL, &[]).await?;
        Ok(Replication {
            wal_level: row.try_get(0)?,
            is_unbounded: row.try_get(1)?,
        })
    }

    /// The right to feed the replica called `name`, unless another proxy has it.
    pub async fn replica_turn(&self, name: &str) -> Result<Option<ReplicaTurn>, StoreError> {
        const SQL: &str = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        let session = self.connection().await?;
        let row = session.query_one(SQL, &[&REPLICA_CLASS, &name]).await?;
        let turn = row.try_get::<_, bool>(0)?;
        Ok(turn.then(|| ReplicaTurn(Some(session))))
    }

    /// Notes that a proxy has this replica in its configuration; its slot's name, and what is noted of it. If it is
    /// another server or has other keys than before, all begins anew.
    pub async fn replica(&self, replica: &ReplicaName) -> Result<(String, ReplicaRow), StoreError> {
        const SQL: &str = "
            INSERT INTO freshet.replica AS r (name, slot, url, patterns)
            SELECT $1, 'freshet_' || d.oid || '_' || $1, $2, $3 FROM pg_database d
             WHERE d.datname = current_database()
                ON CONFLICT (name) DO UPDATE
               SET configured_at = now(), url = $2, patterns = $3, slot = excluded.slot,
                   phase = CASE WHEN r.url = $2 AND r.patterns = $3 AND r.slot = excluded.slot
                                THEN r.phase ELSE 'new' END
            RETURNING slot, phase, epoch, step, db, key, lsn, current_ms";
        let client = self.connection().await?;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&replica.name, &replica.url, &replica.patterns];
        let row = client.query_one(SQL, &values).await?;
        Ok((row.try_get(0)?, replica_row(&row)?))
    }

    /// Begins a new snapshot, which changes from `lsn` on follow; what is noted then.
    pub async fn begin_snapshot(&self, name: &str, lsn: u64) -> Result<ReplicaRow, StoreError> {
        const SQL: &str = "
            UPDATE freshet.replica
               SET phase = 'snapshot', epoch = epoch + 1, step = 0, db = 0, key = '', lsn = $2
             WHERE name = $1 RETURNING slot, phase, epoch, step, db, key, lsn, current_ms";
        let client = self.connection().await?;
        let row = client.query_one(SQL, &[&name, &lsn.cast_signed()]).await?;
        replica_row(&row)
    }

    /// Notes how far a replica is, unless another proxy has gone on meanwhile.
    pub async fn replica_step(&self, name: &str, row: &ReplicaRow) -> Result<bool, StoreError> {
        const SQL: &str = "
            UPDATE freshet.replica
               SET phase = $2, step = $4::bigint, db = $5, key = $6, lsn = $7, current_ms = $8,
                   error = NULL, error_at = NULL
             WHERE name = $1 AND epoch = $3 AND step = $4::bigint - 1";
        let client = self.connection().await?;
        let statement = client.prepare_cached(SQL).await?;
        let (phase, db) = (row.phase.name(), i16::from(row.next.0.index()));
        let (key, lsn) = (&row.next.1[..], row.lsn.cast_signed());
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 8] = [
            &name,
            &phase,
            &row.epoch,
            &row.step,
            &db,
            &key,
            &lsn,
            &row.current_ms,
        ];
        Ok(client.execute(&statement, &values).await? == 1)
    }

    /// Notes why a replica is not fed.
    pub async fn replica_failed(&self, name: &str, error: &str) -> Result<(), StoreError> {
        const SQL: &str = "
            UPDATE freshet.replica SET error = $2, error_at = coalesce(error_at, now()) WHERE name = $1";
        let client = self.connection().await?;
        client.execute(SQL, &[&name, &error]).await?;
        Ok(())
    }

    /// Publishes the table of keys; whether that was done before.
    pub async fn publish_keys(&self) -> Result<bool, StoreError> {
        const SQL: &str = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)";
        let client = self.connection().await?;
        let row = client.query_one(SQL, &[&PUBLICATION]).await?;
        let was_done: bool = row.try_get(0)?;
        if !was_done {
            let sql = format!(
                "CREATE PUBLICATION {PUBLICATION} FOR TABLE freshet.keys (db, key, version)"
            );
            client.batch_execute(&sql).await?;
        }
        Ok(was_done)
    }

    /// The slot of that name in this database, if there is one that tells changes of keys.
    pub async fn slot(&self, slot: &str) -> Result<Option<Slot>, StoreError> {
        let sql = format!(
            "SELECT coalesce({}, 0), coalesce(wal_status = 'lost', false), coalesce({}, 0)
               FROM pg_replication_slots
              WHERE slot_name = $1 AND plugin = 'pgoutput' AND database = current_database()",
            lsn("confirmed_flush_lsn"),
            "(pg_current_wal_lsn() - restart_lsn)::bigint"
        );
        let client = self.connection().await?;
        let Some(row) = client.query_opt(&sql, &[&slot]).await? else {
            return Ok(None);
        };
        Ok(Some(Slot {
            confirmed: row.try_get::<_, i64>(0)?.cast_unsigned(),
            is_lost: row.try_get(1)?,
            retained: row.try_get::<_, i64>(2)?.cast_unsigned(),
        }))
    }

    /// Makes the slot anew; all that commits later is told by it, from the place on that is returned.
    pub async fn make_slot(&self, slot: &str) -> Result<u64, StoreError> {
        self.drop_slot(slot).await?;
        let sql = format!(
            "SELECT {} FROM pg_create_logical_replication_slot($1, 'pgoutput')",
            lsn("lsn")
        );
        let client = self.connection().await?;
        let row = client.query_one(&sql, &[&slot]).await?;
        Ok(row.try_get::<_, i64>(0)?.cast_unsigned())
    }

    /// Waits until all transactions that are open now have ended: they are visible then, whatever the log says of them
    /// before. Not longer than an answer may take.
    pub async fn await_open_transactions(&self) -> Result<(), StoreError> {
        const NOW: &str = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
        const ENDED: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8";
        let client = self.connection().await?;
        let next: String = client.query_one(NOW, &[]).await?.try_get(0)?;
        let waiting = async {
            while !client
                .query_one(ENDED, &[&next])
                .await?
                .try_get::<_, bool>(0)?
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        self.bounded(waiting).await
    }

    /// Drops the slot, if it is there. One that is being read is not dropped, which is an error.
    pub async fn drop_slot(&self, slot: &str) -> Result<(), StoreError> {
        const SQL: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
        let client = self.connection().await?;
        client.execute(SQL, &[&slot]).await?;
        Ok(())
    }

    /// Forgets replicas, and drops their slots, that no proxy had in its configuration for so many
    /// seconds, but for those that are `wanted`; their names.
    pub async fn forget_replicas(
        &self,
        seconds: f64,
        wanted: &[String],
    ) -> Result<Vec<String>, StoreError> {
        const OLD: &str = "
            SELECT name, slot FROM freshet.replica
             WHERE configured_at < now() - make_interval(secs => $1)
               AND name <> ALL ($2)";
        let client = self.connection().await?;
        let mut forgotten = Vec::new();
        for row in client.query(OLD, &[&seconds, &wanted]).await? {
            let (name, slot): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            self.drop_slot(&slot).await?;
            const GONE: &str = "DELETE FROM freshet.replica
                 WHERE name = $1 AND configured_at < now() - make_interval(secs => $2)";
            client.execute(GONE, &[&name, &seconds]).await?;
            forgotten.push(name);
        }
        Ok(forgotten)
    }

    /// What is known of all replicas, by name.
    pub async fn replica_status(&self) -> Result<Vec<ReplicaStatus>, StoreError> {
        const SQL: &str = "
            SELECT r.name, r.url, r.patterns, r.phase, r.epoch,
                   CASE WHEN r.current_ms IS NOT NULL
                        THEN (greatest(freshet.now_ms() - r.current_ms, 0) / 1000.0)::float8 END,
                   (pg_current_wal_lsn() - '0/0' - r.lsn)::bigint,
                   (pg_current_wal_lsn() - s.restart_lsn)::bigint,
                   EXISTS (SELECT FROM pg_locks l
                            WHERE l.locktype = 'advisory' AND l.classid::bigint = $1
                              AND l.objid = (hashtext(r.name)::bigint & 4294967295)::oid
                              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())),
                   r.error, to_char(r.error_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
              FROM freshet.replica r LEFT JOIN pg_replication_slots s ON s.slot_name = r.slot
             ORDER BY r.name";
        let client = self.connection().await?;
        let rows = client.query(SQL, &[&i64::from(REPLICA_CLASS)]).await?;
        let status = |row: &Row| -> Result<ReplicaStatus, StoreError> {
            let error: Option<String> = row.try_get(9)?;
            let since: Option<String> = row.try_get(10)?;
            Ok(ReplicaStatus {
                name: row.try_get(0)?,
                url: row.try_get(1)?,
                patterns: row.try_get(2)?,
                phase: Phase::parse(row.try_get(3)?),
                snapshots: row.try_get(4)?,
                lag_seconds: row.try_get(5)?,
                behind_bytes: row.try_get(6)?,
                retained_bytes: row.try_get(7)?,
                is_fed: row.try_get(8)?,
                error: error.zip(since),
            })
        };
        rows.iter().map(status).collect()
    }

    /// Which of `keys` are live.
    pub async fn live(&self, keys: &[Key]) -> Result<Vec<bool>, StoreError> {
        const SQL: &str = "
            SELECT k.kind IS NOT NULL AND (k.expires_ms IS NULL OR k.expires_ms > freshet.now_ms())
              FROM unnest($1::smallint[], $2::bytea[]) WITH ORDINALITY AS u (db, key, ord)
              LEFT JOIN freshet.keys k ON k.db = u.db AND k.key = u.key ORDER BY u.ord";
        let client = self.connection().await?;
        let statement = client.prepare_cached(SQL).await?;
        let (dbs, names) = columns(keys.iter());
        let rows = client.query(&statement, &[&dbs, &names]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// `(slot, phase, epoch, step, db, key, lsn, current_ms)`.
fn replica_row(row: &Row) -> Result<ReplicaRow, StoreError> {
    let db = u8::try_from(row.try_get::<_, i16>(4)?)
        .ok()
        .and_then(Db::new);
    Ok(ReplicaRow {
        phase: Phase::parse(row.try_get(1)?),
        epoch: row.try_get(2)?,
        step: row.try_get(3)?,
        next: (
            db.unwrap_or_default(),
            Bytes::copy_from_slice(row.try_get(5)?),
        ),
        lsn: row.try_get::<_, i64>(6)?.cast_unsigned(),
        current_ms: row.try_get(7)?,
    })
}

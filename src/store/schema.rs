//! Versioned migrations, run at start under a lock.

use tokio_postgres::Client;

use super::{Store, StoreError};

/// A step of the schema.
struct Migration {
    /// The version of the schema after it.
    version: i32,
    /// Programs that know the schema up to this version work on it too, beside newer
    /// ones: it adds what they do not look at, and takes nothing away.
    oldest: i32,
    sql: &'static str,
}

/// The migrations in order. Numbers may be left out.
#[rustfmt::skip] // One line each reads as a table.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, oldest: 1, sql: include_str!("migrations/0001_strings.sql") },
    Migration { version: 2, oldest: 2, sql: include_str!("migrations/0002_collections.sql") },
    Migration { version: 3, oldest: 2, sql: include_str!("migrations/0003_once.sql") },
    Migration { version: 4, oldest: 2, sql: include_str!("migrations/0004_scans.sql") },
    Migration { version: 5, oldest: 2, sql: include_str!("migrations/0005_failover.sql") },
    Migration { version: 6, oldest: 2, sql: include_str!("migrations/0006_scripts.sql") },
    Migration { version: 7, oldest: 2, sql: include_str!("migrations/0007_moving.sql") },
    Migration { version: 8, oldest: 2, sql: include_str!("migrations/0008_changes.sql") },
    Migration { version: 9, oldest: 2, sql: include_str!("migrations/0009_out.sql") },
    Migration { version: 10, oldest: 2, sql: include_str!("migrations/0010_journal.sql") },
    Migration { version: 11, oldest: 2, sql: include_str!("migrations/0011_mapped.sql") },
];

/// The version of the schema that this program writes.
pub const SCHEMA_VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Two proxies that start at once migrate one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1179796818, 0)";

const CREATE_LEDGER: &str = "
    CREATE SCHEMA IF NOT EXISTS freshet;
    CREATE TABLE IF NOT EXISTS freshet.migration (
        version    integer PRIMARY KEY,
        program    text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    );
    ALTER TABLE freshet.migration ADD COLUMN IF NOT EXISTS oldest integer NOT NULL DEFAULT 1";

/// Brings the schema to [`SCHEMA_VERSION`] or leaves a newer one that tolerates this program, each
/// step with its ledger row in one transaction. Returns the version found before.
///
/// # Errors
/// [`StoreError::Schema`] if the schema is one that this program would not understand.
pub async fn migrate(store: &Store) -> Result<i32, StoreError> {
    let mut client = store.connection().await?;
    // The usual start finds the schema in place and takes no lock.
    let known = ledger(&client).await?;
    if missing(&known).is_empty() {
        return tolerated(&known);
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute(LOCK).await?;
    transaction.batch_execute(CREATE_LEDGER).await?;
    let known = ledger(transaction.client()).await?;
    let found = tolerated(&known)?;
    for migration in missing(&known) {
        transaction.batch_execute(migration.sql).await?;
        let program = concat!("freshet ", env!("CARGO_PKG_VERSION"));
        transaction
            .execute(
                "INSERT INTO freshet.migration (version, program, oldest) VALUES ($1, $2, $3)",
                &[&migration.version, &program, &migration.oldest],
            )
            .await?;
        tracing::info!(version = migration.version, "schema migrated");
    }
    transaction.commit().await?;
    Ok(found)
}

/// What of this program's schema is not there.
fn missing(known: &[Step]) -> Vec<&'static Migration> {
    let is_missing = |migration: &&Migration| !known.iter().any(|s| s.version == migration.version);
    MIGRATIONS.iter().filter(is_missing).collect()
}

/// The version found, if this program may work on it.
fn tolerated(known: &[Step]) -> Result<i32, StoreError> {
    let found = known.iter().map(|step| step.version).max().unwrap_or(0);
    match known.iter().find(|step| step.oldest > SCHEMA_VERSION) {
        None => Ok(found),
        Some(step) => Err(StoreError::Schema(format!(
            "the schema in PostgreSQL has version {found}, which asks for programs that know version {}; \
             this program knows {SCHEMA_VERSION}: start a newer freshet",
            step.oldest
        ))),
    }
}

/// A row of the ledger.
struct Step {
    version: i32,
    oldest: i32,
}

/// The migrations that were run.
async fn ledger(client: &Client) -> Result<Vec<Step>, StoreError> {
    const COLUMNS: &str = "
        SELECT count(*) FILTER (WHERE attname = 'version') = 1, count(*) FILTER (WHERE attname = 'oldest') = 1
          FROM pg_attribute WHERE attrelid = to_regclass('freshet.migration') AND NOT attisdropped";
    let row = client.query_one(COLUMNS, &[]).await?;
    // Programs of before this column wrote a schema that asks for nothing.
    let sql = match (row.get(0), row.get(1)) {
        (true, true) => "SELECT version, oldest FROM freshet.migration",
        (true, false) => "SELECT version, 1 FROM freshet.migration",
        _ => return Ok(Vec::new()),
    };
    let rows = client.query(sql, &[]).await?;
    let step = |row: &tokio_postgres::Row| Step {
        version: row.get(0),
        oldest: row.get(1),
    };
    Ok(rows.iter().map(step).collect())
}

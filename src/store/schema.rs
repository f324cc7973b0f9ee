//! Versioned migrations, run at start under a lock.

use tokio_postgres::Client;

use super::{Store, StoreError};

/// The migrations in order; the first brings the schema to version 1.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_strings.sql"),
    include_str!("migrations/0002_collections.sql"),
    include_str!("migrations/0004_scripts.sql"),
];

/// The version of the schema that this program writes.
pub const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// Two proxies that start at once migrate one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1179796818, 0)";

const CREATE_LEDGER: &str = "
    CREATE SCHEMA IF NOT EXISTS freshet;
    CREATE TABLE IF NOT EXISTS freshet.migration (
        version    integer PRIMARY KEY,
        program    text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )";

/// Brings the schema to [`SCHEMA_VERSION`], each step with its ledger row in
/// one transaction. Returns the version found before.
///
/// # Errors
/// [`StoreError::Schema`] if the schema is newer than this program.
pub async fn migrate(store: &Store) -> Result<i32, StoreError> {
    let mut client = store.connection().await?;
    // The usual start finds the schema in place and takes no lock.
    if let Some(found) = current_version(&client).await?
        && found == SCHEMA_VERSION
    {
        return Ok(found);
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute(LOCK).await?;
    transaction.batch_execute(CREATE_LEDGER).await?;
    let found = current_version(transaction.client()).await?.unwrap_or(0);
    if found > SCHEMA_VERSION {
        return Err(StoreError::Schema(format!(
            "the schema in PostgreSQL has version {found}, this program knows {SCHEMA_VERSION}: \
             start a newer freshet"
        )));
    }
    for (index, sql) in MIGRATIONS.iter().enumerate().skip(found.max(0) as usize) {
        transaction.batch_execute(sql).await?;
        transaction
            .execute(
                "INSERT INTO freshet.migration (version, program) VALUES ($1, $2)",
                &[
                    &(index as i32 + 1),
                    &concat!("freshet ", env!("CARGO_PKG_VERSION")),
                ],
            )
            .await?;
        tracing::info!(version = index + 1, "schema migrated");
    }
    transaction.commit().await?;
    Ok(found)
}

async fn current_version(client: &Client) -> Result<Option<i32>, StoreError> {
    let ledger: Option<bool> = client
        .query_one("SELECT to_regclass('freshet.migration') IS NOT NULL", &[])
        .await?
        .get(0);
    if ledger != Some(true) {
        return Ok(None);
    }
    let row = client
        .query_one("SELECT max(version) FROM freshet.migration", &[])
        .await?;
    Ok(row.get(0))
}

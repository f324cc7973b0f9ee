//! Scripts and libraries of functions, which all proxies share.

use deadpool_postgres::Object;

use super::{Store, StoreError};

/// Keeps a script; one that is there is used once more.
const PUT: &str = "
    INSERT INTO freshet.script (sha, body, is_loaded) VALUES ($1, $2, $3)
        ON CONFLICT (sha) DO UPDATE
       SET used_at = now(), is_loaded = script.is_loaded OR excluded.is_loaded";

const GET: &str = "SELECT body FROM freshet.script WHERE sha = $1";

const FOUND: &str = "SELECT sha FROM freshet.script WHERE sha = ANY($1)";

/// Deletes what only `EVAL` brought: what was not used for a day, and what is beyond `$1`.
const PURGE: &str = "
    DELETE FROM freshet.script
     WHERE NOT is_loaded
       AND (used_at < now() - interval '1 day'
            OR sha IN (SELECT sha FROM freshet.script WHERE NOT is_loaded
                        ORDER BY used_at DESC OFFSET $1))";

const FLUSH: &str = "
    WITH gone AS (DELETE FROM freshet.script)
    UPDATE freshet.script_epoch SET scripts = scripts + 1";

const EPOCHS: &str = "SELECT scripts, libraries FROM freshet.script_epoch";

/// How often scripts were flushed, and libraries changed: who has kept any compares it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// Grows with each `SCRIPT FLUSH`.
    pub scripts: i64,
    /// Grows with each change of libraries.
    pub libraries: i64,
}

impl Store {
    /// Keeps the script `body` under its SHA-1, for good if it `is_loaded`.
    pub async fn put_script(
        &self,
        sha: &[u8],
        body: &[u8],
        is_loaded: bool,
    ) -> Result<(), StoreError> {
        let client = self.connection().await?;
        let statement = client.prepare_cached(PUT).await?;
        client
            .execute(&statement, &[&sha, &body, &is_loaded])
            .await?;
        Ok(())
    }

    /// The script under that SHA-1.
    pub async fn script(&self, sha: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let client = self.connection().await?;
        let statement = client.prepare_cached(GET).await?;
        let row = client.query_opt(&statement, &[&sha]).await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// Those of `shas` under which there is a script.
    pub async fn scripts_of(&self, shas: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, StoreError> {
        let client = self.connection().await?;
        let statement = client.prepare_cached(FOUND).await?;
        let rows = client.query(&statement, &[&shas]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Deletes all scripts.
    pub async fn flush_scripts(&self) -> Result<(), StoreError> {
        let client = self.connection().await?;
        client.batch_execute(FLUSH).await?;
        Ok(())
    }

    /// Deletes scripts that nobody has loaded and nobody uses, and those beyond `keep`.
    pub async fn purge_scripts(&self, keep: i64) -> Result<u64, StoreError> {
        let client = self.connection().await?;
        let statement = client.prepare_cached(PURGE).await?;
        Ok(client.execute(&statement, &[&keep]).await?)
    }

    /// How often what proxies keep was made void.
    pub async fn script_epochs(&self) -> Result<Epochs, StoreError> {
        let client: Object = self.connection().await?;
        let statement = client.prepare_cached(EPOCHS).await?;
        let row = client.query_one(&statement, &[]).await?;
        Ok(Epochs {
            scripts: row.try_get(0)?,
            libraries: row.try_get(1)?,
        })
    }
}

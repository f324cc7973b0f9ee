//! SQL from a test's own thread.

use anyhow::Result;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

/// A connection to PostgreSQL for code that is not async.
pub struct Sql {
    runtime: Runtime,
    client: Client,
}

impl Sql {
    /// Connects to the database of this URL.
    pub fn connect(url: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls))?;
        runtime.spawn(connection);
        Ok(Self { runtime, client })
    }

    /// Runs statements without parameters and without result.
    pub fn execute(&self, statements: &str) -> Result<()> {
        Ok(self
            .runtime
            .block_on(self.client.batch_execute(statements))?)
    }

    /// Runs one query.
    pub fn query(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        Ok(self
            .runtime
            .block_on(self.client.query(query, parameters))?)
    }
}

//! Freshet with its store and its cache.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Client, Fsync, Postgres, Program, Redis, Sql, process};

/// The program that is built with the tests.
pub const FRESHET: &str = env!("CARGO_BIN_EXE_freshet");

/// Until a new proxy has emptied and stamped its cache.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// One proxy on a cache and a database of its own.
pub struct Stack {
    /// The proxy.
    pub program: Program,
    /// The cache.
    pub cache: Redis,
    /// The database.
    pub database: String,
    own: Option<Postgres>,
}

impl Stack {
    /// On a database of the shared cluster, which is never stopped.
    pub fn start() -> Result<Self> {
        Self::start_with(&[], &[])
    }

    /// The same, with settings of Freshet and options of Redis.
    pub fn start_with(settings: &[(&str, &str)], redis: &[&str]) -> Result<Self> {
        let database = Postgres::shared().create_database()?;
        Self::on(database, None, settings, redis)
    }

    /// On a cluster of its own, which the test may kill.
    pub fn start_with_own_postgres(settings: &[(&str, &str)]) -> Result<Self> {
        let postgres = Postgres::start(Fsync::On)?;
        let database = postgres.create_database()?;
        Self::on(database, Some(postgres), settings, &[])
    }

    fn on(
        database: String,
        own: Option<Postgres>,
        settings: &[(&str, &str)],
        redis: &[&str],
    ) -> Result<Self> {
        let cache = Redis::start_with(redis)?;
        let program = Program::start(FRESHET, &database, &cache.url(), settings)?;
        let stack = Self {
            program,
            cache,
            database,
            own,
        };
        stack.await_cache_in_use()?;
        Ok(stack)
    }

    /// Waits until Freshet uses the cache: it serves before that, from the store.
    pub fn await_cache_in_use(&self) -> Result<()> {
        process::await_true("the cache is in use", SETTLE_LIMIT, || {
            let page = self.program.http("/metrics");
            page.is_ok_and(|(_, text)| text.contains("freshet_cache_state{state=\"active\"} 1"))
        })
    }

    /// A further proxy on the same cache and database.
    pub fn second_program(&self) -> Result<Program> {
        Program::start(FRESHET, &self.database, &self.cache.url(), &[])
    }

    /// The cluster of its own.
    pub fn postgres(&mut self) -> Result<&mut Postgres> {
        self.own.as_mut().context("PostgreSQL is shared")
    }

    /// A connection to Freshet.
    pub fn client(&self) -> Result<Client> {
        self.program.client()
    }

    /// A connection to the database.
    pub fn sql(&self) -> Result<Sql> {
        Sql::connect(&self.database)
    }
}

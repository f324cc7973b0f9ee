//! The pool of connections to PostgreSQL, and every use of the store that is
//! not a write transaction.

use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Timeouts};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::commit::{self, Attempt, Outcome};
use super::fence::{self, FenceRow};
use super::keyspace::{self, FlushScope, ScanPage};
use super::load::{self, LoadRequest, Snapshot};
use super::{StoreError, ended, once, purge, scans};
use crate::clock::RemoteClock;
use crate::config;
use crate::model::{Db, Generation, Key, UnixMs};
use crate::tls;

/// Settings of every session. Plans are made once for arrays of any length, and
/// must stay index look-ups however small or big the table was at that moment.
const SESSION: &str = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off \
    -c enable_bitmapscan=off -c enable_material=off -c jit=off \
    -c plan_cache_mode=force_generic_plan -c default_transaction_isolation=read\\ committed";

/// The system of record: a pool of connections, and its clock.
pub struct Store {
    pool: Pool,
    clock: RemoteClock,
    /// How many bytes of collections may be loaded at once.
    load_limit: usize,
}

impl Store {
    /// Prepares the pool; the first use connects.
    ///
    /// # Errors
    /// If the TLS settings cannot be used.
    pub fn new(settings: &config::Postgres) -> Result<Self, tls::TlsError> {
        let mut connection = settings.url.connection();
        if let Some(password) = &settings.password {
            connection.password(password.reveal());
        }
        let asked = connection.get_options().unwrap_or_default();
        let timeout = settings.statement_timeout.as_millis();
        // A transaction left open by a stalled proxy must not hold its locks for ever.
        let options = format!(
            "{SESSION} -c statement_timeout={timeout} \
             -c idle_in_transaction_session_timeout={timeout} {asked}"
        );
        connection.options(options);
        connection.application_name("freshet");
        connection.connect_timeout(settings.connect_timeout);
        connection.keepalives_idle(std::time::Duration::from_secs(10));
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = if connection.get_ssl_mode() == SslMode::Disable {
            Manager::from_config(connection, tokio_postgres::NoTls, recycling)
        } else {
            let identity = settings
                .tls_certificate
                .as_deref()
                .zip(settings.tls_key.as_deref());
            let client = tls::client(settings.tls_ca.as_deref(), identity)?;
            let connector = MakeRustlsConnect::new(client.as_ref().clone());
            Manager::from_config(connection, connector, recycling)
        };
        let wait = Some(settings.connect_timeout);
        let pool = Pool::builder(manager)
            .max_size(usize::from(settings.pool_size))
            .timeouts(Timeouts {
                wait,
                create: wait,
                recycle: wait,
            })
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()
            .map_err(|error| tls::TlsError::Settings(rustls::Error::General(error.to_string())))?;
        Ok(Self {
            pool,
            clock: RemoteClock::new(),
            load_limit: settings.load_limit.as_usize(),
        })
    }

    /// A connection; it goes back to the pool when dropped.
    pub(super) async fn connection(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                StoreError::Unreachable(cause.unwrap_or_else(|| error.to_string()))
            }
            other => StoreError::Unreachable(other.to_string()),
        })
    }

    pub(super) fn load_limit(&self) -> usize {
        self.load_limit
    }

    /// The store's clock.
    pub fn clock(&self) -> &RemoteClock {
        &self.clock
    }

    /// Connections: `(in use, idle, at most)`.
    pub fn pool_status(&self) -> (usize, usize, usize) {
        let status = self.pool.status();
        (
            status.size.saturating_sub(status.available),
            status.available,
            status.max_size,
        )
    }

    /// Reads `requests`, at least one, from one snapshot.
    pub async fn snapshot(&self, requests: &[LoadRequest]) -> Result<Snapshot, StoreError> {
        let client = &mut self.connection().await?;
        let snapshot = load::snapshot(client, requests, self.load_limit).await?;
        self.clock.set(snapshot.now);
        Ok(snapshot)
    }

    /// Decides what became of `attempt`; waits while its transaction is open.
    pub async fn outcome(&self, attempt: Attempt) -> Result<Outcome, StoreError> {
        commit::outcome(&self.connection().await?, attempt).await
    }

    /// Forgets the attempts of `before.proxy` below `before.number`.
    pub async fn forget_attempts(&self, before: Attempt) -> Result<(), StoreError> {
        commit::forget(&self.connection().await?, before).await
    }

    /// Reads the fence row.
    pub async fn fence(&self) -> Result<FenceRow, StoreError> {
        fence::read(&self.connection().await?).await
    }

    /// Raises the generation above `known`, unless somebody did.
    pub async fn raise(&self, known: Generation, reason: &str) -> Result<FenceRow, StoreError> {
        fence::raise(&mut self.connection().await?, known, reason).await
    }

    /// Tells that `proxy` obeys `generation`; the fence moves on if all living ones do.
    pub async fn confirm(
        &self,
        proxy: i32,
        generation: Generation,
    ) -> Result<FenceRow, StoreError> {
        let mut client = self.connection().await?;
        let row = fence::confirm(&mut client, proxy, generation).await?;
        if row.state != super::FenceState::Closing {
            return Ok(row);
        }
        // It waits for others: perhaps for one that is dead.
        fence::bury_the_dead(&mut client, proxy).await?;
        fence::confirm(&mut client, proxy, generation).await
    }

    /// Sets `generation` active on the cache server `run_id`.
    pub async fn activate(
        &self,
        generation: Generation,
        run_id: &str,
    ) -> Result<FenceRow, StoreError> {
        fence::activate(&mut self.connection().await?, generation, run_id).await
    }

    /// Moves the generation above `mark`, found in a cache that is ahead of the store.
    pub async fn skip_to(
        &self,
        generation: Generation,
        mark: Option<Generation>,
    ) -> Result<FenceRow, StoreError> {
        let mark = mark.unwrap_or(generation).max(generation);
        fence::skip_to(&mut self.connection().await?, generation, mark).await
    }

    /// Runs `work` if this is the one proxy that brings the cache back now.
    pub async fn alone<T>(&self, work: impl Future<Output = T>) -> Result<Option<T>, StoreError> {
        let client = self.connection().await?;
        if !fence::try_return(&client).await? {
            return Ok(None);
        }
        let done = work.await;
        if fence::end_return(&client).await.is_err() {
            // The lock ends with the session; it must not go back to the pool with it.
            drop(Object::take(client));
        }
        Ok(Some(done))
    }

    /// The proof that `proxy` is dead; `false` while it lives.
    pub async fn prove_dead(&self, proxy: i32) -> Result<bool, StoreError> {
        fence::prove_dead(&mut self.connection().await?, proxy).await
    }

    /// One step of a SCAN.
    pub async fn scan(&self, db: Db, cursor: u64, count: i64) -> Result<ScanPage, StoreError> {
        keyspace::scan(&self.connection().await?, db, cursor, count).await
    }

    /// Keeps what the cursor of a scan of a key means: the next element has this field, as the
    /// store has it, or one behind it.
    pub async fn keep_scan(&self, cursor: u64, field: &Bytes) -> Result<(), StoreError> {
        scans::keep(&self.connection().await?, cursor.cast_signed(), field).await
    }

    /// What `cursor` means, if that is still kept.
    pub async fn find_scan(&self, cursor: u64) -> Result<Option<Bytes>, StoreError> {
        scans::find(&self.connection().await?, cursor.cast_signed()).await
    }

    /// Forgets up to `rows` cursors that are older than `age`; how many it found.
    pub async fn forget_scans(&self, age: Duration, rows: i64) -> Result<u64, StoreError> {
        scans::forget(&self.connection().await?, age, rows).await
    }

    /// All keys that begin with `prefix`.
    pub async fn keys(&self, db: Db, prefix: &[u8]) -> Result<Vec<Bytes>, StoreError> {
        keyspace::keys(&self.connection().await?, db, prefix).await
    }

    /// A key at random, if there is one.
    pub async fn random_key(&self, db: Db) -> Result<Option<Bytes>, StoreError> {
        keyspace::random_key(&self.connection().await?, db).await
    }

    /// The databases that have keys: `(database, keys, keys with an expiry)`.
    pub async fn sizes(&self) -> Result<Vec<(Db, i64, i64)>, StoreError> {
        keyspace::sizes(&self.connection().await?).await
    }

    /// The number of live keys in `db`.
    pub async fn size(&self, db: Db) -> Result<i64, StoreError> {
        keyspace::size(&self.connection().await?, db).await
    }

    /// Empties `scope`; `false` unless the cache of `generation` is in bypass.
    pub async fn flush(
        &self,
        scope: FlushScope,
        generation: Generation,
    ) -> Result<bool, StoreError> {
        keyspace::flush(&mut self.connection().await?, scope, generation).await
    }

    /// Exchanges two databases; `false` unless the cache of `generation` is in bypass.
    pub async fn swap(
        &self,
        one: Db,
        other: Db,
        generation: Generation,
    ) -> Result<bool, StoreError> {
        keyspace::swap(&mut self.connection().await?, one, other, generation).await
    }

    /// Purges what ended more than `older_than_ms` ago among the next `rows` rows.
    pub async fn purge(
        &self,
        older_than_ms: i64,
        rows: i64,
        from: &purge::Position,
    ) -> Result<Option<(purge::Position, i64)>, StoreError> {
        purge::purge(&mut self.connection().await?, older_than_ms, rows, from).await
    }

    /// Lets [`Self::ended`] find keys by an index; `false` while another proxy makes it.
    pub async fn index_ends(&self) -> Result<bool, StoreError> {
        let client = self.connection().await?;
        let indexed = ended::index(&client).await;
        if indexed.is_err() {
            // Its lock ends with the session; it must not go back to the pool with it.
            drop(Object::take(client));
        }
        indexed
    }

    /// The keys that ended after `since`, at most the `limit` first, with their ends, in order.
    pub async fn ended(&self, since: UnixMs, limit: i64) -> Result<Vec<(Key, UnixMs)>, StoreError> {
        ended::ended(&self.connection().await?, since, limit).await
    }

    /// Forgets up to `rows` tokens whose replies need not be kept any more; how many it found.
    pub async fn forget_tokens(&self, rows: i64) -> Result<u64, StoreError> {
        once::forget(&self.connection().await?, rows).await
    }

    /// Deletes up to `rows` elements that no key has any more; how many it found.
    pub async fn collect(&self, rows: i64) -> Result<i64, StoreError> {
        purge::collect(&self.connection().await?, rows).await
    }
}

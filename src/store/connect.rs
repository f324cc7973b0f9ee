//! The pool of connections to PostgreSQL, and every use of the store that is
//! not a write transaction.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Timeouts};
use tokio::sync::Notify;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::commit::{self, Attempt, Outcome};
use super::fence::{self, FenceRow, OldContent, Return, Sight};
use super::hosts::Hosts;
use super::keyspace::{self, FlushScope, ScanPage};
use super::lineage::{History, Lineage};
use super::load::{self, LoadRequest, Snapshot};
use super::{StoreError, ended, once, purge, scans};
use crate::clock::{Reading, RemoteClock};
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
    connection: tokio_postgres::Config,
    /// How connections are encrypted, if they are.
    tls: Option<MakeRustlsConnect>,
    pool_size: usize,
    connect_timeout: Duration,
    /// All connections of a pool are to servers of one history.
    pool: RwLock<Pool>,
    /// Counts the pools.
    pools: AtomicU64,
    lineage: Arc<Lineage>,
    /// Rung by notifications of PostgreSQL.
    bell: Arc<Notify>,
    /// How long an answer may take: the server itself gives up earlier, so it is stalled.
    answer_limit: Duration,
    clock: RemoteClock,
    /// How many bytes of collections may be loaded at once.
    load_limit: usize,
}

/// Does one thing with a connection from the pool, within the time that an answer may take.
macro_rules! with_client {
    ($store:expr, |$client:ident| $work:expr) => {{
        #[allow(unused_mut)] // Some work only reads it.
        let mut $client = $store.connection().await?;
        let done = $store.bounded($work).await;
        if done.as_ref().is_err_and(StoreError::ends_connection) {
            drop(Object::take($client));
        }
        done
    }};
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
        connection.keepalives_idle(Duration::from_secs(10));
        // What a standby says may be older than what was shown.
        connection.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let tls = if connection.get_ssl_mode() == SslMode::Disable {
            None
        } else {
            let identity = settings
                .tls_certificate
                .as_deref()
                .zip(settings.tls_key.as_deref());
            let client = tls::client(settings.tls_ca.as_deref(), identity)?;
            Some(MakeRustlsConnect::new(client.as_ref().clone()))
        };
        let lineage = Arc::default();
        let bell = Arc::default();
        let pool_size = usize::from(settings.pool_size);
        let timeout = settings.connect_timeout;
        let heard = (&lineage, &bell);
        let pool = new_pool(&connection, tls.as_ref(), heard, (pool_size, timeout));
        Ok(Self {
            connection,
            tls,
            pool_size,
            connect_timeout: timeout,
            pool: RwLock::new(pool),
            pools: AtomicU64::new(0),
            lineage,
            bell,
            answer_limit: settings.statement_timeout + timeout,
            clock: RemoteClock::new(),
            load_limit: settings.load_limit.as_usize(),
        })
    }

    fn pool(&self) -> Pool {
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        pool.clone()
    }

    /// A connection; it goes back to the pool when dropped.
    pub(super) async fn connection(&self) -> Result<Object, StoreError> {
        self.pool().get().await.map_err(|error| {
            if let Some(other) = self.lineage.other() {
                return StoreError::OtherHistory(other);
            }
            match error {
                deadpool_postgres::PoolError::Backend(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    StoreError::Unreachable(cause.unwrap_or_else(|| error.to_string()))
                }
                other => StoreError::Unreachable(other.to_string()),
            }
        })
    }

    /// Waits for `work` as long as an answer may take. The server cancels its statements before: one
    /// that says nothing for so long is stalled, or the way to it is cut.
    pub(super) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.answer_limit;
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => {
                self.distrust_idle();
                Err(StoreError::Lost(format!("no answer within {limit:?}")))
            }
        }
    }

    /// One connection said nothing for too long: those that wait in the pool went the same way, and may be
    /// as dead, each of which would cost its user as long a wait. New ones are made in their place.
    pub(super) fn distrust_idle(&self) {
        self.pool().retain(|_, _| false);
    }

    /// How long an answer may take.
    pub(super) fn answer_limit(&self) -> Duration {
        self.answer_limit
    }

    /// The number of the pool that is in use; see [`Self::turn_to`].
    pub fn pool_number(&self) -> u64 {
        self.pools.load(Ordering::Acquire)
    }

    /// The history that this proxy works on, as far as it was seen.
    pub fn history(&self) -> Option<History> {
        self.lineage.accepted()
    }

    /// Notes that the store's history goes on from now. Until then connections to a server of another
    /// history than the known one are refused by [`StoreError::OtherHistory`]. No hit of the cache may
    /// be used any more when this is called: the new history may lack what the cache holds.
    pub fn turn_to(&self, history: History) {
        self.lineage.turn_to(history);
        let limits = (self.pool_size, self.connect_timeout);
        let heard = (&self.lineage, &self.bell);
        let pool = new_pool(&self.connection, self.tls.as_ref(), heard, limits);
        let old = std::mem::replace(
            &mut *self.pool.write().unwrap_or_else(PoisonError::into_inner),
            pool,
        );
        self.pools.fetch_add(1, Ordering::Release);
        old.close();
    }

    /// Rung whenever PostgreSQL notifies a session that listens.
    pub(super) fn bell(&self) -> &Notify {
        &self.bell
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
        let status = self.pool().status();
        (
            status.size.saturating_sub(status.available),
            status.available,
            status.max_size,
        )
    }

    /// Reads `requests`, at least one, from one snapshot.
    pub async fn snapshot(&self, requests: &[LoadRequest]) -> Result<Snapshot, StoreError> {
        let asked = Instant::now();
        let snapshot = with_client!(self, |client| load::snapshot(
            &mut client,
            requests,
            self.load_limit
        ))?;
        self.clock.set(Reading::new(snapshot.now, asked));
        Ok(snapshot)
    }

    /// Decides what became of `attempt`; waits while its transaction is open.
    pub async fn outcome(&self, attempt: Attempt) -> Result<Outcome, StoreError> {
        with_client!(self, |client| commit::outcome(&client, attempt))
    }

    /// Forgets the attempts of `before.proxy` below `before.number`.
    pub async fn forget_attempts(&self, before: Attempt) -> Result<(), StoreError> {
        with_client!(self, |client| commit::forget(&client, before))
    }

    /// Reads the fence row.
    pub async fn fence(&self) -> Result<FenceRow, StoreError> {
        with_client!(self, |client| fence::read(&client))
    }

    /// Raises the generation above `known`, unless somebody did.
    pub async fn raise(&self, known: Generation, reason: &str) -> Result<FenceRow, StoreError> {
        with_client!(self, |client| fence::raise(&mut client, known, reason))
    }

    /// Looks at the fence, the registration of `proxy`, and how far the history goes.
    pub async fn sight(&self, proxy: i32) -> Result<Sight, StoreError> {
        let sight = with_client!(self, |client| fence::sight(&client, proxy))?;
        if let Some(history) = sight.history {
            self.lineage.reached(history);
        }
        Ok(sight)
    }

    /// Raises the generation above `known`, unless it is, after the store lost its latest past.
    pub async fn void(&self, known: Generation, reason: &str) -> Result<FenceRow, StoreError> {
        with_client!(self, |client| fence::void(&mut client, known, reason))
    }

    /// Whether another living proxy than `own` may use the cache of `generation`.
    pub async fn others_use(&self, own: i32, generation: Generation) -> Result<bool, StoreError> {
        with_client!(self, |client| fence::others_use(
            &mut client,
            own,
            generation
        ))
    }

    /// Tells that `proxy` uses the cache of `generation` from now on, or none. Look at the fence after it.
    pub async fn declare_use(
        &self,
        proxy: i32,
        generation: Option<Generation>,
    ) -> Result<(), StoreError> {
        with_client!(self, |client| fence::declare_use(
            &client, proxy, generation
        ))
    }

    /// Tells that `proxy` obeys `generation`, which it saw closing `waited` ago; the fence moves on if nobody
    /// can have hits of before.
    pub async fn confirm(
        &self,
        proxy: i32,
        generation: Generation,
        content: OldContent,
        waited: Duration,
    ) -> Result<FenceRow, StoreError> {
        let confirming = async |client: &mut Object| {
            let row = fence::confirm(client, proxy, generation, content, waited).await?;
            if row.state != super::FenceState::Closing {
                return Ok(row);
            }
            // It waits for others: perhaps for one that is dead.
            fence::bury_the_dead(client, proxy).await?;
            fence::confirm(client, proxy, generation, content, waited).await
        };
        with_client!(self, |client| confirming(&mut client))
    }

    /// Sets `generation` active on this cache server.
    pub async fn activate(
        &self,
        generation: Generation,
        run_id: &str,
        replication_id: &str,
    ) -> Result<FenceRow, StoreError> {
        with_client!(self, |client| fence::activate(
            &mut client,
            generation,
            run_id,
            replication_id
        ))
    }

    /// Moves the generation above `mark`, found in a cache that is ahead of the store.
    pub async fn skip_to(
        &self,
        generation: Generation,
        mark: Option<Generation>,
    ) -> Result<FenceRow, StoreError> {
        let mark = mark.unwrap_or(generation).max(generation);
        with_client!(self, |client| fence::skip_to(&mut client, generation, mark))
    }

    /// The right to bring the cache back, or to keep it out of use; `None` while another proxy has it.
    pub async fn take_return(&self) -> Result<Option<Return>, StoreError> {
        let client = self.connection().await?;
        self.bounded(Return::take(client)).await
    }

    /// The proof that `proxy` is dead; `false` while it lives.
    pub async fn prove_dead(&self, proxy: i32) -> Result<bool, StoreError> {
        with_client!(self, |client| fence::prove_dead(&mut client, proxy))
    }

    /// One step of a SCAN.
    pub async fn scan(&self, db: Db, cursor: u64, count: i64) -> Result<ScanPage, StoreError> {
        with_client!(self, |client| keyspace::scan(&client, db, cursor, count))
    }

    /// Keeps what the cursor of a scan of a key means: the next element has this field, as the
    /// store has it, or one behind it.
    pub async fn keep_scan(&self, cursor: u64, field: &Bytes) -> Result<(), StoreError> {
        with_client!(self, |client| scans::keep(
            &client,
            cursor.cast_signed(),
            field
        ))
    }

    /// What `cursor` means, if that is still kept.
    pub async fn find_scan(&self, cursor: u64) -> Result<Option<Bytes>, StoreError> {
        with_client!(self, |client| scans::find(&client, cursor.cast_signed()))
    }

    /// Forgets up to `rows` cursors that are older than `age`; how many it found.
    pub async fn forget_scans(&self, age: Duration, rows: i64) -> Result<u64, StoreError> {
        with_client!(self, |client| scans::forget(&client, age, rows))
    }

    /// All keys that begin with `prefix`.
    pub async fn keys(&self, db: Db, prefix: &[u8]) -> Result<Vec<Bytes>, StoreError> {
        with_client!(self, |client| keyspace::keys(&client, db, prefix))
    }

    /// A key at random, if there is one.
    pub async fn random_key(&self, db: Db) -> Result<Option<Bytes>, StoreError> {
        with_client!(self, |client| keyspace::random_key(&client, db))
    }

    /// The databases that have keys: `(database, keys, keys with an expiry)`.
    pub async fn sizes(&self) -> Result<Vec<(Db, i64, i64)>, StoreError> {
        with_client!(self, |client| keyspace::sizes(&client))
    }

    /// The number of live keys in `db`.
    pub async fn size(&self, db: Db) -> Result<i64, StoreError> {
        with_client!(self, |client| keyspace::size(&client, db))
    }

    /// Empties `scope`; `false` unless the cache of `generation` is in bypass.
    pub async fn flush(
        &self,
        scope: FlushScope,
        generation: Generation,
    ) -> Result<bool, StoreError> {
        with_client!(self, |client| keyspace::flush(
            &mut client,
            scope,
            generation
        ))
    }

    /// Exchanges two databases; `false` unless the cache of `generation` is in bypass.
    pub async fn swap(
        &self,
        one: Db,
        other: Db,
        generation: Generation,
    ) -> Result<bool, StoreError> {
        with_client!(self, |client| keyspace::swap(
            &mut client,
            one,
            other,
            generation
        ))
    }

    /// Purges what ended more than `older_than_ms` ago among the next `rows` rows.
    pub async fn purge(
        &self,
        older_than_ms: i64,
        rows: i64,
        from: &purge::Position,
    ) -> Result<Option<(purge::Position, i64)>, StoreError> {
        with_client!(self, |client| purge::purge(
            &client,
            older_than_ms,
            rows,
            from
        ))
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
        with_client!(self, |client| ended::ended(&client, since, limit))
    }

    /// Forgets up to `rows` tokens whose replies need not be kept any more; how many it found.
    pub async fn forget_tokens(&self, rows: i64) -> Result<u64, StoreError> {
        with_client!(self, |client| once::forget(&client, rows))
    }

    /// Deletes up to `rows` elements that no key has any more; how many it found.
    pub async fn collect(&self, rows: i64) -> Result<i64, StoreError> {
        with_client!(self, |client| purge::collect(&client, rows))
    }
}

fn new_pool(
    connection: &tokio_postgres::Config,
    tls: Option<&MakeRustlsConnect>,
    (lineage, bell): (&Arc<Lineage>, &Arc<Notify>),
    (size, timeout): (usize, Duration),
) -> Pool {
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let heard = (Arc::clone(lineage), Arc::clone(bell));
    let (manager, hosts) = match tls {
        None => {
            let hosts = Hosts::new(connection, tokio_postgres::NoTls, heard, timeout);
            let count = hosts.count();
            (
                Manager::from_connect(connection.clone(), hosts, recycling),
                count,
            )
        }
        Some(tls) => {
            let hosts = Hosts::new(connection, tls.clone(), heard, timeout);
            let count = hosts.count();
            (
                Manager::from_connect(connection.clone(), hosts, recycling),
                count,
            )
        }
    };
    Pool::builder(manager)
        .max_size(size)
        .timeouts(Timeouts {
            wait: Some(timeout),
            create: Some(timeout * (hosts as u32 + 1)),
            recycle: Some(timeout),
        })
        .runtime(deadpool_postgres::Runtime::Tokio1)
        .build()
        .expect("a pool with a runtime can have time-outs")
}

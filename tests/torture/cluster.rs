//! Three proxies on one PostgreSQL and one Redis, each behind relays of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::support::stack::FRESHET;
use crate::support::{Client, Fsync, Postgres, Program, Redis, Relay, Sql, process};

/// Proxies.
pub const PROXIES: usize = 3;
/// How long anything may take to work again when all faults are over.
const RECOVERY_LIMIT: Duration = Duration::from_secs(90);

/// One proxy, and its ways to the two servers.
pub struct Proxy {
    /// The program.
    pub program: Program,
    /// Its way to the cache.
    pub to_cache: Relay,
    /// Its way to the store.
    pub to_store: Relay,
}

/// All of it.
pub struct Cluster {
    /// The store.
    pub postgres: Postgres,
    /// The URL of the database, not through a relay.
    pub database: String,
    /// The cache.
    pub cache: Redis,
    /// The proxies.
    pub proxies: Vec<Proxy>,
}

impl Cluster {
    /// Starts everything, with these settings for the proxies.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let postgres = Postgres::start(Fsync::On)?;
        let database = postgres.create_database()?;
        let cache = Redis::start()?;
        let mut proxies = Vec::new();
        for _ in 0..PROXIES {
            let to_cache = Relay::start(cache.address())?;
            let to_store = Relay::start(([127, 0, 0, 1], postgres.port()).into())?;
            let store_url = database.replace(
                &format!(":{}/", postgres.port()),
                &format!(":{}/", to_store.address().port()),
            );
            let cache_url = format!("redis://{}", to_cache.address());
            let program = Program::start(FRESHET, &store_url, &cache_url, settings)?;
            proxies.push(Proxy {
                program,
                to_cache,
                to_store,
            });
        }
        let cluster = Self {
            postgres,
            database,
            cache,
            proxies,
        };
        cluster.await_cache_in_use()?;
        Ok(cluster)
    }

    /// Where clients connect.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.proxies
            .iter()
            .map(|proxy| proxy.program.address())
            .collect()
    }

    /// Waits until every proxy uses the cache.
    pub fn await_cache_in_use(&self) -> Result<()> {
        for (number, proxy) in self.proxies.iter().enumerate() {
            let what = format!("proxy {} uses the cache", name(number));
            process::await_true(&what, RECOVERY_LIMIT, || {
                let page = proxy.program.http("/metrics");
                page.is_ok_and(|(_, text)| text.contains("freshet_cache_state{state=\"active\"} 1"))
            })?;
        }
        Ok(())
    }

    /// Waits until every proxy takes writes and uses the cache, for longer than a moment.
    pub fn await_health(&self) -> Result<()> {
        for (number, proxy) in self.proxies.iter().enumerate() {
            let what = format!("proxy {} takes writes", name(number));
            let key = format!("health:{number}");
            process::await_true(&what, RECOVERY_LIMIT, || {
                let answer = proxy.program.client().and_then(|mut client| {
                    client.set_reply_limit(Duration::from_secs(5))?;
                    client.ok(&["SET", &key, "well"])
                });
                answer.is_ok()
            })?;
        }
        self.await_cache_in_use()
    }

    /// A connection to the store, not through a relay.
    pub fn sql(&self) -> Result<Sql> {
        Sql::connect(&self.database)
    }

    /// A connection to the cache, not through a relay.
    pub fn cache_client(&self) -> Result<Client> {
        let mut client = self.cache.client()?;
        client.set_reply_limit(Duration::from_secs(5))?;
        Ok(client)
    }

    /// Writes what the programs have said into files of `folder`.
    pub fn keep_logs(&self, folder: &Path) -> Result<()> {
        for (number, proxy) in self.proxies.iter().enumerate() {
            let file = folder.join(format!("proxy-{}.log", name(number)));
            std::fs::write(&file, proxy.program.log_text())
                .with_context(|| file.display().to_string())?;
        }
        std::fs::write(folder.join("postgresql.log"), self.postgres.log_text())?;
        Ok(())
    }
}

/// A proxy's name: A, B, C.
pub fn name(proxy: usize) -> char {
    char::from(b'A' + proxy as u8)
}

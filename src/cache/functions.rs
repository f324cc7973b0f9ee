//! The cache as the rest of the program uses it: shared connections for
//! reads, pooled ones for the calls of the protocol.

mod content;
mod inspect;
pub(super) mod library;
mod staging;

pub use inspect::{Companion, Found, Held, Inspected, Name};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;

use self::staging::{is_large, without_large};
use super::call::{self, Call, Function};
use super::link::{LinkOptions, same_server};
use super::{
    Applied, CacheError, Connection, Fill, Identity, Look, Manager, Op, Pipe, Replies, Told,
};
use crate::clock::{Reading, RemoteClock};
use crate::config;
use crate::model::{DATABASES, Db, Generation, Key, Protocol, Reply, Request, UnixMs, Version};
use crate::routing::Routing;
use crate::tls;

/// The mark of the generation, in database 0.
const MARK: &[u8] = b"\0f:gen";

/// A note of the store's history, in database 0: nothing here is older than what it names.
const HISTORY: &[u8] = b"\0f:store";

/// What is kept in the cache beside its content, and channels between proxies, begin so.
pub const RESERVED_PREFIX: &[u8] = b"\0f";

/// What stands in the cache before the name of a key that only the cache has. (Without a zero byte:
/// Redis ends names in its errors there.)
pub const SOLE_PREFIX: &[u8] = b"\x01f=";

/// Whether this is the form of Freshet's own names in the cache; a client's key of such a name is
/// served from the store alone.
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(RESERVED_PREFIX) || name.starts_with(SOLE_PREFIX)
}

/// What may be in the cache, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// The longest life of a native.
    pub native: Duration,
    /// The life of an absent mark.
    pub absent: Duration,
    /// The life of a fill lease.
    pub lease: Duration,
    /// By how much earlier than its key a native dies.
    pub skew: Duration,
    /// Longer values, in bytes, are not kept in the cache.
    pub fill_limit: usize,
    /// Nor are collections with more elements.
    pub fill_elements: u64,
}

/// The backing Redis.
pub struct Cache {
    options: LinkOptions,
    pool: bb8::Pool<Manager>,
    pool_size: u32,
    pipes: Vec<Shared>,
    clock: RemoteClock,
    lives: Lives,
    /// What is otherwise for some keys.
    routing: Arc<Routing>,
    on_allkeys_eviction: config::AllkeysEviction,
    warned: AtomicBool,
}

/// What a new connection found.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Who answers.
    pub identity: Identity,
    /// Which generation it holds.
    pub mark: Option<Generation>,
    /// The note of the store's history that goes with it.
    pub history: Option<String>,
}

/// The shared connection of one database and protocol, opened when first used.
#[derive(Default)]
struct Shared {
    current: Mutex<Option<Arc<Pipe>>>,
    opening: AsyncMutex<()>,
}

impl Cache {
    /// Prepares the pool; the first use connects.
    ///
    /// # Errors
    /// If the TLS settings cannot be used.
    pub fn new(
        settings: &config::Redis,
        lives: &config::Cache,
        routing: Arc<Routing>,
    ) -> Result<Self, tls::TlsError> {
        let options = LinkOptions::new(settings)?;
        let pool = bb8::Pool::builder()
            .max_size(u32::from(settings.pool_size))
            .connection_timeout(settings.connect_timeout)
            .retry_connection(false)
            // A broken connection is known as such; asking before each use would
            // cost a round trip.
            .test_on_check_out(false)
            .build_unchecked(Manager::new(options.clone()));
        Ok(Self {
            options,
            pool,
            pool_size: u32::from(settings.pool_size),
            pipes: (0..2 * DATABASES).map(|_| Shared::default()).collect(),
            clock: RemoteClock::new(),
            on_allkeys_eviction: lives.on_allkeys_eviction,
            warned: AtomicBool::new(false),
            routing,
            lives: Lives {
                native: lives.ttl,
                absent: lives.absent_ttl,
                lease: lives.lease,
                skew: lives.clock_skew,
                fill_limit: lives.fill_limit.as_usize(),
                fill_elements: u64::from(lives.fill_elements),
            },
        })
    }

    /// What may be in the cache, and for how long.
    pub fn lives(&self) -> &Lives {
        &self.lives
    }

    /// How its server is reached, for connections that are not calls.
    pub fn options(&self) -> &LinkOptions {
        &self.options
    }

    /// The cache's clock.
    pub fn clock(&self) -> &RemoteClock {
        &self.clock
    }

    /// Connections of the pool: `(in use, idle, at most)`.
    pub fn pool_status(&self) -> (u32, u32, u32) {
        let state = self.pool.state();
        let idle = state.idle_connections;
        (state.connections - idle, idle, self.pool_size)
    }

    /// Sends `requests` in `db` on the shared connection; see [`Pipe::send`].
    pub async fn read<'a>(
        &self,
        db: Db,
        protocol: Protocol,
        requests: impl Iterator<Item = &'a [u8]>,
        replies: usize,
    ) -> Result<Replies, CacheError> {
        let shared =
            &self.pipes[usize::from(db.index()) * 2 + usize::from(protocol == Protocol::Resp3)];
        let current = shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let pipe = match current {
            Some(pipe) if !pipe.is_closed() => pipe,
            _ => self.open_pipe(shared, db, protocol).await?,
        };
        pipe.send(requests, replies).await
    }

    async fn open_pipe(
        &self,
        shared: &Shared,
        db: Db,
        protocol: Protocol,
    ) -> Result<Arc<Pipe>, CacheError> {
        let _one_at_a_time = shared.opening.lock().await;
        if let Some(pipe) = shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            && !pipe.is_closed()
        {
            return Ok(pipe);
        }
        let pipe = Arc::new(Pipe::open(&self.options, db, protocol).await?);
        // Under this lock: `set_holder` then finds it here and closes it, or is obeyed already.
        let mut current = shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.check_holder(pipe.identity())?;
        *current = Some(Arc::clone(&pipe));
        Ok(pipe)
    }

    fn check_holder(&self, found: &Identity) -> Result<(), CacheError> {
        self.options.on_record.check_use(found)
    }

    /// A cache that may evict any key may lose the note of a write in flight: the
    /// keys of one unit may then be seen at different times.
    fn check_policy(&self, found: &Identity) -> Result<(), CacheError> {
        if !found.eviction.starts_with("allkeys") {
            return Ok(());
        }
        if self.on_allkeys_eviction == config::AllkeysEviction::Refuse {
            return Err(CacheError::Stranger(format!(
                "its maxmemory-policy is {}, and [cache] on_allkeys_eviction is \"refuse\"",
                found.eviction
            )));
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                policy = found.eviction,
                "the cache may evict any key: a reader may see one key of a multi-key write new \
                 and another one old; set maxmemory-policy to volatile-lru"
            );
        }
        Ok(())
    }

    /// From now on only this server counts as the cache; `None`: none does, and no call is made.
    /// Connections to another are closed.
    pub fn set_holder(&self, run_id: Option<&str>, replication_id: Option<&str>) {
        self.options.on_record.set(run_id, replication_id);
        for shared in &self.pipes {
            let mut current = shared
                .current
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if current.as_ref().is_some_and(|pipe| {
                run_id.is_none() || same_server(pipe.identity(), run_id, replication_id).is_err()
            }) {
                *current = None;
            }
        }
    }

    /// Connects anew and tells who answers, and what it holds.
    pub async fn probe(&self) -> Result<Probe, CacheError> {
        let (probe, _) = self.connect_and_probe().await?;
        Ok(probe)
    }

    async fn connect_and_probe(&self) -> Result<(Probe, Connection), CacheError> {
        let mut connection = Connection::open(&self.options).await?;
        let request = Request::from_args(&[b"MGET", MARK, HISTORY]);
        let reply = connection.call(request.raw()).await?;
        let mut texts = match reply {
            Reply::Array(items) => items.into_iter().map(|item| match item {
                Reply::Bulk(text) => Some(String::from_utf8_lossy(&text).into_owned()),
                _ => None,
            }),
            _ => return Err(CacheError::Refused("MGET gave no array".into())),
        };
        let mark = texts.next().flatten().and_then(|text| text.parse().ok());
        let probe = Probe {
            identity: connection.identity().clone(),
            mark: mark.map(Generation),
            history: texts.next().flatten(),
        };
        self.read_clock(&mut connection).await?;
        self.check_policy(connection.identity())?;
        Ok((probe, connection))
    }

    /// Like [`Self::probe`]; and if it is the server of these ids with this generation, notes there
    /// how far the store's history is known to go.
    pub async fn renew(
        &self,
        generation: Generation,
        (run_id, replication_id): (Option<&str>, Option<&str>),
        history: Option<&str>,
    ) -> Result<Probe, CacheError> {
        let (probe, mut connection) = self.connect_and_probe().await?;
        same_server(&probe.identity, run_id, replication_id)?;
        if probe.mark != Some(generation) {
            return Err(CacheError::Fenced(
                "it was emptied, or restored from a copy".into(),
            ));
        }
        if let Some(history) = history {
            let note = Request::from_args(&[b"SET", HISTORY, history.as_bytes()]);
            match connection.call(note.raw()).await {
                // The note stays as it was: it names less, so less is noticed.
                Ok(_) | Err(CacheError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(probe)
    }

    /// Deletes what the server on record holds of the generations before `generation`, so that nobody can
    /// have it as a hit. `false`: that server is not to be reached.
    ///
    /// Another server at the address of a URL without Sentinel means that the one on record is gone.
    pub async fn close(
        &self,
        generation: Generation,
        run_id: Option<&str>,
    ) -> Result<bool, CacheError> {
        let mut connection = Connection::open(&self.options).await?;
        let found = connection.identity();
        let Some(run_id) = run_id else {
            return Ok(false);
        };
        if found.run_id != run_id {
            let is_sentinel = matches!(
                self.options.url.transport,
                config::RedisTransport::Sentinel(_)
            );
            return Ok(!is_sentinel);
        }
        load_library(&mut connection).await?;
        let call = Call::new(Function::Close, [].iter(), generation, 0);
        connection.call(&call.finish()).await?;
        Ok(true)
    }

    /// Puts this program's library into a cache that is in use already: it may
    /// hold none, or that of another build.
    pub async fn load_library(&self) -> Result<(), CacheError> {
        load_library(&mut Connection::open(&self.options).await?).await
    }

    async fn read_clock(&self, connection: &mut Connection) -> Result<(), CacheError> {
        let asked = Instant::now();
        let reply = connection.call(Request::from_args(&["TIME"]).raw()).await?;
        let Reply::Array(parts) = reply else {
            return Ok(());
        };
        let number = |index: usize| match parts.get(index) {
            Some(Reply::Bulk(text)) => std::str::from_utf8(text).ok()?.parse::<i64>().ok(),
            _ => None,
        };
        if let (Some(seconds), Some(micros)) = (number(0), number(1)) {
            let at = UnixMs(seconds * 1000 + micros / 1000);
            let step = self.clock.set(Reading::new(at, asked));
            if step.unsigned_abs() > self.lives.skew.as_millis() as u64 {
                tracing::debug!(step, "the cache's clock was set anew");
            }
        }
        Ok(())
    }

    /// A connection for [`Self::open`]: whoever cannot have one need not try.
    pub async fn reach(&self) -> Result<Connection, CacheError> {
        let connection = Connection::open(&self.options).await?;
        if !connection.identity().is_primary {
            return Err(CacheError::Stranger("it is a replica".into()));
        }
        self.check_policy(connection.identity())?;
        Ok(connection)
    }

    /// Empties the cache and stamps it with `generation` of the store's `history`. Returns who it is.
    pub async fn open(
        &self,
        mut connection: Connection,
        generation: Generation,
        history: Option<&str>,
    ) -> Result<Identity, CacheError> {
        load_library(&mut connection).await?;
        let mut call = Call::new(Function::Open, [].iter(), generation, 1);
        call.bytes(history.unwrap_or_default().as_bytes());
        connection.call(&call.finish()).await?;
        self.read_clock(&mut connection).await?;
        Ok(connection.identity().clone())
    }

    /// Registers the batch `id` with its keys, and hides their natives.
    pub async fn begin(
        &self,
        generation: Generation,
        id: &str,
        keys: &[&Key],
    ) -> Result<(), CacheError> {
        let mut call = Call::new(Function::Begin, keys.iter().copied(), generation, 1);
        call.bytes(id.as_bytes());
        self.call(call, Repeat::Never).await.map(drop)
    }

    /// Applies the effects of the batch `id`. A full cache gets invalidations.
    pub async fn apply(
        &self,
        generation: Generation,
        id: &str,
        applied: &[Applied<'_>],
    ) -> Result<(), CacheError> {
        let shortened: Vec<Applied<'_>>;
        let applied = if applied.iter().any(is_large) {
            shortened = applied.iter().map(without_large).collect();
            &shortened
        } else {
            applied
        };
        let request = |function, content: Content| {
            let keys = applied.iter().map(|a| a.key);
            let mut call = Call::new(function, keys, generation, 3 + 3 * applied.len());
            call.bytes(id.as_bytes());
            self.put_lives(&mut call);
            put_applied(&mut call, applied, content);
            call
        };
        match self
            .call(request(Function::Apply, Content::Told), Repeat::Same)
            .await
        {
            Err(CacheError::Full) => self
                .call(
                    request(Function::Settle, Content::Only(Op::Invalidate)),
                    Repeat::Same,
                )
                .await
                .map(drop),
            other => other.map(drop),
        }
    }

    /// What is there of `keys`; takes the lease `token` on each that nothing is known of.
    pub async fn look(
        &self,
        generation: Generation,
        token: &str,
        keys: &[&Key],
    ) -> Result<Vec<Look>, CacheError> {
        let mut call = Call::new(Function::Look, keys.iter().copied(), generation, 2);
        call.bytes(token.as_bytes());
        call.number(self.lives.lease.as_millis() as i64);
        let looks = call::looks(self.call(call, Repeat::Never).await?)?;
        if looks.len() != keys.len() {
            return Err(CacheError::Refused(
                "look answered for another number of keys".into(),
            ));
        }
        Ok(looks)
    }

    /// Sets what the store said, where the lease `token` still allows it, and tells
    /// the versions in any case. A full cache is told the versions only.
    pub async fn fill(
        &self,
        generation: Generation,
        token: &str,
        content: &[Applied<'_>],
    ) -> Result<Vec<Fill>, CacheError> {
        let content = &match self.stage(generation, token, content).await {
            Ok(content) => content,
            Err(CacheError::Full) => content.to_vec(),
            Err(error) => return Err(error),
        };
        let request = |function, told: Content| {
            let keys = content.iter().map(|a| a.key);
            let mut call = Call::new(function, keys, generation, 3 + 3 * content.len());
            call.bytes(token.as_bytes());
            self.put_lives(&mut call);
            put_applied(&mut call, content, told);
            call
        };
        let reply = match self
            .call(request(Function::Fill, Content::Told), Repeat::Same)
            .await
        {
            Err(CacheError::Full) => {
                self.call(
                    request(Function::Observe, Content::Only(Op::Observe)),
                    Repeat::Same,
                )
                .await?
            }
            other => other?,
        };
        call::fills(reply)
    }

    /// Takes out what the dead proxy `proxy` left at `key`, whose version in the
    /// store after the proof of its death is `version`.
    pub async fn bury(
        &self,
        generation: Generation,
        proxy: &str,
        key: &Key,
        version: Version,
    ) -> Result<(), CacheError> {
        let mut call = Call::new(Function::Bury, [key].into_iter(), generation, 2);
        call.bytes(proxy.as_bytes());
        call.number(version.0);
        self.call(call, Repeat::Same).await.map(drop)
    }

    /// Sends a call; once more where a connection was stale or the library missing.
    async fn call(&self, call: Call, repeat: Repeat) -> Result<Reply, CacheError> {
        let request = call.finish();
        let mut attempts = 0;
        let mut leftovers = self.pool.state().connections;
        loop {
            let mut connection = self.pool.get().await.map_err(|error| match error {
                bb8::RunError::User(error) => error,
                bb8::RunError::TimedOut => CacheError::Unreachable("no connection in time".into()),
            })?;
            if let Err(error) = self.check_holder(connection.identity()) {
                let is_stranger = matches!(error, CacheError::Stranger(_));
                if is_stranger {
                    // Of a server that is gone, most likely. It proves nothing of the cache
                    // of now, and the pool would hand it out again and again.
                    connection.retire();
                }
                if !is_stranger || leftovers == 0 {
                    return Err(error);
                }
                leftovers -= 1;
                continue;
            }
            attempts += 1;
            match connection.call(&request).await {
                Err(CacheError::Lost(_)) if attempts <= 2 && repeat == Repeat::Same => {}
                Err(CacheError::Refused(text))
                    if attempts <= 2 && text.contains("Function not found") =>
                {
                    load_library(&mut connection).await?;
                }
                other => return other,
            }
        }
    }
}

/// Whether a call that got no answer may be sent again as it is.
///
/// A begin or look may not: if the first one arrived late, after the second was
/// applied and its companion had gone, it would register an id (or a lease) that was already used up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Same,
    Never,
}

/// What the cache is given: all, or (a full one) for each key only that it changed or was seen.
#[derive(Clone)]
enum Content {
    Told,
    Only(Op),
}

fn put_applied(call: &mut Call, applied: &[Applied<'_>], content: Content) {
    for one in applied {
        match (&one.op, &content) {
            (Op::Observe, _) | (_, Content::Told) => call.applied(one),
            (_, Content::Only(op)) => {
                call.applied(&Applied {
                    key: one.key,
                    op: op.clone(),
                    version: one.version,
                });
            }
        }
    }
}

async fn load_library(connection: &mut Connection) -> Result<(), CacheError> {
    let request = Request::from_args(&["FUNCTION", "LOAD", "REPLACE", library::source()]);
    connection.call(request.raw()).await.map(drop)
}

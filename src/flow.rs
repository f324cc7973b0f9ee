//! One command's story: class -> route -> strategy. Read this first.
//!
//! - A read goes to the cache as the client sent it; a reply that a missing
//!   key could also have given is looked into (`flow/read.rs`, `coherence::Reads`).
//! - A write goes through the commit lane (`coherence::Lane`).
//! - What concerns whole databases goes to `coherence::Keyspace`.
//! - What waits until something is written is tried by `coherence::Waiting` (`flow/waits.rs`).
//! - A script is one unit, in the lane or, if it takes long, beside it (`flow/scripts.rs`).
//! - The commands of a MULTI block are one unit (`flow/block.rs`).

mod block;
mod cache_only;
mod certain;
mod companion;
mod functions;
mod mapped;
mod read;
mod renamed;
mod routed;
mod scripts;
mod waits;
mod write_behind;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

pub use self::waits::{Wait, may_wait};
use crate::acl::{Denied, User};
use crate::cache::{self, Cache, Journal};
use crate::coherence::Answer;
use crate::coherence::{
    Acknowledge, Asides, Audience, Behind, Capture, CaptureTask, Fence, FenceTask, Keyspace, Lane,
    Loader, Reads, Scripts, Unit, Waiting, expire_forever, forget_forever, purge_forever,
};
pub use crate::coherence::{Seen, Step};
use crate::command::{Call, Class};
use crate::config::{self, CdcCapture, Config, RouteList};
use crate::engine;
use crate::model::{Db, KEY_BYTES_MAX, Protocol, Reply};
use crate::pubsub::{self, Broker};
use crate::resp;
use crate::routing::{Routing, Verdict};
use crate::script::Pool;
use crate::store::{self, Store};

/// A larger unit does not fit into a message of PostgreSQL's protocol (1 GB).
const UNIT_BYTES_MAX: usize = 900 << 20;

/// What the data path must know of the connection that a call came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The selected database.
    pub db: Db,
    /// The protocol in which replies are encoded.
    pub protocol: Protocol,
    /// The client's number.
    pub client: u64,
    /// What it may do, for the scripts that it runs; `None`: everything.
    pub user: Option<Arc<User>>,
    /// What scripts were refused that it ran, if they may not do everything.
    pub refused: Option<Refused>,
}

/// Calls of scripts that their user may not make.
pub type Refused = Arc<std::sync::Mutex<Vec<(Call, Denied)>>>;

/// How the data path stands, for `INFO` and the admin address.
#[derive(Clone, Debug)]
pub struct Status {
    /// The generation of the cache that this proxy last knew.
    pub generation: i64,
    /// `active`, `closing` or `bypass`.
    pub cache_state: &'static str,
    /// Whether the store answered last time.
    pub store_reachable: bool,
    /// Units waiting for or in a commit lane.
    pub units_in_flight: usize,
    /// Connections to PostgreSQL: used, idle.
    pub store_connections: (usize, usize),
    /// Pooled connections to Redis: used, idle.
    pub cache_connections: (u32, u32),
}

/// One database's line in `INFO keyspace`.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseSize {
    /// The database.
    pub db: Db,
    /// Its live keys.
    pub keys: i64,
    /// Those of them with an expiry.
    pub expires: i64,
}

/// Why the data path could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// PostgreSQL cannot be reached, or refuses the schema.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The TLS settings cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
}

/// The data path, shared by all connections; a clone is a handle to the same.
#[derive(Clone)]
pub struct Flow {
    parts: Arc<Parts>,
}

struct Parts {
    cache: Arc<Cache>,
    store: Arc<Store>,
    fence: Arc<Fence>,
    fence_task: Mutex<Option<FenceTask>>,
    capture_task: Mutex<Option<CaptureTask>>,
    /// What goes on until the flow drains.
    background: Vec<tokio::task::JoinHandle<()>>,
    waiting: Arc<Waiting>,
    lane: Arc<Lane>,
    reads: Arc<Reads>,
    keyspace: Arc<Keyspace>,
    asides: Asides,
    scripts: Arc<Scripts>,
    /// What has the write-behind keys, if they have a journal.
    behind: Option<Arc<Behind>>,
    broker: Arc<Broker>,
    routing: Arc<Routing>,
    /// Ends the broker's connection with the flow.
    _broker_task: pubsub::Task,
    units_max: usize,
}

impl Flow {
    /// Migrates the schema, registers this proxy, and brings the cache into use
    /// or, if it is away, starts without it.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let (store, cache, routing) = servers(config).await?;
        let name = format!("{} pid {}", config.listen.address, std::process::id());
        let (fence, task) =
            Fence::start(Arc::clone(&store), Arc::clone(&cache), &config.fence, name).await?;
        let (broker, broker_task) = Broker::start(
            cache.options().clone(),
            config.notifications.keyspace_events,
        );
        let audience: Arc<dyn Audience> = Arc::clone(&broker) as _;
        let lane = Lane::start(
            Arc::clone(&store),
            Arc::clone(&cache),
            Arc::clone(&fence),
            &config.commit,
            Arc::clone(&audience),
        );
        let loader = Loader::start(&store, config.cache.loads_at_once);
        let journal = Journal::new(&config.write_behind)?;
        let behind = Behind::start(journal, config, &store, &lane).await;
        let (waiting, waker) = Waiting::start(&lane, &store, &audience);
        let reads = Arc::new(Reads::new(
            Arc::clone(&cache),
            Arc::clone(&store),
            Arc::clone(&fence),
            Arc::clone(&lane),
            loader,
            Arc::clone(&audience),
        ));
        let keyspace = Arc::new(Keyspace::new(Arc::clone(&store), Arc::clone(&fence)));
        let asides = Asides::new(
            Arc::clone(&lane),
            Arc::clone(&reads),
            Arc::clone(&keyspace),
            config.scripts.time_limit,
        );
        let pool = Pool::new(config.scripts.memory.as_usize());
        let scripts = Scripts::new(Arc::clone(&store), pool);
        let mut background = in_background(config, &store, &lane, &scripts, audience);
        background.push(waker);
        let parts = Arc::new(Parts {
            cache,
            store,
            fence,
            fence_task: Mutex::new(Some(task)),
            capture_task: Mutex::new(None),
            background,
            waiting,
            lane,
            reads,
            keyspace,
            asides,
            scripts,
            behind: behind.map(Arc::new),
            broker,
            routing,
            _broker_task: broker_task,
            units_max: config.commit.max_batch_units as usize,
        });
        let flow = Self { parts };
        if config.cdc.capture == CdcCapture::Outbox {
            flow.start_capture(config.cdc.clone());
        }
        Ok(flow)
    }

    /// Has this proxy take its turns in telling the cache of what SQL changes.
    fn start_capture(&self, settings: config::Cdc) {
        let parts = &self.parts;
        let capture = Capture {
            store: Arc::clone(&parts.store),
            cache: Arc::clone(&parts.cache),
            fence: Arc::clone(&parts.fence),
            waiting: Arc::clone(&parts.waiting),
            audience: Arc::clone(&parts.broker) as _,
            settings,
        };
        *lock(&parts.capture_task) = Some(capture.start());
    }

    /// Ends this proxy's registration. All clients must have been answered.
    pub async fn drain(&self) {
        for task in &self.parts.background {
            task.abort();
        }
        if let Some(behind) = &self.parts.behind {
            behind.drain().await;
        }
        self.parts.lane.settle().await;
        let capture = lock(&self.parts.capture_task).take();
        if let Some(task) = capture {
            task.stop().await;
        }
        let task = lock(&self.parts.fence_task).take();
        if let Some(task) = task {
            task.stop().await;
        }
    }

    /// Runs the data commands of one connection in order (all classes but
    /// `Local` and `Unserved`) and appends their encoded replies to `out`,
    /// one each, in the same order.
    ///
    /// Reads start after the writes before them were answered, and so do
    /// writes after reads: a connection sees its own writes, and none early.
    pub async fn run(&self, origin: &Origin, calls: &[Call], out: &mut BytesMut) {
        match self.parts.routing.get() {
            None => self.run_managed(origin, calls, &[], out).await,
            Some(routes) => Box::pin(self.run_routed(&routes, origin, calls, out)).await,
        }
    }

    /// Puts other routes into force.
    pub fn set_routes(&self, list: &RouteList) {
        self.parts.routing.set(list);
    }

    /// Runs calls whose keys the store has. `verdicts` says how each is to be done; without,
    /// all are atomic.
    async fn run_managed(
        &self,
        origin: &Origin,
        calls: &[Call],
        verdicts: &[Verdict],
        out: &mut BytesMut,
    ) {
        let mut rest = calls;
        while let Some(first) = rest.first() {
            let group = Group::of(first);
            let length = rest
                .iter()
                .take_while(|call| Group::of(call) == group)
                .count();
            let (run, after) = rest.split_at(length);
            rest = after;
            match group {
                Group::Reads => self.read(origin, run, out).await,
                Group::Writes => {
                    let from = calls.len() - after.len() - run.len();
                    let verdicts = verdicts.get(from..from + run.len());
                    self.write(origin, run, verdicts, out).await;
                }
                // Boxed, because a connection that runs none must not hold the room for one.
                Group::Scripts => Box::pin(self.scripts(origin, run, out)).await,
                Group::Uncached => {
                    for call in run {
                        resp::encode(&self.miss(origin, call).await, origin.protocol, out);
                    }
                }
                Group::Alone => {
                    for call in run {
                        let reply = self.whole(call, origin.db).await;
                        resp::encode(&reply, origin.protocol, out);
                    }
                }
            }
        }
    }

    /// Runs a command over all keys of `db` or of all databases (the classes
    /// `Keyspace` and `Flush`).
    pub async fn whole(&self, call: &Call, db: Db) -> Reply {
        if let Some(routes) = self.parts.routing.get()
            && let Verdict::Refused(refusal) = routes.judge(call)
        {
            return refusal;
        }
        match call.command.class {
            Class::Flush => {
                let reply = self.parts.keyspace.flush(call, db).await;
                // Also after an error: it may have been done.
                self.parts.broker.hear_flush();
                self.parts.waiting.note_all();
                reply
            }
            _ => self.parts.keyspace.read(call, db).await,
        }
    }

    async fn write(
        &self,
        origin: &Origin,
        calls: &[Call],
        verdicts: Option<&[Verdict]>,
        out: &mut BytesMut,
    ) {
        let is_eventual = |verdicts: &[Verdict]| verdicts.iter().all(|v| *v == Verdict::Eventual);
        let acknowledge = match verdicts {
            // Of a pipeline the strictest, since its writes are answered together.
            Some(verdicts) if is_eventual(verdicts) => Acknowledge::Committed,
            _ => Acknowledge::Applied,
        };
        for chunk in calls.chunks(self.parts.units_max) {
            let refusals: Vec<Option<Reply>> = chunk.iter().map(oversized).collect();
            let units: Vec<Unit> = chunk
                .iter()
                .zip(&refusals)
                .filter(|(_, refusal)| refusal.is_none())
                .map(|(call, _)| {
                    Unit::single(origin.db, call.clone())
                        .by(origin.client)
                        .acknowledged(acknowledge)
                })
                .collect();
            let count = units.len();
            let replies = match self.parts.lane.submit(units).await {
                Ok(answers) => answers.into_iter().flat_map(Answer::replies).collect(),
                Err(refusal) => vec![refusal.reply(); count],
            };
            let mut replies = replies.into_iter();
            for refusal in refusals {
                let reply = refusal.or_else(|| replies.next());
                resp::encode(&reply.unwrap_or(Reply::Null), origin.protocol, out);
            }
        }
    }

    /// Messages, notifications and clients that keep copies.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.parts.broker
    }

    /// How the data path stands now.
    pub fn status(&self) -> Status {
        let phase = self.parts.fence.phase();
        let store = self.parts.store.pool_status();
        let cache = self.parts.cache.pool_status();
        Status {
            generation: phase.generation().0,
            cache_state: phase.name(),
            store_reachable: self.parts.fence.store_reachable(),
            units_in_flight: self.parts.lane.in_flight(),
            store_connections: (store.0, store.1),
            cache_connections: (cache.0, cache.1),
        }
    }

    /// The databases that have keys, counted by the store; an error reply if it is away.
    pub async fn database_sizes(&self) -> Result<Vec<DatabaseSize>, Reply> {
        let sizes = self.parts.keyspace.sizes().await?;
        Ok(sizes
            .into_iter()
            .map(|(db, keys, expires)| DatabaseSize { db, keys, expires })
            .collect())
    }
}

fn lock<T>(task: &Mutex<T>) -> MutexGuard<'_, T> {
    task.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What goes on beside the clients until the flow drains.
fn in_background(
    config: &Config,
    store: &Arc<Store>,
    lane: &Arc<Lane>,
    scripts: &Arc<Scripts>,
    audience: Arc<dyn Audience>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let retention = config.commit.once_retention;
    let expiring = expire_forever(Arc::clone(lane), Arc::clone(store), audience);
    vec![
        tokio::spawn(purge_forever(Arc::clone(store))),
        tokio::spawn(forget_forever(Arc::clone(store), retention)),
        tokio::spawn(expiring),
        tokio::spawn(Arc::clone(scripts).follow()),
    ]
}

/// Both servers, with the schema and the mapped tables in place.
async fn servers(config: &Config) -> Result<(Arc<Store>, Arc<Cache>, Arc<Routing>), StartError> {
    let store = Arc::new(Store::new(&config.postgres)?);
    let routing = Arc::new(Routing::new(&config.route));
    let cache = Cache::new(&config.redis, &config.cache, Arc::clone(&routing))?;
    store::migrate(&store).await?;
    for mapped in config.route.iter().filter_map(|it| it.mapped.as_ref()) {
        store.map_table(mapped).await?;
    }
    Ok((store, Arc::new(cache), routing))
}

/// Calls that are worked on together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Reads,
    /// Reads that the store alone can answer, those of keys that have the form of Freshet's own
    /// names in the cache among them.
    Uncached,
    Writes,
    Scripts,
    Alone,
}

impl Group {
    fn of(call: &Call) -> Self {
        match call.command.class {
            Class::Read | Class::Expiry => {
                let reserved = |index| cache::is_reserved(call.request.arg(index));
                if call.key_indices().any(reserved) || engine::is_for_the_store(call) {
                    Self::Uncached
                } else {
                    Self::Reads
                }
            }
            Class::Write => Self::Writes,
            Class::Script => Self::Scripts,
            Class::Keyspace
            | Class::Flush
            | Class::Local
            | Class::Transaction
            | Class::Unserved => Self::Alone,
        }
    }
}

/// What PostgreSQL cannot hold is refused before anything changes.
fn oversized(call: &Call) -> Option<Reply> {
    if call.request.raw().len() > UNIT_BYTES_MAX {
        return Some(Reply::error(
            "ERR the command is longer than 900 MB, which PostgreSQL cannot take at once",
        ));
    }
    let long = call
        .key_indices()
        .any(|index| call.request.arg(index).len() > KEY_BYTES_MAX);
    long.then(|| {
        Reply::error("ERR the key is longer than 2600 bytes, which PostgreSQL cannot index")
    })
}

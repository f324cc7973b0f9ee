//! One command's story: class -> route -> strategy. Read this first.
//!
//! - A read goes to the cache as the client sent it; a reply that a missing
//!   key could also have given is looked into (`coherence::Reads`).
//! - A write goes through the commit lane (`coherence::Lane`).
//! - What concerns whole databases goes to `coherence::Keyspace`.
//! - The commands of a MULTI block are one unit (`flow/block.rs`).

mod block;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;

use crate::cache::{Cache, CacheError, RESERVED_PREFIX, Replies};
use crate::coherence::{
    Audience, Fence, FenceTask, Keyspace, Lane, Loader, Phase, Reads, Ticket, Unit, Waiting,
    purge_forever,
};
pub use crate::coherence::{Seen, Step};
use crate::command::{Call, Class};
use crate::config::Config;
use crate::engine::{self, Content, Loaded, Workspace};
use crate::model::{Db, Generation, Key, Kind, Protocol, Reply, Request, UnixMs};
use crate::pubsub::{self, Broker};
use crate::resp;
use crate::store::{self, Store};

/// Longer keys do not fit into PostgreSQL's index pages (a third of 8 kB, less headers).
const KEY_BYTES_MAX: usize = 2600;

/// A larger unit does not fit into a message of PostgreSQL's protocol (1 GB).
const UNIT_BYTES_MAX: usize = 900 << 20;

/// Misses of one connection that are worked on at once.
const MISSES_MAX: usize = 64;

/// What the data path must know of the connection that a call came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The selected database.
    pub db: Db,
    /// The protocol in which replies are encoded.
    pub protocol: Protocol,
    /// The client's number.
    pub client: u64,
}

/// A call that waits; dropping this ends it.
pub struct Wait {
    ticket: Ticket,
    limit: Option<Duration>,
}

impl Wait {
    /// How long it waits; `None`: for ever.
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Ready when it got something.
    pub fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Reply> {
        let answer = self.ticket.poll_answer(context);
        answer.map(|answer| answer.unwrap_or_else(|refusal| refusal.reply()))
    }

    /// Ends it. What a try that was under way still got is the reply, else null.
    pub async fn give_up(self) -> Reply {
        let answer = self.ticket.withdraw().await;
        answer.unwrap_or_else(|refusal| refusal.reply())
    }
}

/// Whether `call` waits if there is nothing; one whose time to wait is refused does not.
pub fn may_wait(call: &Call) -> bool {
    matches!(engine::waits(call), Some(Ok(_)))
}

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
    fence_task: std::sync::Mutex<Option<FenceTask>>,
    purger: tokio::task::JoinHandle<()>,
    waiting: Arc<Waiting>,
    waker: tokio::task::JoinHandle<()>,
    lane: Arc<Lane>,
    reads: Reads,
    keyspace: Keyspace,
    broker: Arc<Broker>,
    /// Ends the broker's connection with the flow.
    _broker_task: pubsub::Task,
    units_max: usize,
}

impl Flow {
    /// Migrates the schema, registers this proxy, and brings the cache into use
    /// or, if it is away, starts without it.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let store = Arc::new(Store::new(&config.postgres)?);
        let cache = Arc::new(Cache::new(&config.redis, &config.cache)?);
        store::migrate(&store).await?;
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
            audience,
        );
        let loader = Loader::start(&store);
        let (waiting, waker) = Waiting::start(&lane, &store);
        let reads = Reads::new(
            Arc::clone(&cache),
            Arc::clone(&store),
            Arc::clone(&fence),
            Arc::clone(&lane),
            loader,
        );
        let keyspace = Keyspace::new(Arc::clone(&store), Arc::clone(&fence));
        let purger = tokio::spawn(purge_forever(Arc::clone(&store)));
        let parts = Parts {
            cache,
            store,
            fence,
            fence_task: std::sync::Mutex::new(Some(task)),
            purger,
            waiting,
            waker,
            lane,
            reads,
            keyspace,
            broker,
            _broker_task: broker_task,
            units_max: config.commit.max_batch_units as usize,
        };
        Ok(Self {
            parts: Arc::new(parts),
        })
    }

    /// Ends this proxy's registration. All clients must have been answered.
    pub async fn drain(&self) {
        self.parts.purger.abort();
        self.parts.waker.abort();
        let task = self
            .parts
            .fence_task
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            task.stop().await;
        }
    }

    /// Lets a call that blocks wait until it gets something, for as long as it says.
    /// An error reply where it does not come to that.
    pub fn wait(&self, origin: Origin, call: &Call) -> Result<Wait, Reply> {
        if let Some(refusal) = oversized(call) {
            return Err(refusal);
        }
        let Some(Ok(timeout)) = engine::waits(call) else {
            return Err(Reply::error(
                "ERR Freshet internal error: the command does not wait",
            ));
        };
        let unit = Unit::single(origin.db, call.clone()).by(origin.client);
        let keys = engine::waited_keys(call, origin.db);
        Ok(Wait {
            ticket: self.parts.waiting.enter(unit, keys),
            limit: match timeout {
                engine::Timeout::Never => None,
                engine::Timeout::After(limit) => Some(limit),
            },
        })
    }

    /// How many calls wait for something to be written.
    pub fn waiting(&self) -> usize {
        self.parts.waiting.len()
    }

    /// Runs the data commands of one connection in order (all classes but
    /// `Local` and `Unserved`) and appends their encoded replies to `out`,
    /// one each, in the same order.
    ///
    /// Reads start after the writes before them were answered, and so do
    /// writes after reads: a connection sees its own writes, and none early.
    pub async fn run(&self, origin: Origin, calls: &[Call], out: &mut BytesMut) {
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
                Group::Writes => self.write(origin, run, out).await,
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
        match call.command.class {
            Class::Flush => {
                let reply = self.parts.keyspace.flush(call, db).await;
                // Also after an error: it may have been done.
                self.parts.broker.hear_flush();
                reply
            }
            _ => self.parts.keyspace.read(call, db).await,
        }
    }

    async fn write(&self, origin: Origin, calls: &[Call], out: &mut BytesMut) {
        for chunk in calls.chunks(self.parts.units_max) {
            let refusals: Vec<Option<Reply>> = chunk.iter().map(oversized).collect();
            let units: Vec<Unit> = chunk
                .iter()
                .zip(&refusals)
                .filter(|(_, refusal)| refusal.is_none())
                .map(|(call, _)| Unit::single(origin.db, call.clone()).by(origin.client))
                .collect();
            let count = units.len();
            let replies = match self.parts.lane.submit(units).await {
                Ok(answers) => answers.into_iter().flatten().flatten().collect(),
                Err(refusal) => vec![refusal.reply(); count],
            };
            let mut replies = replies.into_iter();
            for refusal in refusals {
                let reply = refusal.or_else(|| replies.next());
                resp::encode(&reply.unwrap_or(Reply::Null), origin.protocol, out);
            }
        }
    }

    async fn read(&self, origin: Origin, calls: &[Call], out: &mut BytesMut) {
        let Some(first) = self.ask_cache(origin, calls).await else {
            for chunk in calls.chunks(MISSES_MAX) {
                for reply in join_all(chunk.iter().map(|call| self.miss(origin, call))).await {
                    resp::encode(&reply, origin.protocol, out);
                }
            }
            return;
        };
        let mut slices = first.iter();
        let mut doubtful = Vec::new();
        let mut answers: Vec<&[u8]> = Vec::with_capacity(calls.len());
        for (index, call) in calls.iter().enumerate() {
            let last = slices
                .by_ref()
                .nth(replies_to(call) - 1)
                .unwrap_or_default();
            if !is_certain(call, last) {
                doubtful.push(index);
            }
            answers.push(last);
        }
        self.parts
            .reads
            .count_hits((calls.len() - doubtful.len()) as u64);
        if doubtful.is_empty() && first.len() == calls.len() {
            out.extend_from_slice(first.bytes());
            return;
        }
        let mut settled = Vec::with_capacity(doubtful.len());
        for chunk in doubtful.chunks(MISSES_MAX) {
            let looked = chunk
                .iter()
                .map(|&index| self.look_into(origin, &calls[index], answers[index]));
            settled.extend(join_all(looked).await);
        }
        let mut settled = doubtful.into_iter().zip(settled).peekable();
        for (index, bytes) in answers.iter().enumerate() {
            match settled.next_if(|(at, _)| *at == index) {
                Some((_, reply)) => resp::encode(&reply, origin.protocol, out),
                None => out.extend_from_slice(bytes),
            }
        }
    }

    /// Sends reads to the cache together. `None`: it may not be used, or failed.
    async fn ask_cache(&self, origin: Origin, calls: &[Call]) -> Option<Replies> {
        let Phase::Active(generation) = self.parts.fence.phase() else {
            return None;
        };
        let mut expected = 0;
        let mut blocks: Vec<Bytes> = Vec::new();
        for call in calls {
            expected += replies_to(call);
            if call.command.class == Class::Expiry {
                blocks.push(expiry_block(call));
            }
        }
        let mut blocks = blocks.iter();
        let requests = calls.iter().map(|call| match call.command.class {
            Class::Expiry => blocks.next().map_or(&b""[..], |block| &block[..]),
            _ => &call.request.raw()[..],
        });
        match self
            .parts
            .cache
            .read(origin.db, origin.protocol, requests, expected)
            .await
        {
            Ok(replies) => self.parts.fence.allows_hit(generation).then_some(replies),
            Err(error) => {
                self.parts.fence.cache_failed(generation, &error, 0).await;
                None
            }
        }
    }

    /// A reply that is not certain: the true expiry, or a key that may be missing.
    async fn look_into(&self, origin: Origin, call: &Call, reply: &[u8]) -> Reply {
        if call.command.class == Class::Expiry
            && let Some(found) = told_expiry(reply)
        {
            return expiry_reply(call, origin.db, found, self.parts.store.clock().now());
        }
        self.miss(origin, call).await
    }

    async fn miss(&self, origin: Origin, call: &Call) -> Reply {
        self.parts
            .reads
            .miss(call, origin.db, |generation| {
                self.read_checked(origin, call, generation)
            })
            .await
    }

    /// The command, and in the same MULTI whether all its keys are there or known
    /// to be absent; `None` if one is not.
    async fn read_checked(
        &self,
        origin: Origin,
        call: &Call,
        generation: Generation,
    ) -> Result<Option<Reply>, CacheError> {
        if call.command.class == Class::Expiry {
            return Ok(self
                .ask_cache(origin, std::slice::from_ref(call))
                .await
                .and_then(|replies| {
                    let found = told_expiry(&replies.get(replies.len() - 1))?;
                    Some(expiry_reply(
                        call,
                        origin.db,
                        found,
                        self.parts.store.clock().now(),
                    ))
                }));
        }
        let keys: Vec<Bytes> = call.key_names().collect();
        let mut block = BytesMut::new();
        block.extend_from_slice(Request::from_args(&["MULTI"]).raw());
        block.extend_from_slice(call.request.raw());
        for key in &keys {
            block.extend_from_slice(Request::from_args(&[&b"EXISTS"[..], key]).raw());
            block.extend_from_slice(Request::from_args(&[&b"GET"[..], &companion(key)]).raw());
        }
        block.extend_from_slice(Request::from_args(&["EXEC"]).raw());
        let count = 2 * keys.len() + 3;
        let block = [&block[..]];
        let replies = self
            .parts
            .cache
            .read(origin.db, origin.protocol, block.into_iter(), count)
            .await?;
        if !self.parts.fence.allows_hit(generation) {
            return Ok(None);
        }
        let Ok(Reply::Array(mut items)) = resp::decode_reply(&replies.get(count - 1)) else {
            return Err(CacheError::Refused("EXEC was refused".into()));
        };
        let known = items[1..].chunks(2).all(|pair| match pair {
            [Reply::Integer(1), _] => true,
            [_, Reply::Bulk(companion)] => Companion::parse(companion).is_some_and(|c| c.absent),
            _ => false,
        });
        Ok(known.then(|| items.swap_remove(0)))
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

/// Calls that are worked on together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Reads,
    /// Reads of keys that have the form of Freshet's own names in the cache.
    Uncached,
    Writes,
    Alone,
}

impl Group {
    fn of(call: &Call) -> Self {
        match call.command.class {
            Class::Read | Class::Expiry => {
                let reserved = |index| call.request.arg(index).starts_with(RESERVED_PREFIX);
                if call.key_indices().any(reserved) {
                    Self::Uncached
                } else {
                    Self::Reads
                }
            }
            Class::Write => Self::Writes,
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

/// How many replies the cache gives to what is sent for `call`.
fn replies_to(call: &Call) -> usize {
    match call.command.class {
        Class::Expiry => 4,
        _ => 1,
    }
}

/// The native's end and the companion, at one moment.
fn expiry_block(call: &Call) -> Bytes {
    let key = call.request.arg(1);
    let mut block = BytesMut::new();
    block.extend_from_slice(Request::from_args(&["MULTI"]).raw());
    block.extend_from_slice(Request::from_args(&[b"PEXPIRETIME", key]).raw());
    block.extend_from_slice(Request::from_args(&[&b"GET"[..], &companion(key)]).raw());
    block.extend_from_slice(Request::from_args(&["EXEC"]).raw());
    block.freeze()
}

/// Whether only a key that is there can have given this encoded reply.
fn is_certain(call: &Call, reply: &[u8]) -> bool {
    if call.command.class == Class::Expiry {
        return false;
    }
    let keys = call.key_indices().count();
    if reply.starts_with(b"-") {
        // Redis looks at the type first: had the key been there, the error might be another.
        return keys == 0 || keys == 1 && reply.starts_with(b"-WRONGTYPE");
    }
    match reply {
        [b':', digits @ ..] if keys > 1 => {
            counts_keys(call) && digits.strip_suffix(b"\r\n") == Some(keys.to_string().as_bytes())
        }
        [b'*', ..] if call.command.name == "MGET" => !has_null(reply),
        _ if keys > 1 => false,
        b"+none\r\n" | b"$0\r\n\r\n" => false,
        [b'$', b'1'..=b'9', ..] | [b'+' | b',', ..] => true,
        [b':', b'1'..=b'9', ..] => true,
        [b'*' | b'%' | b'~', b'1'..=b'9', ..] => !answers_each(call) && !reply.ends_with(b"*0\r\n"),
        _ => false,
    }
}

/// Commands that reply with as many elements as were asked for, though the key
/// is missing.
fn answers_each(call: &Call) -> bool {
    matches!(
        call.command.name,
        "HMGET"
            | "SMISMEMBER"
            | "ZMSCORE"
            | "GEOPOS"
            | "GEOHASH"
            | "LPOS"
            | "BITFIELD_RO"
            | "BITFIELD"
    )
}

/// Commands whose reply is the number of their keys that are there.
fn counts_keys(call: &Call) -> bool {
    matches!(call.command.name, "EXISTS" | "TOUCH")
}

/// Whether an array of bulk strings has a null among them.
fn has_null(array: &[u8]) -> bool {
    let mut rest = array;
    let mut is_header = true;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, after) = rest.split_at(end + 1);
        rest = after;
        if std::mem::take(&mut is_header) {
            continue;
        }
        let length = line
            .strip_prefix(b"$")
            .and_then(|line| line.strip_suffix(b"\r\n"));
        match length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok()) {
            Some(length) => rest = rest.get(length + 2..).unwrap_or_default(),
            None => return true,
        }
    }
    false
}

/// The part of a companion that readers understand; `functions.lua` writes it.
struct Companion {
    absent: bool,
    expires_at: Option<UnixMs>,
}

impl Companion {
    /// `None` while writers are in flight, or if nothing is known of the content.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut fields = text.split(' ');
        let (_floor, content, expiry, _lease, writers) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        if !writers.is_empty() || content == "-" {
            return None;
        }
        Some(Self {
            absent: content.starts_with('a'),
            expires_at: expiry.parse().ok().map(UnixMs),
        })
    }
}

/// The companion's name in the cache; `functions.lua` makes the same.
fn companion(key: &[u8]) -> Vec<u8> {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        key[open + 1..]
            .iter()
            .position(|&byte| byte == b'}')
            .filter(|&length| length > 0)
    });
    let mut name = Vec::with_capacity(key.len() + 5);
    name.extend_from_slice(RESERVED_PREFIX);
    if tag.is_some() {
        name.push(b'C');
        name.extend_from_slice(key);
    } else {
        name.extend_from_slice(b"c{");
        name.extend_from_slice(key);
        name.push(b'}');
    }
    name
}

/// The true expiry, if the cache knows it: `Some(None)` lives for ever.
fn told_expiry(exec: &[u8]) -> Option<Option<UnixMs>> {
    let Ok(Reply::Array(items)) = resp::decode_reply(&Bytes::copy_from_slice(exec)) else {
        return None;
    };
    match items.as_slice() {
        [Reply::Integer(ends), _] if *ends > 0 && ends % 2 == 0 => Some(None),
        [Reply::Integer(ends), Reply::Bulk(companion)] if *ends > 0 => {
            let companion = Companion::parse(companion)?;
            companion.expires_at.filter(|_| !companion.absent).map(Some)
        }
        _ => None,
    }
}

fn expiry_reply(call: &Call, db: Db, expires_at: Option<UnixMs>, now: UnixMs) -> Reply {
    let mut workspace = Workspace::default();
    let content = Content::Header(Kind::String);
    let loaded = Loaded {
        version: Default::default(),
        content,
        expires_at,
    };
    workspace.load(Key::new(db, call.request.arg_bytes(1)), loaded);
    engine::execute(call, db, &mut workspace, now)
}

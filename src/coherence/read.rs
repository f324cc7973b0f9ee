//! Reads: hits, and the miss path look -> lease -> load -> fill -> answer.

mod flight;
mod scan;
mod snapshot;
mod writers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ahash::AHashMap;
use tokio::sync::watch;

use super::meters::ReadMeters;
use super::plan::is_reserved;
use super::{Audience, Fence, Lane, Loader, Phase, Refusal};
use crate::cache::{Applied, Cache, CacheError, Fill, Look, Op, Told};
use crate::command::{Call, Class};
use crate::engine::{self, Content, Loaded, Need, Workspace, replay};
use crate::fault::{self, Point};
use crate::model::{Db, Generation, Key, Reply, UnixMs, Value};
use crate::store::{Large, LoadRequest, Store};

/// How often a read goes round (a writer, another's fill, the fence in its way)
/// before it is answered from the store without setting anything.
const ROUNDS_MAX: u32 = 8;

/// How often it waits for writers first: a key that is written all the time is
/// hidden all the time, and is read from the store.
const WAITS_MAX: u32 = 2;

/// How long a read waits for somebody else's fill or apply.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// What a round of the miss path came to.
enum Round {
    Answer(Reply),
    /// Something changed: ask the cache again.
    Again,
    /// A key cannot be in the cache, most often because it is too large: only the store can answer.
    Uncached,
}

/// Why a round failed.
enum Fault {
    Cache(CacheError),
    Refusal(Refusal),
}

impl From<CacheError> for Fault {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

/// The read path's miss side.
pub struct Reads {
    cache: Arc<Cache>,
    store: Arc<Store>,
    fence: Arc<Fence>,
    lane: Arc<Lane>,
    loader: Loader,
    audience: Arc<dyn Audience>,
    /// Keys that this proxy is filling; the channel closes when a fill is over.
    flights: Mutex<AHashMap<Key, watch::Receiver<()>>>,
    tokens: AtomicU64,
    meters: ReadMeters,
}

impl Reads {
    /// Puts the parts together.
    pub fn new(
        cache: Arc<Cache>,
        store: Arc<Store>,
        fence: Arc<Fence>,
        lane: Arc<Lane>,
        loader: Loader,
        audience: Arc<dyn Audience>,
    ) -> Self {
        let flights = Mutex::new(AHashMap::new());
        let tokens = AtomicU64::new(0);
        let meters = ReadMeters::new();
        Self {
            cache,
            store,
            fence,
            lane,
            loader,
            audience,
            flights,
            tokens,
            meters,
        }
    }

    /// The store's time.
    pub(super) fn now(&self) -> UnixMs {
        self.store.clock().now()
    }

    /// Counts reads that the cache answered at once.
    pub fn count_hits(&self, hits: u64) {
        self.meters.hits.increment(hits);
    }

    /// Answers a read that the cache could not answer for certain.
    ///
    /// `rerun` sends the command to the cache once more, with a check in the same
    /// MULTI that all its keys are there; `None` if one is not.
    pub async fn miss<R, F>(&self, call: &Call, db: Db, rerun: R) -> Reply
    where
        R: Fn(Generation) -> F,
        F: Future<Output = Result<Option<Reply>, CacheError>>,
    {
        let mut keys: Vec<Key> = call.keys(db).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            // `SINTERCARD 0 k` names none: the cache holds nothing that its answer needs.
            return self.answer_one(call, db).await;
        }
        // The store tells which keys are missing.
        let is_for_the_store =
            any_reserved(&keys) || engine::is_for_the_store(call) || self.tells_misses();
        for round in 0..ROUNDS_MAX {
            let generation = match self.fence.settled().await {
                Err(refusal) => return refusal.reply(),
                Ok(Phase::Active(generation)) if !is_for_the_store => generation,
                Ok(_) => break,
            };
            let waits = round < WAITS_MAX;
            match self.round(call, db, &keys, generation, waits, &rerun).await {
                Ok(Round::Answer(reply)) => return reply,
                Ok(Round::Again) => {}
                Ok(Round::Uncached) => break,
                Err(Fault::Refusal(refusal)) => return refusal.reply(),
                Err(Fault::Cache(error)) => {
                    self.fence.cache_failed(generation, &error, round).await
                }
            }
        }
        // In bypass, or after too many rounds.
        self.meters.bypasses.increment(1);
        self.answer_one(call, db).await
    }

    async fn round<R, F>(
        &self,
        call: &Call,
        db: Db,
        keys: &[Key],
        generation: Generation,
        waits: bool,
        rerun: &R,
    ) -> Result<Round, Fault>
    where
        R: Fn(Generation) -> F,
        F: Future<Output = Result<Option<Reply>, CacheError>>,
    {
        let Some(flight) = self.board(keys) else {
            self.await_flights(keys).await;
            if call.command.class == Class::Expiry {
                return Ok(Round::Again);
            }
            return Ok(match rerun(generation).await? {
                Some(reply) => Round::Answer(reply),
                None => Round::Again,
            });
        };
        let token = format!(
            "{}.t{}",
            self.fence.proxy(),
            self.tokens.fetch_add(1, Ordering::Relaxed)
        );
        let wanted: Vec<&Key> = keys.iter().collect();
        // Before the look: what is over by now and still registered is a ghost.
        let over = self.lane.over();
        let looks = self.cache.look(generation, &token, &wanted).await?;
        if looks.iter().all(|look| *look == Look::Absent) {
            if !self.fence.allows_hit(generation) {
                // As old as any hit: others may have gone on without this cache.
                return Ok(Round::Uncached);
            }
            self.meters.absent_hits.increment(1);
            let now = self.store.clock().now();
            let answer = answer(call, db, keys, &absent(keys.len()), now);
            return Ok(answer.map_or(Round::Uncached, Round::Answer));
        }
        let certain = looks
            .iter()
            .all(|look| matches!(look, Look::Hit | Look::Absent));
        if certain && call.command.class != Class::Expiry {
            return Ok(rerun(generation).await?.map_or(Round::Again, Round::Answer));
        }
        if waits && self.writers_done(&looks, keys, generation, over).await {
            return Ok(Round::Again);
        }
        self.meters.misses.increment(1);
        let in_flight = looks.iter().any(|look| matches!(look, Look::Writers(_)));
        let round = if keys.len() == 1 || in_flight {
            self.load_and_answer(call, db, keys, generation, &token, &looks)
                .await
        } else {
            self.fill_gaps(keys, generation, &token, &looks).await
        };
        drop(flight);
        round
    }

    /// Reads all keys from one snapshot, tells the cache, and only then answers.
    async fn load_and_answer(
        &self,
        call: &Call,
        db: Db,
        keys: &[Key],
        generation: Generation,
        token: &str,
        looks: &[Look],
    ) -> Result<Round, Fault> {
        let loaded = self.loader.load(self.to_fill(call, db, keys)).await?;
        let content: Vec<Applied<'_>> = keys
            .iter()
            .zip(&loaded.keys)
            .zip(looks)
            .map(|((key, found), look)| Applied {
                key,
                op: self.op(key, found, *look == Look::Leased, loaded.clock.latest_now()),
                version: found.version,
            })
            .collect();
        let fills = self.fill(generation, token, &content).await?;
        if loaded
            .keys
            .iter()
            .any(|key| scan::is_scan_of_many(call, &key.content))
        {
            // The cache tells it in parts, with its own cursors.
            let is_filled = fills.iter().all(|fill| *fill == Fill::Set);
            return Ok(if is_filled {
                Round::Again
            } else {
                Round::Uncached
            });
        }
        let answer = answer(call, db, keys, &loaded.keys, loaded.now);
        Ok(answer.map_or(Round::Uncached, Round::Answer))
    }

    async fn fill(
        &self,
        generation: Generation,
        token: &str,
        content: &[Applied<'_>],
    ) -> Result<Vec<Fill>, Fault> {
        fault::reached(Point::BeforeFill).await;
        let fills = self.cache.fill(generation, token, content).await?;
        self.meters.fills(&fills);
        Ok(fills)
    }

    /// Fills what is missing of several keys, so that the cache can answer all
    /// of it in one step. (To answer from the store would mean to tell the cache of the
    /// resident keys too, and to lose those whose version it does not know.)
    async fn fill_gaps(
        &self,
        keys: &[Key],
        generation: Generation,
        token: &str,
        looks: &[Look],
    ) -> Result<Round, Fault> {
        let gaps: Vec<Key> = keys
            .iter()
            .zip(looks)
            .filter(|(_, look)| **look == Look::Leased)
            .map(|(key, _)| key.clone())
            .collect();
        if gaps.is_empty() {
            return Ok(Round::Again);
        }
        let requests = gaps.iter().map(|key| LoadRequest {
            key: key.clone(),
            need: Need::value(),
            of_large: Some(Large {
                above: self.cache.lives().fill_elements,
                need: Need::header(),
            }),
        });
        let loaded = self.loader.load(requests.collect()).await?;
        let content: Vec<Applied<'_>> = gaps
            .iter()
            .zip(&loaded.keys)
            .map(|(key, found)| Applied {
                key,
                op: self.op(key, found, true, loaded.clock.latest_now()),
                version: found.version,
            })
            .collect();
        self.fill(generation, token, &content).await?;
        let is_uncached = |told: &Applied<'_>| matches!(told.op, Op::Observe);
        Ok(if content.iter().any(is_uncached) {
            Round::Uncached
        } else {
            Round::Again
        })
    }

    /// All of `keys` for the cache; of those too large for it what `call` needs.
    fn to_fill(&self, call: &Call, db: Db, keys: &[Key]) -> Vec<LoadRequest> {
        let mut needs = needs(call, db);
        let request = |key: &Key| LoadRequest {
            key: key.clone(),
            need: Need::value(),
            of_large: Some(Large {
                above: self.cache.lives().fill_elements,
                need: needs.remove(key).unwrap_or_default(),
            }),
        };
        keys.iter().map(request).collect()
    }

    fn op(&self, key: &Key, found: &Loaded, leased: bool, now: UnixMs) -> Op {
        match &found.content {
            _ if !leased => Op::Observe,
            Content::Absent => self.cache.absent_op(key),
            Content::Value(Value::String(value)) => {
                self.cache
                    .string_op(key, value.clone(), found.expires_at, now)
            }
            Content::Value(Value::Collection(whole)) => match replay::rebuild(whole) {
                Ok(commands) => {
                    let expires_at = found.expires_at;
                    self.cache.collection_op(
                        key,
                        (Told::Whole, whole.len()),
                        commands,
                        expires_at,
                        now,
                    )
                }
                // Too large for the cache, and so only in part here; or not to be made by commands.
                Err(_) => Op::Observe,
            },
            Content::Header(_) => Op::Observe,
        }
    }
}

/// What `call` needs of each of its keys.
fn needs(call: &Call, db: Db) -> BTreeMap<Key, Need> {
    let mut needs: BTreeMap<Key, Need> = BTreeMap::new();
    for (key, need) in engine::needs(call, db) {
        needs.entry(key).or_default().add(need);
    }
    needs
}

/// Runs a read on what the store said of its keys; `None` if it turns out to need more.
fn answer(call: &Call, db: Db, keys: &[Key], found: &[Loaded], now: UnixMs) -> Option<Reply> {
    let mut workspace = Workspace::default();
    for (key, loaded) in keys.iter().zip(found) {
        workspace.load(key.clone(), loaded.clone());
    }
    let reply = engine::execute(call, db, &mut workspace, now);
    (!workspace.is_short()).then_some(reply)
}

fn absent(count: usize) -> Vec<Loaded> {
    vec![
        Loaded {
            version: Default::default(),
            content: Content::Absent,
            expires_at: None
        };
        count
    ]
}

fn any_reserved(keys: &[Key]) -> bool {
    keys.iter().any(is_reserved)
}

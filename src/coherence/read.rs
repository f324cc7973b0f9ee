//! Reads: hits, and the miss path look -> lease -> load -> fill -> answer.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tokio::sync::watch;

use super::fence::SETTLE_MAX;
use super::loader::LoadedKeys;
use super::meters::ReadMeters;
use super::{Fence, Lane, Loader, Phase, Refusal, Seen, Step};
use crate::cache::{Applied, Cache, CacheError, Look, Op, RESERVED_PREFIX, Told};
use crate::command::{Call, Class};
use crate::engine::{self, Content, Loaded, Need, Workspace, replay};
use crate::fault::{self, Point};
use crate::model::{Db, Generation, Key, Reply, UnixMs, Value, Version};
use crate::store::{FenceState, Large, LoadRequest, Store};

/// How often a read goes round (a writer, another's fill, the fence in its way)
/// before it is answered from the store without setting anything.
const ROUNDS_MAX: u32 = 8;

/// How often it waits for writers first: a key that is written all the time is
/// hidden all the time, and is read from the store.
const WAITS_MAX: u32 = 2;

/// How often a read on the store's word loads what it turns out to want: then all
/// of its keys, since it may ask for ever.
const LOADS_MAX: u32 = 3;

/// How long a read waits for somebody else's fill or apply.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// What a round of the miss path came to.
enum Round {
    Answer(Reply),
    /// Something changed: ask the cache again.
    Again,
    /// A key is too large for the cache: only the store can answer.
    Large,
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
            flights,
            tokens,
            meters,
        }
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
            // `SINTERCARD 0 k` names none, and there is nothing to load for its error.
            return engine::execute(
                call,
                db,
                &mut Workspace::default(),
                self.store.clock().now(),
            );
        }
        for round in 0..ROUNDS_MAX {
            let generation = match self.fence.settled().await {
                Err(refusal) => return refusal.reply(),
                Ok(Phase::Active(generation)) if !any_reserved(&keys) => generation,
                Ok(_) => break,
            };
            let waits = round < WAITS_MAX;
            match self.round(call, db, &keys, generation, waits, &rerun).await {
                Ok(Round::Answer(reply)) => return reply,
                Ok(Round::Again) => {}
                Ok(Round::Large) => break,
                Err(Fault::Refusal(refusal)) => return refusal.reply(),
                Err(Fault::Cache(error)) => {
                    self.fence.cache_failed(generation, &error, round).await
                }
            }
        }
        match self.answer_from_store(call, db).await {
            Ok(reply) => reply,
            Err(refusal) => refusal.reply(),
        }
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
            self.meters.absent_hits.increment(1);
            let now = self.store.clock().now();
            let answer = answer(call, db, keys, &absent(keys.len()), now);
            return Ok(answer.map_or(Round::Large, Round::Answer));
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

    /// Waits for this proxy's own batches among the writers, and has those of
    /// dead proxies buried; whether to look again.
    async fn writers_done(
        &self,
        looks: &[Look],
        keys: &[Key],
        generation: Generation,
        over: u64,
    ) -> bool {
        let own = format!("{}.", self.fence.proxy());
        for (look, key) in looks.iter().zip(keys) {
            let Look::Writers(ids) = look else { continue };
            for id in ids {
                if let Some(batch) = id.strip_prefix(&own).and_then(|n| n.parse().ok()) {
                    let done = if batch <= over {
                        self.sweep_ghost(id, key, generation).await
                    } else {
                        self.lane.applied(batch, WAIT_MAX).await
                    };
                    if done {
                        return true;
                    }
                } else if let Some((proxy, _)) = id.split_once('.')
                    && self.bury(proxy, key, generation).await
                {
                    return true;
                }
            }
        }
        false
    }

    /// Takes out an id of a batch that is long over: its begin got no answer, and
    /// arrived after it had been given up.
    async fn sweep_ghost(&self, id: &str, key: &Key, generation: Generation) -> bool {
        let seen = [Applied {
            key,
            op: Op::Observe,
            version: Version(0),
        }];
        self.cache.apply(generation, id, &seen).await.is_ok()
    }

    /// Takes out what a dead proxy left at `key`; `false` while it lives.
    async fn bury(&self, proxy: &str, key: &Key, generation: Generation) -> bool {
        let Ok(number) = proxy.parse() else {
            return false;
        };
        if !self.store.prove_dead(number).await.unwrap_or(false) {
            return false;
        }
        let Ok(loaded) = self
            .loader
            .load(vec![LoadRequest::header(key.clone())])
            .await
        else {
            return false;
        };
        let Some(found) = loaded.keys.first() else {
            return false;
        };
        tracing::info!(proxy, ?key, "a dead proxy's write is buried");
        self.cache
            .bury(generation, proxy, key, found.version)
            .await
            .is_ok()
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
                op: self.op(found, *look == Look::Leased, loaded.now),
                version: found.version,
            })
            .collect();
        self.fill(generation, token, &content).await?;
        let answer = answer(call, db, keys, &loaded.keys, loaded.now);
        Ok(answer.map_or(Round::Large, Round::Answer))
    }

    async fn fill(
        &self,
        generation: Generation,
        token: &str,
        content: &[Applied<'_>],
    ) -> Result<(), Fault> {
        fault::reached(Point::BeforeFill).await;
        let fills = self.cache.fill(generation, token, content).await?;
        self.meters.fills(&fills);
        Ok(())
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
                op: self.op(found, true, loaded.now),
                version: found.version,
            })
            .collect();
        self.fill(generation, token, &content).await?;
        let is_large = |found: &Loaded| match &found.content {
            Content::Value(Value::Collection(collection)) => !collection.is_whole(),
            _ => false,
        };
        Ok(if loaded.keys.iter().any(is_large) {
            Round::Large
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

    fn op(&self, found: &Loaded, leased: bool, now: UnixMs) -> Op {
        match &found.content {
            _ if !leased => Op::Observe,
            Content::Absent => Op::Absent,
            Content::Value(Value::String(value)) => {
                self.cache.string_op(value.clone(), found.expires_at, now)
            }
            Content::Value(Value::Collection(whole)) => match replay::rebuild(whole) {
                Ok(commands) => {
                    let expires_at = found.expires_at;
                    self.cache
                        .collection_op((Told::Whole, whole.len()), commands, expires_at, now)
                }
                // Too large for the cache, and so only in part here.
                Err(_) => Op::Observe,
            },
            Content::Header(_) => Op::Observe,
        }
    }

    /// What the store says of `keys` (sorted, each once) for WATCH: told to the cache, so
    /// that no read after it shows anything older.
    pub async fn watch(&self, keys: Vec<Key>) -> Result<Vec<(Key, Seen)>, Refusal> {
        let headers: Vec<LoadRequest> = keys.iter().cloned().map(LoadRequest::header).collect();
        let loaded = self.load_and_tell(&headers).await?;
        let seen = |found: Loaded| Seen {
            version: found.version,
            is_present: found.content != Content::Absent,
            has_ended: found.content == Content::Absent && found.expires_at.is_some(),
        };
        Ok(keys
            .into_iter()
            .zip(loaded.keys.into_iter().map(seen))
            .collect())
    }

    /// Answers a block that only reads, from one snapshot of the store.
    pub async fn block(&self, steps: &[Step]) -> Result<Vec<Reply>, Refusal> {
        let calls: Vec<(Db, &Call)> = steps.iter().map(|step| (step.db, &step.call)).collect();
        self.answer_all(&calls).await
    }

    /// In bypass, or after too many rounds: the store's word.
    async fn answer_from_store(&self, call: &Call, db: Db) -> Result<Reply, Refusal> {
        self.meters.bypasses.increment(1);
        let mut replies = self.answer_all(&[(db, call)]).await?;
        replies.pop().ok_or(Refusal::Stopping)
    }

    /// Runs reads on one snapshot of the store; if they turn out to need more, on another
    /// with that too.
    async fn answer_all(&self, calls: &[(Db, &Call)]) -> Result<Vec<Reply>, Refusal> {
        let mut needed: BTreeMap<Key, Need> = BTreeMap::new();
        for (db, call) in calls {
            for (key, need) in needs(call, *db) {
                needed.entry(key).or_default().add(need);
            }
            for key in call.keys(*db) {
                needed.entry(key).or_default();
            }
        }
        for round in 0..ROUNDS_MAX {
            let requests: Vec<LoadRequest> = needed
                .iter()
                .map(|(key, need)| LoadRequest::new(key.clone(), need.clone()))
                .collect();
            let loaded = self.load_and_tell(&requests).await?;
            let mut workspace = Workspace::default();
            for (request, found) in requests.into_iter().zip(loaded.keys) {
                workspace.load(request.key, found);
            }
            let run =
                |(db, call): &(Db, &Call)| engine::execute(call, *db, &mut workspace, loaded.now);
            let replies = calls.iter().map(run).collect();
            if !workspace.is_short() {
                return Ok(replies);
            }
            for (key, need) in workspace.take_wanted() {
                needed.entry(key).or_default().add(need);
            }
            let is_late = round + 1 >= LOADS_MAX;
            needed.values_mut().for_each(|need| need.whole |= is_late);
        }
        Err(Refusal::Contended)
    }

    /// What one snapshot of the store says of `keys`, which the cache has been
    /// told; in bypass the fence is in that snapshot.
    async fn load_and_tell(&self, requests: &[LoadRequest]) -> Result<LoadedKeys, Refusal> {
        let started = Instant::now();
        let mut attempt = 0;
        while started.elapsed() < SETTLE_MAX {
            let phase = self.fence.settled().await?;
            let loaded = self.loader.load(requests.to_vec()).await?;
            let told = match phase {
                Phase::Bypass(generation) => loaded.fence == (generation, FenceState::Bypass),
                Phase::Closing(_) => false,
                Phase::Active(generation) => {
                    let observed: Vec<Applied<'_>> = requests
                        .iter()
                        .zip(&loaded.keys)
                        .filter(|(request, _)| !is_reserved(&request.key))
                        .map(|(request, found)| Applied {
                            key: &request.key,
                            op: Op::Observe,
                            version: found.version,
                        })
                        .collect();
                    let token = "none";
                    if observed.is_empty() {
                        true
                    } else {
                        match self.cache.fill(generation, token, &observed).await {
                            Ok(_) => true,
                            Err(error) => {
                                // Who else would say so, if the mark of this database alone is gone?
                                self.fence.cache_failed(generation, &error, attempt).await;
                                false
                            }
                        }
                    }
                }
            };
            if told {
                return Ok(loaded);
            }
            attempt += 1;
            let _ = self
                .fence
                .after(phase.generation(), Duration::from_millis(50))
                .await;
        }
        Err(Refusal::Unsettled)
    }

    /// Marks `keys` as being filled by the caller; `None` if one of them is already.
    fn board(&self, keys: &[Key]) -> Option<Flight<'_>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.iter().any(|key| flights.contains_key(key)) {
            return None;
        }
        let (over, watching) = watch::channel(());
        for key in keys {
            flights.insert(key.clone(), watching.clone());
        }
        Some(Flight {
            reads: self,
            keys: keys.to_vec(),
            _over: over,
        })
    }

    async fn await_flights(&self, keys: &[Key]) {
        for key in keys {
            let watching = self
                .flights
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(key)
                .cloned();
            if let Some(mut watching) = watching {
                // The sender never sends: the change is its end.
                let _ = tokio::time::timeout(WAIT_MAX, watching.changed()).await;
            }
        }
    }
}

/// Keys that one read is filling, until it is dropped.
struct Flight<'a> {
    reads: &'a Reads,
    keys: Vec<Key>,
    _over: watch::Sender<()>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = self
            .reads
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            if let MapEntry::Occupied(entry) = flights.entry(key.clone()) {
                entry.remove();
            }
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

fn is_reserved(key: &Key) -> bool {
    key.name.starts_with(RESERVED_PREFIX)
}

fn any_reserved(keys: &[Key]) -> bool {
    keys.iter().any(is_reserved)
}

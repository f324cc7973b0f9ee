//! The store's word: reads on one snapshot of it, of which the cache is told before anybody is answered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{ROUNDS_MAX, Reads, is_reserved, needs};
use crate::cache::{Applied, Op};
use crate::coherence::fence::SETTLE_MAX;
use crate::coherence::loader::LoadedKeys;
use crate::coherence::{Phase, Refusal, Seen, Step};
use crate::command::Call;
use crate::engine::{self, Content, Loaded, Need, Scan, Workspace};
use crate::model::{Db, Event, EventClasses, Key, Reply, UnixMs};
use crate::store::{FenceState, LoadRequest};

/// How often a read on the store's word loads what it turns out to want: then all
/// of its keys, since it may ask for ever.
const LOADS_MAX: u32 = 3;

impl Reads {
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

    /// The store's word.
    pub(super) async fn answer_one(&self, call: &Call, db: Db) -> Reply {
        if let Some(scan) = Scan::of(call) {
            let page = self.scan(call, db, &scan).await;
            return page.unwrap_or_else(|refusal| refusal.reply());
        }
        let replies = self.answer_all(&[(db, call)]).await;
        replies
            .and_then(|mut replies| replies.pop().ok_or(Refusal::Stopping))
            .unwrap_or_else(|refusal| refusal.reply())
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
        if needed.is_empty() {
            // Arguments that name no key (`XREAD 9 STREAMS k 0`) are answered by an error: nothing is to be loaded.
            let (mut workspace, now) = (Workspace::default(), self.store.clock().now());
            let run = |(db, call): &(Db, &Call)| engine::execute(call, *db, &mut workspace, now);
            return Ok(calls.iter().map(run).collect());
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
            let mut misses = Vec::new();
            let run = |(db, call): &(Db, &Call)| {
                self.execute(call, *db, &mut workspace, loaded.now, &mut misses)
            };
            let replies = calls.iter().map(run).collect();
            if !workspace.is_short() {
                self.audience.hear_events(&misses);
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

    /// Whether anybody wants to hear of keys that are looked for and not there.
    pub(super) fn tells_misses(&self) -> bool {
        let classes = self.audience.event_classes();
        classes.is_active() && classes.contains(EventClasses::MISS)
    }

    /// Runs a read, and adds to `misses` what is told of keys that are not there.
    pub(super) fn execute(
        &self,
        call: &Call,
        db: Db,
        workspace: &mut Workspace,
        now: UnixMs,
        misses: &mut Vec<Event>,
    ) -> Reply {
        if !self.tells_misses() {
            return engine::execute(call, db, workspace, now);
        }
        let mut events = Vec::new();
        let reply = engine::execute_telling(call, db, workspace, now, &mut events);
        // That a key has ended is told where it is deleted.
        events.retain(|event| event.class == EventClasses::MISS);
        misses.append(&mut events);
        reply
    }

    /// What one snapshot of the store says of `keys`, which the cache has been
    /// told; in bypass the fence is in that snapshot.
    pub(in crate::coherence) async fn load_and_tell(
        &self,
        requests: &[LoadRequest],
    ) -> Result<LoadedKeys, Refusal> {
        let started = Instant::now();
        let mut attempt = 0;
        while started.elapsed() < SETTLE_MAX {
            let phase = self.fence.settled().await?;
            let loaded = self.loader.load(requests.to_vec()).await?;
            let told = match phase {
                Phase::Bypass(generation) => loaded.fence == (generation, FenceState::Bypass),
                Phase::Closing(_) | Phase::Apart(_) => false,
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
}

//! Units with scripts: through the commit lane, or beside it.
//!
//! A script runs in the lane, under the row locks, with all others. One that takes too long
//! for that, or comes to keys that nobody knew of, is put off by the lane and *explored*: it runs on a
//! thread of its own, on what the store says and without any lock, and loads what it turns out to need. What
//! that came to is then either committed as it is, if none of its keys has changed since, or,
//! if the run was short, the unit goes through the lane again with all that it needed loaded ahead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::plan::step_needs;
use super::run::SCRIPT_ROUNDS;
use super::unit::{Done, Scripted};
use super::{Answer, Keyspace, Lane, Reads, Refusal, Seen, Step, Unit};
use crate::command::{Call, Class};
use crate::engine::{self, Content, Need, Needs, Workspace};
use crate::model::{Db, Event, Key, Reply, UnixMs};
use crate::script::{Access, Deed, Ended, Room, Source};
use crate::store::LoadRequest;

/// Scripts that run beside the lane at once; more wait.
const RUNS_MAX: usize = 16;

/// How often a unit is explored anew because others changed its keys.
const ATTEMPTS_MAX: u32 = 12;

/// A run as short as this goes through the lane once its needs are known.
const QUICK: Duration = Duration::from_millis(4);

/// How often a key is asked for more of before all of it is loaded.
const SHORTS_MAX: u32 = 3;

/// Runs that fell short before one gives up.
const ROUNDS_MAX: u32 = 64;

/// Units with scripts.
pub struct Asides {
    lane: Arc<Lane>,
    reads: Arc<Reads>,
    keyspace: Arc<Keyspace>,
    room: Semaphore,
    limit: Duration,
}

/// What a run beside the lane came to.
struct Explored {
    done: Done,
    /// The keys that it was about, as it saw them.
    seen: Vec<(Key, Seen)>,
    needed: BTreeMap<Key, Need>,
    took: Duration,
    /// It can only run here.
    is_elsewhere: bool,
    /// How often it has needed more than it had declared.
    loads: u32,
}

impl Asides {
    /// Puts the parts together. `limit` is how long a script may run.
    pub fn new(
        lane: Arc<Lane>,
        reads: Arc<Reads>,
        keyspace: Arc<Keyspace>,
        limit: Duration,
    ) -> Self {
        Self {
            lane,
            reads,
            keyspace,
            room: Semaphore::new(RUNS_MAX),
            limit,
        }
    }

    /// Commits `units` of one connection in their order; what came of each.
    pub async fn submit(&self, units: Vec<Unit>) -> Vec<Result<Answer, Refusal>> {
        let mut answers = Vec::with_capacity(units.len());
        let mut rest = &units[..];
        while let Some(first) = rest.first() {
            if prefers_aside(first) {
                answers.push(Box::pin(self.aside(first)).await);
                rest = &rest[1..];
                continue;
            }
            let count = rest.iter().take_while(|unit| !prefers_aside(unit)).count();
            let (now, later) = rest.split_at(count);
            match self.lane.submit(now.to_vec()).await {
                Err(refusal) => {
                    answers.extend(now.iter().map(|_| Err(refusal.clone())));
                    rest = later;
                }
                Ok(done) => {
                    let deferred = now.iter().position(Unit::is_deferred);
                    let kept = deferred.unwrap_or(count);
                    answers.extend(done.into_iter().take(kept).map(Ok));
                    if let Some(index) = deferred {
                        answers.push(Box::pin(self.aside(&now[index])).await);
                    }
                    let over = kept + usize::from(deferred.is_some());
                    rest = &rest[over..];
                }
            }
        }
        answers
    }

    /// Runs a unit beside the lane, and commits what came of it.
    async fn aside(&self, unit: &Unit) -> Result<Answer, Refusal> {
        let _permit = self.room.acquire().await.map_err(|_| Refusal::Stopping)?;
        let mut needed = BTreeMap::new();
        for step in &unit.steps {
            for (key, need) in step_needs(step) {
                needed.entry(key).or_insert_with(Need::header).add(need);
            }
        }
        for _ in 0..ATTEMPTS_MAX {
            let explored = self.explore(unit, needed).await?;
            // One state of the store, of which the cache was told: as any read.
            let is_free = unit.watched.is_empty() && unit.once.is_none();
            if explored.loads == 0 && explored.done.is_nothing() && is_free {
                prefer(unit, explored.took >= QUICK || explored.is_elsewhere);
                return Ok(Answer::Done(explored.done.replies));
            }
            let is_quick = explored.took < QUICK && !explored.is_elsewhere;
            if is_quick {
                let unit = hinted(unit, explored.needed.clone());
                let answer = self.answer(unit.clone()).await?;
                if !unit.is_deferred() {
                    prefer(&unit, explored.loads > SCRIPT_ROUNDS);
                    return Ok(answer);
                }
                needed = explored.needed;
                continue;
            }
            prefer(unit, true);
            needed = explored.needed.clone();
            if let Some(answer) = self.commit(unit, explored).await? {
                return Ok(answer);
            }
        }
        Err(Refusal::Contended)
    }

    /// Commits what a run came to; nothing if its keys have changed since.
    async fn commit(&self, unit: &Unit, explored: Explored) -> Result<Option<Answer>, Refusal> {
        let mut watched = explored.seen;
        watched.extend(unit.watched.iter().cloned());
        let scripted = Scripted {
            done: Some(explored.done),
            ..Scripted::default()
        };
        let committed = Unit {
            steps: Default::default(),
            watched,
            acknowledge: unit.acknowledge,
            client: unit.client,
            once: unit.once.clone(),
            scripted: Some(Arc::new(scripted)),
            advance: None,
        };
        let answer = self.answer(committed).await?;
        if answer != Answer::Unwatched {
            return Ok(Some(answer));
        }
        if unit.watched.is_empty() {
            return Ok(None);
        }
        // Was it a key that the client itself watches?
        let watch = Unit {
            watched: unit.watched.clone(),
            client: unit.client,
            ..Unit::default()
        };
        let answer = self.answer(watch).await?;
        Ok((answer == Answer::Unwatched).then_some(answer))
    }

    async fn answer(&self, unit: Unit) -> Result<Answer, Refusal> {
        let mut answers = self.lane.submit(vec![unit]).await?;
        answers.pop().ok_or(Refusal::Stopping)
    }

    /// Runs the unit on what the store says, until it has all it needs.
    async fn explore(
        &self,
        unit: &Unit,
        mut needed: BTreeMap<Key, Need>,
    ) -> Result<Explored, Refusal> {
        let started = Instant::now();
        let tells = self.lane.event_classes().is_active();
        let (mut shorts, mut loads) = (AHashMap::new(), 0);
        for _ in 0..ROUNDS_MAX {
            let left = self.limit.saturating_sub(started.elapsed());
            let (workspace, now) = self.load(&needed).await?;
            let state = State {
                needed,
                shorts,
                loads,
                ..State::default()
            };
            let source = Arc::new(Loads {
                reads: Arc::clone(&self.reads),
                keyspace: Arc::clone(&self.keyspace),
                runtime: Handle::current(),
                state: Mutex::new(state),
            });
            let run = Run {
                unit: unit.clone(),
                workspace,
                now,
                events: tells.then(Vec::new),
                source: Arc::clone(&source),
                limit: left,
            };
            let begun = Instant::now();
            let ran = tokio::task::spawn_blocking(move || run.all()).await;
            let ran = ran.map_err(|_| Refusal::Stopping)?;
            let state = std::mem::take(&mut *source.lock());
            let took = begun.elapsed().saturating_sub(state.waited);
            if let Some(refusal) = state.error {
                return Err(refusal);
            }
            match ran {
                Ok((done, workspace)) => {
                    return Ok(Explored {
                        done,
                        seen: seen(&state.needed, &workspace),
                        needed: state.needed,
                        took,
                        is_elsewhere: state.is_elsewhere,
                        loads: state.loads,
                    });
                }
                Err(Ended::Short | Ended::Elsewhere) => {
                    (needed, shorts, loads) = (state.needed, state.shorts, state.loads);
                }
                Err(Ended::Killed) => return Err(Refusal::Killed),
                Err(Ended::TooLong) => return Err(Refusal::TooLong(self.limit)),
            }
        }
        Err(Refusal::Contended)
    }

    async fn load(&self, needed: &BTreeMap<Key, Need>) -> Result<(Workspace, UnixMs), Refusal> {
        let mut workspace = Workspace::default();
        if needed.is_empty() {
            return Ok((workspace, self.reads.now()));
        }
        let requests: Vec<LoadRequest> = needed
            .iter()
            .map(|(key, need)| LoadRequest::new(key.clone(), need.clone()))
            .collect();
        let loaded = self.reads.load_and_tell(&requests).await?;
        for (request, found) in requests.into_iter().zip(loaded.keys) {
            workspace.load(request.key, found);
        }
        Ok((workspace, loaded.now))
    }
}

/// Whether a unit is better run beside the lane: one that only reads needs no lock.
fn prefers_aside(unit: &Unit) -> bool {
    let mut scripts = unit.steps.iter().filter_map(|step| step.script.as_ref());
    let reads = |step: &Step| match &step.script {
        Some(script) => script.access == Access::ReadOnly,
        None => matches!(step.call.command.class, Class::Read | Class::Expiry),
    };
    scripts.any(|script| script.program.prefers_aside())
        || unit.scripted.is_some() && unit.watched.is_empty() && unit.steps.iter().all(reads)
}

fn prefer(unit: &Unit, prefers: bool) {
    for script in unit.steps.iter().filter_map(|step| step.script.as_ref()) {
        script.program.prefer_aside(prefers);
    }
}

/// The same unit, for the lane, with what is known of its needs.
fn hinted(unit: &Unit, hints: BTreeMap<Key, Need>) -> Unit {
    let scripted = Scripted {
        hints,
        ..Scripted::default()
    };
    Unit {
        scripted: Some(Arc::new(scripted)),
        ..unit.clone()
    }
}

/// The keys of a run as it saw them.
fn seen(needed: &BTreeMap<Key, Need>, workspace: &Workspace) -> Vec<(Key, Seen)> {
    let seen = |key: &Key| {
        let found = workspace.loaded(key)?;
        let is_present = found.content != Content::Absent;
        Some(Seen {
            version: found.version,
            is_present,
            has_ended: !is_present && found.expires_at.is_some(),
        })
    };
    let keys = needed.keys();
    keys.filter_map(|key| Some((key.clone(), seen(key)?)))
        .collect()
}

/// One run, on a thread that may wait.
struct Run {
    unit: Unit,
    workspace: Workspace,
    now: UnixMs,
    events: Option<Vec<Event>>,
    source: Arc<Loads>,
    limit: Duration,
}

impl Run {
    fn all(mut self) -> Result<(Done, Workspace), Ended> {
        let started = Instant::now();
        let mut done = Done::default();
        let mut deeds: Vec<Deed> = Vec::new();
        let unit = std::mem::take(&mut self.unit);
        for step in &unit.steps {
            let reply = match &step.script {
                None => self.step(step)?,
                Some(script) => {
                    let room = Room {
                        limit: self.limit.saturating_sub(started.elapsed()),
                        source: Some(Arc::clone(&self.source) as Arc<dyn Source>),
                    };
                    let call = (&step.call, step.db);
                    let events = self.events.as_mut();
                    let ran = script.run(call, &mut self.workspace, self.now, events, room);
                    deeds.extend(ran.deeds);
                    ran.reply?
                }
            };
            done.replies.push(reply);
        }
        done.effects = self.workspace.take_effects().into_iter().collect();
        done.events = self.events.unwrap_or_default();
        done.deeds = deeds;
        Ok((done, self.workspace))
    }

    /// A command beside the scripts of a MULTI block.
    fn step(&mut self, step: &Step) -> Result<Reply, Ended> {
        let (call, db) = (&step.call, step.db);
        self.workspace.set_scripted(true);
        let reply = loop {
            if !self.workspace.lacks(call, db) {
                let reply = match &mut self.events {
                    Some(events) => {
                        engine::execute_telling(call, db, &mut self.workspace, self.now, events)
                    }
                    None => engine::execute(call, db, &mut self.workspace, self.now),
                };
                if !self.workspace.is_short() {
                    break reply;
                }
            }
            let wanted = self.workspace.take_wanted();
            if !self.source.load(wanted, &mut self.workspace) {
                return Err(Ended::Short);
            }
            self.workspace.resume();
        };
        Ok(reply)
    }
}

/// Loads for a run while it waits.
struct Loads {
    reads: Arc<Reads>,
    keyspace: Arc<Keyspace>,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// All that it has needed so far.
    needed: BTreeMap<Key, Need>,
    /// How often it fell short of each key.
    shorts: AHashMap<Key, u32>,
    loads: u32,
    is_elsewhere: bool,
    /// How long the run has waited for what was loaded.
    waited: Duration,
    /// Why nothing can be loaded.
    error: Option<Refusal>,
}

impl Loads {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is wanted; what is to be loaded for it.
    fn note(&self, wanted: Needs) -> Vec<LoadRequest> {
        let mut state = self.lock();
        state.loads += 1;
        let mut more: BTreeMap<Key, Need> = BTreeMap::new();
        for (key, need) in wanted {
            more.entry(key).or_default().add(need);
        }
        let mut requests = Vec::with_capacity(more.len());
        for (key, need) in more {
            let shorts = state.shorts.entry(key.clone()).or_default();
            *shorts += 1;
            let is_whole = *shorts > SHORTS_MAX;
            let known = state.needed.entry(key.clone()).or_default();
            known.add(need);
            known.whole |= is_whole;
            requests.push(LoadRequest::new(key, known.clone()));
        }
        requests
    }
}

impl Source for Loads {
    fn load(&self, wanted: Needs, workspace: &mut Workspace) -> bool {
        let requests = self.note(wanted);
        // What was changed already hides what would be loaded: the run begins anew, with it.
        let is_changed = |request: &LoadRequest| workspace.effect(&request.key).is_some();
        if requests.is_empty() || requests.iter().any(is_changed) {
            return false;
        }
        let started = Instant::now();
        let loaded = self.runtime.block_on(self.reads.load_and_tell(&requests));
        self.lock().waited += started.elapsed();
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(refusal) => {
                self.lock().error = Some(refusal);
                return false;
            }
        };
        for (request, found) in requests.into_iter().zip(loaded.keys) {
            let before = workspace.loaded(&request.key);
            // Somebody has written in between: what the run has seen is of two states.
            if before.is_some_and(|before| before.version != found.version) {
                return false;
            }
            workspace.load(request.key, found);
        }
        true
    }

    fn list(&self, call: &Call, db: Db) -> Reply {
        self.lock().is_elsewhere = true;
        self.runtime.block_on(self.keyspace.read(call, db))
    }
}

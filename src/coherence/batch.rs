//! One batch from its units to a transaction that is ready to commit.

use std::collections::BTreeMap;
use std::time::Instant;

use ahash::AHashMap;

use super::lane::Job;
use super::once::{Keeping, Tokens};
use super::plan::{
    Plan, Wanted, advances, authors, is_reserved, needs, run, runs_scripts, tokens, units,
};
use super::waiting::Presence;
use super::worker::Attempt;
use super::{Answer, Audience, Change as Heard, Fence, Phase, Refusal};
use crate::cache::{Applied, Cache, CacheError, Op, Told};
use crate::clock::Reading;
use crate::command::Class;
use crate::engine::{Need, Workspace, replay};
use crate::fault::{self, Point};
use crate::model::{Effect, Event, Generation, Key, UnixMs, Value, Version};
use crate::script::Deed;
use crate::store::{
    self, Change, FenceState, Guard, LoadRequest, Locked, RowState, Session, Store, StoreError,
    Written,
};

/// What a batch works with.
pub(super) struct Batch<'a> {
    store: &'a Store,
    cache: &'a Cache,
    fence: &'a Fence,
    phase: Phase,
    number: u64,
    attempt: store::Attempt,
    id: String,
    made: Instant,
}

/// A batch whose transaction is written and waits for COMMIT.
pub(super) struct Prepared {
    /// The cache's state in which it was made.
    pub(super) phase: Phase,
    /// The batch's number in this proxy.
    pub(super) number: u64,
    /// Its id in the cache.
    pub(super) id: String,
    /// Its mark in the store.
    pub(super) attempt: store::Attempt,
    /// One for each unit, in order.
    pub(super) replies: Vec<Answer>,
    changed: Vec<(Key, Effect, Version)>,
    /// Whether replies are kept with their tokens.
    keeps: bool,
    seen: Vec<(Key, Version)>,
    events: Vec<Event>,
    deeds: Vec<Deed>,
    /// See [`Plan::is_unshown`].
    is_unshown: bool,
    now: UnixMs,
    /// The store's clock in the transaction.
    clock: Reading,
}

impl Prepared {
    /// Whether nothing needs to be committed.
    pub(super) fn is_read_only(&self) -> bool {
        self.changed.is_empty() && !self.keeps
    }

    /// Tells what was committed. Called in the order of commits.
    pub(super) fn announce(&self, jobs: &[Job], audience: &dyn Audience) {
        audience.hear_events(&self.events);
        do_deeds(&self.deeds, audience);
        if self.changed.is_empty() || self.is_unshown || !audience.wants_changes() {
            return;
        }
        let authors = authors(jobs);
        let told: Vec<Heard<'_>> = self
            .changed
            .iter()
            .map(|(key, ..)| Heard {
                key,
                author: authors.get(key).copied().flatten(),
            })
            .collect();
        audience.hear_changes(&told);
    }

    /// The keys that it wrote, in the order in which `jobs` first did.
    pub(super) fn written(&self, jobs: &[Job]) -> Vec<(&Key, Presence)> {
        let mut first: AHashMap<Key, usize> = AHashMap::new();
        let steps = units(jobs).flat_map(|unit| &unit.steps);
        let writes = steps.filter(|step| step.call.command.class == Class::Write);
        for key in writes.flat_map(|step| step.call.keys(step.db)) {
            let place = first.len();
            first.entry(key).or_insert(place);
        }
        let changed = self.changed.iter();
        let changed = changed.filter_map(|(key, effect, _)| match effect {
            Effect::Whole(_) | Effect::Delta(_) => Some((key, Presence::There)),
            Effect::Delete => Some((key, Presence::Gone)),
            Effect::Expiry(_) => None,
        });
        let mut written: Vec<_> = changed.collect();
        written.sort_by_key(|(key, _)| first.get(*key).copied().unwrap_or(usize::MAX));
        written
    }

    /// The keys that were begun in the cache.
    pub(super) fn changed_keys(&self) -> Vec<Key> {
        self.changed.iter().map(|(key, ..)| key.clone()).collect()
    }

    /// What the cache is told.
    pub(super) fn applied(&self, cache: &Cache) -> Vec<Applied<'_>> {
        // Since then the transaction may have waited for long; what it wrote ends none the later.
        let now = self.clock.latest_now();
        let changed = self
            .changed
            .iter()
            .map(move |(key, effect, version)| Applied {
                key,
                op: match self.is_unshown {
                    true => Op::Invalidate,
                    false => op(cache, key, effect, now),
                },
                version: *version,
            });
        let seen = self.seen.iter().map(|(key, version)| Applied {
            key,
            op: Op::Observe,
            version: *version,
        });
        changed
            .chain(seen)
            .filter(|applied| !is_reserved(applied.key))
            .collect()
    }

    /// The same batch, of which the cache is told only that its keys changed.
    fn into_invalidation(mut self) -> Self {
        // An effect that fits on nothing: the content goes, the floor rises.
        for (_, effect, _) in &mut self.changed {
            *effect = Effect::Expiry(Some(UnixMs(0)));
        }
        self
    }

    /// The same batch, of which only is known that its keys' versions are at most these.
    pub(super) fn with_versions(mut self, versions: Vec<Version>) -> Self {
        self.set_versions(versions);
        self.into_invalidation()
    }

    fn set_versions(&mut self, versions: Vec<Version>) {
        for ((_, _, told), version) in self.changed.iter_mut().zip(versions) {
            *told = version;
        }
    }

    /// The same batch, rolled back: only its id is taken out of the cache.
    pub(super) fn into_sweep(mut self) -> Self {
        self.events.clear();
        self.deeds.clear();
        self.seen
            .extend(self.changed.drain(..).map(|(key, ..)| (key, Version(0))));
        self
    }
}

/// Does what scripts asked for.
fn do_deeds(deeds: &[Deed], audience: &dyn Audience) {
    for deed in deeds {
        match deed {
            Deed::Publish(request) => audience.publish(request),
            Deed::Log(level, line) => {
                let line = String::from_utf8_lossy(line);
                match level {
                    0 => tracing::debug!(target: "freshet::script", "{line}"),
                    1 | 2 => tracing::info!(target: "freshet::script", "{line}"),
                    _ => tracing::warn!(target: "freshet::script", "{line}"),
                }
            }
        }
    }
}

fn op(cache: &Cache, key: &Key, effect: &Effect, now: UnixMs) -> Op {
    match effect {
        Effect::Whole(entry) => match &entry.value {
            Value::String(value) => cache.string_op(key, value.clone(), entry.expires_at, now),
            Value::Collection(whole) => match replay::rebuild(whole) {
                Ok(commands) => cache.collection_op(
                    key,
                    (Told::Whole, whole.len()),
                    commands,
                    entry.expires_at,
                    now,
                ),
                Err(_) => Op::Invalidate,
            },
        },
        Effect::Delta(entry) => match &entry.value {
            Value::Collection(changed) => {
                let commands = replay::repeat(changed);
                cache.collection_op(
                    key,
                    (Told::Delta, changed.len()),
                    commands,
                    entry.expires_at,
                    now,
                )
            }
            Value::String(_) => Op::Invalidate,
        },
        Effect::Delete => cache.absent_op(key),
        Effect::Expiry(expires_at) => cache.expiry_op(key, *expires_at, now),
    }
}

/// Why a batch could not be prepared. Its transaction must be rolled back.
pub(super) struct Failure {
    cause: Cause,
    /// Whether its id may stand in the cache.
    pub(super) may_have_begun: bool,
    /// The keys at which it may stand.
    pub(super) keys: Vec<Key>,
}

enum Cause {
    Store(StoreError),
    Cache(CacheError),
    /// The fence has moved, or a key was created in between.
    Moved(Refusal),
    /// Calls needed more than was loaded: this.
    Short(Vec<(Key, Need)>),
    /// A unit must not commit.
    Poisoned(Refusal),
}

impl Failure {
    /// Whether the connection ended: a statement that commits by itself may have done so.
    pub(super) fn is_lost(&self) -> bool {
        matches!(&self.cause, Cause::Store(error) if error.is_unanswered())
    }

    fn early(cause: Cause) -> Self {
        Self {
            cause,
            may_have_begun: false,
            keys: Vec::new(),
        }
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        store: &'a Store,
        cache: &'a Cache,
        fence: &'a Fence,
        phase: Phase,
        number: u64,
    ) -> Self {
        let proxy = fence.proxy();
        let attempt = store::Attempt {
            proxy,
            number: number as i64,
        };
        Self {
            store,
            cache,
            fence,
            phase,
            number,
            attempt,
            id: format!("{proxy}.{number}"),
            made: Instant::now(),
        }
    }

    /// A batch that needs nothing loaded, with its effects; not begun.
    pub(super) fn plan_blind(&self, jobs: &[Job]) -> Prepared {
        let now = self.store.clock().now();
        let plan = run(
            jobs,
            Workspace::default(),
            (&[], &[]),
            Tokens::default(),
            now,
            0,
        );
        let versions = vec![Version(0); plan.changes.len()];
        self.prepared(plan, versions)
    }

    /// The batch of an attempt that was begun before.
    pub(super) fn resume(
        store: &'a Store,
        cache: &'a Cache,
        fence: &'a Fence,
        prepared: &Prepared,
    ) -> Self {
        Self {
            store,
            cache,
            fence,
            phase: prepared.phase,
            number: prepared.number,
            attempt: prepared.attempt,
            id: prepared.id.clone(),
            made: Instant::now(),
        }
    }

    /// Begins a blind batch in the cache.
    pub(super) async fn begin_blind(&self, prepared: &Prepared) -> Result<(), Failure> {
        let keys: Vec<&Key> = prepared.changed.iter().map(|(key, ..)| key).collect();
        let begun = self.begin(&keys).await;
        begun.map_err(|cause| self.begun(cause, prepared.changed_keys()))
    }

    /// Commits a blind batch that is begun.
    pub(super) async fn commit_blind(
        &self,
        session: &Session,
        prepared: &mut Prepared,
    ) -> Result<(), Failure> {
        let changes: Vec<Change<'_>> = prepared
            .changed
            .iter()
            .map(|(key, effect, _)| Change {
                key,
                effect,
                row: RowState::LockedOrBlind,
                content_id: None,
            })
            .collect();
        let asked = Instant::now();
        let written = session
            .write_blind(self.attempt, expected(self.phase), &changes, prepared.now)
            .await;
        let (now, versions) =
            written.map_err(|error| self.begun(self.cause(error), prepared.changed_keys()))?;
        prepared.clock = Reading::new(now, asked);
        self.store.clock().set(prepared.clock);
        prepared.set_versions(versions);
        Ok(())
    }

    /// Everything up to COMMIT of a batch that needs `needs`.
    pub(super) async fn prepare(
        &self,
        session: &Session,
        jobs: &[Job],
        needs: (BTreeMap<Key, Need>, Wanted),
        keeping: Keeping,
    ) -> Result<Prepared, Failure> {
        let loaded = self.load_and_write(session, jobs, needs, keeping);
        let (plan, versions) = loaded.await?;
        Ok(self.prepared(plan, versions))
    }

    fn prepared(&self, plan: Plan, versions: Vec<Version>) -> Prepared {
        let keeps = plan.kept.is_ok_and(|kept| !kept.is_empty());
        let changed = plan
            .changes
            .into_iter()
            .zip(versions)
            .map(|((key, effect, _), version)| (key, effect, version))
            .collect();
        Prepared {
            phase: self.phase,
            number: self.number,
            id: self.id.clone(),
            attempt: self.attempt,
            replies: plan.replies,
            changed,
            keeps,
            seen: plan.seen,
            events: plan.events,
            deeds: plan.deeds,
            is_unshown: plan.is_unshown,
            now: plan.now,
            clock: Reading::new(plan.now, self.made),
        }
    }

    async fn load_and_write(
        &self,
        session: &Session,
        jobs: &[Job],
        (needs, wanted): (BTreeMap<Key, Need>, Wanted),
        keeping: Keeping,
    ) -> Result<(Plan, Vec<Version>), Failure> {
        let requests: Vec<LoadRequest> = needs
            .into_iter()
            .map(|(key, need)| LoadRequest::new(key, need))
            .collect();
        let tokens: Vec<&[u8]> = tokens(jobs);
        let (guard, (locked, now), kept) = session
            .begin_and_load(self.attempt, &requests, &tokens)
            .await
            .map_err(|e| Failure::early(Cause::Store(e)))?;
        self.check(&guard).map_err(Failure::early)?;
        let found = Found {
            requests,
            locked,
            now,
        };
        let running = found.run(session, jobs, wanted, || Tokens::new(kept.clone(), keeping));
        let plan = running.await?;
        let kept = match &plan.kept {
            Ok(kept) => kept,
            Err(refusal) => return Err(Failure::early(Cause::Poisoned(refusal.clone()))),
        };
        if plan.changes.is_empty() && plan.held.is_empty() && kept.is_empty() {
            return Ok((plan, Vec::new()));
        }
        let changes = plan.stored();
        let keys: Vec<&Key> = plan.changes.iter().map(|(key, ..)| key).collect();
        let (written, held, first, advanced, begun) = tokio::join!(
            session.write(&changes, plan.now),
            session.hold_absent(&plan.held, plan.now),
            session.keep(kept, keeping.ends(plan.now)),
            session.advance(advances(jobs).next()),
            self.begin(&keys)
        );
        let written = written.map_err(|e| self.begun(Cause::Store(e), plan.keys()))?;
        let held = held.map_err(|e| self.begun(Cause::Store(e), plan.keys()))?;
        begun.map_err(|cause| self.begun(cause, plan.keys()))?;
        let first = first.map_err(|e| self.begun(Cause::Store(e), plan.keys()))?;
        if !advanced.map_err(|e| self.begun(Cause::Store(e), plan.keys()))? {
            let elsewhere = Refusal::Refused("the journal was written further by another".into());
            return Err(self.begun(Cause::Poisoned(elsewhere), plan.keys()));
        }
        let written = if held && first {
            written
        } else {
            Written::Contended
        };
        let versions = self.versions(written, &plan)?;
        drop(changes);
        Ok((plan, versions))
    }

    /// Registers the batch in the cache and hides its keys there.
    async fn begin(&self, keys: &[&Key]) -> Result<(), Cause> {
        let Phase::Active(generation) = self.phase else {
            return Ok(());
        };
        let keys: Vec<&Key> = keys.iter().copied().filter(|k| !is_reserved(k)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        self.cache
            .begin(generation, &self.id, &keys)
            .await
            .map_err(Cause::Cache)?;
        fault::reached(Point::AfterBegin).await;
        Ok(())
    }

    fn begun(&self, cause: Cause, keys: Vec<Key>) -> Failure {
        Failure {
            cause,
            may_have_begun: matches!(self.phase, Phase::Active(_)),
            keys,
        }
    }

    fn versions(&self, written: Written, plan: &Plan) -> Result<Vec<Version>, Failure> {
        match written {
            Written::Versions(versions) => Ok(versions),
            Written::Contended => Err(self.begun(Cause::Moved(Refusal::Contended), plan.keys())),
        }
    }

    /// What a failure means for the `count`th attempt (from 0).
    pub(super) async fn disturbed(&self, failure: Failure, count: u32) -> Attempt {
        match failure.cause {
            Cause::Store(error) => Attempt::rolled_back(error),
            Cause::Cache(error) => {
                self.fence
                    .cache_failed(self.phase.generation(), &error, count)
                    .await;
                Attempt::Again(Refusal::Unsettled)
            }
            Cause::Short(wanted) => Attempt::Short(wanted),
            Cause::Poisoned(refusal) => Attempt::Poisoned(refusal),
            Cause::Moved(refusal) => {
                if refusal == Refusal::Unsettled {
                    self.fence.left(self.phase).await;
                }
                Attempt::Again(refusal)
            }
        }
    }

    /// The transaction may commit only in the state in which the batch was made.
    fn check(&self, guard: &Guard) -> Result<(), Cause> {
        self.store.clock().set(Reading::new(guard.now, self.made));
        if !guard.alive {
            return Err(self.cause(StoreError::DeclaredDead));
        }
        if (guard.generation, guard.state) != expected(self.phase) {
            return Err(self.cause(StoreError::FenceMoved));
        }
        Ok(())
    }

    /// What an error of the store means; the fence hears what concerns it.
    fn cause(&self, error: StoreError) -> Cause {
        match error {
            StoreError::DeclaredDead => {
                let proxy = self.attempt.proxy;
                tracing::warn!(proxy, "this proxy was declared dead: it registers anew");
                self.fence.registration_lost(proxy);
                Cause::Moved(Refusal::Unsettled)
            }
            StoreError::FenceMoved => {
                let moved = CacheError::Fenced("the store has another generation".into());
                self.fence.suspect(&moved);
                Cause::Moved(Refusal::Unsettled)
            }
            error => Cause::Store(error),
        }
    }

    /// Takes the id out of the cache after the rollback was confirmed. Errors are
    /// left to the fence: an id that stays costs time, not truth.
    pub(super) async fn sweep(&self, keys: &[Key]) {
        let Phase::Active(generation) = self.phase else {
            return;
        };
        let observed: Vec<Applied<'_>> = keys
            .iter()
            .filter(|key| !is_reserved(key))
            .map(|key| Applied {
                key,
                op: Op::Observe,
                version: Version(0),
            })
            .collect();
        if observed.is_empty() {
            return;
        }
        if let Err(error) = self.cache.apply(generation, &self.id, &observed).await {
            self.fence.suspect(&error);
        }
    }
}

/// What a batch has loaded under row locks, in the order of keys.
struct Found {
    requests: Vec<LoadRequest>,
    locked: Vec<Locked>,
    now: UnixMs,
}

impl Found {
    /// Runs the jobs on it. What scripts turn out to need besides is loaded within the transaction, and they run
    /// anew, unless a lock would have to be waited for: that is done in the order of keys only.
    async fn run(
        mut self,
        session: &Session,
        jobs: &[Job],
        mut wanted: Wanted,
        tokens: impl Fn() -> Tokens,
    ) -> Result<Plan, Failure> {
        let mut more: Vec<(Key, Need)> = Vec::new();
        loop {
            let mut workspace = Workspace::default();
            for (request, locked) in self.requests.iter().zip(&self.locked) {
                workspace.load(request.key.clone(), locked.loaded.clone());
            }
            let loaded = (&self.requests[..], &self.locked[..]);
            let plan = run(jobs, workspace, loaded, tokens(), self.now, wanted.rounds());
            if !plan.is_short {
                return Ok(plan);
            }
            more.extend(plan.wanted.iter().cloned());
            wanted.add(plan.wanted);
            let needs = needs(jobs, &wanted).into_iter();
            let lacking = needs.filter(|(key, need)| self.lacks(key, need));
            let requests: Vec<LoadRequest> = lacking
                .map(|(key, need)| LoadRequest::new(key, need))
                .collect();
            if requests.is_empty() || !runs_scripts(jobs) {
                return Err(Failure::early(Cause::Short(more)));
            }
            let loaded = session.load_more(&requests).await;
            match loaded.map_err(|error| Failure::early(Cause::Store(error)))? {
                Some((locked, now)) => self.add(requests, locked, now),
                None => return Err(Failure::early(Cause::Short(more))),
            }
        }
    }

    fn place(&self, key: &Key) -> Result<usize, usize> {
        self.requests
            .binary_search_by(|request| request.key.cmp(key))
    }

    fn lacks(&self, key: &Key, need: &Need) -> bool {
        let known = self.place(key).map(|at| &self.requests[at].need);
        known.is_ok_and(|known| known != need) || known.is_err()
    }

    /// Puts in what was loaded besides, at `now`.
    fn add(&mut self, requests: Vec<LoadRequest>, locked: Vec<Locked>, now: UnixMs) {
        for (request, locked) in requests.into_iter().zip(locked) {
            match self.place(&request.key) {
                Ok(at) => {
                    self.requests[at] = request;
                    self.locked[at] = locked;
                }
                Err(at) => {
                    self.requests.insert(at, request);
                    self.locked.insert(at, locked);
                }
            }
        }
        self.now = now;
        for locked in &mut self.locked {
            locked.end_by(now);
        }
    }
}

/// The state of the fence row in which a batch of `phase` may commit.
fn expected(phase: Phase) -> (Generation, FenceState) {
    match phase {
        Phase::Active(generation) => (generation, FenceState::Active),
        Phase::Bypass(generation) => (generation, FenceState::Bypass),
        // Nothing is made in these.
        Phase::Closing(generation) | Phase::Apart(generation) => (generation, FenceState::Closing),
    }
}

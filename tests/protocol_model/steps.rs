//! The steps of the protocol and of the faults: `stateright`'s view of the model.

use stateright::{Model, Property};

use crate::cache::{Applied, Companion, Content, Effect, Entry, Functions, Version};
use crate::rules::Rule;
use crate::scenario::{Eviction, KEYS, Op, Scenario, Shape};
use crate::state::{Burial, Reading, Stage, State};

/// One step. Numbers are of writers, readers and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// BEGIN: lock the rows, load what is needed.
    Open(usize),
    /// The cache's begin.
    Begin(usize),
    /// COMMIT takes effect.
    Commit(usize),
    /// The store confirms a rollback; the reply will tell what was loaded.
    Rollback(usize),
    /// The store confirms a rollback; the reply tells nothing.
    Fail(usize),
    /// The store rolls back (a deadlock, a conflict), and the same batch will try again.
    Redo(usize),
    /// apply, then the answer.
    Apply(usize),
    /// apply without content, then the answer.
    Invalidate(usize),
    /// abort, then the answer.
    Abort(usize),
    /// abort while the transaction may still commit (only without `AbortAfterRollback`).
    EarlyAbort(usize),
    /// An apply or abort that ran before runs once more.
    Repeat(usize),
    /// A begin that got no answer, and was repeated, runs late.
    LateBegin(usize),
    /// A look that got no answer, and was repeated, runs late.
    LateLook(usize),
    /// A fill that ran before runs once more.
    Refill(usize),
    /// The proxy sweeps the id of a begin that it gave up on.
    Sweep(usize),
    /// The batch's proxy is declared dead.
    Die(usize),
    /// A burial reads the store.
    Exhume(usize, usize),
    /// A burial calls the cache.
    Bury,
    /// A client reads a key, by a hit.
    Hit(usize),
    /// A reader meets a miss and asks for the lease.
    Look(usize),
    /// It reads the store.
    Load(usize),
    /// It fills, then is answered.
    Fill(usize),
    /// Another client joins its flight after the load.
    Join(usize),
    /// A native is evicted or expires.
    EvictNative(usize),
    /// A hidden key is evicted or expires.
    EvictHidden(usize),
    /// A companion is evicted.
    EvictCompanion(usize),
    /// One key's three entries are deleted behind our back.
    DropKey(usize),
    /// FLUSHDB in the database of this key.
    FlushDatabase(usize),
    /// FLUSHALL.
    FlushAll,
    /// The generation is raised; the cache is emptied and stamped.
    Fence,
}

/// The id of the begin that a batch's apply names.
pub fn id(writer: usize) -> u8 {
    1 << writer
}

/// The id of a begin that was repeated under another id.
pub fn ghost(writer: usize) -> u8 {
    16 << writer
}

/// The token of a look whose answer nobody got.
const UNUSED_TOKEN: u8 = 0xff;

/// The token of a reader's lease.
pub fn token(reader: usize) -> u8 {
    reader as u8 + 1
}

/// Adds `step` if it `may` be taken.
fn offer(steps: &mut Vec<Step>, may: bool, step: Step) {
    if may {
        steps.push(step);
    }
}

impl Scenario {
    /// Runs `call` on the cache's functions for `key`, and notes if it put older content over newer.
    fn on_key<T>(
        &self,
        state: &mut State,
        key: usize,
        call: impl FnOnce(&Functions<'_>, &mut Entry) -> T,
    ) -> T {
        let before = state.cache[key];
        let mut after = before;
        let shape = |version: Version| state.shape(self, key, version);
        let functions = Functions {
            rules: self.rules,
            shape: &shape,
        };
        let result = call(&functions, &mut after);
        state.cache[key] = after;
        if let (Some(old), Some(new)) = (before.native, after.native) {
            state.wrong.stale_over_fresh |= new < old;
        }
        result
    }

    /// The version of `key` that a client's command would show now.
    pub fn visible(&self, state: &State, key: usize) -> Option<Version> {
        let shape = |version: Version| state.shape(self, key, version);
        let functions = Functions {
            rules: self.rules,
            shape: &shape,
        };
        functions.visible(&state.cache[key])
    }

    /// Whether the cache accepts a call over the keys for which `touches` holds.
    fn accepted(&self, state: &State, touches: impl Fn(usize) -> bool) -> bool {
        !self.rules.keep(Rule::CallsNeedMark)
            || (0..KEYS).all(|key| !touches(key) || !state.cache[key].unmarked)
    }

    fn accepts_writer(&self, state: &State, writer: usize) -> bool {
        self.accepted(state, |key| self.writers[writer].touches(key))
    }

    fn accepts_reader(&self, state: &State, reader: usize) -> bool {
        self.accepted(state, |key| self.readers[reader] & (1 << key) != 0)
    }

    fn reads(&self, reader: usize) -> impl Iterator<Item = usize> {
        let keys = self.readers[reader];
        (0..KEYS).filter(move |key| keys & (1 << key) != 0)
    }

    fn may_begin(&self, state: &State, writer: usize) -> bool {
        let w = &state.writers[writer];
        let early = matches!(w.stage, Stage::Idle | Stage::Open);
        let late = w.stage == Stage::Committed && !self.rules.keep(Rule::BeginBeforeCommit);
        !w.begun && (early || late) && self.accepts_writer(state, writer)
    }

    fn may_open(&self, state: &State, writer: usize) -> bool {
        let w = &state.writers[writer];
        w.stage == Stage::Idle
            && (!w.dead || !self.rules.keep(Rule::CommitNeedsRegistration))
            && !state.locked(self, writer)
    }

    fn may_exhume(&self, state: &State, writer: usize, key: usize) -> bool {
        let w = &state.writers[writer];
        let over = w.stage != Stage::Open || !self.rules.keep(Rule::BuryNeedsProof);
        w.dead && over && state.burial.is_none() && state.cache[key].registers(id(writer))
    }

    fn writer_steps(&self, state: &State, writer: usize, steps: &mut Vec<Step>) {
        let w = &state.writers[writer];
        let reachable = self.accepts_writer(state, writer);
        let begun = w.begun || !self.rules.keep(Rule::BeginBeforeCommit);
        let blind = !self.rules.keep(Rule::RefusedApplyWaitsForFence);
        let early_abort = !self.rules.keep(Rule::AbortAfterRollback);
        let committed = w.stage == Stage::Committed && w.begun;
        offer(steps, self.may_open(state, writer), Step::Open(writer));
        offer(steps, self.may_begin(state, writer), Step::Begin(writer));
        if w.stage == Stage::Open {
            offer(steps, begun, Step::Commit(writer));
            let aborts = early_abort && w.begun && reachable;
            offer(steps, aborts, Step::EarlyAbort(writer));
        }
        if w.stage == Stage::Open && state.left.rollback > 0 {
            steps.extend([
                Step::Rollback(writer),
                Step::Fail(writer),
                Step::Redo(writer),
            ]);
        }
        let applies = committed && (reachable || blind);
        offer(steps, applies, Step::Apply(writer));
        let aborts = w.stage == Stage::RolledBack && reachable;
        offer(steps, aborts, Step::Abort(writer));
    }

    /// What may go wrong with a batch.
    fn writer_faults(&self, state: &State, writer: usize, steps: &mut Vec<Step>) {
        let w = &state.writers[writer];
        let left = &state.left;
        if self.accepts_writer(state, writer) && w.begun {
            let invalidates = w.stage == Stage::Committed && left.invalidate > 0;
            offer(steps, invalidates, Step::Invalidate(writer));
            let repeats = w.stage == Stage::Done && left.repeat > 0;
            offer(steps, repeats, Step::Repeat(writer));
        }
        // Also before the begin that is answered: whichever of the two runs first.
        let sent = self.may_begin(state, writer) || (w.begun && self.accepts_writer(state, writer));
        offer(steps, sent && left.late_begin > 0, Step::LateBegin(writer));
        let swept = (0..KEYS).any(|key| state.cache[key].registers(ghost(writer)));
        let reachable = self.accepts_writer(state, writer);
        offer(steps, swept && reachable, Step::Sweep(writer));
        let started = w.begun || w.stage == Stage::Open;
        let alive = !w.dead && w.stage != Stage::Done;
        let dies = started && alive && left.death > 0;
        offer(steps, dies, Step::Die(writer));
        for key in 0..KEYS {
            let may = self.writers[writer].begins(key) && self.may_exhume(state, writer, key);
            offer(steps, may, Step::Exhume(writer, key));
        }
    }

    fn reader_steps(&self, state: &State, reader: usize, steps: &mut Vec<Step>) {
        let reachable = self.accepts_reader(state, reader);
        let early = !self.rules.keep(Rule::LoadAfterLook);
        match state.readers[reader] {
            Reading::Idle => {
                let miss = self
                    .reads(reader)
                    .any(|key| self.visible(state, key).is_none());
                if reachable && miss {
                    steps.push(Step::Look(reader));
                    if early {
                        steps.push(Step::Load(reader));
                    }
                }
            }
            Reading::Looked(_) => steps.push(Step::Load(reader)),
            Reading::Loaded(_) => {
                if reachable && early {
                    steps.push(Step::Look(reader));
                }
                if reachable {
                    steps.push(Step::Fill(reader));
                }
                if state.left.join > 0 {
                    steps.push(Step::Join(reader));
                }
            }
            Reading::Joined(..) | Reading::Untold(_) => {
                if reachable {
                    steps.push(Step::Fill(reader));
                }
            }
            Reading::Done(_) => {
                if reachable && state.left.repeat > 0 {
                    steps.push(Step::Refill(reader));
                }
            }
        }
        if state.readers[reader] != Reading::Idle && reachable && state.left.late_look > 0 {
            steps.push(Step::LateLook(reader));
        }
    }

    fn cache_steps(&self, state: &State, key: usize, steps: &mut Vec<Step>) {
        let entry = &state.cache[key];
        let left = &state.left;
        let told = self
            .visible(state, key)
            .is_some_and(|v| v > state.told[key]);
        if told {
            steps.push(Step::Hit(key));
        }
        if left.content > 0 && entry.native.is_some() {
            steps.push(Step::EvictNative(key));
        }
        if left.content > 0 && entry.hidden.is_some() {
            steps.push(Step::EvictHidden(key));
        }
        let evictable = entry.companion.is_some_and(|c| {
            c.writers == 0
                || self.eviction == Eviction::Any
                || !self.rules.keep(Rule::WritersAreNotEvicted)
        });
        if left.companion > 0 && evictable {
            steps.push(Step::EvictCompanion(key));
        }
        if left.drop_key > 0 {
            steps.push(Step::DropKey(key));
        }
        if left.flush > 0 && !entry.unmarked {
            steps.push(Step::FlushDatabase(key));
        }
    }

    fn begin(&self, state: &mut State, writer: usize, id: u8) {
        for key in 0..KEYS {
            if self.writers[writer].begins(key) {
                self.on_key(state, key, |f, entry| f.begin(entry, id));
            }
        }
    }

    fn commit(&self, state: &mut State, writer: usize) {
        state.log[state.commits as usize] = writer as u8;
        state.commits += 1;
        state.writers[writer].stage = Stage::Committed;
        state.writers[writer].committed = true;
        self.see(state, writer);
        if !self.rules.keep(Rule::AcknowledgeAfterApply) {
            self.answer_writer(state, writer);
        }
    }

    /// Notes the versions that the batch made or loaded.
    fn see(&self, state: &mut State, writer: usize) {
        for key in 0..KEYS {
            if self.writers[writer].touches(key) {
                state.writers[writer].seen[key] = state.version(self, key);
            }
        }
    }

    fn answer_writer(&self, state: &mut State, writer: usize) {
        for key in 0..KEYS {
            if self.writers[writer].touches(key) {
                state.tell(key, state.writers[writer].seen[key]);
            }
        }
    }

    /// The apply (or invalidation) of a committed batch, without the answer.
    fn apply(&self, state: &mut State, writer: usize, content: bool) {
        let seen = state.writers[writer].seen;
        for (key, &version) in seen.iter().enumerate() {
            let effect = match self.writers[writer].ops[key] {
                None => continue,
                Some(Op::Read) => {
                    if self.rules.keep(Rule::UnitObservesReads) {
                        self.on_key(state, key, |f, entry| f.observe(entry, version));
                    }
                    continue;
                }
                Some(Op::Keep) => {
                    self.on_key(state, key, |f, entry| {
                        f.abort(entry, id(writer), Some(version))
                    });
                    continue;
                }
                Some(_) if !content => Effect::None,
                Some(Op::Put(shape)) => Effect::Whole(shape),
                Some(Op::Delta(shape)) => Effect::Delta(shape),
            };
            let applied = self.on_key(state, key, |f, entry| {
                f.apply(entry, id(writer), version, effect)
            });
            let delta = matches!(effect, Effect::Delta(_));
            state.worked.delta |= delta && applied == Applied::Ran;
        }
    }

    fn abort(&self, state: &mut State, writer: usize) {
        let seen = state.writers[writer].seen;
        for (key, &version) in seen.iter().enumerate() {
            if self.writers[writer].touches(key) {
                self.on_key(state, key, |f, entry| {
                    f.abort(entry, id(writer), Some(version))
                });
            }
        }
    }

    /// Ends a batch; what only a repeated call could still need is forgotten otherwise.
    fn finish(&self, state: &mut State, writer: usize) {
        self.answer_writer(state, writer);
        state.writers[writer].stage = Stage::Done;
        if state.left.repeat == 0 && state.left.late_begin == 0 {
            state.writers[writer].seen = [0; KEYS];
            state.writers[writer].begun = false;
            state.writers[writer].committed = false;
        }
    }

    fn writer_step(&self, state: &mut State, step: Step) {
        match step {
            Step::Open(writer) => state.writers[writer].stage = Stage::Open,
            Step::Begin(writer) => {
                state.writers[writer].begun = true;
                self.begin(state, writer, id(writer));
            }
            Step::Commit(writer) => self.commit(state, writer),
            Step::Rollback(writer) => {
                state.left.rollback -= 1;
                self.see(state, writer);
                state.writers[writer].stage = Stage::RolledBack;
            }
            Step::Redo(writer) => {
                state.left.rollback -= 1;
                state.writers[writer].stage = Stage::Idle;
            }
            Step::Fail(writer) => {
                state.left.rollback -= 1;
                state.writers[writer].stage = Stage::RolledBack;
            }
            Step::Apply(writer) => {
                if self.accepts_writer(state, writer) {
                    self.apply(state, writer, true);
                }
                self.finish(state, writer);
            }
            Step::Invalidate(writer) => {
                state.left.invalidate -= 1;
                self.apply(state, writer, false);
                self.finish(state, writer);
            }
            Step::Abort(writer) => {
                self.abort(state, writer);
                self.finish(state, writer);
            }
            Step::EarlyAbort(writer) => self.abort(state, writer),
            Step::Repeat(writer) => {
                state.left.repeat -= 1;
                if state.writers[writer].committed {
                    self.apply(state, writer, true);
                } else {
                    self.abort(state, writer);
                }
            }
            _ => self.late_step(state, step),
        }
    }

    /// Begins out of their time, and the dead.
    fn late_step(&self, state: &mut State, step: Step) {
        match step {
            Step::LateBegin(writer) => {
                state.left.late_begin -= 1;
                let fresh = self.rules.keep(Rule::BeginHasFreshId);
                let id = if fresh { ghost(writer) } else { id(writer) };
                self.begin(state, writer, id);
            }
            Step::Sweep(writer) => {
                for key in 0..KEYS {
                    self.on_key(state, key, |f, entry| f.abort(entry, ghost(writer), None));
                }
            }
            Step::Die(writer) => {
                state.left.death -= 1;
                state.writers[writer].dead = true;
            }
            Step::Exhume(writer, key) => {
                state.burial = Some(Burial {
                    writer: writer as u8,
                    key: key as u8,
                    version: state.version(self, key),
                });
            }
            Step::Bury => {
                if let Some(burial) = state.burial.take() {
                    let id = id(burial.writer as usize);
                    self.on_key(state, burial.key as usize, |f, entry| {
                        f.bury(entry, id, burial.version)
                    });
                }
            }
            _ => {}
        }
    }

    fn reader_step(&self, state: &mut State, step: Step) {
        match step {
            Step::Hit(key) => {
                if let Some(version) = self.visible(state, key) {
                    state.tell(key, version);
                }
            }
            Step::Look(reader) => self.look(state, reader),
            Step::Load(reader) => {
                let versions = self.load(state, reader);
                state.readers[reader] = Reading::Loaded(versions);
                if !self.rules.keep(Rule::AnswerAfterFill) {
                    self.answer_reader(state, reader, versions);
                    state.readers[reader] = Reading::Untold(versions);
                }
            }
            Step::Join(reader) => {
                if let Reading::Loaded(versions) = state.readers[reader] {
                    state.left.join -= 1;
                    state.readers[reader] = Reading::Joined(versions, state.bound(self));
                }
            }
            Step::Fill(reader) => self.fill(state, reader),
            _ => self.late_reader_step(state, step),
        }
    }

    fn look(&self, state: &mut State, reader: usize) {
        let mut hits = [None; KEYS];
        for key in self.reads(reader) {
            if !self.rules.keep(Rule::OneSnapshot) {
                hits[key] = self.visible(state, key);
            }
            self.on_key(state, key, |f, entry| f.look(entry, token(reader)));
        }
        if state.readers[reader] == Reading::Idle {
            state.readers[reader] = Reading::Looked(hits);
        }
    }

    fn load(&self, state: &State, reader: usize) -> [Version; KEYS] {
        let hits = match state.readers[reader] {
            Reading::Looked(hits) => hits,
            _ => [None; KEYS],
        };
        let mut versions = [0; KEYS];
        for key in self.reads(reader) {
            versions[key] = hits[key].unwrap_or_else(|| state.version(self, key));
        }
        versions
    }

    fn answer_reader(&self, state: &mut State, reader: usize, versions: [Version; KEYS]) {
        let several = self.reads(reader).count() == KEYS;
        state.wrong.torn_answer |= several && !state.was_current(self, versions);
        for key in self.reads(reader) {
            state.tell(key, versions[key]);
        }
    }

    fn fill(&self, state: &mut State, reader: usize) {
        let (versions, joined) = match state.readers[reader] {
            Reading::Loaded(versions) | Reading::Untold(versions) => (versions, None),
            Reading::Joined(versions, bound) => (versions, Some(bound)),
            _ => return,
        };
        let mut accepted = true;
        for key in self.reads(reader) {
            accepted &= self.on_key(state, key, |f, entry| {
                f.fill(entry, token(reader), versions[key])
            });
        }
        if let Some(bound) = joined
            && (accepted || !self.rules.keep(Rule::LateJoinerNeedsAcceptedFill))
        {
            state.wrong.stale_answer |= self.reads(reader).any(|key| versions[key] < bound[key]);
        }
        self.answer_reader(state, reader, versions);
        let kept = if state.left.repeat > 0 {
            versions
        } else {
            [0; KEYS]
        };
        state.readers[reader] = Reading::Done(kept);
    }

    /// Calls of a reader that run a second time, when nobody waits for them any more.
    fn late_reader_step(&self, state: &mut State, step: Step) {
        match step {
            Step::LateLook(reader) => {
                state.left.late_look -= 1;
                let fresh = self.rules.keep(Rule::LookHasFreshToken);
                let token = if fresh { UNUSED_TOKEN } else { token(reader) };
                for key in self.reads(reader) {
                    self.on_key(state, key, |f, entry| f.look(entry, token));
                }
            }
            Step::Refill(reader) => {
                state.left.repeat -= 1;
                if let Reading::Done(versions) = state.readers[reader] {
                    for key in self.reads(reader) {
                        self.on_key(state, key, |f, entry| {
                            f.fill(entry, token(reader), versions[key])
                        });
                    }
                }
            }
            _ => {}
        }
    }

    fn fault_step(&self, state: &mut State, step: Step) {
        let left = &mut state.left;
        match step {
            Step::EvictNative(key) => {
                left.content -= 1;
                state.cache[key].native = None;
            }
            Step::EvictHidden(key) => {
                left.content -= 1;
                state.cache[key].hidden = None;
            }
            Step::EvictCompanion(key) => {
                left.companion -= 1;
                state.cache[key].companion = None;
            }
            Step::DropKey(key) => {
                left.drop_key -= 1;
                state.cache[key] = Entry {
                    unmarked: state.cache[key].unmarked,
                    ..Entry::default()
                };
            }
            Step::FlushDatabase(key) => {
                left.flush -= 1;
                self.flush_database(state, key);
            }
            Step::FlushAll => {
                left.flush -= 1;
                for key in self.keys() {
                    self.empty(state, key, true);
                }
            }
            Step::Fence => self.fence(state),
            _ => {}
        }
    }

    fn empty(&self, state: &mut State, key: usize, unmarked: bool) {
        state.cache[key] = Entry {
            unmarked,
            ..Entry::default()
        };
    }

    /// FLUSHDB takes the mark of its own database along, or, if there is only one mark
    /// and it lives in another database, leaves it.
    fn flush_database(&self, state: &mut State, key: usize) {
        let marked = !self.rules.keep(Rule::MarkPerDatabase);
        self.empty(state, key, !marked);
    }

    /// Ends the old generation in one step: its calls are refused from now on.
    fn fence(&self, state: &mut State) {
        if !state.cache.iter().any(|entry| entry.unmarked) {
            state.left.fence -= 1;
        }
        for key in 0..KEYS {
            if self.rules.keep(Rule::FenceEmptiesCache) {
                self.empty(state, key, false);
            } else {
                state.cache[key].unmarked = false;
            }
        }
        state.burial = None;
        for writer in 0..self.writers.len() {
            let w = &mut state.writers[writer];
            match w.stage {
                Stage::Idle => w.begun &= !self.rules.keep(Rule::CommitInGenerationOfBegin),
                Stage::Done => w.begun = false,
                Stage::Committed | Stage::RolledBack => {
                    w.begun = false;
                    self.finish(state, writer);
                }
                // Only where the fence does not wait for it.
                Stage::Open => {}
            }
        }
        for reader in &mut state.readers {
            // A fill of the old generation is refused, also if it is repeated.
            *reader = match reader {
                Reading::Done(_) => Reading::Done([0; KEYS]),
                _ => Reading::Idle,
            };
        }
    }

    fn may_fence(&self, state: &State) -> bool {
        let needed = state.cache.iter().any(|entry| entry.unmarked);
        let over = !state.open() || !self.rules.keep(Rule::FenceWaitsForTransactions);
        over && (needed || state.left.fence > 0)
    }

    /// The key with its native in place, as a fill left it.
    fn filled(&self, key: usize) -> Entry {
        let content = |content| {
            Some(Companion {
                content,
                ..Companion::default()
            })
        };
        let (native, companion) = match self.initial[key] {
            Shape::Absent => (None, content(Content::Absent(0))),
            Shape::Plain => (Some(0), None),
            Shape::Rich => (Some(0), content(Content::Value(0))),
        };
        Entry {
            native,
            companion,
            ..Entry::default()
        }
    }
}

impl Model for Scenario {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut filled = [Entry::default(); KEYS];
        for key in self.keys() {
            filled[key] = self.filled(key);
        }
        vec![
            State::start(self, filled),
            State::start(self, [Entry::default(); KEYS]),
        ]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for writer in 0..self.writers.len() {
            self.writer_steps(state, writer, steps);
            self.writer_faults(state, writer, steps);
        }
        for reader in 0..self.readers.len() {
            self.reader_steps(state, reader, steps);
        }
        for key in self.keys() {
            self.cache_steps(state, key, steps);
        }
        if state
            .burial
            .is_some_and(|burial| self.accepted(state, |key| key == burial.key as usize))
        {
            steps.push(Step::Bury);
        }
        if state.left.flush > 0 && self.keys().count() > 1 {
            steps.push(Step::FlushAll);
        }
        if self.may_fence(state) {
            steps.push(Step::Fence);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Hit(_)
            | Step::Look(_)
            | Step::Load(_)
            | Step::Fill(_)
            | Step::Join(_)
            | Step::LateLook(_)
            | Step::Refill(_) => self.reader_step(&mut state, step),
            Step::EvictNative(_)
            | Step::EvictHidden(_)
            | Step::EvictCompanion(_)
            | Step::DropKey(_)
            | Step::FlushDatabase(_)
            | Step::FlushAll
            | Step::Fence => self.fault_step(&mut state, step),
            _ => self.writer_step(&mut state, step),
        }
        self.sort_equals(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::properties::all()
    }
}

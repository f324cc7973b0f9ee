//! The steps of the protocol and of the faults: `stateright`'s view of the model.

mod faults;
mod reader;
mod staging;
mod writer;

use stateright::{Model, Property};

use crate::cache::{Companion, Content, Entry, Functions, Version};
use crate::rules::Rule;
use crate::scenario::{KEYS, Scenario, Shape};
use crate::state::State;

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
    /// It stages the next part of a large collection.
    Stage(usize),
    /// What it staged is evicted, or its life is over.
    EvictStaged(usize),
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
            | Step::Stage(_)
            | Step::Fill(_)
            | Step::Join(_)
            | Step::LateLook(_)
            | Step::Refill(_) => self.reader_step(&mut state, step),
            Step::EvictNative(_)
            | Step::EvictHidden(_)
            | Step::EvictCompanion(_)
            | Step::EvictStaged(_)
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

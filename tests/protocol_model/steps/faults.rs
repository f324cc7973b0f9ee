//! What happens to the cache: eviction, loss, flush, and the fence as one step.

use super::Step;
use crate::cache::Entry;
use crate::rules::Rule;
use crate::scenario::{Eviction, KEYS, Scenario};
use crate::state::{Reading, Stage, State};

impl Scenario {
    pub(super) fn cache_steps(&self, state: &State, key: usize, steps: &mut Vec<Step>) {
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

    pub(super) fn fault_step(&self, state: &mut State, step: Step) {
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
            Step::EvictStaged(reader) => self.evict_staged(state, reader),
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
        self.lose_staged(state);
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
        state.staged = Default::default();
    }

    pub(super) fn may_fence(&self, state: &State) -> bool {
        let needed = state.cache.iter().any(|entry| entry.unmarked);
        let over = !state.open(self) || !self.rules.keep(Rule::FenceWaitsForTransactions);
        over && (needed || state.left.fence > 0)
    }
}

//! Batches: begin, transaction, apply, answer; and the burial of the dead.

use super::state::{Batch, Burial, Mode, Place, Stage, State};
use super::{Fenced, Step, offer};
use crate::cache::Effect;
use crate::rules::Rule;
use crate::scenario::{KEYS, Op};

/// The id of a batch's begin.
fn id(batch: usize) -> u8 {
    1 << batch
}

impl Fenced {
    /// How p uses the cache, for a batch that is made now; none is made while requests are held.
    fn makes(&self, state: &State, b: usize) -> Option<(Mode, u8)> {
        let proxy = &state.proxies[self.lanes[b]];
        let made = (proxy.mode != Mode::Closing).then_some((proxy.mode, proxy.generation));
        state.batches[b].made.or(made)
    }

    /// Whether the transaction's first statement lets a batch pass that was made so.
    fn guard(&self, state: &State, b: usize, made: (Mode, u8)) -> bool {
        let rule = match made.0 {
            Mode::Bypass => Rule::BypassCommitSeesFence,
            _ => Rule::CommitInGenerationOfBegin,
        };
        let now = (state.row.mode, state.row.generation) == made || !self.keep(rule);
        let alive = state.proxies[self.lanes[b]].alive && !state.batches[b].dead;
        now && (alive || !self.keep(Rule::CommitNeedsRegistration))
    }

    fn locked(&self, state: &State, b: usize) -> bool {
        (0..self.works.len()).any(|other| {
            let shares = |key| self.works[b].touches(key) && self.works[other].touches(key);
            state.batches[other].stage == Stage::Open && (0..KEYS).any(shares)
        })
    }

    pub(super) fn batch_steps(&self, state: &State, b: usize, steps: &mut Vec<Step>) {
        let batch = &state.batches[b];
        match batch.stage {
            Stage::Idle => {
                if let Some(made) = self.makes(state, b) {
                    self.idle_steps(state, b, made, steps);
                }
            }
            Stage::Open => {
                if let Some((Mode::Active, generation)) = batch.made
                    && !batch.begun
                {
                    let begins = self.taken(state, self.lanes[b], generation).is_some();
                    offer(steps, begins, Step::Begin(b));
                }
                let bypasses = matches!(batch.made, Some((Mode::Bypass, _)));
                let ready = batch.begun || bypasses || !self.keep(Rule::BeginBeforeCommit);
                offer(steps, ready, Step::Commit(b));
            }
            Stage::Committed => self.committed_steps(state, b, steps),
            Stage::Done => {}
        }
    }

    fn idle_steps(&self, state: &State, b: usize, made: (Mode, u8), steps: &mut Vec<Step>) {
        let batch = &state.batches[b];
        let passes = self.guard(state, b, made);
        offer(steps, passes && !self.locked(state, b), Step::Open(b));
        let (mode, generation) = made;
        let begins = mode == Mode::Active && !batch.begun;
        let begins = begins && self.taken(state, self.lanes[b], generation).is_some();
        offer(steps, begins, Step::Begin(b));
        // In the same generation there is nothing else to try: of that, death is the reason.
        let moved = batch.made.is_some_and(|(_, at)| at < state.row.generation)
            || batch.made.is_some_and(|(mode, _)| mode != state.row.mode);
        offer(steps, moved && !passes && !batch.dead, Step::Retry(b));
    }

    fn committed_steps(&self, state: &State, b: usize, steps: &mut Vec<Step>) {
        let p = self.lanes[b];
        let Some((_, generation)) = state.batches[b].made else {
            return;
        };
        let applies = self.taken(state, p, generation).is_some();
        offer(steps, applies, Step::Apply(b));
        let proxy = &state.proxies[p];
        let out_of_use = match proxy.mode {
            Mode::Closing => !self.keep(Rule::RefusedApplyWaitsForFence),
            Mode::Bypass | Mode::Active => true,
        };
        let over = out_of_use && proxy.generation > generation;
        offer(steps, over, Step::Answer(b));
    }

    pub(super) fn burial_steps(&self, state: &State, steps: &mut Vec<Step>) {
        if let Some(burial) = state.burial {
            let place = self.burial_place(state, burial.generation);
            offer(steps, place.is_some(), Step::Bury);
            return;
        }
        let Some(place) = self.burial_place(state, state.row.generation) else {
            return;
        };
        for (b, batch) in state.batches.iter().enumerate().take(self.works.len()) {
            let over = batch.dead && batch.stage != Stage::Open;
            let over = over || (batch.dead && !self.keep(Rule::BuryNeedsProof));
            for key in 0..KEYS {
                let left = over && state.at(place).keys[key].registers(id(b));
                offer(steps, left, Step::Exhume(b, key));
            }
        }
    }

    /// Where what dead batches left is buried in `generation`.
    fn burial_place(&self, state: &State, generation: u8) -> Option<Place> {
        let place = state.place_of(generation)?;
        (state.at(place).mark == generation).then_some(place)
    }

    pub(super) fn batch_step(&self, state: &mut State, step: Step) {
        match step {
            Step::Begin(b) => {
                state.batches[b].made = self.makes(state, b);
                state.batches[b].begun = true;
                state.batches[b].dead |= !state.proxies[self.lanes[b]].alive;
                let Some(place) = self.batch_place(state, b) else {
                    return;
                };
                for key in 0..KEYS {
                    if self.works[b].begins(key) {
                        self.on_key(state, (place, key), |f, entry| f.begin(entry, id(b)));
                    }
                }
            }
            Step::Open(b) => {
                state.batches[b].made = self.makes(state, b);
                state.batches[b].stage = Stage::Open;
            }
            Step::Commit(b) => self.commit(state, b),
            Step::Retry(b) => state.batches[b] = Batch::default(),
            Step::Apply(b) => {
                self.apply(state, b);
                self.answer(state, b);
            }
            Step::Answer(b) => {
                state.worked.fenced_answer = true;
                self.answer(state, b);
            }
            Step::Exhume(b, key) => {
                state.burial = Some(Burial {
                    batch: b as u8,
                    key: key as u8,
                    generation: state.row.generation,
                    version: state.history.version(&self.works, key),
                });
            }
            Step::Bury => {
                if let Some(burial) = state.burial.take()
                    && let Some(place) = self.burial_place(state, burial.generation)
                {
                    let id = id(burial.batch as usize);
                    self.on_key(state, (place, burial.key as usize), |f, entry| {
                        f.bury(entry, id, burial.version)
                    });
                }
            }
            _ => {}
        }
    }

    /// Where the batch's calls arrive.
    fn batch_place(&self, state: &State, b: usize) -> Option<Place> {
        let (_, generation) = state.batches[b].made?;
        self.taken(state, self.lanes[b], generation)
    }

    fn commit(&self, state: &mut State, b: usize) {
        state.history.commit(b);
        state.batches[b].stage = Stage::Committed;
        for key in 0..KEYS {
            if self.works[b].touches(key) {
                state.batches[b].seen[key] = state.history.version(&self.works, key);
            }
        }
        let bypasses = matches!(state.batches[b].made, Some((Mode::Bypass, _)));
        if bypasses || !self.keep(Rule::AcknowledgeAfterApply) {
            state.worked.bypass_write |= bypasses;
            self.tell_clients(state, b);
        }
        if bypasses {
            self.answer(state, b);
        }
    }

    fn apply(&self, state: &mut State, b: usize) {
        let Some(place) = self.batch_place(state, b) else {
            return;
        };
        let seen = state.batches[b].seen;
        for (key, &version) in seen.iter().enumerate() {
            let effect = match self.works[b].ops[key] {
                None => continue,
                Some(Op::Read) => {
                    self.on_key(state, (place, key), |f, entry| f.observe(entry, version));
                    continue;
                }
                Some(Op::Keep) => {
                    self.on_key(state, (place, key), |f, entry| {
                        f.abort(entry, id(b), Some(version))
                    });
                    continue;
                }
                Some(Op::Put(shape)) => Effect::Whole(shape),
                Some(Op::Delta(shape)) => Effect::Delta(shape),
            };
            self.on_key(state, (place, key), |f, entry| {
                f.apply(entry, id(b), version, effect)
            });
        }
    }

    fn tell_clients(&self, state: &mut State, b: usize) {
        for key in 0..KEYS {
            if self.works[b].touches(key) {
                state.tell(key, state.batches[b].seen[key]);
            }
        }
    }

    /// Answers the batch's clients, and forgets what nobody needs any more.
    fn answer(&self, state: &mut State, b: usize) {
        self.tell_clients(state, b);
        state.batches[b] = Batch {
            stage: Stage::Done,
            ..Batch::default()
        };
    }
}

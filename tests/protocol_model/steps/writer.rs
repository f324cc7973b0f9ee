//! What batches do: begin, transaction, apply or abort, and what may go wrong with them.

use super::{Step, ghost, id, offer};
use crate::cache::{Applied, Effect};
use crate::rules::Rule;
use crate::scenario::{KEYS, Kind, Op, Scenario};
use crate::state::{Burial, Stage, State};

impl Scenario {
    fn accepts_writer(&self, state: &State, writer: usize) -> bool {
        self.accepted(state, |key| self.writers[writer].touches(key))
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

    /// Who writes by SQL begins nothing; the proxy that finds the change may tell of it at any time after.
    fn sql_steps(&self, state: &State, writer: usize, steps: &mut Vec<Step>) {
        let reachable = self.accepts_writer(state, writer);
        match state.writers[writer].stage {
            Stage::Idle => offer(steps, self.may_open(state, writer), Step::Open(writer)),
            Stage::Open => steps.push(Step::Commit(writer)),
            Stage::Committed => offer(steps, reachable, Step::Apply(writer)),
            Stage::Done => {
                let repeats = reachable && state.left.repeat > 0;
                offer(steps, repeats, Step::Repeat(writer));
            }
            Stage::RolledBack => {}
        }
    }

    pub(super) fn writer_steps(&self, state: &State, writer: usize, steps: &mut Vec<Step>) {
        if self.writers[writer].kind == Kind::Sql {
            return self.sql_steps(state, writer, steps);
        }
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
    pub(super) fn writer_faults(&self, state: &State, writer: usize, steps: &mut Vec<Step>) {
        if self.writers[writer].kind == Kind::Sql {
            return;
        }
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

    fn begin(&self, state: &mut State, writer: usize, id: u8) {
        for key in 0..KEYS {
            if self.writers[writer].begins(key) {
                self.on_key(state, key, |f, entry| f.begin(entry, id));
            }
        }
    }

    fn commit(&self, state: &mut State, writer: usize) {
        state.history.commit(writer);
        state.writers[writer].stage = Stage::Committed;
        state.writers[writer].committed = true;
        self.see(state, writer);
        let is_promised = self.writers[writer].kind != Kind::Sql;
        if is_promised && !self.rules.keep(Rule::AcknowledgeAfterApply) {
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
        let is_sql = self.writers[writer].kind == Kind::Sql;
        for (key, &version) in seen.iter().enumerate() {
            let effect = match self.writers[writer].ops[key] {
                None => continue,
                Some(_) if is_sql => {
                    if self.rules.keep(Rule::SqlIsObserved) {
                        self.on_key(state, key, |f, entry| f.observe(entry, version));
                    }
                    continue;
                }
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
    pub(super) fn finish(&self, state: &mut State, writer: usize) {
        self.answer_writer(state, writer);
        state.writers[writer].stage = Stage::Done;
        if state.left.repeat == 0 && state.left.late_begin == 0 {
            state.writers[writer].seen = [0; KEYS];
            state.writers[writer].begun = false;
            state.writers[writer].committed = false;
        }
    }

    pub(super) fn writer_step(&self, state: &mut State, step: Step) {
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
}

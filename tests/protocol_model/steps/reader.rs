//! What readers do: hit, or look, load and fill.

use super::{Step, UNUSED_TOKEN, token};
use crate::cache::Version;
use crate::rules::Rule;
use crate::scenario::{KEYS, Scenario};
use crate::state::{Reading, State};

impl Scenario {
    fn accepts_reader(&self, state: &State, reader: usize) -> bool {
        self.accepted(state, |key| self.readers[reader] & (1 << key) != 0)
    }

    pub(super) fn reads(&self, reader: usize) -> impl Iterator<Item = usize> {
        let keys = self.readers[reader];
        (0..KEYS).filter(move |key| keys & (1 << key) != 0)
    }

    pub(super) fn reader_steps(&self, state: &State, reader: usize, steps: &mut Vec<Step>) {
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
                    steps.push(self.fill_step(state, reader));
                }
                if state.left.join > 0 {
                    steps.push(Step::Join(reader));
                }
            }
            Reading::Joined(..) | Reading::Untold(_) => {
                if reachable {
                    steps.push(self.fill_step(state, reader));
                }
            }
            Reading::Done(_) => {
                if reachable && state.left.repeat > 0 {
                    steps.push(Step::Refill(reader));
                }
            }
        }
        self.staging_faults(state, reader, steps);
        if state.readers[reader] != Reading::Idle && reachable && state.left.late_look > 0 {
            steps.push(Step::LateLook(reader));
        }
    }

    pub(super) fn reader_step(&self, state: &mut State, step: Step) {
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
            Step::Stage(reader) => self.stage(state, reader),
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
            let (version, real) = (versions[key], self.staged(state, reader, key, versions));
            accepted &= self.on_key(state, key, |f, entry| {
                f.fill_with(entry, token(reader), version, real)
            });
        }
        self.unstage(state, reader);
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
}

//! Readers: hits within the lease; look, load, fill; and in bypass the store with the fence in its snapshot.

use super::state::{Mode, Reading, State};
use super::{Fenced, Step, Way, offer};
use crate::cache::Version;
use crate::rules::Rule;
use crate::scenario::KEYS;

/// The token of a reader's fill lease.
fn token(reader: usize) -> u8 {
    reader as u8 + 1
}

impl Fenced {
    fn keys_of(&self, r: usize) -> impl Iterator<Item = usize> + use<> {
        let keys = self.readers[r].keys;
        (0..KEYS).filter(move |key| keys & (1 << key) != 0)
    }

    /// Hits whose reply arrives as soon as they ran.
    pub(super) fn hit_steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (p, place) in self.hitters(state) {
            for key in self.keys() {
                let shown = self.visible(state, state.at(place), key);
                let news = shown.is_some_and(|version| version > state.told[key]);
                let hits = news && self.believes(state, (p, place), key);
                offer(steps, hits, Step::Hit(p, key));
            }
        }
    }

    pub(super) fn reader_steps(&self, state: &State, r: usize, steps: &mut Vec<Step>) {
        let p = self.readers[r].proxy;
        match state.readers[r] {
            Reading::Idle => self.first_steps(state, r, steps),
            Reading::Asked(..) => steps.push(Step::Arrive(r)),
            Reading::Looked(generation) => {
                steps.push(Step::Load(r));
                let refused = self.taken(state, p, generation).is_none();
                offer(steps, refused, Step::Again(r));
            }
            Reading::Loaded(generation, _) => {
                let taken = self.taken(state, p, generation).is_some();
                offer(steps, taken, Step::Fill(r));
                offer(steps, !taken, Step::Again(r));
            }
            Reading::Done => {}
        }
    }

    fn first_steps(&self, state: &State, r: usize, steps: &mut Vec<Step>) {
        let p = self.readers[r].proxy;
        let proxy = &state.proxies[p];
        let miss = self.readers[r].way == Way::Miss;
        let place = self.place(state, p, proxy.generation);
        let shown = |key| {
            let place = place?;
            self.visible(state, state.at(place), key)
        };
        let shown = self.keys_of(r).all(|key| shown(key).is_some());
        match proxy.mode {
            Mode::Active if miss => {
                let looks = !shown && self.taken(state, p, proxy.generation).is_some();
                offer(steps, looks, Step::Look(r));
            }
            Mode::Active => {
                offer(steps, shown, Step::Ask(r));
            }
            Mode::Bypass => {
                let seen = (state.row.mode, state.row.generation) == (proxy.mode, proxy.generation)
                    || !self.keep(Rule::BypassReadSeesFence);
                offer(steps, seen && miss, Step::ReadBypass(r));
            }
            Mode::Closing => {}
        }
    }

    pub(super) fn reader_step(&self, state: &mut State, step: Step) {
        match step {
            Step::Hit(p, key) => {
                if let Some(version) = self.shown_to(state, p, key) {
                    state.tell(key, version);
                }
            }
            Step::Ask(r) => {
                let p = self.readers[r].proxy;
                let mut versions = [0; KEYS];
                for key in self.keys_of(r) {
                    versions[key] = self.shown_to(state, p, key).unwrap_or_default();
                }
                let bound = state.history.bound(&self.works, state.told);
                let generation = state.proxies[p].generation;
                state.readers[r] = Reading::Asked(generation, versions, bound);
            }
            Step::Arrive(r) => self.arrive(state, r),
            Step::Look(r) => {
                let p = self.readers[r].proxy;
                let generation = state.proxies[p].generation;
                if let Some(place) = self.taken(state, p, generation) {
                    for key in self.keys_of(r) {
                        self.on_key(state, (place, key), |f, entry| f.look(entry, token(r)));
                    }
                    state.readers[r] = Reading::Looked(generation);
                }
            }
            Step::Load(r) => {
                if let Reading::Looked(generation) = state.readers[r] {
                    let versions = self.load(state, r);
                    state.readers[r] = Reading::Loaded(generation, versions);
                }
            }
            Step::Fill(r) => self.fill(state, r),
            Step::Again(r) => state.readers[r] = Reading::Idle,
            Step::ReadBypass(r) => {
                let versions = self.load(state, r);
                state.worked.bypass_read = true;
                self.answer_reader(state, r, versions);
            }
            _ => {}
        }
    }

    /// What the server that p uses shows of `key`.
    fn shown_to(&self, state: &State, p: usize, key: usize) -> Option<Version> {
        let place = self.place(state, p, state.proxies[p].generation)?;
        self.visible(state, state.at(place), key)
    }

    /// The reply of a hit: of use if the proxy is still in that generation, within its lease.
    fn arrive(&self, state: &mut State, r: usize) {
        let Reading::Asked(generation, versions, bound) = state.readers[r] else {
            return;
        };
        let proxy = state.proxies[self.readers[r].proxy];
        let leased = proxy.lease || !self.keep(Rule::HitNeedsLease);
        if (proxy.mode, proxy.generation) != (Mode::Active, generation) || !leased {
            state.readers[r] = Reading::Idle;
            return;
        }
        state.wrong.stale_answer |= self.keys_of(r).any(|key| versions[key] < bound[key]);
        self.answer_reader(state, r, versions);
    }

    fn load(&self, state: &State, r: usize) -> [Version; KEYS] {
        let mut versions = [0; KEYS];
        for key in self.keys_of(r) {
            versions[key] = state.history.version(&self.works, key);
        }
        versions
    }

    fn fill(&self, state: &mut State, r: usize) {
        let Reading::Loaded(generation, versions) = state.readers[r] else {
            return;
        };
        let Some(place) = self.taken(state, self.readers[r].proxy, generation) else {
            return;
        };
        for key in self.keys_of(r) {
            self.on_key(state, (place, key), |f, entry| {
                f.fill(entry, token(r), versions[key])
            });
        }
        self.answer_reader(state, r, versions);
    }

    fn answer_reader(&self, state: &mut State, r: usize, versions: [Version; KEYS]) {
        let several = self.keys_of(r).count() == KEYS;
        state.wrong.torn_answer |= several && !state.history.was_current(&self.works, versions);
        for key in self.keys_of(r) {
            state.tell(key, versions[key]);
        }
        state.readers[r] = Reading::Done;
    }
}

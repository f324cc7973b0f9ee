//! The fence row, and what each proxy believes of it.

use super::state::{Mode, PROXIES, Place, Proxy, Stage, State};
use super::{Fenced, Step, offer};
use crate::rules::Rule;
use crate::scenario::KEYS;

impl Fenced {
    /// Whether the row may change: every change of its state takes the lock that write transactions share.
    fn may_change_row(&self, state: &State) -> bool {
        !state.open() || !self.keep(Rule::FenceWaitsForTransactions)
    }

    /// Whether no proxy can use the cache of the old generation any more, as far as the store
    /// knows: each has confirmed, or its lease has run out. That the store knows by its own
    /// clock: a lease is renewed only while the row is active and the registration alive, so it ends
    /// at most its length after the raise, or after the proxy was declared dead. Or nothing is
    /// left that could be hit.
    fn may_bypass(&self, state: &State) -> bool {
        if state.emptied {
            return true;
        }
        state.proxies.iter().all(|proxy| {
            let leased = if proxy.alive {
                proxy.mode == Mode::Active && proxy.lease
            } else {
                proxy.owed && self.keep(Rule::DeadKeepTheirLease)
            };
            proxy.confirmed >= state.row.generation || !leased
        })
    }

    /// Whether p finds the server on record, with the mark of the row's generation.
    fn finds_cache(&self, state: &State) -> bool {
        let same = state.server.run_id == state.row.run_id || !self.keep(Rule::RunIdCompared);
        same && state.server.mark == state.row.generation
    }

    pub(super) fn row_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let free = self.may_change_row(state);
        match state.row.mode {
            Mode::Closing => offer(steps, free && self.may_bypass(state), Step::Bypass),
            Mode::Bypass => offer(steps, free && state.stamped != 0, Step::Activate),
            Mode::Active => {}
        }
    }

    pub(super) fn proxy_steps(&self, state: &State, p: usize, steps: &mut Vec<Step>) {
        let (row, proxy) = (&state.row, &state.proxies[p]);
        let knows = proxy.generation == row.generation && proxy.mode == row.mode;
        match row.mode {
            Mode::Active => {
                let raises = knows && self.may_change_row(state) && state.left.raise > 0;
                offer(steps, raises, Step::Raise(p));
                let registered = proxy.alive || !self.keep(Rule::RenewalNeedsRegistration);
                let renews = knows && !proxy.lease && registered;
                offer(steps, renews, Step::Renew(p));
                let finds = !knows && registered && self.finds_cache(state);
                offer(steps, finds, Step::SeeActive(p));
            }
            Mode::Closing => {
                let confirms = proxy.confirmed < row.generation;
                offer(steps, confirms, Step::Confirm(p));
                let is_on_record =
                    state.server.run_id == row.run_id || !self.keep(Rule::EmptiedIsOnRecord);
                let empties = knows && is_on_record && !state.emptied && state.left.empty > 0;
                offer(steps, empties, Step::Empty(p));
            }
            Mode::Bypass => {
                offer(steps, !knows, Step::SeeBypass(p));
                let stamps = knows && state.stamped == 0;
                offer(steps, stamps, Step::Stamp(p));
            }
        }
        let leased = proxy.mode == Mode::Active && proxy.lease;
        offer(steps, leased, Step::Lapse(p));
        let dies = proxy.alive && state.left.death > 0;
        offer(steps, dies, Step::DeclareDead(p));
        let registers = !proxy.alive && state.left.register > 0;
        offer(steps, registers, Step::Register(p));
    }

    pub(super) fn row_step(&self, state: &mut State, step: Step) {
        let generation = state.row.generation;
        match step {
            Step::Raise(p) => {
                state.left.raise -= 1;
                state.row.generation += 1;
                state.row.mode = if self.keep(Rule::ClosingBeforeBypass) {
                    Mode::Closing
                } else {
                    Mode::Bypass
                };
                leave(&mut state.proxies[p], Mode::Closing, generation + 1);
            }
            Step::Confirm(p) => {
                leave(&mut state.proxies[p], Mode::Closing, generation);
                state.proxies[p].confirmed = generation;
            }
            Step::Empty(_) => {
                state.left.empty -= 1;
                state.server.keys = [Default::default(); KEYS];
                state.server.mark = 0;
                if self.keep(Rule::EmptiedRefusesOldStamps) {
                    state.server.emptied_for = generation;
                }
                state.emptied = true;
            }
            Step::Bypass => {
                state.row.mode = Mode::Bypass;
                state.emptied = false;
            }
            Step::SeeBypass(p) => leave(&mut state.proxies[p], Mode::Bypass, generation),
            Step::Stamp(_) => self.bring_back(state, generation),
            Step::Activate => {
                state.row.mode = Mode::Active;
                state.row.run_id = state.stamped;
                state.on_record[generation as usize] = state.stamped;
                state.stamped = 0;
            }
            Step::SeeActive(p) => {
                let proxy = &mut state.proxies[p];
                proxy.mode = Mode::Active;
                proxy.generation = generation;
                proxy.lease = true;
            }
            _ => {}
        }
    }

    fn bring_back(&self, state: &mut State, generation: u8) {
        // Stamped before, perhaps by another proxy, whose activation was lost.
        if self.stamp(state, generation) || state.server.mark == generation {
            state.stamped = state.server.run_id;
        }
    }

    /// Empties the cache and stamps it, unless it holds that generation or a later one.
    pub(super) fn stamp(&self, state: &mut State, generation: u8) -> bool {
        let newest = state
            .server
            .mark
            .max(state.server.emptied_for.saturating_sub(1));
        if newest >= generation && self.keep(Rule::StampOnlyRaises) {
            return false;
        }
        if self.keep(Rule::FenceEmptiesCache) {
            state.server.keys = [Default::default(); KEYS];
        }
        state.server.mark = generation;
        state.server.emptied_for = 0;
        true
    }

    pub(super) fn proxy_step(&self, state: &mut State, step: Step) {
        match step {
            Step::Renew(p) => state.proxies[p].lease = true,
            Step::Lapse(p) => {
                state.proxies[p].lease = false;
                state.proxies[p].owed = false;
            }
            Step::DeclareDead(p) => self.declare_dead(state, p),
            Step::Register(p) => {
                state.left.register -= 1;
                let proxy = &mut state.proxies[p];
                proxy.alive = true;
                proxy.owed = false;
                let seen = proxy.mode != Mode::Active;
                if seen || !self.keep(Rule::NewRegistrationConfirmsNothing) {
                    proxy.confirmed = state.row.generation;
                }
            }
            _ => {}
        }
    }

    /// Its session has ended, and with it the transactions that were open, of which none may commit.
    /// (One that committed before is a step before.) What the process does is another matter.
    fn declare_dead(&self, state: &mut State, p: usize) {
        state.left.death -= 1;
        state.proxies[p].alive = false;
        state.proxies[p].owed = state.proxies[p].lease;
        for (batch, &lane) in state.batches.iter_mut().zip(&self.lanes) {
            if lane != p || batch.made.is_none() || batch.stage == Stage::Done {
                continue;
            }
            batch.dead = true;
            if batch.stage == Stage::Open && self.keep(Rule::BuryNeedsProof) {
                batch.stage = Stage::Idle;
            }
        }
    }

    /// Where a call of p arrives that was made in `generation`: at the server on record for that.
    pub(super) fn place(&self, state: &State, p: usize, generation: u8) -> Option<Place> {
        let unused = state.proxies[p].mode != Mode::Active;
        if unused && !self.keep(Rule::CallsNeedServerOnRecord) {
            return Some(Place::Address);
        }
        let any = (!self.keep(Rule::RunIdCompared)).then_some(Place::Address);
        state.place_of(generation).or(any)
    }

    /// The place, if the server there takes the call.
    pub(super) fn taken(&self, state: &State, p: usize, generation: u8) -> Option<Place> {
        let place = self.place(state, p, generation)?;
        let marked = state.at(place).mark == generation || !self.keep(Rule::CallsNeedMark);
        marked.then_some(place)
    }

    /// The proxies that may be given hits now, and by which server.
    pub(super) fn hitters<'s>(
        &'s self,
        state: &'s State,
    ) -> impl Iterator<Item = (usize, Place)> + 's {
        let active = move |p: &usize| state.proxies[*p].mode == Mode::Active;
        let place = move |p| Some((p, self.place(state, p, state.proxies[p].generation)?));
        (0..PROXIES).filter(active).filter_map(place)
    }

    /// Whether p uses what the server shows of `key`.
    pub(super) fn believes(&self, state: &State, (p, place): (usize, Place), key: usize) -> bool {
        let server = state.at(place);
        let native = server.keys[key].native.is_some();
        let rule = if native {
            Rule::HitNeedsLease
        } else {
            Rule::AbsenceNeedsLease
        };
        let marked = native || server.mark == state.proxies[p].generation;
        marked && (state.proxies[p].lease || !self.keep(rule))
    }
}

/// p stops using the cache.
fn leave(proxy: &mut Proxy, mode: Mode, generation: u8) {
    proxy.mode = mode;
    proxy.generation = generation;
    proxy.lease = false;
    proxy.owed = false;
}

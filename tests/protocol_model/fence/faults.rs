//! What happens to the cache: loss, another server in its place, eviction, late stamps.

use super::state::{Server, State};
use super::{Fenced, Step, offer};
use crate::cache::Entry;
use crate::scenario::KEYS;

impl Fenced {
    pub(super) fn fault_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let left = &state.left;
        offer(steps, left.crash > 0, Step::Crash);
        offer(steps, left.copy > 0, Step::Copy);
        let restores = left.restore > 0 && state.copy.is_some();
        offer(steps, restores, Step::Restore);
        let fails_over = left.fail_over > 0 && state.copy.is_some();
        offer(steps, fails_over, Step::FailOver);
        offer(steps, left.flush > 0, Step::Flush);
        if left.late_stamp > 0 {
            // One for each generation that anybody can have tried to stamp.
            for generation in 1..=state.row.generation {
                steps.push(Step::LateStamp(generation));
            }
        }
        for key in self.keys() {
            let entry = &state.server.keys[key];
            let native = left.content > 0 && entry.native.is_some();
            offer(steps, native, Step::EvictNative(key));
            let hidden = left.content > 0 && entry.hidden.is_some();
            offer(steps, hidden, Step::EvictHidden(key));
            let companion = left.companion > 0 && entry.companion.is_some();
            offer(steps, companion, Step::EvictCompanion(key));
        }
    }

    pub(super) fn fault_step(&self, state: &mut State, step: Step) {
        match step {
            Step::Crash => {
                state.left.crash -= 1;
                replace_server(state, 0, [Entry::default(); KEYS]);
            }
            Step::Copy => {
                state.left.copy -= 1;
                state.copy = Some((state.server.mark, state.server.keys));
            }
            Step::Restore => {
                state.left.restore -= 1;
                if let Some((mark, keys)) = state.copy.take() {
                    replace_server(state, mark, keys);
                }
            }
            Step::FailOver => {
                state.left.fail_over -= 1;
                if let Some((mark, keys)) = state.copy.take() {
                    let old = state.server;
                    replace_server(state, mark, keys);
                    state.old = Some(old);
                }
            }
            Step::Flush => {
                state.left.flush -= 1;
                state.server.mark = 0;
                state.server.emptied_for = 0;
                state.server.keys = [Entry::default(); KEYS];
            }
            Step::EvictNative(key) => {
                state.left.content -= 1;
                state.server.keys[key].native = None;
            }
            Step::EvictHidden(key) => {
                state.left.content -= 1;
                state.server.keys[key].hidden = None;
            }
            Step::EvictCompanion(key) => {
                state.left.companion -= 1;
                state.server.keys[key].companion = None;
            }
            Step::LateStamp(generation) => {
                state.left.late_stamp -= 1;
                self.stamp(state, generation);
            }
            _ => {}
        }
    }
}

fn replace_server(state: &mut State, mark: u8, keys: [Entry; KEYS]) {
    state.old = None;
    state.server = Server {
        run_id: state.server.run_id + 1,
        mark,
        emptied_for: 0,
        keys,
    };
}

//! What must always hold, whatever each proxy knows of the fence; and what must be possible.

use stateright::Property;

use super::Fenced;
use super::state::{Mode, Server, State};
use crate::cache::TORN;
use crate::properties::{ATOMIC, EXACT, FRESH, LINEARIZABLE};
use crate::scenario::KEYS;

/// A batch is committed and answered in bypass.
pub const BYPASS_WRITE: &str = "a batch is answered in bypass";
/// A reader is answered in bypass.
pub const BYPASS_READ: &str = "a reader is answered in bypass";
/// A batch that the cache refused is answered when that is out of use.
pub const FENCED_ANSWER: &str = "a batch that cannot tell the cache is answered by the fence";
/// A value is hit in a later generation.
pub const RETURNED: &str = "a written value is hit in a later generation";

/// All properties.
pub fn all() -> Vec<Property<Fenced>> {
    vec![
        Property::always(LINEARIZABLE, linearizable),
        Property::always(FRESH, |_, state: &State| !state.wrong.stale_over_fresh),
        Property::always(ATOMIC, atomic),
        Property::always(EXACT, exact),
        Property::sometimes(BYPASS_WRITE, |_, state: &State| state.worked.bypass_write),
        Property::sometimes(BYPASS_READ, |_, state: &State| state.worked.bypass_read),
        Property::sometimes(FENCED_ANSWER, |_, state: &State| state.worked.fenced_answer),
        Property::sometimes(RETURNED, returned),
    ]
}

fn linearizable(model: &Fenced, state: &State) -> bool {
    !state.wrong.stale_answer && not_older_than(model, state, state.told)
}

fn atomic(model: &Fenced, state: &State) -> bool {
    let bound = state.history.bound(&model.works, state.told);
    !state.wrong.torn_answer && not_older_than(model, state, bound)
}

/// Whether nothing that a proxy would take from the cache now is older than `bound`.
fn not_older_than(model: &Fenced, state: &State, bound: [u8; KEYS]) -> bool {
    model.hitters(state).all(|(p, place)| {
        model.keys().all(|key| {
            let shown = model.visible(state, state.at(place), key);
            let believed = || model.believes(state, (p, place), key);
            shown.is_none_or(|version| version >= bound[key] || !believed())
        })
    })
}

fn exact(_: &Fenced, state: &State) -> bool {
    let exact = |server: &Server| server.keys.iter().all(|key| key.native != Some(TORN));
    exact(&state.server) && state.old.is_none_or(|old| exact(&old))
}

fn returned(model: &Fenced, state: &State) -> bool {
    let current = |proxy: &super::state::Proxy| {
        proxy.mode == Mode::Active && proxy.generation > 1 && proxy.lease
    };
    state.proxies.iter().all(current)
        && model.hitters(state).count() > 0
        && model.keys().any(|key| {
            let native = state.server.keys[key].native;
            native.is_some_and(|version| {
                version > 0 && version == state.history.version(&model.works, key)
            })
        })
}

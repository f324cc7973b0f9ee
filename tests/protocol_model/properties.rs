//! What must always hold, and what must be possible.
//!
//! A hit is one round trip, so it may happen at any moment: what the cache
//! would show *now* is compared with what clients were told *before*.

use stateright::Property;

use crate::cache::{Content, TORN};
use crate::scenario::{KEYS, Scenario, Shape};
use crate::state::{Reading, State};

/// Invariant 2, one key at a time.
pub const LINEARIZABLE: &str = "I2: no reader gets a version older than one told before";
/// Invariant 3.
pub const FRESH: &str = "I3: no call puts older content over newer";
/// Invariant 4, one read after another.
pub const ATOMIC: &str = "I4: no reader sees one key of a unit new, then another old";
/// Invariant 4, several keys in one read. Not claimed where the cache may silently
/// lose the companion of one key while writers are registered.
pub const SNAPSHOT: &str = "I4: keys that are hit at once were current at once";
/// The cache shows only what the store had.
pub const EXACT: &str = "exact: what the cache shows is what the store had at that version";
/// A value becomes visible without any reader's help.
pub const WRITTEN_HIT: &str = "a written value is hit";
/// A value becomes visible by a fill.
pub const FILLED_HIT: &str = "a filled value is hit";
/// An absent mark is hit.
pub const ABSENCE_HIT: &str = "a written absence is hit";
/// A delta is applied in the cache.
pub const DELTA_RAN: &str = "a delta runs on hidden content";

/// All properties.
pub fn all() -> Vec<Property<Scenario>> {
    vec![
        Property::always(LINEARIZABLE, linearizable),
        Property::always(FRESH, |_, state: &State| !state.wrong.stale_over_fresh),
        Property::always(ATOMIC, atomic),
        Property::always(SNAPSHOT, snapshot),
        Property::always(EXACT, exact),
        Property::sometimes(WRITTEN_HIT, written_value_is_hit),
        Property::sometimes(FILLED_HIT, filled_value_is_hit),
        Property::sometimes(ABSENCE_HIT, absent_mark_is_hit),
        Property::sometimes(DELTA_RAN, |_, state: &State| state.worked.delta),
    ]
}

fn linearizable(model: &Scenario, state: &State) -> bool {
    !state.wrong.stale_answer
        && (0..KEYS).all(|key| {
            model
                .visible(state, key)
                .is_none_or(|version| version >= state.told[key])
        })
}

fn atomic(model: &Scenario, state: &State) -> bool {
    let bound = state.bound(model);
    (0..KEYS).all(|key| {
        model
            .visible(state, key)
            .is_none_or(|version| version >= bound[key])
    })
}

fn snapshot(model: &Scenario, state: &State) -> bool {
    if state.wrong.torn_answer {
        return false;
    }
    if model.loses_registrations() {
        return true;
    }
    let mut versions = [0; KEYS];
    for (key, version) in versions.iter_mut().enumerate() {
        match model.visible(state, key) {
            Some(visible) => *version = visible,
            None => return true,
        }
    }
    versions.contains(&TORN) || state.was_current(model, versions)
}

fn exact(model: &Scenario, state: &State) -> bool {
    (0..KEYS).all(|key| {
        let entry = &state.cache[key];
        let known = match entry.companion.map(|c| c.content) {
            Some(Content::Value(version)) => entry.native.is_none_or(|real| real == version),
            Some(Content::Absent(version)) => {
                entry.native.is_none() && state.shape(model, key, version) == Shape::Absent
            }
            _ => true,
        };
        known && entry.native != Some(TORN)
    })
}

fn written_value_is_hit(model: &Scenario, state: &State) -> bool {
    (0..KEYS).any(|key| {
        let native = state.cache[key].native;
        native.is_some_and(|version| version > 0 && version == state.version(model, key))
            && state.readers.iter().all(|r| *r == Reading::Idle)
    })
}

fn filled_value_is_hit(_: &Scenario, state: &State) -> bool {
    (0..KEYS).any(|key| state.cache[key].native.is_some())
        && state.history.commits() == 0
        && state.readers.iter().any(|r| matches!(r, Reading::Done(_)))
}

fn absent_mark_is_hit(model: &Scenario, state: &State) -> bool {
    (0..KEYS).any(|key| {
        state.cache[key].native.is_none()
            && model.visible(state, key).is_some_and(|version| version > 0)
    })
}

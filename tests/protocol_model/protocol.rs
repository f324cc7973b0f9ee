//! The protocol as it is: no violation within these bounds.

use crate::properties::{ABSENCE_HIT, DELTA_RAN, FILLED_HIT, WRITTEN_HIT};
use crate::scenario::{Eviction, Faults, Op, Scenario, Shape, Work};
use crate::{
    DELETE, DELTA, DELTA_TO_ABSENT, EVICTIONS, MISSING, PLAIN, PRESENT, RICH, UNIT, collection,
    holds, large, string,
};

/// A scenario of one key, under `allkeys-*`: any companion may be evicted, so all that
/// `volatile-*` allows is among it.
fn any(name: &'static str, initial: [Shape; 2]) -> Scenario {
    Scenario::new(name, initial).eviction(Eviction::Any)
}

/// `small`, or with the larger bounds `large` in its place.
pub fn bound<T>(small: T, larger: T) -> T {
    if large() { larger } else { small }
}

#[test]
fn string_survives_repeated_and_late_calls() {
    let faults = Faults {
        repeat: 1,
        late_begin: 1,
        late_look: 1,
        ..EVICTIONS
    };
    let scenario = any("string, calls twice and late", PRESENT)
        .writers(&[string(PLAIN), string(PLAIN), string(PLAIN)][..bound(2, 3)])
        .readers(&[1, 1])
        .faults(faults);
    holds(scenario, &[WRITTEN_HIT, FILLED_HIT]);
}

#[test]
fn string_survives_deaths_rollbacks_and_a_full_cache() {
    let faults = Faults {
        death: 1,
        rollback: 1,
        invalidate: 1,
        repeat: 1,
        companion: bound(1, 2),
        ..EVICTIONS
    };
    let scenario = any("string, death and rollback", PRESENT)
        .writers(&[string(PLAIN), string(RICH)])
        .readers(&[1, 1])
        .faults(faults);
    holds(scenario, &[WRITTEN_HIT, FILLED_HIT]);
}

#[test]
fn string_survives_flushes_and_fences() {
    let faults = Faults {
        flush: 1,
        drop_key: 1,
        fence: 1,
        death: 1,
        companion: bound(1, 2),
        ..EVICTIONS
    };
    let scenario = any("string, flush and fence", PRESENT)
        .writers(&[string(PLAIN), string(DELTA)])
        .readers(&[1, 1])
        .faults(faults);
    holds(scenario, &[WRITTEN_HIT, FILLED_HIT]);
}

#[test]
fn string_that_comes_and_goes() {
    let scenario = any("string, absent marks", MISSING)
        .writers(&[string(DELETE), string(PLAIN), string(DELTA)])
        .readers(&[1, 1])
        .faults(Faults {
            drop_key: 1,
            repeat: bound(0, 1),
            death: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, ABSENCE_HIT, DELTA_RAN]);
}

#[test]
fn string_is_told_of_by_units_that_write_nothing() {
    let scenario = any("string, units that read", PRESENT)
        .writers(&[string(PLAIN), string(Op::Keep), string(Op::Read)])
        .readers(&[1, 1])
        .faults(Faults {
            rollback: 1,
            drop_key: 1,
            repeat: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, FILLED_HIT]);
}

#[test]
fn string_is_written_by_sql_too() {
    let scenario = any("string, SQL", PRESENT)
        .writers(&[
            string(PLAIN),
            Work::sql(Some(PLAIN), None),
            Work::sql(Some(DELETE), None),
        ])
        .readers(&[1, 1])
        .faults(Faults {
            repeat: 1,
            drop_key: 1,
            flush: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, FILLED_HIT]);
}

#[test]
fn collection_is_written_by_sql_between_deltas() {
    let scenario = any("collection, SQL", PRESENT)
        .writers(&[
            collection(DELTA),
            collection(DELTA),
            Work::sql(None, Some(DELTA)),
        ])
        .readers(&[2])
        .faults(Faults {
            repeat: 1,
            death: 1,
            invalidate: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, DELTA_RAN]);
}

/// The fence does not wait for transactions of SQL.
#[test]
fn sql_writes_across_flushes_and_fences() {
    let scenario = any("string, SQL and fences", PRESENT)
        .writers(&[string(RICH), Work::sql(Some(PLAIN), None)])
        .readers(&[1, 1])
        .faults(Faults {
            flush: 1,
            fence: 1,
            death: 1,
            repeat: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, FILLED_HIT]);
}

#[test]
fn readers_may_share_a_flight() {
    let scenario = any("string, shared flights", PRESENT)
        .writers(&[string(PLAIN), string(PLAIN)])
        .readers(&[1, 1])
        .faults(Faults {
            join: 1,
            drop_key: 1,
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, FILLED_HIT]);
}

#[test]
fn collection_takes_deltas() {
    let scenario = any("collection, deltas", PRESENT)
        .writers(&[collection(DELTA), collection(DELTA), collection(RICH)])
        .readers(&[2, 2][..bound(1, 2)])
        .faults(Faults {
            repeat: 1,
            invalidate: 1,
            death: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, DELTA_RAN]);
}

#[test]
fn collection_that_empties_and_returns() {
    let scenario = any("collection, last member removed", PRESENT)
        .writers(&[collection(DELTA_TO_ABSENT), collection(DELTA)])
        .readers(&[2, 2])
        .faults(Faults {
            content: 2,
            companion: 2,
            repeat: 1,
            drop_key: 1,
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, ABSENCE_HIT, DELTA_RAN]);
}

#[test]
fn large_collection_is_filled_in_steps() {
    let scenario = any("large collection", PRESENT)
        .large()
        .writers(&[collection(DELTA), collection(RICH)])
        .readers(&[2, 2])
        .faults(Faults {
            staged: 2,
            drop_key: 1,
            flush: 1,
            fence: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, FILLED_HIT, DELTA_RAN]);
}

#[test]
fn units_survive_deaths_and_repeated_calls() {
    let scenario = Scenario::new("two units, death", PRESENT)
        .writers(&[UNIT, UNIT])
        .readers(&[1, 2])
        .faults(Faults {
            death: bound(1, 2),
            repeat: 1,
            late_begin: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, DELTA_RAN, FILLED_HIT]);
}

#[test]
fn units_survive_flushes_and_fences() {
    let scenario = Scenario::new("two units, flush", PRESENT)
        .writers(&[UNIT, UNIT])
        .readers(&[1, 2, 3][..bound(2, 3)])
        .faults(Faults {
            flush: 2,
            fence: 1,
            death: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, DELTA_RAN, FILLED_HIT]);
}

#[test]
fn unit_beside_writers_of_its_keys() {
    let scenario = Scenario::new("unit and single writers", PRESENT)
        .writers(&[UNIT, string(PLAIN), collection(DELTA)])
        .readers(&[1, 2])
        .faults(Faults {
            flush: 1,
            death: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, DELTA_RAN, FILLED_HIT]);
}

#[test]
fn reader_of_several_keys_gets_one_moment() {
    let batch = Work::batch(Some(RICH), Some(DELTA));
    let scenario = Scenario::new("unit, batch, reader of both keys", PRESENT)
        .writers(&[UNIT, batch])
        .readers(&[3, 3, 1][..bound(2, 3)])
        .faults(Faults {
            content: 2,
            flush: 1,
            death: 1,
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, DELTA_RAN, FILLED_HIT]);
}

#[test]
fn unit_that_only_reads_one_of_its_keys() {
    let scenario = Scenario::new("unit that reads", PRESENT)
        .writers(&[
            Work::unit(PLAIN, Op::Read),
            Work::unit(Op::Keep, DELTA),
            collection(RICH),
        ])
        .readers(&[1, 2])
        .faults(Faults {
            rollback: 1,
            death: bound(0, 1),
            flush: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, DELTA_RAN, FILLED_HIT]);
}

/// Two databases, each with single keys only, whose batches share an id and their calls.
#[test]
fn batch_of_single_keys_survives_silent_loss() {
    let batch = Work::batch(Some(PLAIN), Some(DELTA));
    let scenario = Scenario::new("batch, silent loss", PRESENT)
        .writers(&[batch, collection(RICH)])
        .readers(&[1, 2])
        .faults(Faults {
            drop_key: 1,
            flush: 1,
            death: bound(0, 1),
            ..EVICTIONS
        });
    holds(scenario, &[WRITTEN_HIT, DELTA_RAN, FILLED_HIT]);
}

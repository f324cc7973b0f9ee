//! The protocol without one of its rules: the checker finds the trace that the rule prevents.
//!
//! Where a rule is a second line behind another one, the test shows that it covers
//! for the other: either suffices in these bounds, without both there is a trace.

use crate::rules::Rule;
use crate::scenario::{Eviction, Faults, Op, Scenario, Work};
use crate::{
    DELETE, DELTA, EVICTIONS, MISSING, PLAIN, PRESENT, RICH, UNIT, breaks, collection, explore,
    string,
};

/// One string, two whole writes, any companion may be evicted.
fn one_string() -> Scenario {
    Scenario::new("string", PRESENT)
        .writers(&[string(PLAIN), string(RICH)])
        .readers(&[1, 1])
        .faults(EVICTIONS)
        .eviction(Eviction::Any)
}

/// One string whose calls may run twice or late; companions with writers are safe.
fn one_string_bad_network() -> Scenario {
    Scenario::new("string, bad network", PRESENT)
        .writers(&[string(PLAIN), string(PLAIN)])
        .readers(&[1, 1])
        .faults(Faults {
            content: 2,
            repeat: 1,
            late_begin: 1,
            late_look: 1,
            join: 1,
            ..EVICTIONS
        })
}

/// One string that is written and deleted.
fn one_absent_string() -> Scenario {
    Scenario::new("absent string", MISSING)
        .writers(&[string(PLAIN), string(DELETE)])
        .readers(&[1, 1])
        .faults(EVICTIONS)
        .eviction(Eviction::Any)
}

/// One key whose companion is kept, and batches that may roll back.
fn one_kept_key() -> Scenario {
    Scenario::new("kept key", PRESENT)
        .writers(&[collection(RICH), collection(RICH)])
        .readers(&[2])
        .faults(Faults {
            companion: 2,
            rollback: 1,
            ..EVICTIONS
        })
        .eviction(Eviction::Any)
}

/// One string, and a unit that reads it under its lock.
fn one_string_read() -> Scenario {
    Scenario::new("string, unit that reads", PRESENT)
        .writers(&[string(PLAIN), string(Op::Read)])
        .readers(&[1])
        .faults(EVICTIONS)
        .eviction(Eviction::Any)
}

/// One string that clients and SQL write.
fn one_string_by_sql() -> Scenario {
    Scenario::new("string, SQL", PRESENT)
        .writers(&[string(RICH), Work::sql(Some(PLAIN), None)])
        .readers(&[1])
        .faults(EVICTIONS)
}

/// One key whose companion is kept, that SQL writes.
fn one_key_by_sql() -> Scenario {
    Scenario::new("kept key, SQL", PRESENT)
        .writers(&[Work::sql(None, Some(RICH))])
        .readers(&[2])
        .faults(EVICTIONS)
}

/// One collection under deltas.
fn one_collection() -> Scenario {
    Scenario::new("collection", PRESENT)
        .writers(&[collection(DELTA), collection(DELTA), collection(RICH)])
        .readers(&[2])
        .faults(Faults {
            repeat: 1,
            invalidate: 1,
            ..EVICTIONS
        })
}

/// Two units over both keys; a proxy may die.
fn units() -> Scenario {
    Scenario::new("two units", PRESENT)
        .writers(&[UNIT, UNIT])
        .readers(&[1, 2])
        .faults(Faults {
            death: 1,
            repeat: 1,
            ..EVICTIONS
        })
}

/// A unit and a writer of one of its keys; a database may be flushed.
fn unit_and_flush() -> Scenario {
    Scenario::new("unit, flush", PRESENT)
        .writers(&[UNIT, collection(DELTA)])
        .readers(&[1, 2])
        .faults(Faults {
            flush: 1,
            ..EVICTIONS
        })
}

/// A unit, and readers of both its keys at once.
fn unit_and_wide_reader() -> Scenario {
    Scenario::new("unit, reader of both keys", PRESENT)
        .writers(&[UNIT])
        .readers(&[3])
        .faults(EVICTIONS)
}

/// A batch of single keys in two databases: one is flushed, the other loses a key silently.
fn batch_and_loss() -> Scenario {
    Scenario::new("batch, loss and flush", PRESENT)
        .writers(&[Work::batch(Some(PLAIN), Some(DELTA)), collection(RICH)])
        .readers(&[1, 2])
        .faults(Faults {
            drop_key: 1,
            flush: 1,
            ..EVICTIONS
        })
}

/// A collection that is filled in steps by two readers.
fn one_large_collection() -> Scenario {
    Scenario::new("large collection", PRESENT)
        .large()
        .writers(&[collection(DELTA)])
        .readers(&[2, 2])
        .faults(Faults {
            staged: 1,
            ..EVICTIONS
        })
        .eviction(Eviction::Any)
}

/// Each test: without this rule, this scenario breaks.
macro_rules! needed {
    ($($test:ident: $rule:ident, $scenario:ident;)*) => {
        $(#[test]
        fn $test() {
            breaks($scenario().without(Rule::$rule));
        })*
    };
}

needed! {
    begin_hides: BeginHides, one_kept_key;
    begin_is_confirmed_before_commit: BeginBeforeCommit, one_string;
    begin_has_fresh_id: BeginHasFreshId, one_string_bad_network;
    look_has_fresh_token: LookHasFreshToken, one_string_bad_network;
    load_comes_after_look: LoadAfterLook, one_string;
    fill_needs_no_writers: FillNeedsNoWriters, one_string;
    fill_needs_lease: FillNeedsLease, one_string;
    fill_checks_floor: FillChecksFloor, one_string;
    observe_raises_floor: ObserveRaisesFloor, one_string;
    observe_deletes_older: ObserveDeletesOlder, one_string;
    observe_deletes_unknown: ObserveDeletesUnknown, one_string;
    answer_comes_after_fill: AnswerAfterFill, one_string;
    wide_reader_needs_one_snapshot: OneSnapshot, unit_and_wide_reader;
    late_joiner_needs_accepted_fill: LateJoinerNeedsAcceptedFill, one_string_bad_network;
    unhide_checks_floor: UnhideChecksFloor, one_string;
    unhide_needs_no_writers: UnhideNeedsNoWriters, one_absent_string;
    absent_mark_needs_no_writers: AbsentNeedsNoWriters, one_absent_string;
    delta_needs_predecessor: DeltaNeedsPredecessor, one_collection;
    delta_needs_content: DeltaNeedsContent, one_collection;
    apply_raises_floor: ApplyRaisesFloor, one_collection;
    apply_without_id_deletes: LostIdDeletes, one_string;
    apply_without_id_raises_floor: LostIdRaisesFloor, one_string;
    apply_without_id_keeps_others: LostIdKeepsOthers, units;
    abort_observes: AbortObserves, one_kept_key;
    abort_comes_after_rollback: AbortAfterRollback, units;
    unit_observes_what_it_read: UnitObservesReads, one_string_read;
    what_sql_changed_is_observed: SqlIsObserved, one_string_by_sql;
    observing_sql_raises_floor: ObserveRaisesFloor, one_string_by_sql;
    observing_sql_deletes_older: ObserveDeletesOlder, one_key_by_sql;
    observing_sql_deletes_unknown: ObserveDeletesUnknown, one_string_by_sql;
    acknowledgement_comes_after_apply: AcknowledgeAfterApply, one_string;
    writers_are_not_evicted: WritersAreNotEvicted, units;
    commit_needs_registration: CommitNeedsRegistration, units;
    commit_in_generation_of_begin: CommitInGenerationOfBegin, unit_and_flush;
    bury_needs_proof: BuryNeedsProof, units;
    bury_raises_floor: BuryRaisesFloor, units;
    calls_need_mark: CallsNeedMark, unit_and_flush;
    mark_per_database: MarkPerDatabase, unit_and_flush;
    fence_waits_for_transactions: FenceWaitsForTransactions, unit_and_flush;
    fence_empties_cache: FenceEmptiesCache, batch_and_loss;
    refused_apply_waits_for_fence: RefusedApplyWaitsForFence, batch_and_loss;
    staged_name_is_unique: StagedNameIsUnique, one_large_collection;
    staged_fill_needs_lease: FillNeedsLease, one_large_collection;
    staged_fill_checks_floor: FillChecksFloor, one_large_collection;
}

/// One string without faults but evictions, under `volatile-*`.
fn one_quiet_string() -> Scenario {
    one_string().eviction(Eviction::Idle)
}

/// One unit alone; its proxy may die.
fn one_unit_and_death() -> Scenario {
    Scenario {
        writers: vec![UNIT],
        ..units()
    }
}

/// Asserts that `rule` is a second line behind `first` in `scenario`: both must go for a trace.
fn second_line(scenario: fn() -> Scenario, rule: Rule, first: Rule) {
    for kept in [rule, first] {
        let dropped = if kept == rule { first } else { rule };
        let (violations, _) = explore(scenario().without(dropped));
        assert!(
            violations.is_empty(),
            "{kept:?} does not cover for {dropped:?}: {violations:#?}"
        );
    }
    breaks(scenario().without(rule).without(first));
}

#[test]
fn begin_may_hide_a_native_of_unknown_version() {
    let (rule, first) = (Rule::BeginDeletesUnknownNative, Rule::BeginHides);
    second_line(one_string_bad_network, rule, first);
}

/// What an evicted companion left hidden must not pass for content that a later fill set.
#[test]
fn either_lease_or_begin_deletes_what_is_left_over() {
    let (rule, first) = (Rule::LeaseDeletesHidden, Rule::BeginDropsLeftover);
    second_line(one_kept_key, rule, first);
}

#[test]
fn floor_refuses_what_a_lease_lets_through() {
    let (rule, first) = (Rule::WritersVoidLease, Rule::FillChecksFloor);
    second_line(one_quiet_string, rule, first);
}

#[test]
fn floor_holds_back_an_older_whole_value() {
    let (rule, first) = (Rule::WholeChecksVersion, Rule::UnhideChecksFloor);
    second_line(one_quiet_string, rule, first);
}

#[test]
fn floor_holds_back_what_a_burial_left() {
    let (rule, first) = (Rule::BuryDeletes, Rule::BuryRaisesFloor);
    second_line(one_unit_and_death, rule, first);
}

#[test]
fn either_count_or_first_step_keeps_half_of_a_collection_out() {
    let (rule, first) = (Rule::StagedIsCounted, Rule::StageNeedsFirstStep);
    second_line(one_large_collection, rule, first);
}

/// The limit that the documentation states: `allkeys-*` may evict the registration of one
/// key of a unit alone.
#[test]
fn units_are_torn_under_allkeys_policies() {
    breaks(units().eviction(Eviction::Any));
}

//! The fence without one of its rules: the checker finds the trace that the rule prevents.

use super::{Fenced, Troubles, Way};
use crate::rules::Rule;
use crate::{MISSING, PLAIN, PRESENT, RICH, UNIT, breaks, collection, string};

/// A string that one proxy writes and both read by hits; the fence may be raised once.
fn written_string() -> Fenced {
    Fenced::new("fence: written string", PRESENT)
        .batches(&[(0, string(PLAIN))])
        .troubles(Troubles {
            raise: 1,
            ..Troubles::default()
        })
}

/// The same, but at first the key is known to be absent.
fn created_string() -> Fenced {
    Fenced {
        name: "fence: created string",
        initial: MISSING,
        ..written_string()
    }
}

/// A string, and a reply of the other proxy's cache that may be long under way.
fn slow_hit() -> Fenced {
    Fenced::new("fence: slow hit", PRESENT)
        .batches(&[(0, string(PLAIN))])
        .readers(&[(1, 1, Way::Hit)])
        .troubles(Troubles {
            raise: 1,
            ..Troubles::default()
        })
}

/// The other proxy may be declared dead while its process lives, and register anew.
fn declared_dead() -> Fenced {
    written_string().troubles(Troubles {
        raise: 1,
        death: 1,
        register: 1,
        ..Troubles::default()
    })
}

/// The cache may come back as it was some time before.
fn restored_cache() -> Fenced {
    written_string().troubles(Troubles {
        copy: 1,
        restore: 1,
        ..Troubles::default()
    })
}

/// The other proxy reads by misses.
fn filled_string() -> Fenced {
    Fenced::new("fence: filled string", PRESENT)
        .batches(&[(0, string(PLAIN))])
        .readers(&[(1, 1, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            ..Troubles::default()
        })
}

/// Readers of both proxies, and a registration that the cache may lose.
fn lost_registration() -> Fenced {
    Fenced::new("fence: lost registration", PRESENT)
        .batches(&[(0, string(PLAIN))])
        .readers(&[(0, 1, Way::Miss), (1, 1, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            companion: 1,
            ..Troubles::default()
        })
}

/// A unit, and stamps that arrive late.
fn late_stamp() -> Fenced {
    Fenced::new("fence: late stamp", PRESENT)
        .batches(&[(0, UNIT)])
        .readers(&[(1, 1, Way::Miss), (1, 2, Way::Miss)])
        .troubles(Troubles {
            late_stamp: 1,
            ..Troubles::default()
        })
}

/// A proxy may empty the cache in place of waiting for the other, whose reads go on.
fn emptied_cache() -> Fenced {
    filled_string().troubles(Troubles {
        raise: 1,
        empty: 1,
        late_stamp: 1,
        ..Troubles::default()
    })
}

/// A replica that lacks the last writes takes the cache's address; the server before goes on
/// answering, and may lose a registration.
fn failed_over() -> Fenced {
    lost_registration()
        .readers(&[(1, 1, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            companion: 1,
            copy: 1,
            fail_over: 1,
            ..Troubles::default()
        })
}

/// The same, and a proxy may empty a cache in place of waiting for the other.
fn emptied_after_fail_over() -> Fenced {
    written_string().troubles(Troubles {
        raise: 1,
        empty: 1,
        copy: 1,
        fail_over: 1,
        ..Troubles::default()
    })
}

/// A unit whose proxy may be declared dead, beside a writer of one of its keys.
fn dead_unit() -> Fenced {
    Fenced::new("fence: unit, death", PRESENT)
        .batches(&[(0, UNIT), (1, collection(RICH))])
        .readers(&[(1, 1, Way::Miss), (1, 2, Way::Miss)])
        .troubles(Troubles {
            death: 1,
            content: 1,
            ..Troubles::default()
        })
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
    closing_comes_before_bypass: ClosingBeforeBypass, written_string;
    dead_proxies_keep_their_lease: DeadKeepTheirLease, declared_dead;
    renewal_needs_registration: RenewalNeedsRegistration, declared_dead;
    new_registration_confirms_nothing: NewRegistrationConfirmsNothing, declared_dead;
    hit_needs_lease: HitNeedsLease, written_string;
    reply_that_arrives_late_needs_lease: HitNeedsLease, slow_hit;
    absent_mark_needs_lease: AbsenceNeedsLease, created_string;
    run_id_is_compared: RunIdCompared, restored_cache;
    bypass_read_sees_fence: BypassReadSeesFence, lost_registration;
    bypass_commit_sees_fence: BypassCommitSeesFence, filled_string;
    commit_in_generation_of_begin: CommitInGenerationOfBegin, filled_string;
    old_transactions_end_before_active: FenceWaitsForTransactions, filled_string;
    cache_is_emptied_before_it_is_stamped: FenceEmptiesCache, written_string;
    refused_apply_waits_for_bypass: RefusedApplyWaitsForFence, lost_registration;
    stamp_only_raises: StampOnlyRaises, late_stamp;
    emptied_cache_refuses_old_stamps: EmptiedRefusesOldStamps, emptied_cache;
    only_the_server_on_record_is_emptied: EmptiedIsOnRecord, emptied_after_fail_over;
    calls_need_the_server_on_record: CallsNeedServerOnRecord, failed_over;
    commit_needs_registration: CommitNeedsRegistration, dead_unit;
    burial_needs_proof: BuryNeedsProof, dead_unit;
    burial_raises_floor: BuryRaisesFloor, dead_unit;
    acknowledgement_comes_after_apply: AcknowledgeAfterApply, lost_registration;
}

/// A limit: whoever flushes the cache behind our back while a stamp is under way that nobody waits
/// for any more hides the flush; a unit that was begun before it may then be seen half done.
#[test]
fn flush_hidden_by_a_late_stamp_tears_units() {
    let troubles = Troubles {
        flush: 1,
        late_stamp: 1,
        ..Troubles::default()
    };
    breaks(late_stamp().troubles(troubles));
}

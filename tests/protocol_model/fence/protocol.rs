//! The fence as it is: no violation within these bounds.

use super::properties::{BYPASS_READ, BYPASS_WRITE, FENCED_ANSWER, RETURNED};
use super::{Fenced, Troubles, Way};
use crate::protocol::bound;
use crate::{DELTA, MISSING, PLAIN, PRESENT, UNIT, collection, holds, string};

#[test]
fn both_proxies_write_and_read_through_one_fence() {
    let model = Fenced::new("fence: string", PRESENT)
        .batches(&[(0, string(PLAIN)), (1, string(PLAIN))])
        .readers(&[(0, 1, Way::Miss), (1, 1, Way::Miss)][..bound(1, 2)])
        .troubles(Troubles {
            raise: 1,
            crash: bound(0, 1),
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, FENCED_ANSWER, RETURNED]);
}

#[test]
fn replies_may_be_under_way_when_the_cache_returns() {
    let model = Fenced::new("fence: slow hits", PRESENT)
        .batches(&[(0, string(PLAIN))])
        .readers(&[(0, 1, Way::Hit), (1, 1, Way::Hit)])
        .troubles(Troubles {
            raise: bound(1, 2),
            copy: 1,
            restore: 1,
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, FENCED_ANSWER, RETURNED]);
}

#[test]
fn cache_may_return_with_an_older_state() {
    let model = Fenced::new("fence: restored", PRESENT)
        .batches(&[(0, string(PLAIN)), (1, string(DELTA))][..bound(1, 2)])
        .readers(&[(0, 1, Way::Miss), (1, 1, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            copy: 1,
            restore: 1,
            crash: bound(0, 1),
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, BYPASS_READ, FENCED_ANSWER, RETURNED]);
}

#[test]
fn proxies_may_be_declared_dead_and_live() {
    let model = Fenced::new("fence: death", PRESENT)
        .batches(&[(0, string(PLAIN)), (1, string(PLAIN))])
        .readers(&[(1, 1, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            death: 1,
            register: 1,
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, FENCED_ANSWER, RETURNED]);
}

#[test]
fn key_that_comes_and_goes_through_two_fences() {
    let model = Fenced::new("fence: absent mark, twice", MISSING)
        .batches(&[(0, string(PLAIN))])
        .readers(&[(1, 1, Way::Miss)])
        .troubles(Troubles {
            raise: 2,
            content: bound(0, 1),
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, BYPASS_READ, FENCED_ANSWER, RETURNED]);
}

#[test]
fn registration_may_be_lost_before_the_fence() {
    let model = Fenced::new("fence: lost companion", PRESENT)
        .batches(&[(0, string(PLAIN))])
        .readers(&[(0, 1, Way::Miss), (1, 1, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            companion: 1,
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, BYPASS_READ, FENCED_ANSWER, RETURNED]);
}

#[test]
fn unit_and_collection_through_one_fence() {
    let model = Fenced::new("fence: unit", PRESENT)
        .batches(&[(0, UNIT), (1, collection(DELTA))])
        .readers(&[(1, 1, Way::Miss), (0, 2, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            copy: bound(0, 1),
            restore: bound(0, 1),
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, FENCED_ANSWER, RETURNED]);
}

#[test]
fn unit_and_a_flush_and_a_fence() {
    let model = Fenced::new("fence: unit, flush", PRESENT)
        .batches(&[(0, UNIT)])
        .readers(&[(1, 1, Way::Miss), (1, 2, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            flush: 1,
            death: bound(0, 1),
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, BYPASS_READ, FENCED_ANSWER, RETURNED]);
}

/// A proxy that stands still is not waited for: what it could hit is deleted.
#[test]
fn cache_may_be_emptied_in_place_of_waiting() {
    let model = Fenced::new("fence: emptied", PRESENT)
        .batches(&[(0, string(PLAIN)), (1, string(PLAIN))][..bound(1, 2)])
        .readers(&[(0, 1, Way::Miss), (1, 1, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            empty: 1,
            late_stamp: 1,
            copy: bound(0, 1),
            restore: bound(0, 1),
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, BYPASS_READ, FENCED_ANSWER, RETURNED]);
}

#[test]
fn unit_survives_death_loss_and_a_fence() {
    let model = Fenced::new("fence: unit, death and loss", PRESENT)
        .batches(&[(0, UNIT), (1, collection(DELTA))])
        .readers(&[(1, 1, Way::Miss), (1, 2, Way::Miss)][..bound(1, 2)])
        .troubles(Troubles {
            raise: 1,
            crash: 1,
            death: 1,
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, FENCED_ANSWER, RETURNED]);
}

/// Both servers answer: the one before to those who are connected to it.
#[test]
fn replica_may_take_the_address() {
    let model = Fenced::new("fence: fail-over", PRESENT)
        .batches(&[(0, string(PLAIN)), (1, string(PLAIN))][..bound(1, 2)])
        .readers(&[(1, 1, Way::Miss), (0, 1, Way::Miss)][..bound(1, 2)])
        .troubles(Troubles {
            raise: 1,
            companion: 1,
            copy: 1,
            fail_over: 1,
            empty: 1,
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, BYPASS_READ, FENCED_ANSWER, RETURNED]);
}

#[test]
fn replica_may_take_the_address_from_a_unit() {
    let model = Fenced::new("fence: unit, fail-over", PRESENT)
        .batches(&[(0, UNIT), (1, collection(DELTA))][..bound(1, 2)])
        .readers(&[(1, 1, Way::Miss), (1, 2, Way::Miss)])
        .troubles(Troubles {
            raise: 1,
            copy: 1,
            fail_over: 1,
            death: bound(0, 1),
            ..Troubles::default()
        });
    holds(model, &[BYPASS_WRITE, BYPASS_READ, FENCED_ANSWER, RETURNED]);
}

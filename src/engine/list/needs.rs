//! What the list commands must have loaded.
//!
//! A command whose arguments are refused before it looks at its key, or that
//! finds nothing to do by the list's length alone, needs the header.

use std::ops::Range;

use super::super::need::{Need, Needs};
use super::options::{MultiPop, Transfer};
use super::place::End;
use super::read::Search;
use crate::command::{Call, args};
use crate::model::{Db, Key, Side};

/// The most items that `LTRIM` hopes to have to take from an end, where only
/// the length of the list tells: a list that is cut after every push.
const TRIMMED_USUALLY: u64 = 16;
/// An item so far from an end is not loaded before the list's length is known: it may be
/// beyond the other end, or nearer to that.
const FAR: i64 = 128;
/// The same, counted from the tail.
const FAR_BACK: i64 = -FAR;

fn of_key(call: &Call, db: Db, need: Need) -> Needs {
    Needs::from_iter([(Key::new(db, call.request.arg_bytes(1)), need)])
}

fn integer(call: &Call, index: usize) -> Option<i64> {
    args::integer(call.request.arg(index))
}

pub(super) fn at_end(end: End, count: u64) -> Need {
    match end {
        End::Head => Need::first(count),
        End::Tail => Need::last(count),
    }
}

pub(super) fn header(call: &Call, db: Db) -> Needs {
    of_key(call, db, Need::header())
}

/// `LPOS`: where the items stand that it tells of.
pub(super) fn lpos(call: &Call, db: Db) -> Needs {
    let need = match Search::of(call) {
        Ok(search) => Need::places(search.places(call.request.arg_bytes(2)), search.wanted()),
        Err(_) => Need::header(),
    };
    of_key(call, db, need)
}

pub(super) fn pop(call: &Call, db: Db, end: End) -> Needs {
    let count = match call.request.len() {
        2 => 1,
        3 => integer(call, 2).map_or(0, |count| count.max(0).unsigned_abs()),
        _ => 0,
    };
    of_key(call, db, at_end(end, count))
}

/// `LMPOP` and `BLMPOP`, whose number of keys stands at `numkeys`.
pub(super) fn pop_of_many(call: &Call, db: Db, numkeys: usize) -> Needs {
    let need = match MultiPop::of(call, numkeys) {
        Ok(pop) => at_end(pop.end, pop.count),
        Err(_) => Need::header(),
    };
    call.keys(db).map(|key| (key, need.clone())).collect()
}

/// `BLPOP` and `BRPOP`.
pub(super) fn one_of_any(call: &Call, db: Db, end: End) -> Needs {
    call.keys(db).map(|key| (key, at_end(end, 1))).collect()
}

pub(super) fn transfer(call: &Call, db: Db) -> Needs {
    let need = match Transfer::of(call) {
        Ok(transfer) => at_end(transfer.from, 1),
        Err(_) => Need::header(),
    };
    let key = |index| Key::new(db, call.request.arg_bytes(index));
    Needs::from_iter([(key(1), need), (key(2), Need::header())])
}

/// `LINDEX` and `LSET`. Which end of the list is nearer to an item far inside, only its
/// length tells.
pub(super) fn index(call: &Call, db: Db) -> Needs {
    let need = match integer(call, 2) {
        Some(index @ 0..FAR) => Need::first(index.unsigned_abs() + 1),
        Some(index @ FAR_BACK..0) => Need::last(index.unsigned_abs()),
        _ => Need::header(),
    };
    of_key(call, db, need)
}

/// The items from one end to those numbered `range` of a list of `length`, by the shorter way.
pub(super) fn from_nearer_end(range: &Range<u64>, length: u64) -> Need {
    let from_tail = length.saturating_sub(range.start);
    if range.end <= from_tail {
        Need::first(range.end)
    } else {
        Need::last(from_tail)
    }
}

/// `LINSERT`: the first item with the pivot's value. What stands beside it is asked for
/// when it is known where that is.
pub(super) fn linsert(call: &Call, db: Db) -> Needs {
    let pivot = call.request.arg_bytes(3);
    of_key(call, db, Need::holding(pivot, Side::Lowest, 1))
}

/// `LREM`.
pub(super) fn lrem(call: &Call, db: Db) -> Needs {
    let Some(count) = integer(call, 2) else {
        return header(call, db);
    };
    let (side, most) = equal_items(count);
    of_key(
        call,
        db,
        Need::holding(call.request.arg_bytes(3), side, most),
    )
}

/// From which side and how many items `LREM` takes out.
pub(super) fn equal_items(count: i64) -> (Side, u64) {
    match count {
        0 => (Side::Lowest, u64::MAX),
        1.. => (Side::Lowest, count.unsigned_abs()),
        _ => (Side::Highest, count.unsigned_abs()),
    }
}

pub(super) fn lrange(call: &Call, db: Db) -> Needs {
    let need = match (integer(call, 2), integer(call, 3)) {
        (Some(start @ 0..), Some(end @ 0..FAR)) if start <= end => {
            Need::first(end.unsigned_abs() + 1)
        }
        (Some(start @ FAR_BACK..0), Some(end @ ..0)) if start <= end => {
            Need::last(start.unsigned_abs())
        }
        (Some(0), Some(-1)) => Need::value(),
        _ => Need::header(),
    };
    of_key(call, db, need)
}

/// What lies outside the range that stays.
pub(super) fn ltrim(call: &Call, db: Db) -> Needs {
    let (Some(start), Some(end)) = (integer(call, 2), integer(call, 3)) else {
        return header(call, db);
    };
    if start > end && (start < 0) == (end < 0) {
        return header(call, db);
    }
    let before = match start {
        0..FAR => start.unsigned_abs(),
        _ => TRIMMED_USUALLY,
    };
    let behind = match end {
        FAR_BACK..0 => end.unsigned_abs() - 1,
        _ => TRIMMED_USUALLY,
    };
    let mut need = Need::first(before);
    need.add(Need::last(behind));
    of_key(call, db, need)
}

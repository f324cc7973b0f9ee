//! The list commands: what each needs, and what runs it.

use bytes::Bytes;

use super::super::dispatch::Family;
use super::place::{self, End};
use super::{ends, middle, needs, read, transfer};
use crate::model::{Collection, Kind, NotLoaded};

#[rustfmt::skip]
pub(in super::super) const COMMANDS: &[Family] = &[
    Family::new("LPUSH", needs::header, |run| ends::push(run, End::Head)),
    Family::new("RPUSH", needs::header, |run| ends::push(run, End::Tail)),
    Family::new("LPUSHX", needs::header, |run| ends::push_existing(run, End::Head)),
    Family::new("RPUSHX", needs::header, |run| ends::push_existing(run, End::Tail)),
    Family::new("LPOP", |call, db| needs::pop(call, db, End::Head), |run| ends::pop(run, End::Head)),
    Family::new("RPOP", |call, db| needs::pop(call, db, End::Tail), |run| ends::pop(run, End::Tail)),
    Family::new("LMPOP", |call, db| needs::pop_of_many(call, db, 1), ends::lmpop),
    Family::new("BLPOP", |call, db| needs::one_of_any(call, db, End::Head), |run| ends::blocking_pop(run, End::Head)),
    Family::new("BRPOP", |call, db| needs::one_of_any(call, db, End::Tail), |run| ends::blocking_pop(run, End::Tail)),
    Family::new("BLMPOP", |call, db| needs::pop_of_many(call, db, 2), ends::blmpop),
    Family::new("LMOVE", needs::transfer, transfer::lmove),
    Family::new("RPOPLPUSH", needs::transfer, transfer::rpoplpush),
    Family::new("BLMOVE", needs::transfer, transfer::blmove),
    Family::new("BRPOPLPUSH", needs::transfer, transfer::brpoplpush),
    Family::new("LLEN", needs::header, read::llen),
    Family::new("LRANGE", needs::lrange, read::lrange),
    Family::new("LINDEX", needs::index, read::lindex),
    Family::new("LPOS", needs::lpos, read::lpos),
    Family::new("LSET", needs::index, middle::lset),
    Family::new("LINSERT", needs::linsert, middle::linsert),
    Family::new("LREM", needs::lrem, middle::lrem),
    Family::new("LTRIM", needs::ltrim, middle::ltrim),
];

/// A new list of these items, in their order.
pub(in super::super) fn of(
    items: impl ExactSizeIterator<Item = Bytes>,
) -> Result<Collection, NotLoaded> {
    let mut list = Collection::new(Kind::List);
    place::push(&mut list, End::Tail, items)?;
    Ok(list)
}

//! Sorted sets: members in the order of their scores.
//!
//! `meta` says which of Redis's two encodings the set would have there, since
//! clients see the difference: in a negative zero, in how `ZSCAN` writes scores.

mod add;
mod bounds;
mod combine;
mod members;
mod pop;
mod range;
mod remove;
mod sample;
mod scores;

pub(super) use add::{Rules, add, given};
pub(super) use members::{built, is_skip_list};

use self::bounds::{Order, Unit};
use super::dispatch::Family;
use super::first_key::{element, elements, header};
use super::scan;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Family] = &[
    Family::new("ZADD", add::needs, add::zadd),
    Family::new("ZINCRBY", add::needs_of_increment, add::zincrby),
    Family::new("ZREM", elements, remove::zrem),
    Family::new("ZREMRANGEBYRANK", range::needs_by_rank, remove::by_rank),
    Family::new("ZREMRANGEBYSCORE", |call, db| range::needs_of_removal(call, db, Unit::Score), remove::by_score),
    Family::new("ZREMRANGEBYLEX", |call, db| range::needs_of_removal(call, db, Unit::Lex), remove::by_lex),
    Family::new("ZCARD", header, scores::zcard),
    Family::new("ZCOUNT", |call, db| range::needs_of_count(call, db, Unit::Score), scores::zcount),
    Family::new("ZLEXCOUNT", |call, db| range::needs_of_count(call, db, Unit::Lex), scores::zlexcount),
    Family::new("ZSCORE", element, scores::zscore),
    Family::new("ZMSCORE", elements, scores::zmscore),
    Family::new("ZRANK", |call, db| scores::needs_of_rank(call, db, Order::Ascending), scores::zrank),
    Family::new("ZREVRANK", |call, db| scores::needs_of_rank(call, db, Order::Descending), scores::zrevrank),
    Family::new("ZRANGE", range::needs, range::zrange),
    Family::new("ZREVRANGE", range::needs_by_rank_reversed, range::zrevrange),
    Family::new("ZRANGEBYSCORE", range::needs_by_score, range::zrangebyscore),
    Family::new("ZREVRANGEBYSCORE", range::needs_by_score_reversed, range::zrevrangebyscore),
    Family::new("ZRANGEBYLEX", |call, db| range::needs_by_lex(call, db, Order::Ascending), range::zrangebylex),
    Family::new("ZREVRANGEBYLEX", |call, db| range::needs_by_lex(call, db, Order::Descending), range::zrevrangebylex),
    Family::new("ZRANGESTORE", range::needs_of_store, range::zrangestore),
    Family::new("ZPOPMIN", pop::needs_lowest, pop::zpopmin),
    Family::new("ZPOPMAX", pop::needs_highest, pop::zpopmax),
    Family::new("ZMPOP", pop::needs_of_several, pop::zmpop),
    Family::new("BZPOPMIN", pop::needs_lowest_of_each, pop::bzpopmin),
    Family::new("BZPOPMAX", pop::needs_highest_of_each, pop::bzpopmax),
    Family::new("BZMPOP", pop::needs_of_several, pop::bzmpop),
    Family::new("ZUNION", combine::needs, combine::zunion),
    Family::new("ZINTER", combine::needs, combine::zinter),
    Family::new("ZDIFF", combine::needs, combine::zdiff),
    Family::new("ZINTERCARD", combine::needs, combine::zintercard),
    Family::new("ZUNIONSTORE", combine::needs_of_store, combine::zunionstore),
    Family::new("ZINTERSTORE", combine::needs_of_store, combine::zinterstore),
    Family::new("ZDIFFSTORE", combine::needs_of_store, combine::zdiffstore),
    Family::new("ZRANDMEMBER", sample::needs, sample::zrandmember),
    Family::new("ZSCAN", scan::needs, sample::zscan),
];

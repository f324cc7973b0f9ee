//! `ZRANGE` in all its forms.

use bytes::Bytes;

use super::bounds::{Order, Span, Unit};
use super::members::{Shown, put};
use crate::command::{Call, args};
use crate::engine::dispatch::Run;
use crate::engine::{Need, Needs, Refusal};
use crate::model::{Collection, Db, Kind, NotLoaded, Ranked, Reply, Value};

/// What a command's name says of its range; options may say the rest.
#[derive(Clone, Copy)]
struct Form {
    /// Index of the key that is read.
    source: usize,
    unit: Option<Unit>,
    order: Option<Order>,
}

impl Form {
    const ANY: Self = Self {
        source: 1,
        unit: None,
        order: None,
    };

    const fn fixed(unit: Unit, order: Order) -> Self {
        Self {
            source: 1,
            unit: Some(unit),
            order: Some(order),
        }
    }

    fn is_stored(self) -> bool {
        self.source != 1
    }
}

/// What a call asks for.
struct Query {
    range: Asked,
    order: Order,
    /// So many are left out first; a negative number leaves all out.
    offset: i64,
    /// So many at most, if it is not negative.
    limit: i64,
    shown: Shown,
}

enum Asked {
    Ranks { start: i64, end: i64 },
    Span(Span),
}

/// The words behind the range.
struct Options {
    unit: Unit,
    order: Order,
    offset: i64,
    limit: i64,
    shown: Shown,
}

impl Options {
    fn read(run: &Run<'_>, form: Form) -> Result<Self, Refusal> {
        let (mut unit, mut order) = (form.unit, form.order);
        let (mut offset, mut limit, mut shown) = (0, -1, Shown::Members);
        let mut index = form.source + 3;
        while index < run.len() {
            if !form.is_stored() && run.is(index, "WITHSCORES") {
                shown = Shown::WithScores;
            } else if run.is(index, "LIMIT") && index + 2 < run.len() {
                offset = run.integer(index + 1)?;
                limit = run.integer(index + 2)?;
                index += 2;
            } else if order.is_none() && run.is(index, "REV") {
                order = Some(Order::Descending);
            } else if unit.is_none() && run.is(index, "BYLEX") {
                unit = Some(Unit::Lex);
            } else if unit.is_none() && run.is(index, "BYSCORE") {
                unit = Some(Unit::Score);
            } else {
                return Err(Refusal::Syntax);
            }
            index += 1;
        }
        Ok(Self {
            unit: unit.unwrap_or(Unit::Rank),
            order: order.unwrap_or(Order::Ascending),
            offset,
            limit,
            shown,
        })
    }
}

impl Query {
    fn read(run: &Run<'_>, form: Form) -> Result<Self, Refusal> {
        let options = Options::read(run, form)?;
        if options.limit != -1 && options.unit == Unit::Rank {
            return Err(Refusal::Other(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if options.shown == Shown::WithScores && options.unit == Unit::Lex {
            return Err(Refusal::Other(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (one, two) = (form.source + 1, form.source + 2);
        // The highest first, if the order is from high to low.
        let (min, max) = match (options.unit, options.order) {
            (Unit::Rank, _) | (_, Order::Ascending) => (one, two),
            (_, Order::Descending) => (two, one),
        };
        let range = match options.unit {
            Unit::Rank => Asked::Ranks {
                start: run.integer(min)?,
                end: run.integer(max)?,
            },
            Unit::Score => Asked::Span(Span::of_scores(run.arg(min), run.arg(max))?),
            Unit::Lex => Asked::Span(Span::of_members(&run.arg_bytes(min), &run.arg_bytes(max))?),
        };
        Ok(Self {
            range,
            order: options.order,
            offset: options.offset,
            limit: options.limit,
            shown: options.shown,
        })
    }

    fn members<'a>(&self, zset: &'a Collection) -> Result<Vec<&'a Ranked>, NotLoaded> {
        let span = match &self.range {
            Asked::Ranks { start, end } => return ranks(zset, *start, *end, self.order),
            Asked::Span(span) => span,
        };
        let skipped = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut found = span.members(zset, self.order, skipped, limit)?;
        if self.order == Order::Descending {
            found.reverse();
        }
        Ok(found)
    }
}

impl Query {
    /// What must be loaded of `zset` besides, of which not enough is known.
    fn need_besides(&self, zset: &Collection) -> Need {
        match &self.range {
            Asked::Ranks { start, end } => {
                let (start, end) = match self.order {
                    Order::Ascending => (*start, *end),
                    Order::Descending => (
                        end.saturating_add(1).saturating_neg(),
                        start.saturating_add(1).saturating_neg(),
                    ),
                };
                need_of_known(zset.len(), start, end)
            }
            Asked::Span(span) => {
                let number = |number| u64::try_from(number).unwrap_or(u64::MAX);
                let count = number(self.offset).saturating_add(number(self.limit));
                span.need_besides(zset, self.order, count)
            }
        }
    }
}

/// The members of these ranks, negative ones counted from the end, in this order.
pub(super) fn ranks(
    zset: &Collection,
    start: i64,
    end: i64,
    order: Order,
) -> Result<Vec<&Ranked>, NotLoaded> {
    let len = i64::try_from(zset.len()).unwrap_or(i64::MAX);
    let from_start = |rank: i64| {
        if rank < 0 {
            len.saturating_add(rank)
        } else {
            rank
        }
    };
    let (start, end) = (from_start(start).max(0), from_start(end).min(len - 1));
    if start > end {
        return Ok(Vec::new());
    }
    // From the nearer end, which may be all that is known.
    let (skipped, rest) = (start.unsigned_abs(), (len - 1 - end).unsigned_abs());
    let count = (end - start + 1).unsigned_abs();
    let far = |skipped: u64| skipped.saturating_add(count);
    let cut = |members: Vec<_>, skipped: u64| members.into_iter().skip(skipped as usize).collect();
    let backwards = |members: Vec<_>| members.into_iter().rev().collect();
    match order {
        Order::Ascending => match zset.bottom(far(skipped)) {
            Ok(members) => Ok(cut(members, skipped)),
            Err(NotLoaded) => Ok(backwards(cut(zset.top(far(rest))?, rest))),
        },
        Order::Descending => match zset.top(far(skipped)) {
            Ok(members) => Ok(cut(members, skipped)),
            Err(NotLoaded) => Ok(backwards(cut(zset.bottom(far(rest))?, rest))),
        },
    }
}

/// How many members are loaded where only the size of the set tells how many are needed: a
/// leaderboard that is cut after every addition.
const CUT_USUALLY: u64 = 16;

/// What a range of ranks needs, whose `start` is argument `first` and whose `end` is the next: one
/// end of the set, if both are counted from it.
fn need_of_ranks(call: &Call, order: Order, first: usize) -> Need {
    let rank = |index| args::integer(call.request.arg(index));
    let (Some(start), Some(end)) = (rank(first), rank(first + 1)) else {
        return Need::header();
    };
    let (is_from_bottom, count) = match (start, end) {
        (0.., 0..) => (
            order == Order::Ascending,
            end.unsigned_abs().saturating_add(1),
        ),
        (..0, ..0) => (order == Order::Descending, start.unsigned_abs()),
        (0, -1) => return Need::value(),
        (0.., ..0) if end < -1 => (order == Order::Ascending, CUT_USUALLY),
        (0.., ..0) => (order == Order::Descending, CUT_USUALLY),
        (..0, 0..) => return Need::header(),
    };
    if is_from_bottom {
        Need::lowest(count)
    } else {
        Need::highest(count)
    }
}

/// What the ranks from `start` to `end` need of a set of `size` members, by the shorter way.
pub(super) fn need_of_known(size: u64, start: i64, end: i64) -> Need {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let from_start = |rank: i64| {
        if rank < 0 {
            size.saturating_add(rank)
        } else {
            rank
        }
    };
    let (start, end) = (from_start(start).max(0), from_start(end).min(size - 1));
    let (from_bottom, from_top) = (end.saturating_add(1), size.saturating_sub(start));
    if from_bottom <= from_top {
        Need::lowest(from_bottom.max(0).unsigned_abs())
    } else {
        Need::highest(from_top.max(0).unsigned_abs())
    }
}

/// `ZRANGEBYSCORE` and `ZREVRANGEBYSCORE`.
pub(super) fn needs_by_score(call: &Call, db: Db) -> Needs {
    of_first_key(
        call,
        db,
        need_of_span(call, Unit::Score, Order::Ascending, 2),
    )
}

pub(super) fn needs_by_score_reversed(call: &Call, db: Db) -> Needs {
    of_first_key(
        call,
        db,
        need_of_span(call, Unit::Score, Order::Descending, 2),
    )
}

/// `ZRANGEBYLEX` and `ZREVRANGEBYLEX`.
pub(super) fn needs_by_lex(call: &Call, db: Db, order: Order) -> Needs {
    of_first_key(call, db, need_of_span(call, Unit::Lex, order, 2))
}

/// What is between arguments 2 and 3, to be removed.
pub(super) fn needs_of_removal(call: &Call, db: Db, unit: Unit) -> Needs {
    let need = span_of(call, unit, (2, 3)).map(|span| span.need(Order::Ascending, u64::MAX));
    of_first_key(call, db, need.unwrap_or_default())
}

/// How many are between arguments 2 and 3.
pub(super) fn needs_of_count(call: &Call, db: Db, unit: Unit) -> Needs {
    let need = span_of(call, unit, (2, 3)).map(|span| span.need_of_count());
    of_first_key(call, db, need.unwrap_or_default())
}

/// What is between these arguments, the lower end first; `None` if that is refused.
fn span_of(call: &Call, unit: Unit, (min, max): (usize, usize)) -> Option<Span> {
    let arg = |index| call.request.arg_bytes(index);
    match unit {
        Unit::Lex => Span::of_members(&arg(min), &arg(max)).ok(),
        Unit::Score => Span::of_scores(&arg(min), &arg(max)).ok(),
        Unit::Rank => None,
    }
}

/// What a range of scores or members from argument `first` on needs, in which `LIMIT` may bound
/// how many.
fn need_of_span(call: &Call, unit: Unit, order: Order, first: usize) -> Need {
    let arg = |index| call.request.arg(index);
    let ends = match order {
        Order::Ascending => (first, first + 1),
        Order::Descending => (first + 1, first),
    };
    let Some(span) = span_of(call, unit, ends) else {
        return Need::header();
    };
    let mut count = u64::MAX;
    for index in first + 2..call.request.len().saturating_sub(2) {
        if args::is_word(arg(index), "LIMIT") {
            let number = |index| args::integer(arg(index)).and_then(|n| u64::try_from(n).ok());
            count = match (number(index + 1), number(index + 2)) {
                (Some(offset), Some(limit)) => offset.saturating_add(limit),
                _ => u64::MAX,
            };
        }
    }
    span.need(order, count)
}

fn of_first_key(call: &Call, db: Db, need: Need) -> Needs {
    let keys = call.keys(db).take(1);
    keys.map(|key| (key, need.clone())).collect()
}

pub(super) fn needs_by_rank(call: &Call, db: Db) -> Needs {
    of_first_key(call, db, need_of_ranks(call, Order::Ascending, 2))
}

pub(super) fn needs_by_rank_reversed(call: &Call, db: Db) -> Needs {
    of_first_key(call, db, need_of_ranks(call, Order::Descending, 2))
}

/// `ZRANGE`: what its options make of it.
pub(super) fn needs(call: &Call, db: Db) -> Needs {
    of_first_key(call, db, need_of_options(call, 2))
}

/// What the options behind the range at argument `first` make of it.
fn need_of_options(call: &Call, first: usize) -> Need {
    let options = first + 2..call.request.len();
    let has = |word| {
        let mut options = options.clone();
        options.any(|at| args::is_word(call.request.arg(at), word))
    };
    let order = match has("REV") {
        true => Order::Descending,
        false => Order::Ascending,
    };
    if has("BYLEX") {
        need_of_span(call, Unit::Lex, order, first)
    } else if has("BYSCORE") {
        need_of_span(call, Unit::Score, order, first)
    } else {
        need_of_ranks(call, order, first)
    }
}

/// The target's header, and of the source what its range says.
pub(super) fn needs_of_store(call: &Call, db: Db) -> Needs {
    let needs = [Need::header(), need_of_options(call, 3)];
    call.keys(db).zip(needs).collect()
}

/// The members that a query asks for of the key at argument `source`.
fn queried<T>(
    run: &mut Run<'_>,
    query: &Query,
    source: usize,
    told: impl FnOnce(Vec<&Ranked>) -> T,
) -> Result<T, Refusal> {
    let Some(zset) = run.collection(&run.key(source), Kind::SortedSet)? else {
        return Ok(told(Vec::new()));
    };
    match query.members(zset) {
        Ok(members) => Ok(told(members)),
        Err(NotLoaded) => {
            let need = query.need_besides(zset);
            Err(run.want(source, need))
        }
    }
}

fn range(run: &mut Run<'_>, form: Form) -> Result<Reply, Refusal> {
    let query = Query::read(run, form)?;
    queried(run, &query, form.source, |members| {
        query.shown.reply(members)
    })
}

pub(super) fn zrange(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    range(run, Form::ANY)
}

pub(super) fn zrevrange(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    range(run, Form::fixed(Unit::Rank, Order::Descending))
}

pub(super) fn zrangebyscore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    range(run, Form::fixed(Unit::Score, Order::Ascending))
}

pub(super) fn zrevrangebyscore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    range(run, Form::fixed(Unit::Score, Order::Descending))
}

pub(super) fn zrangebylex(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    range(run, Form::fixed(Unit::Lex, Order::Ascending))
}

pub(super) fn zrevrangebylex(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    range(run, Form::fixed(Unit::Lex, Order::Descending))
}

pub(super) fn zrangestore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let form = Form {
        source: 2,
        ..Form::ANY
    };
    let query = Query::read(run, form)?;
    let members: Vec<(Bytes, f64)> = queried(run, &query, form.source, |members| {
        let members = members.into_iter();
        members.map(|m| (m.field.clone(), m.rank)).collect()
    })?;
    let mut stored = Collection::new(Kind::SortedSet);
    // One by one: the encoding changes on the way, as in Redis.
    for (member, score) in members {
        put(&mut stored, member, score)?;
    }
    store(run, stored)
}

/// Puts `stored` under the first argument's key, whatever was there; an empty
/// one deletes it. The reply is its size.
pub(super) fn store(run: &mut Run<'_>, stored: Collection) -> Result<Reply, Refusal> {
    let target = run.key(1);
    let count = stored.len();
    if count > 0 {
        let value = Value::Collection(Box::new(stored));
        run.workspace.put(target, value, None, run.now);
    } else if run.live(&target)?.is_some() {
        run.workspace.delete(target);
    }
    Ok(Reply::Integer(count as i64))
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::Session;

    #[test]
    fn ranges_by_rank_score_and_member() {
        let mut s = Session::default();
        s.text("ZADD z 1 a 2 b 3 c 4 d");
        s.text("ZADD l 0 a 0 b 0 c");
        for (line, reply) in [
            ("ZRANGE z 1 2", "[\"b\" \"c\"]"),
            ("ZRANGE z -2 -1", "[\"c\" \"d\"]"),
            ("ZRANGE z 1 -2", "[\"b\" \"c\"]"),
            ("ZRANGE z 0 1 REV", "[\"d\" \"c\"]"),
            ("ZREVRANGE z -2 -1", "[\"b\" \"a\"]"),
            ("ZRANGE z -100 0", "[\"a\"]"),
            ("ZRANGE z 4 9", "[]"),
            ("ZRANGE z (1 3 BYSCORE", "[\"b\" \"c\"]"),
            ("ZRANGE z 3 (1 BYSCORE REV LIMIT 1 5", "[\"b\"]"),
            (
                "ZRANGEBYSCORE z -inf +inf LIMIT 1 -1",
                "[\"b\" \"c\" \"d\"]",
            ),
            ("ZRANGEBYSCORE z -inf +inf LIMIT -1 2", "[]"),
            ("ZRANGEBYLEX l [b +", "[\"b\" \"c\"]"),
            ("ZREVRANGEBYLEX l (c -", "[\"b\" \"a\"]"),
            ("ZRANGESTORE t z 1 2", ":2"),
            ("ZRANGE t 0 -1", "[\"b\" \"c\"]"),
            ("ZRANGESTORE t z 5 6", ":0"),
            ("EXISTS t", ":0"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}

//! What is said of members: their scores, ranks and number.

use super::bounds::{Order, Span};
use crate::command::Call;
use crate::engine::dispatch::Run;
use crate::engine::{Need, Needs, Refusal};
use crate::model::{Collection, Db, Key, Kind, NotLoaded, RankRange, Ranked, Reply, Side};

pub(super) fn zcard(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let length = run.length(&run.key(1), Kind::SortedSet)?;
    Ok(Reply::Integer(length as i64))
}

pub(super) fn zcount(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let span = Span::of_scores(run.arg(2), run.arg(3))?;
    count(run, &span)
}

pub(super) fn zlexcount(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let span = Span::of_members(&run.arg_bytes(2), &run.arg_bytes(3))?;
    count(run, &span)
}

fn count(run: &mut Run<'_>, span: &Span) -> Result<Reply, Refusal> {
    let Some(zset) = run.collection(&run.key(1), Kind::SortedSet)? else {
        return Ok(Reply::Integer(0));
    };
    match span.count(zset) {
        Ok(count) => Ok(Reply::Integer(count as i64)),
        Err(NotLoaded) => {
            let need = span.need_of_count_besides(zset);
            Err(run.want(1, need))
        }
    }
}

pub(super) fn zscore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let zset = run.collection(&run.key(1), Kind::SortedSet)?;
    score(zset, run.arg(2))
}

pub(super) fn zmscore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let zset = run.collection(&run.key(1), Kind::SortedSet)?;
    let scores = (2..run.len()).map(|index| score(zset, run.arg(index)));
    scores.collect::<Result<_, _>>().map(Reply::Array)
}

fn score(zset: Option<&Collection>, member: &[u8]) -> Result<Reply, Refusal> {
    let Some(zset) = zset else {
        return Ok(Reply::Null);
    };
    let found = zset.get(member)?;
    Ok(found.map_or(Reply::Null, |element| Reply::Double(element.rank)))
}

pub(super) fn zrank(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    rank(run, Order::Ascending)
}

pub(super) fn zrevrank(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    rank(run, Order::Descending)
}

/// What a call that asks for a member's rank needs.
pub(super) fn needs_of_rank(call: &Call, db: Db, order: Order) -> Needs {
    let key = Key::new(db, call.request.arg_bytes(1));
    let need = Need::rank(call.request.arg_bytes(2), side_before(order));
    Needs::from_iter([(key, need)])
}

/// On which side of a member those stand that come before it in this order.
fn side_before(order: Order) -> Side {
    match order {
        Order::Ascending => Side::Lowest,
        Order::Descending => Side::Highest,
    }
}

fn rank(run: &mut Run<'_>, order: Order) -> Result<Reply, Refusal> {
    let Some(zset) = run.collection(&run.key(1), Kind::SortedSet)? else {
        return Ok(Reply::Null);
    };
    let Some(element) = zset.get(run.arg(2))? else {
        return Ok(Reply::Null);
    };
    let place = Ranked {
        rank: element.rank,
        field: run.arg_bytes(2),
    };
    let range = RankRange::beside(&place, side_before(order));
    match zset.count_in(&range) {
        Ok(rank) => Ok(Reply::Integer(rank as i64)),
        // It has moved since it was loaded.
        Err(NotLoaded) => Err(run.want(1, Need::count(range))),
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::Session;

    #[test]
    fn scores_ranks_and_counts() {
        let mut s = Session::default();
        s.text("ZADD z 1 a 2 b 3 c");
        for (line, reply) in [
            ("ZCARD z", ":3"),
            ("ZCARD none", ":0"),
            ("ZCOUNT z (1 +inf", ":2"),
            ("ZLEXCOUNT z - +", ":3"),
            ("ZSCORE z b", "Double(2.0)"),
            ("ZSCORE z x", "nil"),
            ("ZMSCORE z a x", "[Double(1.0) nil]"),
            ("ZMSCORE none a x", "[nil nil]"),
            ("ZRANK z c", ":2"),
            ("ZREVRANK z c", ":0"),
            ("ZRANK z x", "nil"),
            ("ZCOUNT z x 1", "-ERR min or max is not a float"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}

//! `ZREM`, and the removal of ranges.

use bytes::Bytes;

use super::bounds::{Order, Span};
use super::range::{need_of_known, ranks};
use crate::engine::Refusal;
use crate::engine::dispatch::Run;
use crate::model::{Kind, NotLoaded, Ranked, Reply};

pub(super) fn zrem(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let Some(zset) = run.collection(&run.key(1), Kind::SortedSet)? else {
        return Ok(Reply::Integer(0));
    };
    let mut found = Vec::new();
    for index in 2..run.len() {
        if zset.get(run.arg(index))?.is_some() {
            found.push(run.arg_bytes(index));
        }
    }
    remove(run, found)
}

pub(super) fn by_rank(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (start, end) = (run.integer(2)?, run.integer(3)?);
    let Some(zset) = run.collection(&run.key(1), Kind::SortedSet)? else {
        return Ok(Reply::Integer(0));
    };
    match ranks(zset, start, end, Order::Ascending) {
        Ok(found) => {
            let found = fields(found);
            remove(run, found)
        }
        Err(NotLoaded) => {
            let need = need_of_known(zset.len(), start, end);
            Err(run.want(1, need))
        }
    }
}

pub(super) fn by_score(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let span = Span::of_scores(run.arg(2), run.arg(3))?;
    in_span(run, &span)
}

pub(super) fn by_lex(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let span = Span::of_members(&run.arg_bytes(2), &run.arg_bytes(3))?;
    in_span(run, &span)
}

fn in_span(run: &mut Run<'_>, span: &Span) -> Result<Reply, Refusal> {
    let Some(zset) = run.collection(&run.key(1), Kind::SortedSet)? else {
        return Ok(Reply::Integer(0));
    };
    match span.members(zset, Order::Ascending, 0, usize::MAX) {
        Ok(found) => {
            let found = fields(found);
            remove(run, found)
        }
        Err(NotLoaded) => {
            let need = span.need_besides(zset, Order::Ascending, u64::MAX);
            Err(run.want(1, need))
        }
    }
}

fn fields(found: Vec<&Ranked>) -> Vec<Bytes> {
    let fields = found.into_iter().map(|ranked| ranked.field.clone());
    fields.collect()
}

/// Removes these members, which are there (one may be named twice); replies how many.
fn remove(run: &mut Run<'_>, members: Vec<Bytes>) -> Result<Reply, Refusal> {
    if members.is_empty() {
        return Ok(Reply::Integer(0));
    }
    run.edit(1, Kind::SortedSet, |zset| {
        let mut removed = 0;
        for member in members {
            removed += i64::from(zset.remove(&member)?.is_some());
        }
        Ok(Reply::Integer(removed))
    })
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::Session;

    #[test]
    fn members_and_ranges_are_removed() {
        let mut s = Session::default();
        for (line, reply) in [
            ("ZADD z 1 a 2 b 3 c 4 d 5 e 6 f", ":6"),
            ("ZREM z x", ":0"),
            ("ZREM z a a x", ":1"),
            ("ZREMRANGEBYRANK z 0 0", ":1"),
            ("ZREMRANGEBYRANK z -1 -1", ":1"),
            ("ZRANGE z 0 -1", "[\"c\" \"d\" \"e\"]"),
            ("ZREMRANGEBYSCORE z (3 4", ":1"),
            ("ZREMRANGEBYLEX z - [c", ":1"),
            ("ZREMRANGEBYRANK z 0 -1", ":1"),
            ("EXISTS z", ":0"),
            ("ZREMRANGEBYSCORE z x 1", "-ERR min or max is not a float"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}

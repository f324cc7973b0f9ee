//! `ZRANDMEMBER` and `ZSCAN`.

use std::cell::Cell;

use bytes::Bytes;

use super::members::{Shown, is_skip_list};
use crate::command::{Call, args};
use crate::engine::dispatch::Run;
use crate::engine::draw::Draw;
use crate::engine::{Needs, Refusal, first_key, scan};
use crate::model::{Collection, Db, Element, Kind, Ranked, Reply, format_double};

pub(super) fn needs(call: &Call, db: Db) -> Needs {
    first_key::random(call, db, Draw::needed(call))
}

pub(super) fn zrandmember(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    if run.len() == 2 {
        let Some(zset) = run.collection(&run.key(1), Kind::SortedSet)? else {
            return Ok(Reply::Null);
        };
        let drawn = Draw::Distinct(1).from(zset)?;
        let first = drawn.first();
        return Ok(first.map_or(Reply::Null, |(member, _)| Reply::Bulk((*member).clone())));
    }
    let draw = Draw::of_count(run.arg(2))?;
    let shown = shown(run)?;
    let Some(zset) = run.collection(&run.key(1), Kind::SortedSet)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let drawn = draw.from(zset)?.into_iter();
    let drawn: Vec<Ranked> = drawn.map(ranked).collect();
    Ok(shown.reply(&drawn))
}

fn ranked((field, element): (&Bytes, &Element)) -> Ranked {
    Ranked {
        rank: element.rank,
        field: field.clone(),
    }
}

/// What stands behind the count.
fn shown(run: &Run<'_>) -> Result<Shown, Refusal> {
    match run.len() {
        3 => Ok(Shown::Members),
        4 if run.is(3, "WITHSCORES") => {
            // Twice as many items must be countable.
            let is_countable = |count: i64| (-i64::MAX / 2..=i64::MAX / 2).contains(&count);
            if args::integer(run.arg(2)).is_some_and(is_countable) {
                Ok(Shown::WithScores)
            } else {
                Err(Refusal::Other("ERR value is out of range"))
            }
        }
        _ => Err(Refusal::Syntax),
    }
}

/// By rank. A listpack tells whole numbers as integers.
pub(super) fn zscan(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let has_integers = Cell::new(false);
    let shown = |member: &Bytes, element: &Element, items: &mut Vec<Reply>| {
        let score = if has_integers.get() {
            listpack_text(element.rank)
        } else {
            format_double(element.rank)
        };
        items.extend([Reply::Bulk(member.clone()), Reply::bulk(score)]);
    };
    scan::scan(
        run,
        Kind::SortedSet,
        |zset| {
            has_integers.set(!is_skip_list(zset));
            by_rank(zset)
        },
        shown,
    )
}

fn by_rank(zset: &Collection) -> Result<Vec<(&Bytes, &Element)>, Refusal> {
    let mut all = Vec::new();
    for ranked in zset.by_rank()? {
        let element = zset.get(&ranked.field)?;
        all.extend(element.map(|element| (&ranked.field, element)));
    }
    Ok(all)
}

fn listpack_text(score: f64) -> String {
    // Beyond, Redis does not try (`double2ll`).
    const INTEGERS: f64 = (i64::MAX / 2) as f64;
    if (-INTEGERS..=INTEGERS).contains(&score) && score.fract() == 0.0 {
        (score as i64).to_string()
    } else {
        format_double(score)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::Session;

    #[test]
    fn members_are_drawn_and_scanned() {
        let mut s = Session::default();
        s.text("ZADD z 1.5 a 123456789012345678 b");
        for (line, reply) in [
            (
                "ZSCAN z 0",
                "[\"0\" [\"a\" \"1.5\" \"b\" \"123456789012345680\"]]",
            ),
            ("ZSCAN z 0 MATCH a*", "[\"0\" [\"a\" \"1.5\"]]"),
            ("ZSCAN z x", "-ERR invalid cursor"),
            ("ZSCAN z 0 COUNT 0", "-ERR syntax error"),
            ("ZRANDMEMBER none", "nil"),
            ("ZRANDMEMBER none 3", "[]"),
            ("ZRANDMEMBER z 0", "[]"),
            ("ZRANDMEMBER z 1 x", "-ERR syntax error"),
            (
                "ZRANDMEMBER z 9223372036854775807 WITHSCORES",
                "-ERR value is out of range",
            ),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
        assert!(["\"a\"", "\"b\""].contains(&&s.text("ZRANDMEMBER z")[..]));
        let reply = s.text("ZRANDMEMBER z 5");
        assert!(["[\"a\" \"b\"]", "[\"b\" \"a\"]"].contains(&&reply[..]));
    }
}

//! `ZPOPMIN`, `ZMPOP` and the like. The blocking forms try once here; who waits,
//! and how long, is not the engine's affair.

use super::bounds::Order;
use super::members::{self, Shown};
use crate::command::{Call, args};
use crate::engine::dispatch::Run;
use crate::engine::timeout::Timeout;
use crate::engine::{Need, Needs, Refusal};
use crate::model::{Db, Key, Kind, Ranked, Reply};

/// Which end members are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

impl End {
    fn need(self, count: u64) -> Need {
        match self {
            Self::Min => Need::lowest(count),
            Self::Max => Need::highest(count),
        }
    }

    fn order(self) -> Order {
        match self {
            Self::Min => Order::Ascending,
            Self::Max => Order::Descending,
        }
    }
}

fn needs_of_each(call: &Call, db: Db, need: &Need) -> Needs {
    call.keys(db).map(|key| (key, need.clone())).collect()
}

fn needs_of_count(call: &Call, db: Db, end: End) -> Needs {
    let count = match call.request.len() {
        2 => Some(1),
        _ => args::integer(call.request.arg(2)).and_then(|count| u64::try_from(count).ok()),
    };
    needs_of_each(call, db, &end.need(count.unwrap_or_default()))
}

pub(super) fn needs_lowest(call: &Call, db: Db) -> Needs {
    needs_of_count(call, db, End::Min)
}

pub(super) fn needs_highest(call: &Call, db: Db) -> Needs {
    needs_of_count(call, db, End::Max)
}

pub(super) fn needs_lowest_of_each(call: &Call, db: Db) -> Needs {
    needs_of_each(call, db, &End::Min.need(1))
}

pub(super) fn needs_highest_of_each(call: &Call, db: Db) -> Needs {
    needs_of_each(call, db, &End::Max.need(1))
}

/// `ZMPOP` and `BZMPOP`.
pub(super) fn needs_of_several(call: &Call, db: Db) -> Needs {
    let first = if call.command.name == "ZMPOP" { 1 } else { 2 };
    match Several::read(call, first) {
        Ok(several) => needs_of_each(call, db, &several.end.need(several.count)),
        Err(_) => Needs::new(),
    }
}

/// Takes up to `count` members out of the set at `key`, which is there.
fn take(run: &mut Run<'_>, key: &Key, end: End, count: u64) -> Result<Vec<Ranked>, Refusal> {
    let Some(zset) = run.collection(key, Kind::SortedSet)? else {
        return Ok(Vec::new());
    };
    let found = match end.order() {
        Order::Ascending => zset.bottom(count)?,
        Order::Descending => zset.top(count)?,
    };
    let taken: Vec<Ranked> = found.into_iter().cloned().collect();
    if taken.is_empty() {
        return Ok(taken);
    }
    run.workspace.edit(key, Kind::SortedSet, run.now, |zset| {
        for ranked in &taken {
            zset.remove(&ranked.field)?;
        }
        Ok(())
    })?;
    Ok(taken)
}

fn zpop(run: &mut Run<'_>, end: End) -> Result<Reply, Refusal> {
    let count = match run.len() {
        2 => None,
        3 => {
            let count = args::integer(run.arg(2)).and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or(Refusal::Other(
                "ERR value is out of range, must be positive",
            ))?)
        }
        _ => return Err(Refusal::Syntax),
    };
    let taken = take(run, &run.key(1), end, count.unwrap_or(1))?;
    if count.is_some() {
        return Ok(Shown::WithScores.reply(&taken));
    }
    // A single one without count is not nested in RESP3 either.
    let flat = taken
        .iter()
        .flat_map(|ranked| [members::member(ranked), members::score(ranked)]);
    Ok(Reply::Array(flat.collect()))
}

pub(super) fn zpopmin(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    zpop(run, End::Min)
}

pub(super) fn zpopmax(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    zpop(run, End::Max)
}

/// The first of the keys that is there; an earlier one of another type is refused.
fn first_there(run: &Run<'_>, keys: impl Iterator<Item = Key>) -> Result<Option<Key>, Refusal> {
    for key in keys {
        if run.collection(&key, Kind::SortedSet)?.is_some() {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// The arguments of `ZMPOP`, and of `BZMPOP` behind its timeout.
struct Several {
    end: End,
    count: u64,
}

impl Several {
    /// `first` is the index of the number of keys.
    fn read(call: &Call, first: usize) -> Result<Self, Refusal> {
        let request = &call.request;
        let number = |index: usize, text| {
            let number = args::integer(request.arg(index)).filter(|number| *number > 0);
            number.map(i64::unsigned_abs).ok_or(Refusal::Other(text))
        };
        let keys = number(first, "ERR numkeys should be greater than 0")?;
        let place = (first as u64 + 1).saturating_add(keys);
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if place >= request.len() {
            return Err(Refusal::Syntax);
        }
        let end = match request.arg(place) {
            word if args::is_word(word, "MIN") => End::Min,
            word if args::is_word(word, "MAX") => End::Max,
            _ => return Err(Refusal::Syntax),
        };
        let count = match request.len() - place {
            1 => return Ok(Self { end, count: 1 }),
            2 => return Err(Refusal::Syntax),
            _ if !args::is_word(request.arg(place + 1), "COUNT") => return Err(Refusal::Syntax),
            _ => number(place + 2, "ERR count should be greater than 0")?,
        };
        if request.len() > place + 3 {
            return Err(Refusal::Syntax);
        }
        Ok(Self { end, count })
    }
}

fn take_of_several(run: &mut Run<'_>, several: &Several) -> Result<Reply, Refusal> {
    let keys = run.call.keys(run.db);
    let Some(key) = first_there(run, keys)? else {
        return Ok(Reply::NullArray);
    };
    let taken = take(run, &key, several.end, several.count)?;
    let pair = |ranked| Reply::Array(vec![members::member(ranked), members::score(ranked)]);
    let taken = Reply::Array(taken.iter().map(pair).collect());
    Ok(Reply::Array(vec![Reply::Bulk(key.name), taken]))
}

pub(super) fn zmpop(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let several = Several::read(run.call, 1)?;
    take_of_several(run, &several)
}

pub(super) fn bzmpop(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let several = Several::read(run.call, 2)?;
    Timeout::parse(run.arg(1))?;
    take_of_several(run, &several)
}

fn bzpop(run: &mut Run<'_>, end: End) -> Result<Reply, Refusal> {
    Timeout::parse(run.arg(run.len() - 1))?;
    let keys = run.call.keys(run.db);
    let Some(key) = first_there(run, keys)? else {
        return Ok(Reply::NullArray);
    };
    let taken = take(run, &key, end, 1)?;
    let member = taken
        .iter()
        .flat_map(|ranked| [members::member(ranked), members::score(ranked)]);
    let key = Reply::Bulk(key.name);
    Ok(Reply::Array([key].into_iter().chain(member).collect()))
}

pub(super) fn bzpopmin(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    bzpop(run, End::Min)
}

pub(super) fn bzpopmax(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    bzpop(run, End::Max)
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::Session;

    #[test]
    fn members_are_taken_from_the_ends() {
        let mut s = Session::default();
        s.text("ZADD z 1 a 2 b 3 c 4 d 5 e 6 f 7 g");
        for (line, reply) in [
            ("ZPOPMIN z", "[\"a\" Double(1.0)]"),
            ("ZPOPMAX z", "[\"g\" Double(7.0)]"),
            ("ZPOPMIN z 0", "Pairs([])"),
            ("ZPOPMIN none", "[]"),
            (
                "ZMPOP 2 none z MAX COUNT 2",
                "[\"z\" [[\"f\" Double(6.0)] [\"e\" Double(5.0)]]]",
            ),
            ("ZMPOP 1 none MIN", "NullArray"),
            ("BZPOPMIN none z 0", "[\"z\" \"b\" Double(2.0)]"),
            ("BZPOPMAX none 0", "NullArray"),
            ("BZMPOP 0 1 z MIN", "[\"z\" [[\"c\" Double(3.0)]]]"),
            ("ZPOPMIN z 5", "Pairs([(Bulk(b\"d\"), Double(4.0))])"),
            ("EXISTS z", ":0"),
            (
                "ZPOPMIN z -1",
                "-ERR value is out of range, must be positive",
            ),
            ("ZMPOP 0 z MIN", "-ERR numkeys should be greater than 0"),
            ("ZMPOP 1 z MIN COUNT 1 COUNT 1", "-ERR syntax error"),
            ("BZPOPMIN z -1", "-ERR timeout is negative"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}

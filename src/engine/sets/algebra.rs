//! Unions, intersections and differences of sets.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::is_of_integers;
use crate::command::{Call, args};
use crate::engine::dispatch::{Family, Run};
use crate::engine::{Need, Needs, Refusal};
use crate::model::{Collection, Db, Element, Key, Kind, Reply, Value};

pub(in crate::engine) const COMMANDS: &[Family] = &[
    Family::new("SUNION", every_set, |run| answer(run, union)),
    Family::new("SINTER", every_set, |run| answer(run, intersection)),
    Family::new("SDIFF", every_set, |run| answer(run, difference)),
    Family::new("SUNIONSTORE", target_and_sets, |run| store(run, union)),
    Family::new("SINTERSTORE", target_and_sets, |run| {
        store(run, intersection)
    }),
    Family::new("SDIFFSTORE", target_and_sets, |run| store(run, difference)),
    Family::new("SINTERCARD", every_set, sintercard),
];

fn every_set(call: &Call, db: Db) -> Needs {
    call.keys(db).map(|key| (key, Need::value())).collect()
}

/// Of the target only whether it is there.
fn target_and_sets(call: &Call, db: Db) -> Needs {
    let target = Key::new(db, call.request.arg_bytes(1));
    let sources = call.keys(db).skip(1).map(|key| (key, Need::value()));
    [(target, Need::header())]
        .into_iter()
        .chain(sources)
        .collect()
}

/// What to do with sets, those that are not there among them; the members in order.
type Operation = fn(&[Option<&Collection>]) -> Result<Vec<Bytes>, Refusal>;

/// The sets that arguments name; all of them are sets or not there.
fn sets<'a>(
    run: &'a Run<'_>,
    indices: std::ops::Range<usize>,
) -> Result<Vec<Option<&'a Collection>>, Refusal> {
    indices
        .map(|index| run.collection(&run.key(index), Kind::Set))
        .collect()
}

fn union(sets: &[Option<&Collection>]) -> Result<Vec<Bytes>, Refusal> {
    let mut members = BTreeSet::new();
    for set in sets.iter().flatten() {
        members.extend(set.iter()?.map(|(member, _)| member.clone()));
    }
    Ok(members.into_iter().collect())
}

fn intersection(sets: &[Option<&Collection>]) -> Result<Vec<Bytes>, Refusal> {
    intersection_up_to(sets, usize::MAX)
}

/// The first `limit` members that all have, looked for in the smallest set.
fn intersection_up_to(sets: &[Option<&Collection>], limit: usize) -> Result<Vec<Bytes>, Refusal> {
    let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<_>>>() else {
        return Ok(Vec::new());
    };
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else {
        return Ok(Vec::new());
    };
    let mut members = Vec::new();
    for (member, _) in smallest.iter()? {
        if members.len() == limit {
            break;
        }
        if is_in_all(others, member)? {
            members.push(member.clone());
        }
    }
    Ok(members)
}

fn is_in_all(sets: &[&Collection], member: &[u8]) -> Result<bool, Refusal> {
    for set in sets {
        if set.get(member)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The members of the first set that no other has.
fn difference(sets: &[Option<&Collection>]) -> Result<Vec<Bytes>, Refusal> {
    let Some((Some(first), others)) = sets.split_first() else {
        return Ok(Vec::new());
    };
    let mut members = Vec::new();
    for (member, _) in first.iter()? {
        if !is_in_any(others, member)? {
            members.push(member.clone());
        }
    }
    Ok(members)
}

fn is_in_any(sets: &[Option<&Collection>], member: &[u8]) -> Result<bool, Refusal> {
    for set in sets.iter().flatten() {
        if set.get(member)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn answer(run: &mut Run<'_>, operation: Operation) -> Result<Reply, Refusal> {
    let mut members = operation(&sets(run, 1..run.len())?)?;
    if is_of_integers(members.len(), members.iter()) {
        members.sort_by_cached_key(|member| args::integer(member));
    }
    Ok(Reply::Set(members.into_iter().map(Reply::Bulk).collect()))
}

/// Puts the result in the place of whatever the target holds; an empty one deletes it.
fn store(run: &mut Run<'_>, operation: Operation) -> Result<Reply, Refusal> {
    let target = run.key(1);
    let members = operation(&sets(run, 2..run.len())?)?;
    let is_there = run.live(&target)?.is_some();
    let count = members.len() as i64;
    if count > 0 {
        let mut set = Collection::new(Kind::Set);
        for member in members {
            set.set(member, Element::default())?;
        }
        let value = Value::Collection(Box::new(set));
        run.workspace.put(target, value, None, run.now);
    } else if is_there {
        run.workspace.delete(target);
    }
    Ok(Reply::Integer(count))
}

/// `SINTERCARD numkeys key [key ...] [LIMIT limit]`.
fn sintercard(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let count = args::integer(run.arg(1))
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| *count > 0)
        .ok_or(Refusal::Other("ERR numkeys should be greater than 0"))?;
    if count > run.len() - 2 {
        return Err(Refusal::Other(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    let keys_end = 2 + count;
    let mut limit = 0;
    for index in (keys_end..run.len()).step_by(2) {
        if !run.is(index, "LIMIT") || index + 1 == run.len() {
            return Err(Refusal::Syntax);
        }
        limit = args::integer(run.arg(index + 1))
            .and_then(|limit| usize::try_from(limit).ok())
            .ok_or(Refusal::Other("ERR LIMIT can't be negative"))?;
    }
    // 0 is no limit.
    let limit = if limit == 0 { usize::MAX } else { limit };
    let members = intersection_up_to(&sets(run, 2..keys_end)?, limit)?;
    Ok(Reply::Integer(members.len() as i64))
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::check;

    #[test]
    fn sets_are_combined() {
        check(&[
            ("SADD a 1 2 3", ":3"),
            ("SADD b 2 3 4", ":3"),
            ("SADD c 3", ":1"),
            ("SUNIONSTORE d a b c", ":4"),
            ("SINTERSTORE d a b d", ":2"),
            ("SMEMBERS d", "Set([Bulk(b\"2\"), Bulk(b\"3\")])"),
            ("SDIFF a b none", "Set([Bulk(b\"1\")])"),
            ("SDIFF none a", "Set([])"),
            ("SINTER a none", "Set([])"),
            ("SINTERCARD 2 a b", ":2"),
            ("SINTERCARD 2 a b LIMIT 1", ":1"),
            ("SINTERCARD 2 a b LIMIT 0", ":2"),
            ("SET s 1", "OK"),
            (
                "SINTER none s",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            ("SDIFFSTORE s a a", ":0"),
            ("EXISTS s", ":0"),
        ]);
    }

    #[test]
    fn intercard_checks_its_arguments() {
        check(&[
            ("SINTERCARD 0 a", "-ERR numkeys should be greater than 0"),
            (
                "SINTERCARD 2 a",
                "-ERR Number of keys can't be greater than number of args",
            ),
            ("SINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative"),
            ("SINTERCARD 1 a LIMIT", "-ERR syntax error"),
            ("SINTERCARD 1 a b", "-ERR syntax error"),
        ]);
    }
}

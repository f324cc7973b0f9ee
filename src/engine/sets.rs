//! Sets: members are fields, and there is nothing under them.

mod algebra;

use bytes::Bytes;

use super::dispatch::{Family, Run};
use super::draw::{self, Draw};
use super::first_key::{element, elements, header, random, whole};
use super::{Need, Needs, Refusal, scan};
use crate::command::{Call, args};
use crate::model::{Collection, Db, Element, Key, Kind, Reply};

pub(super) use algebra::COMMANDS as ALGEBRA;

pub(super) const COMMANDS: &[Family] = &[
    Family::new("SADD", elements, sadd),
    Family::new("SREM", elements, srem),
    Family::new("SISMEMBER", element, sismember),
    Family::new("SMISMEMBER", elements, smismember),
    Family::new("SCARD", header, scard),
    Family::new("SMEMBERS", whole, smembers),
    Family::new("SPOP", members_to_take, spop),
    Family::new("SRANDMEMBER", random_members, srandmember),
    Family::new("SMOVE", member_of_both, smove),
    Family::new("SSCAN", scan::needs, sscan),
];

/// Redis keeps up to so many members as integers in their order.
const INTEGERS_MAX: usize = 512;

fn random_members(call: &Call, db: Db) -> Needs {
    random(call, db, Draw::needed(call))
}

fn members_to_take(call: &Call, db: Db) -> Needs {
    let key = Key::new(db, call.request.arg_bytes(1));
    Needs::from_iter([(key, draw::need_to_take(call))])
}

fn member_of_both(call: &Call, db: Db) -> Needs {
    let need = Need::fields([call.request.arg_bytes(3)]);
    let key = |index| Key::new(db, call.request.arg_bytes(index));
    Needs::from_iter([(key(1), need.clone()), (key(2), need)])
}

/// The named members, each once, that the set at the first argument has or has not.
fn named(run: &Run<'_>, wanted: Wanted) -> Result<Vec<Bytes>, Refusal> {
    let set = run.collection(&run.key(1), Kind::Set)?;
    let mut found = Vec::new();
    for index in 2..run.len() {
        let is_member = match set {
            Some(set) => set.get(run.arg(index))?.is_some(),
            None => false,
        };
        if is_member == (wanted == Wanted::Members) {
            found.push(run.arg_bytes(index));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Members,
    Others,
}

fn sadd(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let new = named(run, Wanted::Others)?;
    let count = new.len() as i64;
    if count > 0 {
        run.edit(1, Kind::Set, |set| {
            for member in new {
                set.set(member, Element::default())?;
            }
            Ok(())
        })?;
    }
    Ok(Reply::Integer(count))
}

fn srem(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let there = named(run, Wanted::Members)?;
    let count = there.len() as i64;
    remove(run, &there)?;
    Ok(Reply::Integer(count))
}

/// Takes `members`, all of which are there, out of the set at the first argument.
fn remove(run: &mut Run<'_>, members: &[Bytes]) -> Result<(), Refusal> {
    if members.is_empty() {
        return Ok(());
    }
    run.edit(1, Kind::Set, |set| {
        for member in members {
            set.remove(member)?;
        }
        Ok(())
    })
}

/// Whether the set at argument `index` has `member`; `None` if there is no set.
fn has(run: &Run<'_>, index: usize, member: &[u8]) -> Result<Option<bool>, Refusal> {
    match run.collection(&run.key(index), Kind::Set)? {
        Some(set) => Ok(Some(set.get(member)?.is_some())),
        None => Ok(None),
    }
}

fn sismember(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let is_member = has(run, 1, run.arg(2))?.unwrap_or(false);
    Ok(Reply::Integer(i64::from(is_member)))
}

fn smismember(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let mut answers = Vec::with_capacity(run.len() - 2);
    for index in 2..run.len() {
        let is_member = has(run, 1, run.arg(index))?.unwrap_or(false);
        answers.push(Reply::Integer(i64::from(is_member)));
    }
    Ok(Reply::Array(answers))
}

fn scard(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let length = run.length(&run.key(1), Kind::Set)?;
    Ok(Reply::Integer(length as i64))
}

/// All members: integers by their value if Redis would keep them so, else in the order of their bytes.
pub(super) fn in_order(set: &Collection) -> Result<Vec<(&Bytes, &Element)>, Refusal> {
    let mut all: Vec<_> = set.iter()?.collect();
    if is_of_integers(all.len(), all.iter().map(|(member, _)| *member)) {
        all.sort_by_cached_key(|(member, _)| args::integer(member));
    }
    Ok(all)
}

/// Whether Redis would keep a set of these `count` members as integers in their order.
pub(super) fn is_of_integers<'a>(
    count: usize,
    mut members: impl Iterator<Item = &'a Bytes>,
) -> bool {
    count <= INTEGERS_MAX && members.all(|member| args::integer(member).is_some())
}

fn smembers(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let all = match run.collection(&run.key(1), Kind::Set)? {
        Some(set) => in_order(set)?,
        None => Vec::new(),
    };
    Ok(Reply::Set(names(all)))
}

fn names(elements: Vec<(&Bytes, &Element)>) -> Vec<Reply> {
    let names = elements.into_iter();
    names
        .map(|(member, _)| Reply::Bulk(member.clone()))
        .collect()
}

fn sscan(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    scan::scan(run, Kind::Set, in_order, |member, _, items| {
        items.push(Reply::Bulk(member.clone()));
    })
}

/// `SPOP key [count]`.
fn spop(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    if run.len() > 3 {
        return Err(Refusal::Syntax);
    }
    let count = match run.len() {
        2 => None,
        _ => Some(
            u64::try_from(run.integer(2).unwrap_or(-1))
                .map_err(|_| Refusal::Other("ERR value is out of range, must be positive"))?,
        ),
    };
    let drawn: Vec<Bytes> = match run.collection(&run.key(1), Kind::Set)? {
        Some(set) => draw::distinct(set, count.unwrap_or(1))?
            .into_iter()
            .map(|(member, _)| member.clone())
            .collect(),
        None => Vec::new(),
    };
    remove(run, &drawn)?;
    let mut popped = drawn.into_iter().map(Reply::Bulk);
    Ok(match count {
        Some(_) => Reply::Set(popped.collect()),
        None => popped.next().unwrap_or(Reply::Null),
    })
}

/// `SRANDMEMBER key [count]`.
fn srandmember(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    if run.len() > 3 {
        return Err(Refusal::Syntax);
    }
    let draw = match run.len() {
        2 => Draw::Distinct(1),
        _ => Draw::of_count(run.arg(2))?,
    };
    let drawn = match run.collection(&run.key(1), Kind::Set)? {
        Some(set) => names(draw.from(set)?),
        None => Vec::new(),
    };
    Ok(match run.len() {
        2 => drawn.into_iter().next().unwrap_or(Reply::Null),
        _ => Reply::Array(drawn),
    })
}

fn smove(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let member = run.arg_bytes(3);
    let Some(is_member) = has(run, 1, &member)? else {
        return Ok(Reply::Integer(0));
    };
    let is_in_target = has(run, 2, &member)?.unwrap_or(false);
    if !is_member || run.arg(1) == run.arg(2) {
        return Ok(Reply::Integer(i64::from(is_member)));
    }
    remove(run, std::slice::from_ref(&member))?;
    if !is_in_target {
        run.edit(2, Kind::Set, |set| Ok(set.set(member, Element::default())?))?;
    }
    Ok(Reply::Integer(1))
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::{Session, check, show};
    use std::collections::BTreeSet;

    #[test]
    fn members_come_and_go() {
        check(&[
            ("SADD s b a b 10 9", ":4"),
            ("SADD s a", ":0"),
            ("SCARD s", ":4"),
            ("SISMEMBER s a", ":1"),
            ("SMISMEMBER s a c 9", "[:1 :0 :1]"),
            ("SMISMEMBER none a", "[:0]"),
            ("SREM s a b c a", ":2"),
            ("SMEMBERS s", "Set([Bulk(b\"9\"), Bulk(b\"10\")])"),
            ("SSCAN s 0 MATCH 1*", "[\"0\" [\"10\"]]"),
            ("SREM s 9 10", ":2"),
            ("EXISTS s", ":0"),
            ("SADD from x y", ":2"),
            ("SMOVE from to x", ":1"),
            ("SMOVE from to x", ":0"),
            ("SMOVE from from y", ":1"),
            ("SMOVE none to y", ":0"),
            ("SMOVE from to y", ":1"),
            ("EXISTS from", ":0"),
            ("SCARD to", ":2"),
            ("SET s 1", "OK"),
            (
                "SMOVE to s y",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
        ]);
    }

    #[test]
    fn what_is_popped_is_gone() {
        let mut session = Session::default();
        let mut left: BTreeSet<String> = (0..100).map(|n| format!("\"m{n}\"")).collect();
        for number in 0..100 {
            session.run(&["SADD", "s", &format!("m{number}")]);
        }
        for _ in 0..40 {
            let popped = show(&session.run(&["SPOP", "s"]));
            assert!(left.remove(&popped), "{popped}");
        }
        let one = show(&session.run(&["SRANDMEMBER", "s"]));
        assert!(left.contains(&one), "{one}");
        assert_eq!(session.text("SCARD s"), ":60");
        session.run(&["SPOP", "s", "50"]);
        assert_eq!(session.text("SCARD s"), ":10");
        session.run(&["SPOP", "s", "50"]);
        assert_eq!(session.text("EXISTS s"), ":0");
        assert_eq!(session.text("SPOP s"), "nil");
    }

    #[test]
    fn counts_are_checked() {
        check(&[
            ("SADD s a", ":1"),
            ("SRANDMEMBER s 3", "[\"a\"]"),
            ("SRANDMEMBER s -2", "[\"a\" \"a\"]"),
            ("SRANDMEMBER s 0", "[]"),
            ("SRANDMEMBER s 1 2", "-ERR syntax error"),
            ("SPOP s -1", "-ERR value is out of range, must be positive"),
            ("SPOP s x", "-ERR value is out of range, must be positive"),
            ("SPOP s 1 2", "-ERR syntax error"),
        ]);
    }
}

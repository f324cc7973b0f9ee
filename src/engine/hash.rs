//! Hashes: fields in the order of their insertion.

use bytes::Bytes;

use super::dispatch::{Family, Run};
use super::need::Need;
use super::{Needs, Refusal};
use crate::command::Call;
use crate::model::{Collection, Db, Element, Key, Kind, Reply};

pub(super) const COMMANDS: &[Family] = &[
    Family::new("HSET", fields_by_two, hset),
    Family::new("HGET", one_field, hget),
    Family::new("HDEL", fields, hdel),
    Family::new("HLEN", header, hlen),
    Family::new("HGETALL", whole, hgetall),
];

fn key(call: &Call, db: Db) -> Key {
    Key::new(db, call.request.arg_bytes(1))
}

fn header(call: &Call, db: Db) -> Needs {
    Needs::from_iter([(key(call, db), Need::header())])
}

fn whole(call: &Call, db: Db) -> Needs {
    Needs::from_iter([(key(call, db), Need::value())])
}

fn one_field(call: &Call, db: Db) -> Needs {
    let need = Need::fields([call.request.arg_bytes(2)]);
    Needs::from_iter([(key(call, db), need)])
}

fn fields(call: &Call, db: Db) -> Needs {
    let fields = (2..call.request.len()).map(|index| call.request.arg_bytes(index));
    Needs::from_iter([(key(call, db), Need::fields(fields))])
}

fn fields_by_two(call: &Call, db: Db) -> Needs {
    let fields = (2..call.request.len()).step_by(2);
    let need = Need::fields(fields.map(|index| call.request.arg_bytes(index)));
    Needs::from_iter([(key(call, db), need)])
}

/// Puts `value` under `field`; an existing field keeps its place in the order.
/// Whether the field is new.
fn put(hash: &mut Collection, field: Bytes, value: Bytes) -> Result<bool, Refusal> {
    let before = hash.get(&field)?.map(|element| element.rank);
    let rank = match before {
        Some(rank) => rank,
        None => next_place(hash),
    };
    hash.set(field, Element { value, rank })?;
    Ok(before.is_none())
}

/// The next place in the order of insertion; `meta` counts them.
fn next_place(hash: &mut Collection) -> f64 {
    let meta = hash
        .meta()
        .as_ref()
        .try_into()
        .map_or(0, u64::from_be_bytes);
    hash.set_meta(Bytes::copy_from_slice(&(meta + 1).to_be_bytes()));
    meta as f64
}

fn hset(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    if run.len() % 2 == 1 {
        return Err(Refusal::arity(run.call.command));
    }
    let pairs: Vec<(Bytes, Bytes)> = (2..run.len())
        .step_by(2)
        .map(|index| (run.arg_bytes(index), run.arg_bytes(index + 1)))
        .collect();
    // First see that all were loaded, so that nothing fails half-way.
    if let Some(hash) = run.collection(&run.key(1), Kind::Hash)? {
        for (field, _) in &pairs {
            hash.get(field)?;
        }
    }
    run.edit(1, Kind::Hash, |hash| {
        let mut created = 0;
        for (field, value) in pairs {
            created += i64::from(put(hash, field, value)?);
        }
        Ok(Reply::Integer(created))
    })
}

fn hget(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let Some(hash) = run.collection(&run.key(1), Kind::Hash)? else {
        return Ok(Reply::Null);
    };
    let found = hash.get(run.arg(2))?;
    Ok(found.map_or(Reply::Null, |element| Reply::Bulk(element.value.clone())))
}

fn hdel(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let Some(hash) = run.collection(&run.key(1), Kind::Hash)? else {
        return Ok(Reply::Integer(0));
    };
    let mut found = Vec::new();
    for index in 2..run.len() {
        if hash.get(run.arg(index))?.is_some() {
            found.push(run.arg_bytes(index));
        }
    }
    if found.is_empty() {
        return Ok(Reply::Integer(0));
    }
    run.edit(1, Kind::Hash, |hash| {
        let mut deleted = 0;
        for field in found {
            deleted += i64::from(hash.remove(&field)?.is_some());
        }
        Ok(Reply::Integer(deleted))
    })
}

fn hlen(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let length = run.length(&run.key(1), Kind::Hash)?;
    Ok(Reply::Integer(length as i64))
}

fn hgetall(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let Some(hash) = run.collection(&run.key(1), Kind::Hash)? else {
        return Ok(Reply::Map(Vec::new()));
    };
    let pairs = in_order(hash)?.into_iter().map(|(field, element)| {
        (
            Reply::Bulk(field.clone()),
            Reply::Bulk(element.value.clone()),
        )
    });
    Ok(Reply::Map(pairs.collect()))
}

/// All fields in the order of insertion, as a small hash in Redis tells them.
fn in_order(hash: &Collection) -> Result<Vec<(&Bytes, &Element)>, Refusal> {
    let mut all: Vec<_> = hash.iter()?.collect();
    all.sort_by(|one, other| one.1.rank.total_cmp(&other.1.rank));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;

    #[test]
    fn fields_come_and_go() {
        let mut s = Session::default();
        for (line, reply) in [
            ("HSET h b 1 a 2 b 3", ":2"),
            ("HGETALL h", "{\"b\"=\"3\" \"a\"=\"2\"}"),
            ("HGET h a", "\"2\""),
            ("HGET h none", "nil"),
            ("HLEN h", ":2"),
            ("HDEL h none", ":0"),
            ("HDEL h a a b", ":2"),
            ("EXISTS h", ":0"),
            (
                "HSET h f",
                "-ERR wrong number of arguments for 'hset' command",
            ),
            ("SET s 1", "OK"),
            (
                "HGET s f",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            (
                "HSET s f v",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}

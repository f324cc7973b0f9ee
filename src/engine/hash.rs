//! Hashes: fields in the order of their insertion.

use bytes::Bytes;

use super::dispatch::{Family, Run};
use super::draw::Draw;
use super::first_key::{element, elements, elements_of_pairs, header, random, whole};
use super::{Needs, Refusal, float, scan};
use crate::command::{Call, args};
use crate::model::{Collection, Db, Element, Kind, Reply};

pub(super) const COMMANDS: &[Family] = &[
    Family::new("HSET", elements_of_pairs, hset),
    Family::new("HMSET", elements_of_pairs, hset),
    Family::new("HSETNX", element, hsetnx),
    Family::new("HGET", element, hget),
    Family::new("HMGET", elements, hmget),
    Family::new("HDEL", elements, hdel),
    Family::new("HLEN", header, hlen),
    Family::new("HSTRLEN", element, hstrlen),
    Family::new("HEXISTS", element, hexists),
    Family::new("HGETALL", whole, hgetall),
    Family::new("HKEYS", whole, hkeys),
    Family::new("HVALS", whole, hvals),
    Family::new("HINCRBY", element, hincrby),
    Family::new("HINCRBYFLOAT", element, hincrbyfloat),
    Family::new("HRANDFIELD", random_fields, hrandfield),
    Family::new("HSCAN", scan::needs, hscan),
];

fn random_fields(call: &Call, db: Db) -> Needs {
    random(call, db, Draw::needed(call))
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

/// A hash of these fields and values in this order; `None` if a field stands there twice.
pub(super) fn from_pairs(pairs: impl IntoIterator<Item = (Bytes, Bytes)>) -> Option<Collection> {
    let mut hash = Collection::new(Kind::Hash);
    for (field, value) in pairs {
        if !put(&mut hash, field, value).ok()? {
            return None;
        }
    }
    Some(hash)
}

/// `HSET` and `HMSET`.
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
    let created = run.edit(1, Kind::Hash, |hash| {
        let mut created = 0;
        for (field, value) in pairs {
            created += i64::from(put(hash, field, value)?);
        }
        Ok(created)
    })?;
    Ok(match run.call.command.name {
        "HMSET" => Reply::OK,
        _ => Reply::Integer(created),
    })
}

/// Puts `value` under the field that the second argument names.
fn put_one(run: &mut Run<'_>, value: impl Into<Bytes>) -> Result<bool, Refusal> {
    let (field, value) = (run.arg_bytes(2), value.into());
    run.edit(1, Kind::Hash, |hash| put(hash, field, value))
}

/// The value under the field that the second argument names.
fn value(run: &Run<'_>) -> Result<Option<Bytes>, Refusal> {
    let Some(hash) = run.collection(&run.key(1), Kind::Hash)? else {
        return Ok(None);
    };
    let found = hash.get(run.arg(2))?;
    Ok(found.map(|element| element.value.clone()))
}

fn hsetnx(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    if value(run)?.is_some() {
        return Ok(Reply::Integer(0));
    }
    put_one(run, run.arg_bytes(3))?;
    Ok(Reply::Integer(1))
}

fn hget(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    Ok(value(run)?.map_or(Reply::Null, Reply::Bulk))
}

fn hmget(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let hash = run.collection(&run.key(1), Kind::Hash)?;
    let mut values = Vec::with_capacity(run.len() - 2);
    for index in 2..run.len() {
        let found = match hash {
            Some(hash) => hash.get(run.arg(index))?,
            None => None,
        };
        values.push(found.map_or(Reply::Null, |element| Reply::Bulk(element.value.clone())));
    }
    Ok(Reply::Array(values))
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

fn hstrlen(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let length = value(run)?.map_or(0, |value| value.len());
    Ok(Reply::Integer(length as i64))
}

fn hexists(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    Ok(Reply::Integer(i64::from(value(run)?.is_some())))
}

fn hincrby(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let delta = run.integer(3)?;
    let number = match value(run)? {
        Some(text) => {
            args::integer(&text).ok_or(Refusal::Other("ERR hash value is not an integer"))?
        }
        None => 0,
    };
    let sum = number
        .checked_add(delta)
        .ok_or(Refusal::Other("ERR increment or decrement would overflow"))?;
    put_one(run, sum.to_string())?;
    Ok(Reply::Integer(sum))
}

fn hincrbyfloat(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let delta = float::parse(run.arg(3)).ok_or(Refusal::NotFloat)?;
    if delta == float::LongDouble::Infinite {
        return Err(Refusal::Other("ERR value is NaN or Infinity"));
    }
    let before = value(run)?.unwrap_or_else(|| Bytes::from_static(b"0"));
    let before = float::parse(&before).ok_or(Refusal::Other("ERR hash value is not a float"))?;
    let sum = before.incremented(&delta)?;
    put_one(run, sum.clone())?;
    Ok(Reply::Bulk(sum))
}

/// All fields in the order of insertion, as a small hash in Redis tells them.
pub(super) fn in_order(hash: &Collection) -> Result<Vec<(&Bytes, &Element)>, Refusal> {
    let mut all: Vec<_> = hash.iter()?.collect();
    all.sort_by(|one, other| one.1.rank.total_cmp(&other.1.rank));
    Ok(all)
}

/// What `shown` makes of each field, in order; nothing if there is no hash.
fn listed<T>(run: &Run<'_>, shown: impl Fn((&Bytes, &Element)) -> T) -> Result<Vec<T>, Refusal> {
    match run.collection(&run.key(1), Kind::Hash)? {
        Some(hash) => Ok(in_order(hash)?.into_iter().map(shown).collect()),
        None => Ok(Vec::new()),
    }
}

fn pair((field, element): (&Bytes, &Element)) -> (Reply, Reply) {
    (
        Reply::Bulk(field.clone()),
        Reply::Bulk(element.value.clone()),
    )
}

fn hgetall(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    listed(run, pair).map(Reply::Map)
}

fn hkeys(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    listed(run, |each| pair(each).0).map(Reply::Array)
}

fn hvals(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    listed(run, |each| pair(each).1).map(Reply::Array)
}

fn hscan(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    scan::scan(run, Kind::Hash, in_order, |field, element, items| {
        let (field, value) = pair((field, element));
        items.extend([field, value]);
    })
}

/// `HRANDFIELD key [count [WITHVALUES]]`.
fn hrandfield(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    if run.len() == 2 {
        let hash = run.collection(&run.key(1), Kind::Hash)?;
        let drawn = match hash {
            Some(hash) => Draw::Distinct(1).from(hash)?,
            None => Vec::new(),
        };
        return Ok(match drawn.first() {
            Some((field, _)) => Reply::Bulk((*field).clone()),
            None => Reply::Null,
        });
    }
    let draw = Draw::of_count(run.arg(2))?;
    let with_values = run.len() == 4 && run.is(3, "WITHVALUES");
    if run.len() > 3 && !with_values {
        return Err(Refusal::Syntax);
    }
    let (Draw::Distinct(count) | Draw::Repeated(count)) = draw;
    if with_values && count > i64::MAX as u64 / 2 {
        return Err(Refusal::Other("ERR value is out of range"));
    }
    let Some(hash) = run.collection(&run.key(1), Kind::Hash)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let drawn = draw.from(hash)?.into_iter().map(pair);
    Ok(if with_values {
        Reply::Pairs(drawn.collect())
    } else {
        Reply::Array(drawn.map(|(field, _)| field).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::check;

    #[test]
    fn fields_come_and_go() {
        check(&[
            ("HSET h b 1 a 2 b 3", ":2"),
            ("HGETALL h", "{\"b\"=\"3\" \"a\"=\"2\"}"),
            ("HKEYS h", "[\"b\" \"a\"]"),
            ("HVALS h", "[\"3\" \"2\"]"),
            ("HGET h a", "\"2\""),
            ("HGET h none", "nil"),
            ("HMGET h a none b", "[\"2\" nil \"3\"]"),
            ("HMGET none a", "[nil]"),
            ("HLEN h", ":2"),
            ("HEXISTS h a", ":1"),
            ("HSTRLEN h a", ":1"),
            ("HSETNX h a 9", ":0"),
            ("HSETNX h c 9", ":1"),
            ("HDEL h none", ":0"),
            ("HDEL h a a b c", ":3"),
            ("EXISTS h", ":0"),
            ("HMSET h f v", "OK"),
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
        ]);
    }

    #[test]
    fn numbers_in_fields() {
        check(&[
            ("HINCRBY h n 5", ":5"),
            ("HINCRBY h n -7", ":-2"),
            ("HINCRBYFLOAT h n 0.5", "\"-1.5\""),
            ("HINCRBY h n 1", "-ERR hash value is not an integer"),
            ("HINCRBYFLOAT h n inf", "-ERR value is NaN or Infinity"),
            ("HSET h x abc", ":1"),
            ("HINCRBYFLOAT h x 1", "-ERR hash value is not a float"),
            ("HSET h n 9223372036854775807", ":0"),
            (
                "HINCRBY h n 1",
                "-ERR increment or decrement would overflow",
            ),
        ]);
    }

    #[test]
    fn scans_and_draws() {
        check(&[
            ("HSET h a 1", ":1"),
            ("HRANDFIELD h", "\"a\""),
            ("HRANDFIELD h 5", "[\"a\"]"),
            ("HRANDFIELD h -3", "[\"a\" \"a\" \"a\"]"),
            ("HRANDFIELD none", "nil"),
            ("HRANDFIELD none 2", "[]"),
            (
                "HRANDFIELD h 4611686018427387904 WITHVALUES",
                "-ERR value is out of range",
            ),
            ("HSCAN h 0", "[\"0\" [\"a\" \"1\"]]"),
            ("HSCAN h 0 MATCH b*", "[\"0\" []]"),
            ("HSCAN h 0 COUNT 0", "-ERR syntax error"),
            ("HSCAN h x", "-ERR invalid cursor"),
        ]);
    }
}

//! What happens at the ends: pushes and pops.

use bytes::Bytes;

use super::super::Refusal;
use super::super::dispatch::Run;
use super::options::{MultiPop, at_least, check_timeout};
use super::place::{self, End, Found};
use super::{log, options};
use crate::model::{Kind, Reply};

/// `LPUSH` and `RPUSH`.
pub(super) fn push(run: &mut Run<'_>, end: End) -> Result<Reply, Refusal> {
    let values: Vec<Bytes> = (2..run.len()).map(|index| run.arg_bytes(index)).collect();
    run.edit(1, Kind::List, |list| {
        place::push(list, end, values.iter().cloned())?;
        log::push(list, end, &values);
        Ok(Reply::Integer(list.len() as i64))
    })
}

/// `LPUSHX` and `RPUSHX`: only onto a list that is there.
pub(super) fn push_existing(run: &mut Run<'_>, end: End) -> Result<Reply, Refusal> {
    match run.collection(&run.key(1), Kind::List)? {
        Some(_) => push(run, end),
        None => Ok(Reply::Integer(0)),
    }
}

/// `LPOP` and `RPOP`: one item, or an array of up to a number of them.
pub(super) fn pop(run: &mut Run<'_>, end: End) -> Result<Reply, Refusal> {
    if run.len() > 3 {
        return Err(Refusal::arity(run.call.command));
    }
    let count = match run.len() {
        3 => Some(at_least(
            run.arg(2),
            0,
            "ERR value is out of range, must be positive",
        )?),
        _ => None,
    };
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(count.map_or(Reply::Null, |_| Reply::NullArray));
    };
    let found = place::nearest(list, end, count.unwrap_or(1))?;
    let mut values = take(run, 1, end, &found)?;
    Ok(match count {
        Some(_) => Reply::Array(values),
        None => values.pop().unwrap_or(Reply::Null),
    })
}

/// Takes the items that are nearest to an end of the list that argument
/// `index` names out of it; their values.
pub(super) fn take(
    run: &mut Run<'_>,
    index: usize,
    end: End,
    found: &[Found],
) -> Result<Vec<Reply>, Refusal> {
    if !found.is_empty() {
        run.edit(index, Kind::List, |list| {
            place::pop(list, end, found)?;
            log::pop(list, end, found.len());
            Ok(())
        })?;
    }
    let values = found.iter().map(|item| Reply::Bulk(item.value.clone()));
    Ok(values.collect())
}

/// `LMPOP`.
pub(super) fn lmpop(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = MultiPop::of(run.call, 1)?;
    pop_of_many(run, 2, options)
}

/// `BLMPOP`, tried once.
pub(super) fn blmpop(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = MultiPop::of(run.call, 2)?;
    options::check_timeout(run.call, 1)?;
    pop_of_many(run, 3, options)
}

/// The first key from argument `first_key` on that holds a list gives its items.
fn pop_of_many(run: &mut Run<'_>, first_key: usize, options: MultiPop) -> Result<Reply, Refusal> {
    for index in first_key..=options.last_key {
        if let Some(list) = run.collection(&run.key(index), Kind::List)? {
            let found = place::nearest(list, options.end, options.count)?;
            let values = take(run, index, options.end, &found)?;
            let key = Reply::Bulk(run.arg_bytes(index));
            return Ok(Reply::Array(vec![key, Reply::Array(values)]));
        }
    }
    Ok(Reply::NullArray)
}

/// `BLPOP` and `BRPOP`, tried once.
pub(super) fn blocking_pop(run: &mut Run<'_>, end: End) -> Result<Reply, Refusal> {
    check_timeout(run.call, run.len() - 1)?;
    for index in 1..run.len() - 1 {
        if let Some(list) = run.collection(&run.key(index), Kind::List)? {
            let found = place::nearest(list, end, 1)?;
            let mut reply = vec![Reply::Bulk(run.arg_bytes(index))];
            reply.extend(take(run, index, end, &found)?);
            return Ok(Reply::Array(reply));
        }
    }
    Ok(Reply::NullArray)
}

//! Changes in the middle: `LSET`, `LINSERT`, `LREM`, `LTRIM`. The cache repeats
//! them with their own arguments.

use bytes::Bytes;

use super::super::dispatch::Run;
use super::super::{Need, Refusal};
use super::needs::equal_items;
use super::place::{self, End, Found};
use super::read::{at, range};
use crate::model::{Kind, NotLoaded, Reply, Side};

/// The call as the cache repeats it: without the key.
fn repeated(run: &Run<'_>) -> Vec<Bytes> {
    let name = Bytes::from_static(run.call.command.name.as_bytes());
    let arguments = (2..run.len()).map(|index| run.arg_bytes(index));
    std::iter::once(name).chain(arguments).collect()
}

pub(super) fn lset(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    if run.collection(&run.key(1), Kind::List)?.is_none() {
        return Err(Refusal::NoSuchKey);
    }
    let index = run.integer(2)?;
    let found = at(run, index)?.ok_or(Refusal::Other("ERR index out of range"))?;
    let (value, repeated) = (run.arg_bytes(3), repeated(run));
    run.edit(1, Kind::List, |list| {
        place::replace(list, &found, value)?;
        list.log(repeated);
        Ok(Reply::OK)
    })
}

pub(super) fn linsert(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let side = if run.is(2, "AFTER") {
        Side::Highest
    } else if run.is(2, "BEFORE") {
        Side::Lowest
    } else {
        return Err(Refusal::Syntax);
    };
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(Reply::Integer(0));
    };
    let found = list.holding(run.arg(3), Side::Lowest, 1)?;
    let Some(pivot) = found.first().copied().map(Found::new) else {
        return Ok(Reply::Integer(-1));
    };
    let gap = match place::gap(list, &pivot, side) {
        Ok(gap) => gap,
        Err(NotLoaded) => {
            let need = place::surroundings(&pivot);
            return Err(run.want(1, need));
        }
    };
    let (value, repeated) = (run.arg_bytes(4), repeated(run));
    run.edit(1, Kind::List, |list| {
        place::insert(list, gap, value)?;
        list.log(repeated);
        Ok(Reply::Integer(list.len() as i64))
    })
}

pub(super) fn lrem(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let count = run.integer(2)?;
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(Reply::Integer(0));
    };
    let (side, most) = equal_items(count);
    let found = list.holding(run.arg(3), side, most)?;
    let found: Vec<Found> = found.into_iter().map(Found::new).collect();
    if found.is_empty() {
        return Ok(Reply::Integer(0));
    }
    let repeated = repeated(run);
    run.edit(1, Kind::List, |list| {
        place::remove(list, &found)?;
        list.log(repeated);
        Ok(Reply::Integer(found.len() as i64))
    })
}

pub(super) fn ltrim(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (start, end) = (run.integer(2)?, run.integer(3)?);
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(Reply::OK);
    };
    let stays = range(start, end, list.len());
    if stays.is_empty() {
        run.workspace.delete(run.key(1));
        return Ok(Reply::OK);
    }
    let (before, behind) = (stays.start, list.len() - stays.end);
    let cut = place::nearest(list, End::Head, before)
        .and_then(|head| Ok((head, place::nearest(list, End::Tail, behind)?)));
    let Ok((before, behind)) = cut else {
        let mut need = Need::first(before);
        need.add(Need::last(behind));
        return Err(run.want(1, need));
    };
    if before.is_empty() && behind.is_empty() {
        return Ok(Reply::OK);
    }
    let repeated = repeated(run);
    run.edit(1, Kind::List, |list| {
        place::pop(list, End::Head, &before)?;
        place::pop(list, End::Tail, &behind)?;
        list.log(repeated);
        Ok(Reply::OK)
    })
}

//! Changes in the middle: `LSET`, `LINSERT`, `LREM`, `LTRIM`. The cache repeats
//! them with their own arguments.

use bytes::Bytes;

use super::super::Refusal;
use super::super::dispatch::Run;
use super::place::{self, End, Found};
use super::read::{at, range};
use crate::model::{Kind, Reply};

/// The call as the cache repeats it: without the key.
fn repeated(run: &Run<'_>) -> Vec<Bytes> {
    let name = Bytes::from_static(run.call.command.name.as_bytes());
    let arguments = (2..run.len()).map(|index| run.arg_bytes(index));
    std::iter::once(name).chain(arguments).collect()
}

pub(super) fn lset(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Err(Refusal::NoSuchKey);
    };
    let index = run.integer(2)?;
    let found = at(list, index)?.ok_or(Refusal::Other("ERR index out of range"))?;
    let (value, repeated) = (run.arg_bytes(3), repeated(run));
    run.edit(1, Kind::List, |list| {
        place::replace(list, &found, value)?;
        list.log(repeated);
        Ok(Reply::OK)
    })
}

pub(super) fn linsert(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let distance = if run.is(2, "AFTER") {
        1
    } else if run.is(2, "BEFORE") {
        0
    } else {
        return Err(Refusal::Syntax);
    };
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(Reply::Integer(0));
    };
    let pivot = run.arg(3);
    let Some(index) = list.iter()?.position(|(_, item)| item.value == pivot) else {
        return Ok(Reply::Integer(-1));
    };
    let (value, repeated) = (run.arg_bytes(4), repeated(run));
    run.edit(1, Kind::List, |list| {
        place::insert(list, index + distance, value)?;
        list.log(repeated);
        Ok(Reply::Integer(list.len() as i64))
    })
}

pub(super) fn lrem(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let count = run.integer(2)?;
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(Reply::Integer(0));
    };
    let wanted = run.arg(3);
    let equal = list.iter()?.filter(|(_, item)| item.value == wanted);
    let most = match count {
        0 => usize::MAX,
        count => usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
    };
    let found: Vec<Found> = if count < 0 {
        equal.rev().take(most).map(Found::new).collect()
    } else {
        equal.take(most).map(Found::new).collect()
    };
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
    let before = place::nearest(list, End::Head, stays.start)?;
    let behind = place::nearest(list, End::Tail, list.len() - stays.end)?;
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

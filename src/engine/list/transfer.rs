//! From one list to another: `LMOVE`, `RPOPLPUSH`, and their blocking forms.

use super::super::Refusal;
use super::super::dispatch::Run;
use super::ends::take;
use super::options::{Transfer, check_timeout};
use super::{log, place};
use crate::model::{Kind, Reply};

pub(super) fn lmove(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let transfer = Transfer::of(run.call)?;
    transfer_one(run, transfer)
}

pub(super) fn rpoplpush(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let transfer = Transfer::of(run.call)?;
    transfer_one(run, transfer)
}

/// `BLMOVE`, tried once.
pub(super) fn blmove(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let transfer = Transfer::of(run.call)?;
    check_timeout(run.call, 5)?;
    transfer_one(run, transfer)
}

/// `BRPOPLPUSH`, tried once.
pub(super) fn brpoplpush(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let transfer = Transfer::of(run.call)?;
    check_timeout(run.call, 3)?;
    transfer_one(run, transfer)
}

fn transfer_one(run: &mut Run<'_>, transfer: Transfer) -> Result<Reply, Refusal> {
    let Some(source) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(Reply::Null);
    };
    let found = place::nearest(source, transfer.from, 1)?;
    run.collection(&run.key(2), Kind::List)?;
    let Some(item) = found.first() else {
        return Ok(Reply::Null);
    };
    let value = item.value.clone();
    if run.key(1) == run.key(2) {
        return rotate(run, transfer, found).map(|()| Reply::Bulk(value));
    }
    run.edit(2, Kind::List, |list| {
        place::push(list, transfer.to, [value.clone()].into_iter())?;
        log::push(list, transfer.to, std::slice::from_ref(&value));
        Ok(())
    })?;
    take(run, 1, transfer.from, &found)?;
    Ok(Reply::Bulk(value))
}

/// Within one list. First the push, so that it is never empty in between: it
/// would lose its expiry.
fn rotate(run: &mut Run<'_>, transfer: Transfer, found: Vec<place::Found>) -> Result<(), Refusal> {
    let Transfer { from, to } = transfer;
    run.edit(1, Kind::List, |list| {
        let values: Vec<_> = found.iter().map(|item| item.value.clone()).collect();
        place::push(list, to, values.iter().cloned())?;
        if from == to {
            // Nothing has moved; the new item stands beyond the old one.
            place::remove(list, &found)?;
        } else {
            place::pop(list, from, &found)?;
        }
        log::push(list, to, &values);
        log::pop(list, from, values.len());
        Ok(())
    })
}

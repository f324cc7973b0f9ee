//! Arguments that several list commands share.

use super::super::Refusal;
use super::super::timeout::Timeout;
use super::place::End;
use crate::command::{Call, args};

/// `LEFT` or `RIGHT`.
fn end(arg: &[u8]) -> Result<End, Refusal> {
    if args::is_word(arg, "LEFT") {
        Ok(End::Head)
    } else if args::is_word(arg, "RIGHT") {
        Ok(End::Tail)
    } else {
        Err(Refusal::Syntax)
    }
}

/// An integer of at least `least`; another one is refused with `text`, and so is
/// what is none.
pub(super) fn at_least(arg: &[u8], least: i64, text: &'static str) -> Result<u64, Refusal> {
    args::integer(arg)
        .filter(|number| *number >= least)
        .map(i64::unsigned_abs)
        .ok_or(Refusal::Other(text))
}

/// From where to where an item goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// The end of the source.
    pub from: End,
    /// The end of the destination.
    pub to: End,
}

impl Transfer {
    /// What `LMOVE`, `RPOPLPUSH` and their blocking forms ask for.
    pub fn of(call: &Call) -> Result<Self, Refusal> {
        match call.command.name {
            "LMOVE" | "BLMOVE" => Ok(Self {
                from: end(call.request.arg(3))?,
                to: end(call.request.arg(4))?,
            }),
            _ => Ok(Self {
                from: End::Tail,
                to: End::Head,
            }),
        }
    }
}

/// The options of `LMPOP` and `BLMPOP`.
#[derive(Clone, Copy, Debug)]
pub(super) struct MultiPop {
    /// The index of the last key.
    pub last_key: usize,
    /// Where items are taken.
    pub end: End,
    /// How many at most.
    pub count: u64,
}

impl MultiPop {
    /// Of a call whose number of keys is argument `numkeys`.
    pub fn of(call: &Call, numkeys: usize) -> Result<Self, Refusal> {
        let request = &call.request;
        let keys = at_least(
            request.arg(numkeys),
            1,
            "ERR numkeys should be greater than 0",
        )?;
        let keys = usize::try_from(keys).unwrap_or(usize::MAX);
        let last_key = numkeys.saturating_add(keys);
        if last_key >= request.len() - 1 {
            return Err(Refusal::Syntax);
        }
        let end = end(request.arg(last_key + 1))?;
        let mut count = None;
        let mut index = last_key + 2;
        while index < request.len() {
            let is_count = count.is_none() && args::is_word(request.arg(index), "COUNT");
            if !is_count || index + 1 == request.len() {
                return Err(Refusal::Syntax);
            }
            index += 1;
            let text = "ERR count should be greater than 0";
            count = Some(at_least(request.arg(index), 1, text)?);
            index += 1;
        }
        Ok(Self {
            last_key,
            end,
            count: count.unwrap_or(1),
        })
    }
}

/// Refuses a call whose argument `index` is no time to wait. The engine does
/// not wait: it tries once.
pub(super) fn check_timeout(call: &Call, index: usize) -> Result<(), Refusal> {
    Timeout::parse(call.request.arg(index)).map(drop)
}

//! Reads of lists.

use std::ops::Range;

use bytes::Bytes;

use super::super::Refusal;
use super::super::dispatch::Run;
use super::needs::from_nearer_end;
use super::options::at_least;
use super::place::{End, Found};
use crate::command::{Call, args};
use crate::model::{Collection, Kind, NotLoaded, Places, Reply, Side};

pub(super) fn llen(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let length = run.length(&run.key(1), Kind::List)?;
    Ok(Reply::Integer(length as i64))
}

/// The items numbered `range`, which must all be there.
fn slice(list: &Collection, range: Range<u64>) -> Result<Vec<&Bytes>, NotLoaded> {
    let length = range.end - range.start;
    if length == 0 {
        return Ok(Vec::new());
    }
    let (found, skipped) = match list.head(range.end) {
        Ok(found) => (found, range.start),
        Err(NotLoaded) => (list.tail(list.len() - range.start)?, 0),
    };
    let found = found.into_iter().skip(skipped as usize);
    Ok(found
        .take(length as usize)
        .map(|(_, element)| &element.value)
        .collect())
}

/// The indices from `start` to `end`, both included and both perhaps counted
/// from the end, as far as they are in a list of `length`.
pub(super) fn range(start: i64, end: i64, length: u64) -> Range<u64> {
    let size = i64::try_from(length).unwrap_or(i64::MAX);
    let from_start = |index: i64| if index < 0 { index + size } else { index };
    let start = from_start(start).max(0);
    let end = from_start(end).min(size - 1);
    if start > end {
        return 0..0;
    }
    start.unsigned_abs()..end.unsigned_abs() + 1
}

pub(super) fn lrange(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (start, end) = (run.integer(2)?, run.integer(3)?);
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let range = range(start, end, list.len());
    match slice(list, range.clone()) {
        Ok(items) => Ok(Reply::Array(
            items.into_iter().cloned().map(Reply::Bulk).collect(),
        )),
        Err(NotLoaded) => {
            let need = from_nearer_end(&range, list.len());
            Err(run.want(1, need))
        }
    }
}

/// The item numbered `index`, perhaps counted from the end, of the list under the first argument.
pub(super) fn at(run: &mut Run<'_>, index: i64) -> Result<Option<Found>, Refusal> {
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(None);
    };
    let index = match index {
        0.. => Some(index.unsigned_abs()),
        _ => list.len().checked_sub(index.unsigned_abs()),
    };
    let Some(index) = index.filter(|index| *index < list.len()) else {
        return Ok(None);
    };
    let range = index..index + 1;
    if let Ok(head) = list.head(range.end) {
        return Ok(head.last().copied().map(Found::new));
    }
    if let Ok(tail) = list.tail(list.len() - index) {
        return Ok(tail.first().copied().map(Found::new));
    }
    let need = from_nearer_end(&range, list.len());
    Err(run.want(1, need))
}

pub(super) fn lindex(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    if run.collection(&run.key(1), Kind::List)?.is_none() {
        return Ok(Reply::Null);
    }
    let index = run.integer(2)?;
    let found = at(run, index)?;
    Ok(found.map_or(Reply::Null, |item| Reply::Bulk(item.value)))
}

/// The options of `LPOS`.
pub(super) struct Search {
    /// Which match is the first that counts.
    rank: u64,
    /// The end where the search starts.
    from: End,
    /// How many matches are wanted, 0: all; `None`: one, not in an array.
    count: Option<u64>,
    /// How many items are compared at most; 0: all.
    compared_max: u64,
}

impl Search {
    pub fn of(call: &Call) -> Result<Self, Refusal> {
        let request = &call.request;
        let mut search = Self {
            rank: 1,
            from: End::Head,
            count: None,
            compared_max: 0,
        };
        let mut index = 3;
        while index < request.len() {
            if index + 1 == request.len() {
                return Err(Refusal::Syntax);
            }
            let is = |word| args::is_word(request.arg(index), word);
            let value = request.arg(index + 1);
            if is("RANK") {
                search.set_rank(value)?;
            } else if is("COUNT") {
                search.count = Some(at_least(value, 0, "ERR COUNT can't be negative")?);
            } else if is("MAXLEN") {
                search.compared_max = at_least(value, 0, "ERR MAXLEN can't be negative")?;
            } else {
                return Err(Refusal::Syntax);
            }
            index += 2;
        }
        Ok(search)
    }

    fn set_rank(&mut self, arg: &[u8]) -> Result<(), Refusal> {
        let rank = args::integer(arg).ok_or(Refusal::NotInteger)?;
        if rank == 0 {
            return Err(Refusal::Other(
                "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
            ));
        }
        // The lowest integer has no negative; Redis then takes the first match.
        self.rank = rank.checked_abs().map_or(1, i64::unsigned_abs);
        self.from = if rank < 0 { End::Tail } else { End::Head };
        Ok(())
    }

    /// How many matches must be found, those that do not count among them.
    pub fn wanted(&self) -> u64 {
        match self.count {
            Some(0) => u64::MAX,
            count => (self.rank - 1).saturating_add(count.unwrap_or(1)),
        }
    }

    /// What is looked for in a list.
    pub fn places(&self, value: Bytes) -> Places {
        Places {
            value,
            side: match self.from {
                End::Head => Side::Lowest,
                End::Tail => Side::Highest,
            },
            compared_max: match self.compared_max {
                0 => u64::MAX,
                max => max,
            },
        }
    }
}

pub(super) fn lpos(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let search = Search::of(run.call)?;
    let none = match search.count {
        Some(_) => Reply::Array(Vec::new()),
        None => Reply::Null,
    };
    let Some(list) = run.collection(&run.key(1), Kind::List)? else {
        return Ok(none);
    };
    let found = list.places(&search.places(run.arg_bytes(2)), search.wanted())?;
    let skipped = usize::try_from(search.rank - 1).unwrap_or(usize::MAX);
    let found = found.into_iter().skip(skipped);
    let mut found = found.map(|number| Reply::Integer(number as i64));
    Ok(match search.count {
        Some(_) => Reply::Array(found.collect()),
        None => found.next().unwrap_or(none),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_list() {
        for (start, end, expected) in [
            (0, -1, 0..5),
            (-100, 100, 0..5),
            (1, 2, 1..3),
            (-2, -1, 3..5),
            (3, 1, 0..0),
            (5, 9, 0..0),
            (0, -6, 0..0),
            (i64::MIN, i64::MAX, 0..5),
            (i64::MAX, i64::MIN, 0..0),
        ] {
            assert_eq!(range(start, end, 5), expected, "{start} {end}");
        }
    }
}

//! Objects whose answers tell their place in the order of changes: counters, lists that only
//! grow, and the number of transfers of a bank.

use std::collections::BTreeMap;

use super::Verdict;
use crate::torture::history::{Ask, NEVER, Operation, Time, Token, Told};

/// An operation that was told the object's place in its order of states.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The number of changes after it.
    pub place: u64,
    /// Whether it was one of them.
    pub is_change: bool,
    /// When it was sent.
    pub sent: Time,
    /// When it was answered.
    pub over: Time,
}

/// Whether operations can happen in the order of their places, one at a time, each between the
/// time it was sent and the time it was answered. `unknown` are the times at which changes of
/// unknown outcome were sent: each may be one of the changes that nobody was told of.
///
/// Exact: the order is given, so it exists if nothing is over before all that comes earlier in it
/// was sent; and the changes that nobody was told of get the earliest unknown ones.
pub fn check_places(mut placed: Vec<Placed>, mut unknown: Vec<Time>) -> Verdict {
    placed.sort_by_key(|one| (one.place, !one.is_change, one.sent));
    for pair in placed.windows(2) {
        if pair[0].place == pair[1].place && pair[0].is_change && pair[1].is_change {
            return Err(format!("two changes have one place: {pair:?}"));
        }
    }
    let mut last_sent: Option<&Placed> = None;
    for one in &placed {
        if let Some(earlier) = last_sent
            && one.over < earlier.sent
        {
            return Err(format!(
                "it went back: {one:?} was over before {earlier:?} was sent"
            ));
        }
        if last_sent.is_none_or(|earlier| earlier.sent < one.sent) {
            last_sent = Some(one);
        }
    }
    check_untold(&placed, &mut unknown)
}

/// Whether each change that nobody was told of can be one of unknown outcome.
fn check_untold(placed: &[Placed], unknown: &mut [Time]) -> Verdict {
    unknown.sort_unstable();
    // By when the change at a place must have been sent: before anybody was told of a later state.
    let mut deadlines: BTreeMap<u64, Time> = BTreeMap::new();
    let mut earliest = NEVER;
    for one in placed.iter().rev() {
        earliest = earliest.min(one.over);
        deadlines.insert(one.place, earliest);
    }
    let told: std::collections::BTreeSet<u64> = placed
        .iter()
        .filter(|one| one.is_change)
        .map(|one| one.place)
        .collect();
    let most = placed.last().map_or(0, |one| one.place);
    let mut used = 0;
    for place in (1..=most).filter(|place| !told.contains(place)) {
        let deadline = deadlines
            .range(place..)
            .next()
            .map_or(NEVER, |(_, deadline)| *deadline);
        match unknown.get(used) {
            Some(sent) if *sent <= deadline => used += 1,
            _ => {
                return Err(format!(
                    "change {place} of {most} was made by nobody who could have: {} unknown ones before it are used up",
                    used
                ));
            }
        }
    }
    Ok(())
}

/// A counter that begins at 0: each acknowledged increment counted once, each refused one never,
/// no read went back.
pub fn check_counter(operations: &[&Operation]) -> Verdict {
    let mut placed = Vec::new();
    let mut unknown = Vec::new();
    for one in operations {
        let place = match (&one.ask, &one.told) {
            (_, Told::Refused(_)) | (Ask::Read, Told::Unknown(_)) => continue,
            (Ask::Increment, Told::Unknown(_)) => {
                unknown.push(one.sent);
                continue;
            }
            (Ask::Increment | Ask::Read, Told::Count(count)) => *count,
            (Ask::Read, Told::Value(None)) => 0,
            _ => return Err(format!("no answer of a counter: {one:?}")),
        };
        placed.push(Placed {
            place,
            is_change: one.ask == Ask::Increment,
            sent: one.sent,
            over: one.over,
        });
    }
    check_places(placed, unknown)
}

/// A list that only grows, of which `kept` is there in the end: what was appended is there once, at
/// the place its client was told; every reader saw a beginning of it, and none went back.
pub fn check_list(operations: &[&Operation], kept: &[Token]) -> Verdict {
    let places: BTreeMap<Token, u64> = kept.iter().copied().zip(1..).collect();
    if places.len() < kept.len() {
        return Err(format!("an item is there twice: {kept:?}"));
    }
    let mut known: std::collections::BTreeSet<Token> = std::collections::BTreeSet::new();
    let mut placed = Vec::new();
    for one in operations {
        let place = match (&one.ask, &one.told) {
            (Ask::Push(item), Told::Refused(_)) if places.contains_key(item) => {
                return Err(format!("refused, but there: {one:?}"));
            }
            (_, Told::Refused(_)) | (Ask::Read | Ask::Length, Told::Unknown(_)) => continue,
            (Ask::Push(item), Told::Unknown(_)) => match places.get(item) {
                Some(place) => *place,
                None => continue,
            },
            (Ask::Push(item), Told::Count(length)) => {
                if places.get(item) != Some(length) {
                    return Err(format!(
                        "appended as number {length}, but it is number {:?}: {one:?}",
                        places.get(item)
                    ));
                }
                *length
            }
            (Ask::Length, Told::Count(length)) => *length,
            (Ask::Read, Told::Items(items)) => {
                if !kept.starts_with(items) {
                    return Err(format!("no beginning of what is there in the end: {one:?}"));
                }
                items.len() as u64
            }
            _ => return Err(format!("no answer of a list: {one:?}")),
        };
        if let Ask::Push(item) = one.ask {
            known.insert(item);
        }
        placed.push(Placed {
            place,
            is_change: matches!(one.ask, Ask::Push(_)),
            sent: one.sent,
            over: one.over,
        });
    }
    if let Some(item) = kept.iter().find(|item| !known.contains(item)) {
        return Err(format!("nobody appended {item}"));
    }
    check_places(placed, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::check::hand_made::{
        increment, items, length, push, read_count, refused, unknown,
    };

    fn counter(operations: Vec<Operation>) -> Verdict {
        check_counter(&operations.iter().collect::<Vec<_>>())
    }

    fn list(operations: Vec<Operation>, kept: &[Token]) -> Verdict {
        check_list(&operations.iter().collect::<Vec<_>>(), kept)
    }

    #[test]
    fn counters_that_count_once_pass() {
        counter(vec![]).unwrap();
        counter(vec![
            read_count(1, 2, 0),
            increment(3, 9, 2),
            increment(4, 8, 1),
            read_count(9, 10, 2),
        ])
        .unwrap();
        // The unknown one happened, between the others.
        counter(vec![
            unknown(increment(1, 2, 0)),
            increment(3, 4, 1),
            increment(5, 6, 3),
        ])
        .unwrap();
        // It never did.
        counter(vec![unknown(increment(1, 2, 0)), read_count(5, 6, 0)]).unwrap();
    }

    #[test]
    fn counters_that_count_twice_or_lose_or_go_back_fail() {
        counter(vec![increment(1, 2, 1), increment(3, 4, 3)]).unwrap_err();
        counter(vec![increment(1, 2, 1), increment(3, 4, 1)]).unwrap_err();
        counter(vec![
            increment(1, 2, 1),
            increment(3, 4, 2),
            read_count(5, 6, 1),
        ])
        .unwrap_err();
        counter(vec![increment(1, 2, 1), read_count(3, 4, 0)]).unwrap_err();
        counter(vec![read_count(1, 2, 1), increment(3, 4, 1)]).unwrap_err();
        // Counted twice.
        counter(vec![unknown(increment(1, 2, 0)), read_count(5, 6, 2)]).unwrap_err();
        // Counted before it was sent.
        counter(vec![read_count(1, 2, 1), unknown(increment(3, 4, 0))]).unwrap_err();
        counter(vec![refused(increment(1, 2, 0)), read_count(3, 4, 1)]).unwrap_err();
        // Two readers during one increment: the later goes back.
        counter(vec![
            increment(1, 20, 1),
            read_count(2, 3, 1),
            read_count(4, 5, 0),
        ])
        .unwrap_err();
    }

    #[test]
    fn lists_that_keep_what_was_appended_pass() {
        list(
            vec![
                push(1, 2, 11, 1),
                unknown(push(3, 4, 12, 0)),
                items(5, 6, &[11, 12]),
                unknown(push(7, 8, 13, 0)),
                length(9, 10, 2),
            ],
            &[11, 12],
        )
        .unwrap();
        list(
            vec![push(1, 9, 11, 2), push(2, 8, 12, 1), items(3, 4, &[12])],
            &[12, 11],
        )
        .unwrap();
    }

    #[test]
    fn lists_that_lose_double_or_reorder_fail() {
        list(vec![push(1, 2, 11, 1)], &[]).unwrap_err();
        list(vec![push(1, 2, 11, 1)], &[11, 11]).unwrap_err();
        list(vec![push(1, 2, 11, 1)], &[11, 12]).unwrap_err();
        list(vec![refused(push(1, 2, 11, 0))], &[11]).unwrap_err();
        list(vec![push(1, 2, 11, 1), push(3, 4, 12, 2)], &[12, 11]).unwrap_err();
        list(vec![push(1, 2, 11, 1), items(3, 4, &[])], &[11]).unwrap_err();
        list(vec![push(1, 2, 11, 1), length(3, 4, 0)], &[11]).unwrap_err();
        // Seen, gone, and there again.
        list(
            vec![
                unknown(push(1, 2, 11, 0)),
                items(3, 4, &[11]),
                items(5, 6, &[]),
            ],
            &[11],
        )
        .unwrap_err();
        list(vec![unknown(push(5, 6, 11, 0)), items(3, 4, &[11])], &[11]).unwrap_err();
    }
}

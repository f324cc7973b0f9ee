//! Cells: strings that are set, set for a time, set if absent, exchanged, deleted and read, in short
//! histories.
//!
//! A search for an order, after Wing and Gong ("Testing and Verifying Concurrent Objects", 1993), with
//! Lowe's memory of what was tried ("Testing for Linearizability", 2017). Exact, and exponential
//! only in the number of operations that overlap: a history must not have many of unknown outcome.

use std::collections::HashSet;

use super::Verdict;
use crate::torture::history::{Ask, NEVER, Operation, Time, Token, Told};

/// Steps of a history at most, ends of values among them.
pub const STEPS_MAX: usize = 512;
/// Positions that are looked at before the search gives up.
const POSITIONS_MAX: usize = 3_000_000;

type State = Option<Token>;
type Taken = [u64; STEPS_MAX / 64];

/// An operation, or the end of a value that was set for a time.
struct Step<'a> {
    sent: Time,
    over: Time,
    act: Act<'a>,
}

enum Act<'a> {
    Operation(&'a Operation),
    /// This value ends, which that step had set.
    End(Token, usize),
}

impl Step<'_> {
    /// The state after it, if it could have happened in this one.
    fn apply(&self, state: State, taken: &Taken) -> Option<State> {
        let operation = match &self.act {
            Act::End(token, by) => {
                let next = if state == Some(*token) { None } else { state };
                return is_taken(taken, *by).then_some(next);
            }
            Act::Operation(operation) => operation,
        };
        let is_unknown = operation.is_unknown();
        match (&operation.ask, &operation.told) {
            (Ask::Write(token) | Ask::WriteFor(token, _), Told::Done | Told::Unknown(_)) => {
                Some(Some(*token))
            }
            (Ask::WriteNew(token), Told::Done) => state.is_none().then_some(Some(*token)),
            (Ask::WriteNew(_), Told::Value(None)) => state.is_some().then_some(state),
            (Ask::WriteNew(token), Told::Unknown(_)) => Some(state.or(Some(*token))),
            (Ask::Swap(token), Told::Value(was)) => (state == *was).then_some(Some(*token)),
            (Ask::Swap(token), Told::Unknown(_)) => Some(Some(*token)),
            (Ask::Read, Told::Value(seen)) => (state == *seen).then_some(state),
            (Ask::Delete, Told::Count(count)) => {
                (u64::from(state.is_some()) == *count).then_some(None)
            }
            (Ask::Take, Told::Value(was)) => (state == *was).then_some(None),
            (Ask::Delete | Ask::Take, Told::Unknown(_)) => Some(None),
            _ => is_unknown.then_some(state),
        }
    }

    /// Whether it changes nothing, whenever it can happen.
    fn is_read(&self) -> bool {
        matches!(self.act, Act::Operation(operation) if operation.ask == Ask::Read)
    }
}

fn is_taken(taken: &Taken, index: usize) -> bool {
    taken[index / 64] >> (index % 64) & 1 == 1
}

/// Whether there is an order. A value that was set for a time ends that long after it was set, or up to
/// `skew` sooner or later.
pub fn check(operations: &[&Operation], skew: Time) -> Verdict {
    let steps = steps(operations, skew);
    if steps.len() > STEPS_MAX {
        return Err(format!("{} steps are too many to check", steps.len()));
    }
    Search {
        steps: &steps,
        tried: HashSet::new(),
        furthest: 0,
        stuck: String::new(),
    }
    .run()
}

fn steps<'a>(operations: &[&'a Operation], skew: Time) -> Vec<Step<'a>> {
    let mut steps: Vec<Step<'a>> = operations
        .iter()
        .filter(|one| !one.is_refused())
        .filter(|one| !(one.is_unknown() && one.ask == Ask::Read))
        .map(|one| Step {
            sent: one.sent,
            over: one.over,
            act: Act::Operation(one),
        })
        .collect();
    let later = |time: Time, by: Time| if time == NEVER { NEVER } else { time + by };
    for by in 0..steps.len() {
        let Act::Operation(one) = &steps[by].act else {
            continue;
        };
        if let Ask::WriteFor(token, ms) = one.ask {
            let life = ms * 1_000_000;
            steps.push(Step {
                sent: (one.sent + life).saturating_sub(skew),
                over: later(one.over, life + skew),
                act: Act::End(token, by),
            });
        }
    }
    steps
}

struct Search<'a> {
    steps: &'a [Step<'a>],
    tried: HashSet<(Taken, State)>,
    furthest: usize,
    stuck: String,
}

struct Position {
    taken: Taken,
    state: State,
    count: usize,
    /// What may come next, the most urgent last.
    next: Vec<usize>,
}

impl Search<'_> {
    fn run(mut self) -> Verdict {
        let mut way = vec![self.position([0; STEPS_MAX / 64], None, 0)];
        while let Some(here) = way.last_mut() {
            let (taken, state) = (here.taken, here.state);
            if self.is_done(&taken) {
                return Ok(());
            }
            let Some(index) = here.next.pop() else {
                way.pop();
                continue;
            };
            let count = here.count + 1;
            let Some(after) = self.steps[index].apply(state, &taken) else {
                continue;
            };
            if self.steps[index].is_read() {
                // What can be read now need not be read later: there is no other way to try.
                here.next.clear();
            }
            let mut taken = taken;
            taken[index / 64] |= 1 << (index % 64);
            if self.tried.insert((taken, after)) {
                if self.tried.len() > POSITIONS_MAX {
                    return Err("undecided: too many operations overlap".into());
                }
                let position = self.position(taken, after, count);
                way.push(position);
            }
        }
        Err(format!(
            "no order explains it; the best one ends with {}",
            self.stuck
        ))
    }

    /// Whether all that must have happened is taken.
    fn is_done(&self, taken: &Taken) -> bool {
        let must = |step: &Step<'_>| step.over != NEVER;
        (0..self.steps.len()).all(|index| is_taken(taken, index) || !must(&self.steps[index]))
    }

    fn position(&mut self, taken: Taken, state: State, count: usize) -> Position {
        let open = |index: &usize| !is_taken(&taken, *index);
        let first_end = (0..self.steps.len())
            .filter(open)
            .map(|index| self.steps[index].over)
            .min();
        let deadline = first_end.unwrap_or(NEVER);
        let mut next: Vec<usize> = (0..self.steps.len())
            .filter(open)
            .filter(|&index| self.steps[index].sent <= deadline)
            .collect();
        // Reads that fit first, then what is over first.
        next.sort_by_key(|&index| {
            let step = &self.steps[index];
            let fits = step.is_read() && step.apply(state, &taken).is_some();
            (fits, std::cmp::Reverse(step.over))
        });
        if count >= self.furthest {
            self.furthest = count;
            self.stuck = self.describe(state, &next);
        }
        Position {
            taken,
            state,
            count,
            next,
        }
    }

    fn describe(&self, state: State, next: &[usize]) -> String {
        let next: Vec<String> = next
            .iter()
            .rev()
            .take(8)
            .map(|&index| match &self.steps[index].act {
                Act::Operation(operation) => format!("{operation:?}"),
                Act::End(token, _) => format!(
                    "end of {token} between {} and {}",
                    self.steps[index].sent, self.steps[index].over
                ),
            })
            .collect();
        format!("{state:?}, then one of:\n  {}", next.join("\n  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::check::hand_made::{operation, read, refused, unknown, write};

    const MS: Time = 1_000_000;

    fn verdict(operations: Vec<Operation>) -> Verdict {
        check(&operations.iter().collect::<Vec<_>>(), MS)
    }

    fn write_for(sent: Time, over: Time, token: Token, ms: u64) -> Operation {
        operation(sent, over, Ask::WriteFor(token, ms), Told::Done)
    }

    fn write_new(sent: Time, over: Time, token: Token, told: Told) -> Operation {
        operation(sent, over, Ask::WriteNew(token), told)
    }

    fn swap(sent: Time, over: Time, token: Token, was: Option<Token>) -> Operation {
        operation(sent, over, Ask::Swap(token), Told::Value(was))
    }

    fn delete(sent: Time, over: Time, count: u64) -> Operation {
        operation(sent, over, Ask::Delete, Told::Count(count))
    }

    fn take(sent: Time, over: Time, was: Option<Token>) -> Operation {
        operation(sent, over, Ask::Take, Told::Value(was))
    }

    #[test]
    fn orders_that_exist_are_found() {
        verdict(vec![]).unwrap();
        verdict(vec![
            write(1, 10, 1),
            write(2, 9, 2),
            delete(3, 8, 1),
            read(4, 5, None),
            read(6, 7, Some(2)),
        ])
        .unwrap();
        verdict(vec![
            write_new(1, 2, 1, Told::Done),
            write_new(3, 4, 2, Told::Value(None)),
            swap(5, 6, 3, Some(1)),
            take(7, 8, Some(3)),
            delete(9, 10, 0),
        ])
        .unwrap();
        // A deletion that nobody heard of again, found later.
        verdict(vec![
            write(1, 2, 1),
            unknown(delete(3, 4, 0)),
            read(5, 6, Some(1)),
            read(7, 8, None),
        ])
        .unwrap();
        verdict(vec![
            write(1, 2, 1),
            refused(delete(3, 4, 0)),
            read(5, 6, Some(1)),
        ])
        .unwrap();
    }

    #[test]
    fn orders_that_do_not_exist_are_not_found() {
        verdict(vec![write(1, 2, 1), delete(3, 4, 1), read(5, 6, Some(1))]).unwrap_err();
        verdict(vec![write(1, 2, 1), delete(3, 4, 0)]).unwrap_err();
        verdict(vec![write(1, 2, 1), write_new(3, 4, 2, Told::Done)]).unwrap_err();
        verdict(vec![write_new(3, 4, 2, Told::Value(None))]).unwrap_err();
        verdict(vec![write(1, 2, 1), swap(3, 4, 2, None)]).unwrap_err();
        // Two exchanges took the same value.
        verdict(vec![
            write(1, 2, 1),
            swap(3, 9, 2, Some(1)),
            swap(4, 8, 3, Some(1)),
        ])
        .unwrap_err();
        verdict(vec![
            write(1, 2, 1),
            refused(write(3, 4, 2)),
            read(5, 6, Some(2)),
        ])
        .unwrap_err();
        // One unknown deletion explains one absence, not two.
        verdict(vec![
            write(1, 2, 1),
            unknown(delete(3, 4, 0)),
            read(5, 6, None),
            write(7, 8, 2),
            read(9, 10, None),
        ])
        .unwrap_err();
    }

    #[test]
    fn values_end_when_their_time_is_over() {
        let set = || write_for(10 * MS, 12 * MS, 1, 100);
        let at = |ms: Time, seen| read(ms * MS, ms * MS + 1, seen);
        verdict(vec![
            set(),
            at(50, Some(1)),
            at(108, Some(1)),
            at(114, None),
        ])
        .unwrap();
        verdict(vec![set(), at(110, None)]).unwrap();
        verdict(vec![set(), at(100, None)]).unwrap_err();
        verdict(vec![set(), at(115, Some(1))]).unwrap_err();
        verdict(vec![set(), at(110, None), at(111, Some(1))]).unwrap_err();
        // Overwritten for good: nothing ends.
        let overwritten = || vec![set(), write(20 * MS, 21 * MS, 2)];
        let mut history = overwritten();
        history.push(at(200, Some(2)));
        verdict(history).unwrap();
        let mut history = overwritten();
        history.push(at(200, None));
        verdict(history).unwrap_err();
        // Set by whom nobody heard of again: it may end at any time, and be there only once.
        let mut history = vec![unknown(set()), at(300, Some(1)), at(500, None)];
        verdict(history.clone()).unwrap();
        history.push(at(501, Some(1)));
        verdict(history).unwrap_err();
    }

    #[test]
    fn history_of_full_length_is_decided() {
        let mut history = Vec::new();
        for index in 0..120 {
            let start = index * 10;
            history.push(write(start + 1, start + 9, index));
            history.push(read(start + 2, start + 9, Some(index)));
            history.push(read(start + 3, start + 12, Some(index)));
            let unanswered = unknown(write(start + 4, start + 9, 1000 + index));
            if index % 20 == 0 {
                history.push(unanswered);
            }
        }
        verdict(history.clone()).unwrap();
        history.push(read(1300, 1301, Some(5)));
        verdict(history).unwrap_err();
    }
}

//! Rounds: who is tried together, and what comes of it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Due, Line, Queue, Stage, TRIED_MAX};
use crate::coherence::waiting::wake::{self, Taking, Try};
use crate::coherence::{Answer, Refusal, Unit};
use crate::model::{Key, Reply};

/// Units of one round at most.
const ROUND_UNITS: usize = 256;

/// What is tried together.
#[derive(Default)]
pub struct Round {
    /// To be submitted, in order.
    pub units: Vec<Unit>,
    /// Whose they are, and what each tries.
    tried: Vec<(u64, Try, Taking)>,
    lines: Vec<LineTries>,
    /// Lines that were ready, in their order.
    earlier: Vec<Line>,
}

/// Who of a line that was ready is tried for that.
struct LineTries {
    line: Line,
    /// What was due of it.
    due: Due,
    tried: Vec<u64>,
    /// Where those stand who are due and not tried in this round.
    rest: Option<u64>,
}

impl Queue {
    /// Takes out what is to be tried now.
    pub fn next_round(&mut self) -> Round {
        let mut tries: BTreeMap<u64, (Try, Unit)> = BTreeMap::new();
        let mut round = Round::default();
        while tries.len() < ROUND_UNITS
            && let Some(number) = self.fresh.pop_first()
        {
            match self.first_try(number) {
                Some(first) => drop(tries.insert(number, first)),
                None => drop(self.arriving.remove(&number)),
            }
        }
        for _ in 0..self.ready.len() {
            if tries.len() >= ROUND_UNITS {
                break;
            }
            let Some(line) = self.ready.pop_front() else {
                break;
            };
            let due = self.due.remove(&line).unwrap_or(Due::FIRST);
            self.take_line(line, due, &mut tries, &mut round);
        }
        for (number, (tried, unit)) in tries {
            let Some(waiter) = self.waiters.get_mut(&number) else {
                continue;
            };
            waiter.stage = Stage::Tried;
            round.units.push(unit);
            round.tried.push((number, tried, waiter.taking.clone()));
        }
        round
    }

    /// Puts those of a line who are due among the tries of a round.
    fn take_line(
        &mut self,
        line: Line,
        due: Due,
        tries: &mut BTreeMap<u64, (Try, Unit)>,
        round: &mut Round,
    ) {
        let place = self.places.get(&line.key);
        let numbers = place.and_then(|place| place.line(&line.taking));
        let waiting = numbers
            .into_iter()
            .flat_map(|numbers| numbers.range(due.from..))
            .filter_map(|number| Some((*number, self.waiters.get(number)?)))
            // A client that has gone; its ticket is about to be dropped.
            .filter(|(_, waiter)| !waiter.answer.is_closed());
        let mut tried = Vec::new();
        let mut rest = None;
        for (number, waiter) in waiting {
            // One that is tried for another reason, or may get something from a key that
            // was written earlier: nobody may pass it meanwhile.
            if tried.len() == due.count
                || tries.contains_key(&number)
                || round.earlier.iter().any(|earlier| earlier.has(waiter))
            {
                rest = Some(number);
                break;
            }
            let unit = wake::woken(&waiter.call, &line.key, waiter.client);
            tries.insert(number, (Try::Woken, unit));
            tried.push(number);
        }
        if rest.is_some() || !tried.is_empty() {
            round.earlier.push(line.clone());
        }
        if !tried.is_empty() {
            round.lines.push(LineTries {
                line,
                due,
                tried,
                rest,
            });
        } else if rest.is_some() {
            self.make_due(line, due);
        }
    }

    /// How a waiter that has just come is tried. Keys for which others already wait
    /// are theirs; of those only is asked first whether they hold what is waited for,
    /// since one of another type refuses the call.
    fn first_try(&self, number: u64) -> Option<(Try, Unit)> {
        let waiter = self.waiters.get(&number)?;
        if waiter.answer.is_closed() {
            return None;
        }
        let held = |key: &&Key| {
            let place = self.places.get(*key);
            let line = place.and_then(|place| place.line(&waiter.taking));
            let first = line.into_iter().flatten().find(|number| {
                let other = self.waiters.get(number);
                other.is_some_and(|other| !other.answer.is_closed())
            });
            first.is_some_and(|first| *first < number)
        };
        let whole = || Unit::single(waiter.db, waiter.call.clone()).by(waiter.client);
        match (&waiter.taking, &waiter.checked) {
            (Taking::Deliveries(_), _) if waiter.keys.iter().all(|key| held(&key)) => None,
            (Taking::Nothing | Taking::Deliveries(_), _) => Some((Try::First, whole())),
            (_, Some(refusing)) => {
                let is_open = |key: &&Key| refusing.contains(key) || !held(key);
                let open: Vec<&Key> = waiter.keys.iter().filter(is_open).collect();
                let is_open = |name: &[u8]| open.iter().any(|key| key.name == name);
                let unit = wake::first(&waiter.call, waiter.db, waiter.client, is_open);
                (!open.is_empty()).then_some((Try::First, unit))
            }
            (taking, None) => {
                let held: Vec<Key> = waiter.keys.iter().filter(held).cloned().collect();
                if held.is_empty() {
                    return Some((Try::First, whole()));
                }
                let unit = wake::check(taking, &held, waiter.client);
                Some((Try::Check(held), unit))
            }
        }
    }

    /// Hands out what the tries of a round got.
    pub fn settle(&mut self, round: Round, replies: Result<Vec<Answer>, Refusal>) {
        let mut outcomes = Vec::with_capacity(round.tried.len());
        let failed = replies.as_ref().err().cloned();
        let mut replies = replies.unwrap_or_default().into_iter();
        for (number, tried, taking) in round.tried {
            let outcome = match (replies.next(), &failed) {
                (Some(answer), _) => {
                    let replies = answer.replies().into_iter();
                    if let Try::Check(keys) = tried {
                        self.note_check(number, keys, replies);
                        continue;
                    }
                    wake::outcome(&tried, &taking, replies).map(Ok)
                }
                // A client that already waits is not told that the store is away for a moment.
                (None, Some(_)) if tried == Try::Woken => None,
                (None, Some(refusal)) => Some(Err(refusal.clone())),
                (None, None) => Some(Err(Refusal::Stopping)),
            };
            outcomes.push((number, outcome));
        }
        self.settle_lines(round.lines, failed.as_ref(), &outcomes);
        for (number, outcome) in outcomes {
            self.conclude(number, outcome);
        }
    }

    /// Makes lines due again of which all who were tried were served: there may be more.
    /// They come before those that were written later.
    fn settle_lines(
        &mut self,
        lines: Vec<LineTries>,
        failed: Option<&Refusal>,
        outcomes: &[(u64, Option<Result<Reply, Refusal>>)],
    ) {
        let served = outcomes.iter().filter(|(_, outcome)| outcome.is_some());
        let served: BTreeSet<u64> = served.map(|(number, _)| *number).collect();
        for LineTries {
            line,
            due,
            tried,
            rest,
        } in lines.into_iter().rev()
        {
            if failed.is_some() {
                self.make_due_first(line, due);
            } else if line.taking == Taking::Nothing {
                if let Some(from) = rest {
                    self.make_due_first(line, Due { from, ..due });
                }
            } else if tried.iter().all(|number| served.contains(number)) {
                let count = (tried.len() * 2).clamp(1, TRIED_MAX);
                self.make_due_first(line, Due { from: 0, count });
            }
        }
    }

    /// Keeps which of `keys` refuse a waiter that has just come, and lets it be tried.
    fn note_check(&mut self, number: u64, keys: Vec<Key>, replies: impl Iterator<Item = Reply>) {
        let Some(waiter) = self.waiters.get_mut(&number) else {
            return;
        };
        let found = keys.into_iter().zip(replies);
        let refusing = found.filter(|(_, reply)| matches!(reply, Reply::Error(_)));
        waiter.checked = Some(refusing.map(|(key, _)| key).collect());
        if waiter.stage == Stage::Withdrawn {
            return self.conclude(number, None);
        }
        waiter.stage = Stage::Waits;
        self.fresh.insert(number);
    }

    /// Answers a waiter that was tried, or lets it wait on.
    fn conclude(&mut self, number: u64, outcome: Option<Result<Reply, Refusal>>) {
        let Some(waiter) = self.waiters.get_mut(&number) else {
            return;
        };
        let is_last = waiter.stage == Stage::Withdrawn;
        let answer = match outcome {
            Some(answer) => answer,
            None if is_last => Ok(Reply::NullArray),
            None => {
                waiter.stage = Stage::Waits;
                self.arriving.remove(&number);
                return;
            }
        };
        let Some(waiter) = self.remove(number) else {
            return;
        };
        self.make_next_due(&waiter);
        // A client that has gone does not want its answer.
        let _ = waiter.answer.send(answer);
    }
}

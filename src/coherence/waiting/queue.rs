//! Who waits for what, and who is tried next.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tokio::sync::oneshot;

use super::wake::{self, Taking, Try};
use crate::coherence::{Answer, Refusal, Unit};
use crate::command::Call;
use crate::model::{Db, Key, Reply, Version};

/// Units of one round at most.
const ROUND_UNITS: usize = 256;
/// Waiters of one line that are tried in one round at most.
const TRIED_MAX: usize = 128;

/// All waiters of a proxy.
#[derive(Default)]
pub struct Queue {
    waiters: BTreeMap<u64, Waiter>,
    places: BTreeMap<Key, Place>,
    /// Who has just come, and is to be tried for the first time.
    fresh: BTreeSet<u64>,
    /// Who was not told yet that it has to wait: those, and whose first try is under way.
    arriving: BTreeSet<u64>,
    /// Lines whose key was written, in the order in which that was; each has its
    /// entry in `due`.
    ready: VecDeque<Line>,
    due: HashMap<Line, Due>,
    /// The key up to which others' writes were looked for.
    looked_to: Option<Key>,
}

/// A call that waits.
pub struct Waiter {
    /// The call.
    pub call: Call,
    /// Its database.
    pub db: Db,
    /// Its client's number.
    pub client: u64,
    /// The keys that it waits for.
    pub keys: Vec<Key>,
    /// What it takes of them.
    pub taking: Taking,
    /// Where its reply goes.
    pub answer: oneshot::Sender<Result<Reply, Refusal>>,
    /// What is being done for it.
    pub stage: Stage,
    /// Keys of another type than what it waits for, once those were checked for which
    /// others waited when it came.
    pub checked: Option<Vec<Key>>,
}

/// What is being done for a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing.
    Waits,
    /// A try is under way.
    Tried,
    /// A try is under way, and shall be the last.
    Withdrawn,
}

/// Those who wait for one key.
#[derive(Default)]
struct Place {
    lines: Vec<(Taking, BTreeSet<u64>)>,
    /// The key's version at the last look.
    seen: Option<Version>,
}

/// Those who wait for the same of one key, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Line {
    key: Key,
    taking: Taking,
}

impl Line {
    /// Whether `waiter` stands in it.
    fn has(&self, waiter: &Waiter) -> bool {
        waiter.taking == self.taking && waiter.keys.contains(&self.key)
    }
}

/// Who of a line is to be tried.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// Those from this number on,
    from: u64,
    /// and so many.
    count: usize,
}

/// What became of a key that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has a new content.
    There,
    /// It is gone.
    Gone,
}

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

impl Place {
    fn line(&self, taking: &Taking) -> Option<&BTreeSet<u64>> {
        let line = self.lines.iter().find(|(of, _)| of == taking);
        line.map(|(_, numbers)| numbers)
    }
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// How many were tried, and found nothing.
    pub fn blocked(&self) -> usize {
        self.waiters.len() - self.arriving.len()
    }

    /// Whether there is nothing to try.
    pub fn is_idle(&self) -> bool {
        self.fresh.is_empty() && self.ready.is_empty()
    }

    /// A new waiter, of a number above all others.
    pub fn add(&mut self, number: u64, waiter: Waiter) {
        for key in &waiter.keys {
            let place = self.places.entry(key.clone()).or_default();
            match place.lines.iter_mut().find(|(of, _)| *of == waiter.taking) {
                Some((_, numbers)) => {
                    numbers.insert(number);
                }
                None => {
                    let numbers = BTreeSet::from([number]);
                    place.lines.push((waiter.taking.clone(), numbers));
                }
            }
        }
        self.fresh.insert(number);
        self.arriving.insert(number);
        self.waiters.insert(number, waiter);
    }

    /// Takes a waiter out.
    pub fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        self.fresh.remove(&number);
        self.arriving.remove(&number);
        for key in &waiter.keys {
            let Some(place) = self.places.get_mut(key) else {
                continue;
            };
            place.lines.retain_mut(|(_, numbers)| {
                numbers.remove(&number);
                !numbers.is_empty()
            });
            if place.lines.is_empty() {
                self.places.remove(key);
            }
        }
        Some(waiter)
    }

    /// Takes a waiter out whose client has gone. What a try of it that is under way
    /// still takes is lost, and leaves those behind it to be tried.
    pub fn abandon(&mut self, number: u64) {
        let waiter = self.remove(number);
        if let Some(waiter) = waiter.filter(|waiter| waiter.stage != Stage::Waits) {
            self.make_next_due(&waiter);
        }
    }

    /// There may be something for who stands behind `waiter`, which is served or gone.
    fn make_next_due(&mut self, waiter: &Waiter) {
        for key in &waiter.keys {
            let place = self.places.get(key);
            if place.is_some_and(|place| place.line(&waiter.taking).is_some()) {
                let line = Line {
                    key: key.clone(),
                    taking: waiter.taking.clone(),
                };
                self.make_due(line, Due::FIRST);
            }
        }
    }

    /// The waiter of that number.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Waiter> {
        self.waiters.get_mut(&number)
    }

    /// A key was written. Whether anybody is to be tried for that.
    pub fn note(&mut self, key: &Key, now: Presence) -> bool {
        let Some(place) = self.places.get(key) else {
            return false;
        };
        let lines: Vec<Line> = place
            .lines
            .iter()
            .filter(|(taking, _)| now == Presence::There || taking.ends_with_key())
            .map(|(taking, _)| Line {
                key: key.clone(),
                taking: taking.clone(),
            })
            .collect();
        let is_any = !lines.is_empty();
        for line in lines {
            self.make_due(line, Due::FIRST);
        }
        is_any
    }

    /// Any key may have been written.
    pub fn note_all(&mut self) {
        let keys: Vec<Key> = self.places.keys().cloned().collect();
        for key in keys {
            self.note(&key, Presence::There);
        }
    }

    fn make_due(&mut self, line: Line, due: Due) {
        let due = match line.taking {
            // They take nothing away from each other, so all of them are tried.
            Taking::Nothing => Due {
                count: TRIED_MAX,
                ..due
            },
            _ => due,
        };
        match self.due.get_mut(&line) {
            Some(known) => {
                known.count = known.count.max(due.count);
                known.from = known.from.min(due.from);
            }
            None => {
                self.due.insert(line.clone(), due);
                self.ready.push_back(line);
            }
        }
    }

    /// The same, before all others.
    fn make_due_first(&mut self, line: Line, due: Due) {
        if self.due.contains_key(&line) {
            self.ready.retain(|other| *other != line);
            self.ready.push_front(line.clone());
            self.make_due(line, due);
        } else {
            self.due.insert(line.clone(), due);
            self.ready.push_front(line);
        }
    }

    /// The keys of the next look, `limit` at most, in turn.
    pub fn next_look(&mut self, limit: usize) -> Vec<Key> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.looked_to.take();
        let from = from.map_or(Unbounded, Excluded);
        let behind = self.places.range((from, Unbounded));
        let keys: Vec<Key> = behind.take(limit).map(|(key, _)| key.clone()).collect();
        if keys.len() == limit {
            self.looked_to = keys.last().cloned();
        }
        keys
    }

    /// Notes the version that a look found. Whether anybody is to be tried for that.
    pub fn note_version(&mut self, key: &Key, version: Version) -> bool {
        let Some(place) = self.places.get_mut(key) else {
            return false;
        };
        let is_news = place.seen.replace(version) != Some(version);
        is_news && self.note(key, Presence::There)
    }

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
                    let replies = answer.into_iter().flatten();
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

impl Due {
    /// The first of a line.
    const FIRST: Self = Self { from: 0, count: 1 };
}

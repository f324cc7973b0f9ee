//! Who waits for what, and who is tried next.

mod round;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tokio::sync::oneshot;

pub use self::round::Round;
use super::wake::Taking;
use crate::coherence::Refusal;
use crate::command::Call;
use crate::model::{Db, Key, Reply, Version};

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
    /// The key's version at the last look, and whether it was there: its end does not
    /// change its version.
    seen: Option<(Version, Presence)>,
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

    /// Notes what a look found. Whether anybody is to be tried for that.
    pub fn note_look(&mut self, key: &Key, version: Version, now: Presence) -> bool {
        let Some(place) = self.places.get_mut(key) else {
            return false;
        };
        let found = Some((version, now));
        let is_news = std::mem::replace(&mut place.seen, found) != found;
        is_news && self.note(key, now)
    }
}

impl Due {
    /// The first of a line.
    const FIRST: Self = Self { from: 0, count: 1 };
}

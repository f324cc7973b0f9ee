//! Clients that wait for a key to be written: `BLPOP` and its like.
//!
//! A waiting call is a unit that is tried through the commit lane until its reply is
//! not null. One task makes all tries, in rounds; within a round, units are in the
//! order in which their clients came, and the lane keeps it. So no call
//! is ever tried twice at once, and who came first is served first.
//!
//! A key that a committed batch of this proxy has changed is *ready*: its first
//! waiter is tried; if that got something, the next two, then the next four. What
//! other proxies write is seen by a look at the keys' versions once a second.
//!
//! A client that has gone takes its ticket with it, and is not tried. (One that
//! goes while its try is under way may lose what it popped, as in Redis.)

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::{Answer, Lane, Refusal, Unit};
use crate::command::flags;
use crate::model::{Key, Reply, Version};
use crate::store::{LoadRequest, Store};

/// Units of one round at most.
const ROUND_UNITS: usize = 256;
/// Waiters of one key that are tried in one round at most.
const TRIED_MAX: usize = 128;
/// Between two looks at what other proxies wrote.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Keys that are looked at in one query.
const LOOK_KEYS: usize = 1000;

/// The waiting calls of all clients of this proxy.
#[derive(Default)]
pub struct Waiting {
    state: Mutex<State>,
    /// There is something to try.
    news: Notify,
    last_ticket: AtomicU64,
    /// Waiters, so that the lane need not ask for the lock when there are none.
    count: AtomicUsize,
}

#[derive(Default)]
struct State {
    waiters: BTreeMap<u64, Waiter>,
    /// Who waits for a key, in the order in which they came.
    by_key: HashMap<Key, BTreeSet<u64>>,
    /// To be tried whatever happens.
    fresh: BTreeSet<u64>,
    /// Keys that have changed, and how many of their waiters are to be tried.
    ready: HashMap<Key, usize>,
    /// The versions of waited keys at the last look.
    seen: HashMap<Key, Version>,
}

struct Waiter {
    unit: Unit,
    keys: Vec<Key>,
    answer: oneshot::Sender<Result<Reply, Refusal>>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It was never tried.
    New,
    /// Its last try got nothing.
    Waits,
    /// A try is under way.
    Tried,
    /// A try is under way, and shall be the last.
    Withdrawn,
}

/// A call that waits, until this is dropped.
pub struct Ticket {
    waiting: Arc<Waiting>,
    number: u64,
    answer: oneshot::Receiver<Result<Reply, Refusal>>,
}

impl Ticket {
    /// Ready when the call got something, or was refused.
    pub fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<Reply, Refusal>> {
        self.answer
            .poll_unpin(context)
            .map(|answer| answer.unwrap_or(Err(Refusal::Stopping)))
    }

    /// Ends the waiting. A try that is under way is awaited: what it got is the
    /// answer; else it is null.
    pub async fn withdraw(mut self) -> Result<Reply, Refusal> {
        if self.waiting.withdraw(self.number) {
            let answer = (&mut self.answer).await;
            return answer.unwrap_or(Err(Refusal::Stopping));
        }
        self.answer.try_recv().unwrap_or(Ok(Reply::NullArray))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.lock().remove(self.number);
        self.waiting.recount();
    }
}

impl State {
    fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        self.fresh.remove(&number);
        for key in &waiter.keys {
            let Some(queue) = self.by_key.get_mut(key) else {
                continue;
            };
            queue.remove(&number);
            if queue.is_empty() {
                self.by_key.remove(key);
                self.ready.remove(key);
                self.seen.remove(key);
            }
        }
        Some(waiter)
    }

    /// Whether somebody has come before for the same, and is served first.
    fn is_behind(&self, unit: &Unit, keys: &[Key]) -> bool {
        let name = |unit: &Unit| unit.steps.first().map(|step| step.call.command.name);
        let [key] = keys else {
            return false;
        };
        let queue = self.by_key.get(key).into_iter().flatten();
        !reads_only(unit)
            && queue
                .filter_map(|number| self.waiters.get(number))
                .any(|other| name(&other.unit) == name(unit))
    }

    fn note(&mut self, key: &Key) -> bool {
        let Some(queue) = self.by_key.get(key) else {
            return false;
        };
        // Readers take nothing away, so all of them are tried.
        let readers = queue.iter().filter(|number| {
            self.waiters
                .get(number)
                .is_some_and(|w| reads_only(&w.unit))
        });
        self.fresh.extend(readers);
        self.ready.entry(key.clone()).or_insert(1);
        true
    }

    /// Takes out what is to be tried now.
    fn next_round(&mut self) -> Round {
        let mut round = Round::default();
        let mut numbers: BTreeSet<u64> = BTreeSet::new();
        while numbers.len() < ROUND_UNITS
            && let Some(number) = self.fresh.pop_first()
        {
            numbers.insert(number);
        }
        let ready: Vec<Key> = self.ready.keys().cloned().collect();
        for key in ready {
            if numbers.len() >= ROUND_UNITS {
                break;
            }
            let count = self.ready.remove(&key).unwrap_or(1);
            let queue = self.by_key.get(&key).into_iter().flatten();
            let first: Vec<u64> = queue.take(count).copied().collect();
            numbers.extend(&first);
            round.keys.push((key, first));
        }
        for number in numbers {
            let Some(waiter) = self.waiters.get_mut(&number) else {
                continue;
            };
            if waiter.answer.is_closed() {
                // The client has gone; its ticket is about to be dropped.
                continue;
            }
            round.units.push(waiter.unit.clone());
            round.tried.push((number, waiter.stage));
            waiter.stage = Stage::Tried;
        }
        round
    }

    /// Hands out what the tries of a round got.
    fn settle(&mut self, round: Round, replies: Result<Vec<Answer>, Refusal>) {
        let mut served = BTreeSet::new();
        let failed = replies.as_ref().err().cloned();
        let mut replies = replies.unwrap_or_default().into_iter();
        for (number, before) in &round.tried {
            let answer = match (replies.next(), &failed) {
                (Some(answer), _) => Ok(reply_of(answer)),
                (None, Some(refusal)) => Err(refusal.clone()),
                (None, None) => Err(Refusal::Stopping),
            };
            let Some(waiter) = self.waiters.get_mut(number) else {
                continue;
            };
            let is_last = waiter.stage == Stage::Withdrawn;
            let goes_on = match &answer {
                Ok(Reply::Null | Reply::NullArray) => !is_last,
                Ok(_) => false,
                // A client that already waits is not told that the store is away for a moment.
                Err(_) => *before == Stage::Waits && !is_last,
            };
            if goes_on {
                waiter.stage = Stage::Waits;
            } else if let Some(waiter) = self.remove(*number) {
                served.insert(*number);
                // There may be more for who stands behind it.
                for key in waiter
                    .keys
                    .iter()
                    .filter(|key| self.by_key.contains_key(*key))
                {
                    self.ready.entry(key.clone()).or_insert(1);
                }
                // A client that has gone does not want its answer.
                let _ = waiter.answer.send(answer);
            }
        }
        for (key, first) in round.keys {
            if failed.is_some() {
                self.seen.remove(&key);
            } else if first.iter().all(|number| served.contains(number))
                && self.by_key.contains_key(&key)
            {
                let more = (first.len() * 2).clamp(1, TRIED_MAX);
                let count = self.ready.entry(key).or_insert(more);
                *count = (*count).max(more);
            }
        }
    }
}

/// The reply to the one call of a unit.
fn reply_of(answer: Answer) -> Reply {
    let reply = answer.and_then(|replies| replies.into_iter().next());
    reply.unwrap_or(Reply::NullArray)
}

/// What is tried together.
#[derive(Default)]
struct Round {
    units: Vec<Unit>,
    /// Whose they are, and what had been of them before.
    tried: Vec<(u64, Stage)>,
    /// Keys that were ready, and their waiters that are tried for that.
    keys: Vec<(Key, Vec<u64>)>,
}

/// Whether the unit takes nothing away from those who wait behind it.
fn reads_only(unit: &Unit) -> bool {
    let names = unit.steps.iter().map(|step| step.call.command);
    names
        .into_iter()
        .all(|command| !command.flags.has(flags::WRITE) || command.name == "XREADGROUP")
}

impl Waiting {
    /// Starts the task that tries.
    pub fn start(lane: &Arc<Lane>, store: &Arc<Store>) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let waiting = Arc::clone(lane.waiting());
        let task = tokio::spawn(Arc::clone(&waiting).serve(Arc::clone(lane), Arc::clone(store)));
        (waiting, task)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recount(&self) {
        let state = self.lock();
        self.count.store(state.waiters.len(), Ordering::Release);
    }

    /// How many calls wait.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets `unit`, one call, wait until it gets something from one of `keys`.
    pub fn enter(self: &Arc<Self>, unit: Unit, keys: Vec<Key>) -> Ticket {
        let number = self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        let mut state = self.lock();
        if !state.is_behind(&unit, &keys) {
            state.fresh.insert(number);
        }
        for key in &keys {
            state.by_key.entry(key.clone()).or_default().insert(number);
        }
        let waiter = Waiter {
            unit,
            keys,
            answer,
            stage: Stage::New,
        };
        state.waiters.insert(number, waiter);
        // Within the lock: what is committed from now on is heard of.
        self.count.store(state.waiters.len(), Ordering::Release);
        drop(state);
        self.news.notify_one();
        Ticket {
            waiting: Arc::clone(self),
            number,
            answer: answered,
        }
    }

    /// Whether a try is under way, whose answer is to be awaited.
    fn withdraw(&self, number: u64) -> bool {
        let mut state = self.lock();
        match state.waiters.get_mut(&number) {
            Some(waiter) if matches!(waiter.stage, Stage::Tried | Stage::Withdrawn) => {
                waiter.stage = Stage::Withdrawn;
                true
            }
            Some(_) => {
                state.remove(number);
                false
            }
            None => false,
        }
    }

    /// Says that a committed batch changed these keys.
    pub(super) fn note<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        if self.is_empty() {
            return;
        }
        let mut state = self.lock();
        let mut is_any = false;
        for key in keys {
            is_any |= state.note(key);
        }
        drop(state);
        if is_any {
            self.news.notify_one();
        }
    }

    async fn serve(self: Arc<Self>, lane: Arc<Lane>, store: Arc<Store>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut round = self.lock().next_round();
            if round.units.is_empty() {
                tokio::select! {
                    () = self.news.notified() => {}
                    _ = looks.tick() => self.look(&store).await,
                }
                continue;
            }
            let replies = lane.submit(std::mem::take(&mut round.units)).await;
            self.lock().settle(round, replies);
            self.recount();
        }
    }

    /// Looks which keys have changed that this proxy did not hear of.
    async fn look(&self, store: &Store) {
        let keys: Vec<Key> = self.lock().by_key.keys().cloned().collect();
        for chunk in keys.chunks(LOOK_KEYS) {
            let headers: Vec<LoadRequest> =
                chunk.iter().cloned().map(LoadRequest::header).collect();
            // A store that is away is asked again at the next look.
            let Ok(snapshot) = store.snapshot(&headers).await else {
                return;
            };
            let mut state = self.lock();
            for (key, found) in chunk.iter().zip(snapshot.keys) {
                if !state.by_key.contains_key(key) {
                    continue;
                }
                if state.seen.insert(key.clone(), found.version) != Some(found.version) {
                    state.note(key);
                }
            }
        }
    }
}

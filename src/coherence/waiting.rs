//! Clients that wait for a key to be written: `BLPOP` and its like.
//!
//! A waiting call is a unit that is tried through the commit lane until its reply is
//! not null. One task makes all tries, in rounds; within a round, units are in the
//! order in which their clients came, and the lane keeps it. So no call
//! is ever tried twice at once, and who came first is served first.
//!
//! Who takes the same of a key stands in one line. A key that a committed batch of
//! this proxy has changed is *ready*: of each of its lines the first is tried, for this key
//! alone, as Redis does it; if that got something, the next two, then the next
//! four. What other proxies write is heard of by their messages
//! ([`Audience::begin_hearing`]), and seen, if one is lost, by a look at the keys'
//! versions: at so many keys each second, however many wait.
//!
//! A client that has gone takes its ticket with it, and is not tried. (One that
//! goes while its try is under way may lose what it popped, as in Redis.)

mod queue;
mod wake;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval};

pub(super) use self::queue::Presence;
use self::queue::{Queue, Stage, Waiter};
use self::wake::Taking;
use super::meters::WakeMeters;
use super::{Audience, Ear, Lane, Refusal, Unit};
use crate::command::Call;
use crate::engine::{self, Content};
use crate::model::{Db, Key, Reply};
use crate::store::{LoadRequest, Store};

/// Between two looks at what other proxies wrote.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Keys that one look sees.
const LOOK_KEYS: usize = 1000;
/// Looks without a waiter after which other proxies need not tell any longer.
const LOOKS_ALONE: u32 = 60;
/// Behind a round that the store could not do.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The waiting calls of all clients of this proxy.
#[derive(Default)]
pub struct Waiting {
    queue: Mutex<Queue>,
    /// There is something to try.
    news: Notify,
    /// Something may have been missed: all keys are to be looked at.
    doubt: Notify,
    last_ticket: AtomicU64,
    /// Waiters, so that the lane need not ask for the lock when there are none.
    count: AtomicUsize,
    /// Those of them that were tried, and found nothing.
    blocked: AtomicUsize,
    meters: WakeMeters,
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
        let mut queue = self.waiting.lock();
        queue.abandon(self.number);
        self.waiting.recount(&queue);
        if !queue.is_idle() {
            self.waiting.news.notify_one();
        }
    }
}

impl Waiting {
    /// Starts the task that tries.
    pub fn start(
        lane: &Arc<Lane>,
        store: &Arc<Store>,
        audience: &Arc<dyn Audience>,
    ) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let waiting = Arc::clone(lane.waiting());
        let work = Work {
            waiting: Arc::clone(&waiting),
            lane: Arc::clone(lane),
            store: Arc::clone(store),
            audience: Arc::clone(audience),
            looks_alone: 0,
            hears: false,
        };
        (waiting, tokio::spawn(work.run()))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recount(&self, queue: &Queue) {
        self.count.store(queue.len(), Ordering::Release);
        self.blocked.store(queue.blocked(), Ordering::Release);
    }

    /// How many calls wait, since there was nothing for them when they came.
    pub fn blocked(&self) -> usize {
        self.blocked.load(Ordering::Acquire)
    }

    /// Whether anybody waits, or may have to.
    pub(super) fn is_any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Lets `call`, sent by `client`, wait until it gets something.
    pub fn enter(self: &Arc<Self>, call: Call, db: Db, client: u64) -> Ticket {
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter {
            keys: engine::waited_keys(&call, db),
            taking: Taking::of(&call),
            call,
            db,
            client,
            answer,
            stage: Stage::Waits,
            checked: None,
        };
        let mut queue = self.lock();
        let number = self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1;
        queue.add(number, waiter);
        // Within the lock: what is committed from now on is heard of.
        self.recount(&queue);
        drop(queue);
        self.news.notify_one();
        Ticket {
            waiting: Arc::clone(self),
            number,
            answer: answered,
        }
    }

    /// Whether a try is under way, whose answer is to be awaited.
    fn withdraw(&self, number: u64) -> bool {
        let mut queue = self.lock();
        match queue.get_mut(number) {
            Some(waiter) if waiter.stage != Stage::Waits => {
                waiter.stage = Stage::Withdrawn;
                true
            }
            Some(_) => {
                queue.remove(number);
                self.recount(&queue);
                false
            }
            None => false,
        }
    }

    /// Says that a committed batch wrote these keys, in this order.
    pub(super) fn note<'a>(&self, keys: impl Iterator<Item = (&'a Key, Presence)>) {
        let woken = self.note_each(keys);
        self.meters.by_commit.increment(woken);
    }

    fn next_round(&self) -> queue::Round {
        let mut queue = self.lock();
        let round = queue.next_round();
        self.recount(&queue);
        round
    }

    fn note_each<'a>(&self, keys: impl Iterator<Item = (&'a Key, Presence)>) -> u64 {
        if !self.is_any() {
            return 0;
        }
        let mut queue = self.lock();
        let woken = keys.filter(|(key, written)| queue.note(key, *written));
        let woken = woken.count() as u64;
        drop(queue);
        if woken > 0 {
            self.news.notify_one();
        }
        woken
    }

    /// Says that any key may have been written or deleted.
    pub fn note_all(&self) {
        if self.is_any() {
            self.lock().note_all();
            self.news.notify_one();
        }
    }
}

impl Ear for Waiting {
    fn hear(&self, keys: &[Key]) {
        let woken = self.note_each(keys.iter().map(|key| (key, Presence::There)));
        self.meters.by_message.increment(woken);
    }

    fn doubt(&self) {
        self.doubt.notify_one();
    }
}

/// The task that makes all tries.
struct Work {
    waiting: Arc<Waiting>,
    lane: Arc<Lane>,
    store: Arc<Store>,
    audience: Arc<dyn Audience>,
    /// Looks since anybody waited.
    looks_alone: u32,
    /// Whether other proxies' messages are heard.
    hears: bool,
}

impl Work {
    async fn run(mut self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !self.hears && self.waiting.is_any() {
                self.hears = true;
                self.audience.begin_hearing(Arc::clone(&self.waiting) as _);
            }
            let round = self.waiting.next_round();
            if !round.units.is_empty() {
                self.make(round).await;
                continue;
            }
            tokio::select! {
                () = self.waiting.news.notified() => {}
                () = self.waiting.doubt.notified() => self.look_at_all().await,
                _ = looks.tick() => {
                    self.look().await;
                    self.rest();
                }
            }
        }
    }

    async fn make(&self, mut round: queue::Round) {
        let units: Vec<Unit> = std::mem::take(&mut round.units);
        let replies = self.lane.submit(units).await;
        let is_away = replies.is_err();
        {
            let mut queue = self.waiting.lock();
            queue.settle(round, replies);
            self.waiting.recount(&queue);
        }
        if is_away {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Lets other proxies be silent once nobody has waited for a while.
    fn rest(&mut self) {
        self.looks_alone = match self.waiting.is_any() {
            true => 0,
            false => self.looks_alone.saturating_add(1),
        };
        if self.hears && self.looks_alone >= LOOKS_ALONE {
            self.hears = false;
            self.audience.end_hearing();
        }
    }

    async fn look_at_all(&self) {
        loop {
            // A store that is away is asked again at the next look.
            if self.look().await.is_none_or(|seen| seen < LOOK_KEYS) {
                return;
            }
        }
    }

    /// Looks which keys have changed that this proxy did not hear of. How many it
    /// saw; `None`: the store is away.
    async fn look(&self) -> Option<usize> {
        let keys = self.waiting.lock().next_look(LOOK_KEYS);
        if keys.is_empty() {
            return Some(0);
        }
        let headers: Vec<LoadRequest> = keys.iter().cloned().map(LoadRequest::header).collect();
        let snapshot = self.store.snapshot(&headers).await.ok()?;
        let mut queue = self.waiting.lock();
        let found = keys.iter().zip(snapshot.keys);
        let woken = found.filter(|(key, found)| {
            let now = match found.content {
                Content::Absent => Presence::Gone,
                _ => Presence::There,
            };
            queue.note_look(key, found.version, now)
        });
        self.waiting.meters.by_look.increment(woken.count() as u64);
        Some(keys.len())
    }
}

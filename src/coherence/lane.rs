//! The commit lane: begin, persist, commit, apply, acknowledge.
//!
//! One task takes what has gathered and commits it as one transaction; while
//! it does, the next batch gathers. The apply of a batch overlaps the next
//! batch's transaction. There is no timer: a lone unit is committed at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::gather::{Gatherer, SharedSession};
use super::meters::LaneMeters;
use super::once::Keeping;
use super::plan::Wanted;
use super::worker::Worker;
use super::{Acknowledge, Answer, Audience, Fence, Refusal, Unit, Waiting};
use crate::cache::Cache;
use crate::config;
use crate::model::EventClasses;
use crate::store::Store;

/// Jobs that may wait in the queue; units and bytes are bounded besides.
const QUEUE_JOBS: usize = 16 * 1024;
/// Batches whose apply may be under way while the next is committed.
const APPLIES_MAX: usize = 4;

/// Units of one connection in their order, and where their replies go.
pub(super) struct Job {
    pub(super) units: Vec<Unit>,
    pub(super) bytes: usize,
    /// No other job commits with it.
    pub(super) is_alone: bool,
    /// The classes of events that are wanted of them.
    pub(super) events: EventClasses,
    answer: oneshot::Sender<Result<Vec<Answer>, Refusal>>,
    /// Its share of the lane's bounds, given back when it is answered.
    _room: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Job {
    /// A job for one unit of this one, with an answer of its own.
    pub(super) fn of_one(
        &self,
        unit: Unit,
        answer: oneshot::Sender<Result<Vec<Answer>, Refusal>>,
    ) -> Self {
        Self {
            units: vec![unit],
            bytes: 0,
            is_alone: true,
            events: self.events,
            answer,
            _room: None,
        }
    }

    /// Whether it is answered as soon as it is committed: if all its units may be.
    pub(super) fn is_eventual(&self) -> bool {
        let is_eventual = |unit: &Unit| unit.acknowledge == Acknowledge::Committed;
        self.units.iter().all(is_eventual)
    }

    pub(super) fn answer(self, replies: Result<Vec<Answer>, Refusal>) {
        // A client that has gone does not want its answer.
        let _ = self.answer.send(replies);
    }
}

/// The lane's entrance, shared by all connections.
pub struct Lane {
    jobs: mpsc::Sender<Job>,
    units_room: Arc<Semaphore>,
    units_max: u32,
    bytes_room: Arc<Semaphore>,
    bytes_max: u32,
    progress: Arc<Progress>,
    in_flight: Arc<AtomicUsize>,
    audience: Arc<dyn Audience>,
    waiting: Arc<Waiting>,
    applies: Arc<Semaphore>,
}

/// Which batches have been applied, for readers who wait for one.
pub(super) struct Progress {
    /// Batches up to this one are over.
    pub(super) over: watch::Sender<u64>,
    finished: std::sync::Mutex<std::collections::BTreeSet<u64>>,
}

impl Progress {
    /// Notes that `batch` is over.
    pub(super) fn finish(&self, batch: u64) {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        self.over.send_modify(|over| {
            if batch > *over {
                finished.insert(batch);
            }
            while finished.remove(&(*over + 1)) {
                *over += 1;
            }
        });
    }
}

impl Lane {
    /// Starts the lane's task.
    pub fn start(
        store: Arc<Store>,
        cache: Arc<Cache>,
        fence: Arc<Fence>,
        settings: &config::Commit,
        audience: Arc<dyn Audience>,
    ) -> Arc<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS);
        let progress = Arc::new(Progress {
            over: watch::Sender::new(0),
            finished: Default::default(),
        });
        // Semaphores count in kilobytes: a permit number is a u32.
        let bytes_max = (settings.queue_bytes.as_u64() >> 10).min(u64::from(u32::MAX >> 3)) as u32;
        let numbers = Arc::new(AtomicU64::new(0));
        // One batch is begun ahead, no more: it would only grow old.
        let (gathered, batches) = mpsc::channel(1);
        let (waits, lane_waits) = watch::channel(false);
        let in_flight = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::new(Waiting::default());
        let shared_session = SharedSession::default();
        let gatherer = Gatherer {
            session: Arc::clone(&shared_session),
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            fence: Arc::clone(&fence),
            queue,
            lane_waits,
            in_flight: Arc::clone(&in_flight),
            numbers: Arc::clone(&numbers),
            max_units: settings.max_batch_units as usize,
            max_bytes: settings.max_batch_bytes.as_usize(),
            carried: None,
        };
        let applies = Arc::new(Semaphore::new(APPLIES_MAX));
        let worker = Worker {
            store,
            cache,
            fence,
            meters: LaneMeters::new(),
            batches,
            waits,
            session: None,
            shared_session,
            applies: Arc::clone(&applies),
            progress: Arc::clone(&progress),
            waiting: Arc::clone(&waiting),
            wanted: Wanted::default(),
            unknown_timeout: settings.unknown_timeout,
            keeping: Keeping::new(settings),
            numbers,
            audience: Arc::clone(&audience),
        };
        tokio::spawn(gatherer.run(gathered));
        tokio::spawn(worker.run());
        Arc::new(Self {
            jobs,
            units_room: Arc::new(Semaphore::new(settings.queue_units as usize)),
            units_max: settings.queue_units,
            bytes_room: Arc::new(Semaphore::new(bytes_max as usize)),
            bytes_max,
            progress,
            in_flight,
            audience,
            waiting,
            applies,
        })
    }

    /// Commits `units` in their order; one answer for each, in order. Waits
    /// for room in the lane first: that is the back-pressure on clients.
    pub async fn submit(&self, units: Vec<Unit>) -> Result<Vec<Answer>, Refusal> {
        let count = units.len();
        let bytes = units.iter().map(Unit::bytes).sum::<usize>();
        let units_wanted = (count as u32).min(self.units_max);
        let bytes_wanted = ((bytes >> 10) as u32).min(self.bytes_max);
        let room = (
            Arc::clone(&self.units_room)
                .acquire_many_owned(units_wanted)
                .await
                .map_err(|_| Refusal::Stopping)?,
            Arc::clone(&self.bytes_room)
                .acquire_many_owned(bytes_wanted)
                .await
                .map_err(|_| Refusal::Stopping)?,
        );
        let (answer, answered) = oneshot::channel();
        let _counted = Counted::new(&self.in_flight, count);
        let is_alone = units.iter().any(|unit| unit.done().is_some());
        match self
            .jobs
            .send(Job {
                units,
                bytes,
                is_alone,
                events: self.audience.event_classes(),
                answer,
                _room: Some(room),
            })
            .await
        {
            Ok(()) => answered
                .await
                .unwrap_or(Err(Refusal::Unknown("the commit lane ended".into()))),
            Err(_) => Err(Refusal::Stopping),
        }
    }

    /// The classes of events that anybody may want to hear of.
    pub(super) fn event_classes(&self) -> EventClasses {
        self.audience.event_classes()
    }

    /// Those who wait for what is committed here.
    pub(super) fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }

    /// Waits until the cache has been told of all that was answered.
    pub async fn settle(&self) {
        // Fails only if it is closed, which it never is.
        let _ = self.applies.acquire_many(APPLIES_MAX as u32).await;
    }

    /// Units that wait or are worked on.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Batches up to this one are over.
    pub fn over(&self) -> u64 {
        *self.progress.over.borrow()
    }

    /// Waits until `batch` is applied; `false` if that takes longer than `limit`.
    pub async fn applied(&self, batch: u64, limit: Duration) -> bool {
        let mut over = self.progress.over.subscribe();
        let wait = over.wait_for(|over| *over >= batch);
        matches!(tokio::time::timeout(limit, wait).await, Ok(Ok(_)))
    }
}

/// Units counted as in flight until this is dropped, also by a client that goes.
struct Counted<'a>(&'a AtomicUsize, usize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize, units: usize) -> Self {
        counter.fetch_add(units, Ordering::Relaxed);
        Self(counter, units)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

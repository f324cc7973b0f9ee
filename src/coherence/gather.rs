//! What waits becomes a batch; a blind one is begun in the cache while the
//! batch before it is still being committed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{mpsc, watch};

use super::batch::{Batch, Failure, Prepared};
use super::lane::Job;
use super::plan::{Wanted, is_blind, needs};
use super::{Fence, Phase};
use crate::cache::Cache;
use crate::store::{Session, Store};

/// A batch is closed while the lane is busy only with one of so many parts of what
/// is in flight: a half, so that one batch is in the store while another is in the
/// cache or with its clients. Smaller ones cost more in all than their overlap gains.
const PARTS: usize = 2;

/// A batch for the commit lane.
pub(super) struct Gathered {
    /// What it consists of.
    pub(super) jobs: Vec<Job>,
    /// What was done of its first attempt.
    pub(super) ahead: Option<Ahead>,
}

/// A blind batch that is begun, or of which begin failed.
pub(super) struct Ahead {
    pub(super) prepared: Prepared,
    pub(super) begun: Result<(), Failure>,
}

/// The lane's connection to the store, while it has one: only to be looked at.
pub(super) type SharedSession = Arc<Mutex<Weak<Session>>>;

fn is_open(session: &SharedSession) -> bool {
    let session = session
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .upgrade();
    session.is_some_and(|session| !session.is_closed())
}

/// A batch that is still open.
struct Gathering {
    jobs: Vec<Job>,
    units: usize,
    bytes: usize,
}

impl Gathering {
    fn new(first: Job) -> Self {
        Self {
            units: first.units.len(),
            bytes: first.bytes,
            jobs: vec![first],
        }
    }

    /// Gives the job back if it does not fit.
    fn add(&mut self, job: Job, max_units: usize, max_bytes: usize) -> Result<(), Job> {
        let (units, bytes) = (self.units + job.units.len(), self.bytes + job.bytes);
        if units > max_units || bytes > max_bytes || job.is_alone {
            return Err(job);
        }
        (self.units, self.bytes) = (units, bytes);
        self.jobs.push(job);
        Ok(())
    }
}

/// The task before the lane's.
pub(super) struct Gatherer {
    pub(super) store: Arc<Store>,
    pub(super) cache: Arc<Cache>,
    pub(super) fence: Arc<Fence>,
    pub(super) queue: mpsc::Receiver<Job>,
    /// Whether the lane has nothing to commit.
    pub(super) lane_waits: watch::Receiver<bool>,
    /// Units that wait or are worked on.
    pub(super) in_flight: Arc<AtomicUsize>,
    /// Numbers of attempts, shared with the lane.
    pub(super) numbers: Arc<AtomicU64>,
    /// The lane's connection to the store.
    pub(super) session: SharedSession,
    /// Units of a batch at most.
    pub(super) max_units: usize,
    /// Bytes of requests of a batch at most.
    pub(super) max_bytes: usize,
    /// A job that did not fit into the batch before.
    pub(super) carried: Option<Job>,
}

impl Gatherer {
    /// Gathers as soon as the lane has taken the batch before: the longer it
    /// takes, the more is gathered. Ends with the queue.
    pub(super) async fn run(mut self, lane: mpsc::Sender<Gathered>) {
        while let Ok(room) = lane.reserve().await {
            let Some(jobs) = self.gather().await else {
                return;
            };
            let ahead = self.begin(&jobs).await;
            room.send(Gathered { jobs, ahead });
        }
    }

    /// What waits, up to the bounds of a batch. Every batch has a price of its own,
    /// so while the lane has work, a batch smaller than its share is not closed.
    async fn gather(&mut self) -> Option<Vec<Job>> {
        let first = match self.carried.take() {
            Some(job) => job,
            None => {
                let job = self.queue.recv().await?;
                // Whoever is ready to submit does so before the batch is closed.
                tokio::task::yield_now().await;
                job
            }
        };
        let mut batch = Gathering::new(first);
        while !batch.jobs[0].is_alone {
            let next = match self.queue.try_recv() {
                Ok(job) => Some(job),
                Err(_) if self.is_enough(batch.units) => None,
                Err(_) => tokio::select! {
                    job = self.queue.recv() => job,
                    _ = self.lane_waits.wait_for(|waits| *waits) => None,
                },
            };
            let Some(job) = next else { break };
            if let Err(job) = batch.add(job, self.max_units, self.max_bytes) {
                self.carried = Some(job);
                break;
            }
        }
        Some(batch.jobs)
    }

    /// Whether a batch of `units` may be closed although nothing more waits.
    fn is_enough(&self, units: usize) -> bool {
        *self.lane_waits.borrow() || units * PARTS >= self.in_flight.load(Ordering::Relaxed)
    }

    /// Begins a batch that needs nothing loaded: nothing that is committed
    /// meanwhile can change what it does.
    async fn begin(&self, jobs: &[Job]) -> Option<Ahead> {
        let phase @ Phase::Active(_) = self.fence.phase() else {
            return None;
        };
        // A begin takes the keys out of the cache: not for writes that would only
        // be refused, while reads of them could go on.
        if !is_open(&self.session) || !is_blind(jobs, &needs(jobs, &Wanted::default())) {
            return None;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let batch = Batch::new(&self.store, &self.cache, &self.fence, phase, number);
        let prepared = batch.plan_blind(jobs);
        let begun = batch.begin_blind(&prepared).await;
        Some(Ahead { prepared, begun })
    }
}

//! What waits becomes a batch; a blind one is begun in the cache while the
//! batch before it is still being committed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::mpsc;

use super::batch::{Batch, Failure, Prepared, needs};
use super::lane::Job;
use super::{Fence, Phase};
use crate::cache::Cache;
use crate::store::{Session, Store};

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

/// The task before the lane's.
pub(super) struct Gatherer {
    pub(super) store: Arc<Store>,
    pub(super) cache: Arc<Cache>,
    pub(super) fence: Arc<Fence>,
    pub(super) queue: mpsc::Receiver<Job>,
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

    /// What waits now, up to the bounds of a batch; waits only for the first job.
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
        let (mut units, mut bytes) = (first.units.len(), first.bytes);
        let mut jobs = vec![first];
        while let Ok(job) = self.queue.try_recv() {
            units += job.units.len();
            bytes += job.bytes;
            if units > self.max_units || bytes > self.max_bytes {
                self.carried = Some(job);
                break;
            }
            jobs.push(job);
        }
        Some(jobs)
    }

    /// Begins a batch that needs nothing loaded: nothing that is committed
    /// meanwhile can change what it does.
    async fn begin(&self, jobs: &[Job]) -> Option<Ahead> {
        let phase @ Phase::Active(_) = self.fence.phase() else {
            return None;
        };
        // A begin takes the keys out of the cache: not for writes that would only
        // be refused, while reads of them could go on.
        if !is_open(&self.session) || !needs(jobs, 0).is_empty() {
            return None;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let batch = Batch::new(&self.store, &self.cache, &self.fence, phase, number);
        let prepared = batch.plan_blind(jobs);
        let begun = batch.begin_blind(&prepared).await;
        Some(Ahead { prepared, begun })
    }
}

//! The last step of a batch, beside the lane: the cache is told, then the clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::Histogram;

use super::batch::Prepared;
use super::lane::{Job, Progress};
use super::{Answer, Fence, Phase, Refusal, Waiting};
use crate::cache::Cache;
use crate::fault::{self, Point};
use crate::model::Version;
use crate::store::{LoadRequest, Outcome, Store};

/// Between two questions what became of a COMMIT.
const OUTCOME_PAUSE: Duration = Duration::from_millis(50);
/// How long a batch waits for the cache or for the fence when the cache could not be told.
const FENCE_MAX: Duration = Duration::from_secs(30);

/// Asks for the outcome until it is decided or `limit` is over.
pub(super) async fn outcome(
    store: &Store,
    prepared: &Prepared,
    limit: Duration,
) -> Option<Outcome> {
    let asked = Instant::now();
    let mut pause = OUTCOME_PAUSE;
    loop {
        let left = limit.checked_sub(asked.elapsed())?;
        if let Ok(Ok(decided)) = tokio::time::timeout(left, store.outcome(prepared.attempt)).await {
            return Some(decided);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// The versions that the keys of a committed batch have by now, for the cache.
pub(super) async fn versions(store: &Store, prepared: &Prepared) -> Option<Vec<Version>> {
    let keys = prepared.changed_keys().into_iter();
    // One that only kept a reply.
    if keys.len() == 0 {
        return Some(Vec::new());
    }
    let headers: Vec<LoadRequest> = keys.map(LoadRequest::header).collect();
    let snapshot = store.snapshot(&headers).await.ok()?;
    Some(snapshot.keys.iter().map(|found| found.version).collect())
}

/// The last step of a batch, beside the lane.
pub(super) struct Telling {
    pub(super) cache: Arc<Cache>,
    pub(super) fence: Arc<Fence>,
    pub(super) progress: Arc<Progress>,
    pub(super) waiting: Arc<Waiting>,
    /// Time until the cache knows of what was answered before.
    pub(super) eventual_lag: Histogram,
}

/// Answers the jobs that need not wait for the cache. Those left, with their replies;
/// and whether any was answered.
///
/// Their keys are hidden until the apply, so nobody is shown the old value meanwhile.
fn answer_early(prepared: &mut Prepared, jobs: Vec<Job>) -> (Vec<(Job, Vec<Answer>)>, bool) {
    let mut replies = std::mem::take(&mut prepared.replies).into_iter();
    let mut later = Vec::with_capacity(jobs.len());
    let count = jobs.len();
    for job in jobs {
        let own = replies.by_ref().take(job.units.len()).collect();
        if job.is_eventual() {
            job.answer(Ok(own));
        } else {
            later.push((job, own));
        }
    }
    let has_early = later.len() < count;
    (later, has_early)
}

impl Telling {
    /// Tells the cache, then those whose jobs these are.
    pub(super) async fn tell_and_answer(&self, mut prepared: Prepared, jobs: Vec<Job>) {
        if self.waiting.is_any() {
            self.waiting.note(prepared.written(&jobs).into_iter());
        }
        let committed = Instant::now();
        let (later, has_early) = answer_early(&mut prepared, jobs);
        fault::reached(Point::BeforeApply).await;
        let told = self.tell(&prepared).await;
        if has_early {
            self.eventual_lag.record(committed.elapsed());
        }
        if let (Err(error), true) = (&told, has_early) {
            tracing::error!(%error, "acknowledged writes of eventual routes are not in the cache");
        }
        fault::reached(Point::BeforeReply).await;
        self.progress.finish(prepared.number);
        for (job, own) in later {
            job.answer(told.clone().map(|()| own));
        }
    }

    /// Returns once the cache has confirmed, or is out of use everywhere.
    async fn tell(&self, prepared: &Prepared) -> Result<(), Refusal> {
        let Phase::Active(generation) = prepared.phase else {
            return Ok(());
        };
        let applied = prepared.applied(&self.cache);
        if applied.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let _counted = self.fence.untold();
        let mut attempt = 0;
        while let Some(left) = FENCE_MAX.checked_sub(started.elapsed()) {
            if self.fence.phase() == prepared.phase {
                match self.cache.apply(generation, &prepared.id, &applied).await {
                    Ok(()) => return Ok(()),
                    Err(error) => self.fence.cache_failed(generation, &error, attempt).await,
                }
                attempt += 1;
                continue;
            }
            // Out of use; or, if this proxy alone had lost it, in use again.
            match self.fence.after_or_again(generation, left).await {
                Ok(phase) if phase.is_after(generation) => return Ok(()),
                _ => {}
            }
        }
        Err(Refusal::Unknown(
            "it is committed, but a cache that could not be told is still in use".into(),
        ))
    }
}

//! The lane's task: one batch after the other is tried until it is decided.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::batch::{Batch, Failure, Prepared};
use super::fence::SETTLE_MAX;
use super::gather::{Ahead, Gathered, SharedSession};
use super::lane::{Job, Progress};
use super::meters::LaneMeters;
use super::once::Keeping;
use super::plan::{Wanted, is_blind, needs, runs_scripts};
use super::telling::{Telling, outcome, versions};
use super::{Answer, Audience, Fence, Phase, Refusal, Waiting};
use crate::cache::Cache;
use crate::engine::Need;
use crate::fault::{self, Point};
use crate::model::Key;
use crate::store::{self, Outcome, Session, Store, StoreError};

/// Attempts whose marks are deleted together.
const FORGET_EVERY: u64 = 5_000;
/// How long an outcome that clients were told is unknown is asked for further.
const RESOLVE_MAX: Duration = Duration::from_secs(600);
/// Tries of a batch that other writers or a moving fence disturbed.
const RETRIES_MAX: u32 = 6;
/// Rounds of a batch with scripts, which tell call by call what they need.
const SCRIPT_ROUNDS_MAX: u32 = 64;

/// How one try to commit a batch ended.
pub(super) enum Attempt {
    /// It is committed: tell the cache, then the clients.
    Committed(Prepared),
    /// It changed nothing, so there was nothing to commit.
    NothingToDo(Prepared),
    /// Nothing was written; the same again may work.
    Again(Refusal),
    /// Nothing was written: calls needed more than was loaded, this.
    Short(Vec<(Key, Need)>),
    /// Nothing was written, and a unit of the batch is at fault.
    Poisoned(Refusal),
    /// COMMIT got no answer, and the store does not tell.
    Unknown(Prepared, String),
}

impl Attempt {
    /// What an error means after which the transaction is rolled back for certain.
    pub(super) fn rolled_back(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(_) => Self::Again(Refusal::Contended),
            error if error.is_outage() => Self::Again(Refusal::StoreAway(error.to_string())),
            error => Self::Poisoned(Refusal::of_poison(&error)),
        }
    }
}

/// The task, and what it works with.
pub(super) struct Worker {
    pub(super) store: Arc<Store>,
    pub(super) cache: Arc<Cache>,
    pub(super) fence: Arc<Fence>,
    pub(super) meters: LaneMeters,
    pub(super) batches: mpsc::Receiver<Gathered>,
    /// Whether it has nothing to commit, for the gatherer to hurry.
    pub(super) waits: watch::Sender<bool>,
    pub(super) session: Option<Arc<Session>>,
    /// The same, for the gatherer to look at.
    pub(super) shared_session: SharedSession,
    pub(super) applies: Arc<Semaphore>,
    pub(super) progress: Arc<Progress>,
    /// Told of what is committed.
    pub(super) waiting: Arc<Waiting>,
    /// What the calls of this batch turned out to need besides.
    pub(super) wanted: Wanted,
    pub(super) unknown_timeout: Duration,
    /// Of replies to what is made once.
    pub(super) keeping: Keeping,
    pub(super) numbers: Arc<AtomicU64>,
    pub(super) audience: Arc<dyn Audience>,
}

impl Worker {
    /// Commits what is gathered; ends with the gatherer.
    pub(super) async fn run(mut self) {
        while let Some(Gathered { jobs, ahead }) = self.next().await {
            let units = jobs.iter().map(|job| job.units.len()).sum::<usize>();
            self.meters.batch_units.record(units as f64);
            self.meters
                .batch_bytes
                .record(jobs.iter().map(|job| job.bytes).sum::<usize>() as f64);
            self.meters.depth.set(units as f64);
            Box::pin(self.commit(jobs, ahead)).await;
        }
    }

    /// The next batch; the gatherer is told if the lane has to wait for it.
    async fn next(&mut self) -> Option<Gathered> {
        if let Ok(ready) = self.batches.try_recv() {
            return Some(ready);
        }
        self.waits.send_replace(true);
        let next = self.batches.recv().await;
        self.waits.send_replace(false);
        next
    }

    /// Commits the jobs together; one by one if a unit among them is at fault.
    async fn commit(&mut self, jobs: Vec<Job>, ahead: Option<Ahead>) {
        let started = Instant::now();
        match self.attempts(&jobs, ahead).await {
            Ok(attempt) => self.conclude(jobs, attempt, started).await,
            Err(Attempt::Poisoned(refusal)) if jobs.len() == 1 && jobs[0].units.len() == 1 => {
                self.refuse(jobs, &refusal);
            }
            Err(Attempt::Poisoned(_)) => Box::pin(self.commit_singly(jobs)).await,
            Err(Attempt::Again(refusal)) => self.refuse(jobs, &refusal),
            Err(_) => self.refuse(jobs, &Refusal::Stopping),
        }
    }

    /// Each unit in a transaction of its own: one bad unit harms no other.
    async fn commit_singly(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            let mut replies = Vec::with_capacity(job.units.len());
            let mut is_over = false;
            for unit in &job.units {
                // What stands behind a unit that is put off comes again after it.
                is_over |= unit.is_deferred();
                if is_over {
                    replies.push(Answer::Deferred);
                    continue;
                }
                let (answer, answered) = oneshot::channel();
                let single = vec![job.of_one(unit.clone(), answer)];
                let started = Instant::now();
                match self.attempts(&single, None).await {
                    Ok(attempt) => self.conclude(single, attempt, started).await,
                    Err(Attempt::Poisoned(refusal) | Attempt::Again(refusal)) => {
                        self.refuse(single, &refusal);
                    }
                    Err(_) => self.refuse(single, &Refusal::Stopping),
                }
                let answer = answered.await.unwrap_or(Err(Refusal::Stopping));
                is_over |= unit.is_deferred();
                match answer {
                    Ok(more) => replies.extend(more),
                    Err(refusal) if unit.once.is_some() || unit.done().is_some() => {
                        replies.push(Answer::Refused(refusal.reply()));
                    }
                    Err(refusal) => {
                        let refused = unit.steps.iter().map(|_| refusal.reply());
                        replies.push(Answer::Done(refused.collect()));
                    }
                }
            }
            job.answer(Ok(replies));
        }
    }

    /// Tries until it is decided: committed, refused, or unknown.
    async fn attempts(
        &mut self,
        jobs: &[Job],
        mut ahead: Option<Ahead>,
    ) -> Result<Attempt, Attempt> {
        let started = Instant::now();
        let (mut count, mut shorts) = (0, 0);
        let shorts_max = match runs_scripts(jobs) {
            true => SCRIPT_ROUNDS_MAX,
            false => RETRIES_MAX,
        };
        self.wanted = Wanted::default();
        loop {
            let refusal = match self.attempt(jobs, count, ahead.take()).await {
                Attempt::Again(why) => why,
                Attempt::Short(wanted) if shorts < shorts_max => {
                    self.wanted.add(wanted);
                    shorts += 1;
                    continue;
                }
                poisoned @ Attempt::Poisoned(_) => return Err(poisoned),
                decided => return Ok(decided),
            };
            count += 1;
            let give_up = match refusal {
                // One more try with a fresh connection; then clients hear of it.
                Refusal::StoreAway(_) => count > 1,
                // While the fence moves, requests are held.
                Refusal::Unsettled => started.elapsed() >= SETTLE_MAX,
                _ => count >= RETRIES_MAX,
            };
            if give_up {
                return Err(Attempt::Again(refusal));
            }
            tokio::time::sleep(Duration::from_millis(1 << count.min(5))).await;
        }
    }

    async fn attempt(&mut self, jobs: &[Job], count: u32, ahead: Option<Ahead>) -> Attempt {
        let (phase, session) = match (self.ready().await, ahead) {
            (Ok((_, session)), Some(ahead)) => {
                return self.commit_ahead(session, ahead, count).await;
            }
            (Ok(ready), None) => ready,
            (Err(refusal), ahead) => {
                if let Some(ahead) = ahead {
                    self.give_up(ahead).await;
                }
                return Attempt::Again(refusal);
            }
        };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let batch = Batch::new(&self.store, &self.cache, &self.fence, phase, number);
        let attempt = self.prepare_and_commit(&batch, &session, jobs, count).await;
        self.after_attempt(session, &attempt, number);
        attempt
    }

    /// A settled fence and a connection to the store.
    async fn ready(&mut self) -> Result<(Phase, Arc<Session>), Refusal> {
        let phase = self.fence.settled().await?;
        match self.session.take() {
            Some(session)
                if !session.is_closed() && session.pool_number() == self.store.pool_number() =>
            {
                Ok((phase, session))
            }
            _ => match Session::open(&self.store).await {
                Ok(session) => {
                    let session = Arc::new(session);
                    *self
                        .shared_session
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&session);
                    Ok((phase, session))
                }
                Err(error) => Err(Refusal::StoreAway(error.to_string())),
            },
        }
    }

    /// Takes a batch that was begun ahead out of the cache: it never got to the store.
    async fn give_up(&self, ahead: Ahead) {
        let batch = Batch::resume(&self.store, &self.cache, &self.fence, &ahead.prepared);
        batch.sweep(&ahead.prepared.changed_keys()).await;
        self.progress.finish(ahead.prepared.number);
    }

    /// Goes on with a batch that was begun while the one before it was committed.
    async fn commit_ahead(&mut self, session: Arc<Session>, ahead: Ahead, count: u32) -> Attempt {
        let Ahead { prepared, begun } = ahead;
        let (store, cache, fence) = (
            Arc::clone(&self.store),
            Arc::clone(&self.cache),
            Arc::clone(&self.fence),
        );
        let batch = Batch::resume(&store, &cache, &fence, &prepared);
        let number = prepared.number;
        let attempt = self
            .commit_begun(&batch, &session, prepared, begun, count)
            .await;
        self.after_attempt(session, &attempt, number);
        attempt
    }

    fn after_attempt(&mut self, session: Arc<Session>, attempt: &Attempt, number: u64) {
        if number.is_multiple_of(FORGET_EVERY) {
            self.forget_before(number);
        }
        if !matches!(attempt, Attempt::Committed(_)) && !matches!(attempt, Attempt::Unknown(..)) {
            self.progress.finish(number);
        }
        if !session.is_closed() {
            self.session = Some(session);
        }
    }

    /// Deletes the marks of attempts that were answered long ago.
    fn forget_before(&self, number: u64) {
        let store = Arc::clone(&self.store);
        // Nothing beyond an attempt whose outcome is still asked for.
        let over = (*self.progress.over.borrow()).min(number.saturating_sub(FORGET_EVERY));
        let before = store::Attempt {
            proxy: self.fence.proxy(),
            number: over as i64,
        };
        tokio::spawn(async move {
            if let Err(error) = store.forget_attempts(before).await {
                tracing::debug!(%error, "old marks stay until the next time");
            }
        });
    }

    async fn prepare_and_commit(
        &self,
        batch: &Batch<'_>,
        session: &Session,
        jobs: &[Job],
        count: u32,
    ) -> Attempt {
        let needs = needs(jobs, &self.wanted);
        if is_blind(jobs, &needs) {
            return self.commit_blind(batch, session, jobs, count).await;
        }
        let wanted = self.wanted.clone();
        let prepared = batch.prepare(session, jobs, (needs, wanted), self.keeping);
        let prepared = match prepared.await {
            Ok(prepared) => prepared,
            Err(failure) => {
                // Before anything is told: what this transaction did must be gone.
                let confirmed = session.rollback().await.is_ok() || session.is_closed();
                if confirmed && failure.may_have_begun {
                    batch.sweep(&failure.keys).await;
                }
                return batch.disturbed(failure, count).await;
            }
        };
        if prepared.is_read_only() {
            return match session.rollback().await {
                Ok(()) => Attempt::NothingToDo(prepared),
                Err(error) => Attempt::Again(Refusal::StoreAway(error.to_string())),
            };
        }
        fault::reached(Point::BeforeCommit).await;
        let sent = Instant::now();
        let answer = session.commit().await;
        self.meters.commit_seconds.record(sent.elapsed());
        match answer {
            Ok(()) => Attempt::Committed(prepared),
            Err(error) if error.is_unanswered() => {
                tracing::warn!(%error, attempt = ?prepared.attempt, "COMMIT got no answer");
                self.look_up(batch, prepared, error.to_string()).await
            }
            Err(error) => {
                batch.sweep(&prepared.changed_keys()).await;
                Attempt::rolled_back(error)
            }
        }
    }

    /// Blind writes load nothing: one statement commits them.
    async fn commit_blind(
        &self,
        batch: &Batch<'_>,
        session: &Session,
        jobs: &[Job],
        count: u32,
    ) -> Attempt {
        let prepared = batch.plan_blind(jobs);
        let begun = batch.begin_blind(&prepared).await;
        self.commit_begun(batch, session, prepared, begun, count)
            .await
    }

    async fn commit_begun(
        &self,
        batch: &Batch<'_>,
        session: &Session,
        mut prepared: Prepared,
        begun: Result<(), Failure>,
        count: u32,
    ) -> Attempt {
        if let Err(failure) = begun {
            batch.sweep(&failure.keys).await;
            return batch.disturbed(failure, count).await;
        }
        if prepared.is_read_only() {
            return Attempt::NothingToDo(prepared);
        }
        fault::reached(Point::BeforeCommit).await;
        let sent = Instant::now();
        let committed = batch.commit_blind(session, &mut prepared).await;
        self.meters.commit_seconds.record(sent.elapsed());
        match committed {
            Ok(()) => Attempt::Committed(prepared),
            Err(failure) if failure.is_lost() => {
                tracing::warn!(attempt = ?prepared.attempt, "a write got no answer");
                let cause = "the connection to PostgreSQL was lost".to_owned();
                self.look_up(batch, prepared, cause).await
            }
            Err(failure) => {
                batch.sweep(&failure.keys).await;
                batch.disturbed(failure, count).await
            }
        }
    }

    /// Learns what became of a COMMIT without an answer. It is never sent twice.
    async fn look_up(&self, batch: &Batch<'_>, prepared: Prepared, cause: String) -> Attempt {
        match outcome(&self.store, &prepared, self.unknown_timeout).await {
            Some(Outcome::Committed) => {
                tracing::info!(attempt = ?prepared.attempt, "the unanswered COMMIT has committed");
                match versions(&self.store, &prepared).await {
                    Some(versions) => Attempt::Committed(prepared.with_versions(versions)),
                    None => Attempt::Unknown(prepared, cause),
                }
            }
            Some(Outcome::Aborted) => {
                tracing::info!(attempt = ?prepared.attempt, "the unanswered COMMIT was rolled back");
                batch.sweep(&prepared.changed_keys()).await;
                Attempt::Again(Refusal::StoreAway(cause))
            }
            None => Attempt::Unknown(prepared, cause),
        }
    }

    /// Tells the cache, then the clients, while the lane goes on.
    async fn conclude(&self, jobs: Vec<Job>, attempt: Attempt, started: Instant) {
        let units = jobs.iter().map(|job| job.units.len()).sum::<usize>() as u64;
        match attempt {
            Attempt::Unknown(prepared, cause) => {
                self.meters.unknown.increment(units);
                for job in jobs {
                    job.answer(Err(Refusal::Unknown(cause.clone())));
                }
                self.resolve_later(prepared);
            }
            Attempt::Committed(prepared) | Attempt::NothingToDo(prepared) => {
                self.meters.committed.increment(units);
                prepared.announce(&jobs, &*self.audience);
                let Ok(permit) = Arc::clone(&self.applies).acquire_owned().await else {
                    return;
                };
                let telling = self.telling();
                let batch_seconds = self.meters.batch_seconds.clone();
                tokio::spawn(async move {
                    telling.tell_and_answer(prepared, jobs).await;
                    batch_seconds.record(started.elapsed());
                    drop(permit);
                });
            }
            Attempt::Again(refusal) | Attempt::Poisoned(refusal) => self.refuse(jobs, &refusal),
            Attempt::Short(_) => self.refuse(jobs, &Refusal::Contended),
        }
    }

    /// Goes on asking after the clients were told `UNKNOWN`: the batch's keys stay
    /// hidden, and so correct but slow, until it is known. If it never is, the
    /// generation goes: raising it waits for the transaction to end.
    fn resolve_later(&self, prepared: Prepared) {
        let store = Arc::clone(&self.store);
        let telling = self.telling();
        let audience = Arc::clone(&self.audience);
        tokio::spawn(async move {
            let found = outcome(&store, &prepared, RESOLVE_MAX).await;
            tracing::warn!(attempt = ?prepared.attempt, ?found, "the unanswered COMMIT is resolved");
            let versions = versions(&store, &prepared).await;
            let prepared = match (found, versions) {
                (Some(Outcome::Committed), Some(versions)) => prepared.with_versions(versions),
                (Some(Outcome::Aborted), _) => prepared.into_sweep(),
                _ => {
                    let generation = prepared.phase.generation();
                    telling
                        .fence
                        .condemn(generation, "a COMMIT was never answered".into())
                        .await;
                    return telling.progress.finish(prepared.number);
                }
            };
            prepared.announce(&[], &*audience);
            telling.tell_and_answer(prepared, Vec::new()).await;
        });
    }

    fn telling(&self) -> Telling {
        Telling {
            cache: Arc::clone(&self.cache),
            fence: Arc::clone(&self.fence),
            progress: Arc::clone(&self.progress),
            waiting: Arc::clone(&self.waiting),
            eventual_lag: self.meters.eventual_lag.clone(),
        }
    }

    fn refuse(&self, jobs: Vec<Job>, refusal: &Refusal) {
        for job in jobs {
            self.meters.refused.increment(job.units.len() as u64);
            job.answer(Err(refusal.clone()));
        }
    }
}

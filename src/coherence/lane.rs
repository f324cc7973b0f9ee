//! The commit lane: begin, persist, commit, apply, acknowledge.
//!
//! One task takes what has gathered and commits it as one transaction; while
//! it does, the next batch gathers. The apply of a batch overlaps the next
//! batch's transaction. There is no timer: a lone unit is committed at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::batch::{Batch, Failure, Prepared, needs};
use super::fence::SETTLE_MAX;
use super::gather::{Ahead, Gathered, Gatherer, SharedSession};
use super::meters::LaneMeters;
use super::{Answer, Audience, Fence, Phase, Refusal, Unit, Waiting};
use crate::cache::Cache;
use crate::config;
use crate::engine::Need;
use crate::model::{EventClasses, Key, Version};
use crate::store::{self, LoadRequest, Outcome, Session, Store, StoreError};

/// Attempts whose marks are deleted together.
const FORGET_EVERY: u64 = 5_000;
/// Jobs that may wait in the queue; units and bytes are bounded besides.
const QUEUE_JOBS: usize = 16 * 1024;
/// Batches whose apply may be under way while the next is committed.
const APPLIES_MAX: usize = 4;
/// Between two questions what became of a COMMIT.
const OUTCOME_PAUSE: Duration = Duration::from_millis(50);
/// How long an outcome that clients were told is unknown is asked for further.
const RESOLVE_MAX: Duration = Duration::from_secs(600);
/// Tries of a batch that other writers or a moving fence disturbed.
const RETRIES_MAX: u32 = 6;
/// Tries to tell the cache before it is condemned.
const APPLY_TRIES: u32 = 3;
/// How long a batch waits for the fence when the cache refused its apply.
const FENCE_MAX: Duration = Duration::from_secs(30);

/// Units of one connection in their order, and where their replies go.
pub(super) struct Job {
    pub(super) units: Vec<Unit>,
    pub(super) bytes: usize,
    /// The classes of events that are wanted of them.
    pub(super) events: EventClasses,
    answer: oneshot::Sender<Result<Vec<Answer>, Refusal>>,
    /// Its share of the lane's bounds, given back when it is answered.
    _room: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Job {
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
}

/// Which batches have been applied, for readers who wait for one.
struct Progress {
    /// Batches up to this one are over.
    over: watch::Sender<u64>,
    finished: std::sync::Mutex<std::collections::BTreeSet<u64>>,
}

impl Progress {
    fn finish(&self, batch: u64) {
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
        let worker = Worker {
            store,
            cache,
            fence,
            meters: LaneMeters::new(),
            batches,
            waits,
            session: None,
            shared_session,
            applies: Arc::new(Semaphore::new(APPLIES_MAX)),
            progress: Arc::clone(&progress),
            waiting: Arc::clone(&waiting),
            wanted: Vec::new(),
            unknown_timeout: settings.unknown_timeout,
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
        match self
            .jobs
            .send(Job {
                units,
                bytes,
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

    /// Those who wait for what is committed here.
    pub(super) fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
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

/// How one try to commit a batch ended.
pub(super) enum Attempt {
    /// It is committed: tell the cache, then the clients.
    Committed(Prepared),
    /// It changed nothing, so there was nothing to commit.
    NothingToDo(Prepared),
    /// Nothing was written; the same again may work.
    Again(Refusal),
    /// Nothing was written: calls needed more than was loaded, perhaps this.
    Short(Vec<(Key, Need)>),
    /// Nothing was written, and a unit of the batch is at fault.
    Poisoned(StoreError),
    /// COMMIT got no answer, and the store does not tell.
    Unknown(Prepared, String),
}

struct Worker {
    store: Arc<Store>,
    cache: Arc<Cache>,
    fence: Arc<Fence>,
    meters: LaneMeters,
    batches: mpsc::Receiver<Gathered>,
    /// Whether it has nothing to commit, for the gatherer to hurry.
    waits: watch::Sender<bool>,
    session: Option<Arc<Session>>,
    /// The same, for the gatherer to look at.
    shared_session: SharedSession,
    applies: Arc<Semaphore>,
    progress: Arc<Progress>,
    /// Told of what is committed.
    waiting: Arc<Waiting>,
    /// What the calls of this batch turned out to need besides.
    wanted: Vec<(Key, Need)>,
    unknown_timeout: Duration,
    numbers: Arc<AtomicU64>,
    audience: Arc<dyn Audience>,
}

impl Worker {
    async fn run(mut self) {
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
            Err(Attempt::Poisoned(error)) if jobs.len() == 1 && jobs[0].units.len() == 1 => {
                self.refuse(jobs, &Refusal::Refused(error.to_string()));
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
            for unit in &job.units {
                let (answer, answered) = oneshot::channel();
                let single = vec![Job {
                    units: vec![unit.clone()],
                    bytes: 0,
                    events: job.events,
                    answer,
                    _room: None,
                }];
                let started = Instant::now();
                match self.attempts(&single, None).await {
                    Ok(attempt) => self.conclude(single, attempt, started).await,
                    Err(Attempt::Poisoned(error)) => {
                        self.refuse(single, &Refusal::Refused(error.to_string()));
                    }
                    Err(Attempt::Again(refusal)) => self.refuse(single, &refusal),
                    Err(_) => self.refuse(single, &Refusal::Stopping),
                }
                let answer = answered.await.unwrap_or(Err(Refusal::Stopping));
                match answer {
                    Ok(more) => replies.extend(more),
                    Err(refusal) => {
                        let refused = unit.steps.iter().map(|_| refusal.reply());
                        replies.push(Some(refused.collect()));
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
        let mut count = 0;
        self.wanted.clear();
        loop {
            let refusal = match self.attempt(jobs, count, ahead.take()).await {
                Attempt::Again(why) => why,
                Attempt::Short(wanted) => {
                    self.wanted.extend(wanted);
                    Refusal::Contended
                }
                Attempt::Poisoned(error) => return Err(Attempt::Poisoned(error)),
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
            Some(session) if !session.is_closed() => Ok((phase, session)),
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
        let needs = needs(jobs, count, &self.wanted);
        if needs.is_empty() {
            return self.commit_blind(batch, session, jobs, count).await;
        }
        let prepared = match batch.prepare(session, jobs, needs).await {
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
        let sent = Instant::now();
        let answer = session.commit().await;
        self.meters.commit_seconds.record(sent.elapsed());
        match answer {
            Ok(()) => Attempt::Committed(prepared),
            Err(error @ StoreError::Lost(_)) => {
                tracing::warn!(%error, attempt = ?prepared.attempt, "COMMIT got no answer");
                self.look_up(batch, prepared, error.to_string()).await
            }
            Err(error) => {
                batch.sweep(&prepared.changed_keys()).await;
                match error {
                    StoreError::Conflict(_) => Attempt::Again(Refusal::Contended),
                    error if error.is_outage() => {
                        Attempt::Again(Refusal::StoreAway(error.to_string()))
                    }
                    error => Attempt::Poisoned(error),
                }
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
            Attempt::Again(refusal) => self.refuse(jobs, &refusal),
            Attempt::Short(_) => self.refuse(jobs, &Refusal::Contended),
            Attempt::Poisoned(error) => self.refuse(jobs, &Refusal::Refused(error.to_string())),
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
        }
    }

    fn refuse(&self, jobs: Vec<Job>, refusal: &Refusal) {
        for job in jobs {
            self.meters.refused.increment(job.units.len() as u64);
            job.answer(Err(refusal.clone()));
        }
    }
}

/// Asks for the outcome until it is decided or `limit` is over.
async fn outcome(store: &Store, prepared: &Prepared, limit: Duration) -> Option<Outcome> {
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
async fn versions(store: &Store, prepared: &Prepared) -> Option<Vec<Version>> {
    let keys = prepared.changed_keys().into_iter();
    let headers: Vec<LoadRequest> = keys.map(LoadRequest::header).collect();
    let snapshot = store.snapshot(&headers).await.ok()?;
    Some(snapshot.keys.iter().map(|found| found.version).collect())
}

/// The last step of a batch, beside the lane.
struct Telling {
    cache: Arc<Cache>,
    fence: Arc<Fence>,
    progress: Arc<Progress>,
    waiting: Arc<Waiting>,
}

impl Telling {
    async fn tell_and_answer(&self, prepared: Prepared, jobs: Vec<Job>) {
        if self.waiting.is_any() {
            self.waiting.note(prepared.written(&jobs).into_iter());
        }
        let told = self.tell(&prepared).await;
        self.progress.finish(prepared.number);
        let mut replies = prepared.replies.into_iter();
        for job in jobs {
            let own = replies.by_ref().take(job.units.len()).collect();
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
        for attempt in 0..APPLY_TRIES {
            if self.fence.phase() != prepared.phase {
                break;
            }
            match self.cache.apply(generation, &prepared.id, &applied).await {
                Ok(()) => return Ok(()),
                Err(error) => self.fence.cache_failed(generation, &error, attempt).await,
            }
        }
        let fenced = self.fence.after(generation, FENCE_MAX).await;
        fenced.map(drop).map_err(|_| {
            Refusal::Unknown(
                "it is committed, but a cache that could not be told is still in use".into(),
            )
        })
    }
}

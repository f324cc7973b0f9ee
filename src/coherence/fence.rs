//! When the cache may be used: generations, bypass, and the way back.
//!
//! ```text
//!            raise                 all proxies confirmed
//!  Active(g) ------> Closing(g+1) ----------------------> Bypass(g+1)
//!      ^                                                      |
//!      +---- cache emptied, stamped g+1, identity recorded ---+
//! ```
//! The states are durable in the row `freshet.fence`; one task per proxy
//! follows it, and only that task changes the [`Phase`] that all others read.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::Refusal;
use crate::cache::{Cache, CacheError};
use crate::config;
use crate::model::{Db, Generation};
use crate::store::{FenceRow, FenceState, FlushScope, Registration, Store, StoreError};

/// How long a request waits for the fence to settle.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(5);

/// How long a request waits for a cache that it gave up.
const GIVE_UP_MAX: Duration = Duration::from_secs(2);

/// Between two tries to move the fence on.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Tries of an order that other transactions are in the way of.
const ORDER_TRIES_MAX: u32 = 10;

/// How this proxy uses the cache now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The cache of this generation is used.
    Active(Generation),
    /// It is void: requests are held.
    Closing(Generation),
    /// All work is done on the store alone.
    Bypass(Generation),
}

impl Phase {
    /// The generation.
    pub fn generation(self) -> Generation {
        match self {
            Self::Active(g) | Self::Closing(g) | Self::Bypass(g) => g,
        }
    }

    /// As in `INFO` and in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active(_) => "active",
            Self::Closing(_) => "closing",
            Self::Bypass(_) => "bypass",
        }
    }
}

/// Work that needs the cache out of the way.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Empty databases.
    Flush(FlushScope),
    /// Exchange two databases.
    Swap(Db, Db),
}

/// What makes the task look at the cache, or give it up.
enum Signal {
    /// Something failed: see whether the cache is still what it was.
    Suspect,
    /// The cache of that generation must not be used any more.
    Condemn(Generation, String),
    /// Do this while the cache is out of use.
    Order(Order, oneshot::Sender<Result<(), Refusal>>),
}

/// The fence, as the rest of the program sees it.
pub struct Fence {
    phase: watch::Sender<Phase>,
    signals: mpsc::Sender<Signal>,
    registration: RwLock<i32>,
    /// Somebody has declared this proxy dead.
    declared_dead: AtomicBool,
    /// Until when hits may be used without news from the store, in ms since `start`.
    lease_until: AtomicI64,
    start: Instant,
    store_reachable: AtomicBool,
    last_reason: Mutex<String>,
}

impl Fence {
    /// Registers this proxy, follows the fence row, and returns once the cache is
    /// in use or bypassed.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub async fn start(
        store: Arc<Store>,
        cache: Arc<Cache>,
        settings: &config::Fence,
        name: String,
    ) -> Result<(Arc<Self>, FenceTask), StoreError> {
        let registration = Registration::new(&store, &name).await?;
        let row = store.fence().await?;
        let (signals, inbox) = mpsc::channel(1024);
        let fence = Arc::new(Self {
            phase: watch::Sender::new(Phase::Closing(row.generation)),
            signals,
            registration: RwLock::new(registration.id),
            declared_dead: AtomicBool::new(false),
            lease_until: AtomicI64::new(0),
            start: Instant::now(),
            store_reachable: AtomicBool::new(true),
            last_reason: Mutex::new(String::new()),
        });
        let (stop, stopped) = watch::channel(false);
        let follower = Follower {
            fence: Arc::clone(&fence),
            store,
            cache,
            renewal: settings.renewal,
            reads_without_database: settings.reads_without_database,
            inbox,
            orders: Vec::new(),
            condemned: None,
            registration: Some(registration),
            name,
            stopped,
        };
        let task = FenceTask {
            stop,
            handle: tokio::spawn(follower.run(row)),
        };
        let mut phase = fence.phase.subscribe();
        // A failed follower ends its task, which the server notices by itself.
        let _ = phase
            .wait_for(|phase| !matches!(phase, Phase::Closing(_)))
            .await;
        Ok((fence, task))
    }

    /// How the cache is used now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The number of this proxy's registration.
    pub fn proxy(&self) -> i32 {
        *self
            .registration
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a hit that has just arrived from the cache of `generation` may be used.
    pub fn allows_hit(&self, generation: Generation) -> bool {
        self.phase() == Phase::Active(generation)
            && (self.start.elapsed().as_millis() as i64) < self.lease_until.load(Ordering::Relaxed)
    }

    /// Whether the store answered last time.
    pub fn store_reachable(&self) -> bool {
        self.store_reachable.load(Ordering::Relaxed)
    }

    /// Why the cache was taken out of use last.
    pub fn last_reason(&self) -> String {
        self.last_reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The phase once it is not `Closing`.
    pub async fn settled(&self) -> Result<Phase, Refusal> {
        let now = self.phase();
        if !matches!(now, Phase::Closing(_)) {
            return Ok(now);
        }
        // Without the store the fence cannot move: do not keep clients waiting for it.
        let limit = if self.store_reachable() {
            SETTLE_MAX
        } else {
            SETTLE_MAX / 10
        };
        self.wait(limit, |phase| !matches!(phase, Phase::Closing(_)))
            .await
    }

    /// Waits until the cache of `generation` is out of use everywhere: `Bypass`, or
    /// `Active` of a later one.
    pub async fn after(&self, generation: Generation, limit: Duration) -> Result<Phase, Refusal> {
        self.wait(limit, |phase| match phase {
            Phase::Closing(_) => false,
            Phase::Bypass(now) | Phase::Active(now) => *now > generation,
        })
        .await
    }

    /// Waits until this proxy has noticed that `phase` is over, or a moment.
    pub async fn left(&self, phase: Phase) {
        // A moment that passes for nothing only makes the caller ask again.
        let _ = self.wait(GIVE_UP_MAX / 4, |now| *now != phase).await;
    }

    async fn wait(
        &self,
        limit: Duration,
        wanted: impl FnMut(&Phase) -> bool,
    ) -> Result<Phase, Refusal> {
        let mut phase = self.phase.subscribe();
        match tokio::time::timeout(limit, phase.wait_for(wanted)).await {
            Ok(Ok(phase)) => Ok(*phase),
            _ => Err(Refusal::Unsettled),
        }
    }

    /// Tells that the cache failed: it will be looked at, and given up if it is
    /// not what it was. The caller may try again shortly.
    pub fn suspect(&self, error: &CacheError) {
        tracing::debug!(%error, "the cache failed");
        // A full queue holds suspicions enough.
        let _ = self.signals.try_send(Signal::Suspect);
    }

    /// What to do when the cache failed somebody for the `attempt`th time (from 0):
    /// has it looked at, or given up, and gives that a moment.
    pub async fn cache_failed(&self, generation: Generation, error: &CacheError, attempt: u32) {
        // A cache that lacks the mark was flushed: there is nothing to wait for.
        if attempt >= 2 || matches!(error, CacheError::Fenced(_) | CacheError::Stranger(_)) {
            self.condemn(generation, error.to_string()).await;
            // What comes out is seen in the caller's next round.
            let _ = self.after(generation, GIVE_UP_MAX).await;
            return;
        }
        self.suspect(error);
        let _ = self
            .after(generation, Duration::from_millis(20 << attempt))
            .await;
    }

    /// Takes the cache of `generation` out of use, whatever it says of itself.
    pub async fn condemn(&self, generation: Generation, reason: String) {
        let _ = self.signals.send(Signal::Condemn(generation, reason)).await;
    }

    /// Tells that the store counts this proxy as dead: it must register anew.
    pub fn registration_lost(&self) {
        self.declared_dead.store(true, Ordering::Relaxed);
        let _ = self.signals.try_send(Signal::Suspect);
    }

    /// Has `order` carried out while the cache is out of use.
    pub async fn carry_out(&self, order: Order) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        self.signals
            .send(Signal::Order(order, answer))
            .await
            .map_err(|_| Refusal::Stopping)?;
        answered.await.unwrap_or(Err(Refusal::Stopping))
    }

    fn set(&self, phase: Phase) {
        if self.phase() != phase {
            tracing::info!(
                phase = phase.name(),
                generation = phase.generation().0,
                "fence"
            );
            self.phase.send_replace(phase);
        }
    }

    fn extend_lease(&self, asked: Instant, length: Duration) {
        let until = asked.duration_since(self.start) + length;
        self.lease_until
            .store(until.as_millis() as i64, Ordering::Relaxed);
    }
}

/// The running task that follows the fence row.
pub struct FenceTask {
    stop: watch::Sender<bool>,
    handle: tokio::task::JoinHandle<()>,
}

impl FenceTask {
    /// Ends the registration in an orderly way. No write may be open any more.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.handle.await {
            tracing::error!(%error, "the fence's task failed");
        }
    }
}

struct Follower {
    fence: Arc<Fence>,
    store: Arc<Store>,
    cache: Arc<Cache>,
    renewal: Duration,
    reads_without_database: Duration,
    inbox: mpsc::Receiver<Signal>,
    orders: Vec<(Order, oneshot::Sender<Result<(), Refusal>>)>,
    /// A generation that must not be used again, though the store could not be told yet.
    condemned: Option<(Generation, String)>,
    registration: Option<Registration>,
    name: String,
    stopped: watch::Receiver<bool>,
}

impl Follower {
    async fn run(mut self, first: FenceRow) {
        let mut row = first;
        let mut stopped = self.stopped.clone();
        let mut retry = RETRY_MIN;
        loop {
            let moved = tokio::select! {
                // Dropped at an await only when the program stops.
                moved = self.step(&row) => moved,
                _ = stopped.wait_for(|stop| *stop) => break,
            };
            match moved {
                Ok(next) => {
                    self.fence.store_reachable.store(true, Ordering::Relaxed);
                    retry = if next == row { retry } else { RETRY_MIN };
                    row = next;
                    continue;
                }
                Err(Trouble::Store(error)) => {
                    self.fence.store_reachable.store(false, Ordering::Relaxed);
                    tracing::warn!(%error, "the fence cannot reach the store");
                    self.refuse_orders(&Refusal::StoreAway(error.to_string()));
                }
                Err(Trouble::Cache(error)) => tracing::debug!(%error, "the cache is not back yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(retry) => {}
                _ = stopped.wait_for(|stop| *stop) => break,
            }
            retry = (retry * 2).min(RETRY_MAX);
        }
        if let Some(registration) = self.registration.take()
            && let Err(error) = registration.end().await
        {
            tracing::warn!(%error, "the registration could not be ended");
        }
    }

    /// Does what the state of the row asks for, and returns the row after it.
    async fn step(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        self.keep_registration().await?;
        match row.state {
            FenceState::Active => self.use_cache(row).await,
            FenceState::Closing => {
                self.fence.set(Phase::Closing(row.generation));
                self.cache.set_holder(None);
                Ok(self
                    .store
                    .confirm(self.fence.proxy(), row.generation)
                    .await?)
            }
            FenceState::Bypass => self.bypass(row).await,
        }
    }

    /// A session that ended lets others declare this proxy dead: register anew.
    async fn keep_registration(&mut self) -> Result<(), StoreError> {
        let dead = self.fence.declared_dead.swap(false, Ordering::Relaxed);
        if !dead
            && self
                .registration
                .as_ref()
                .is_some_and(|held| !held.is_lost())
        {
            return Ok(());
        }
        let registration = Registration::new(&self.store, &self.name).await?;
        tracing::info!(
            proxy = registration.id,
            "registered anew: the session had ended"
        );
        *self
            .fence
            .registration
            .write()
            .unwrap_or_else(PoisonError::into_inner) = registration.id;
        self.registration = Some(registration);
        Ok(())
    }

    /// The cache should be in use: check it, then renew until something happens.
    async fn use_cache(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        match self.condemned.take() {
            Some((generation, reason)) if generation >= row.generation => {
                return self.raise(row.generation, reason).await;
            }
            _ => {}
        }
        if !self.orders.is_empty() {
            // Another proxy brought the cache back before this one saw it out of use.
            let reason = "FLUSHALL, FLUSHDB or SWAPDB".to_owned();
            return self.raise(row.generation, reason).await;
        }
        if let Err(error) = self.check_cache(row).await {
            return self.raise(row.generation, error.to_string()).await;
        }
        self.cache.set_holder(row.run_id.as_deref());
        if !matches!(self.fence.phase(), Phase::Active(_)) {
            self.cache.load_library().await?;
        }
        let asked = Instant::now();
        let current = self.store.fence().await?;
        if current != *row {
            return Ok(current);
        }
        self.fence.extend_lease(asked, self.reads_without_database);
        self.fence.set(Phase::Active(row.generation));
        self.fence.store_reachable.store(true, Ordering::Relaxed);
        match tokio::time::timeout(self.renewal, self.inbox.recv()).await {
            Err(_) | Ok(None | Some(Signal::Suspect)) => Ok(current),
            Ok(Some(Signal::Condemn(generation, reason))) => {
                if generation < row.generation {
                    return Ok(current);
                }
                self.raise(row.generation, reason).await
            }
            Ok(Some(Signal::Order(order, answer))) => {
                self.orders.push((order, answer));
                self.raise(row.generation, "FLUSHALL, FLUSHDB or SWAPDB".to_owned())
                    .await
            }
        }
    }

    /// Whether the cache is the server on record and holds the generation.
    async fn check_cache(&self, row: &FenceRow) -> Result<(), CacheError> {
        let (identity, mark) = self.cache.probe().await?;
        if !identity.is_primary {
            return Err(CacheError::Stranger("it is a replica".into()));
        }
        if Some(&identity.run_id) != row.run_id.as_ref() {
            return Err(CacheError::Stranger(format!(
                "its run_id is {}",
                identity.run_id
            )));
        }
        if mark != Some(row.generation) {
            return Err(CacheError::Fenced(
                "it was emptied, or restored from a copy".into(),
            ));
        }
        Ok(())
    }

    async fn raise(&mut self, known: Generation, reason: String) -> Result<FenceRow, Trouble> {
        if self.orders.is_empty() && self.fence.phase() != Phase::Closing(known) {
            tracing::warn!(
                generation = known.0,
                reason,
                "the cache is taken out of use"
            );
        }
        self.fence.set(Phase::Closing(known));
        self.cache.set_holder(None);
        self.condemned = Some((known, reason.clone()));
        let row = self.store.raise(known, &reason).await?;
        self.condemned = None;
        *self
            .fence
            .last_reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = reason;
        Ok(row)
    }

    /// Serves from the store alone, carries out orders, and brings the cache back.
    async fn bypass(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        self.fence.set(Phase::Bypass(row.generation));
        self.take_orders();
        for (order, answer) in std::mem::take(&mut self.orders) {
            // A client that has gone does not want its answer.
            let _ = answer.send(self.carry_out(order, row.generation).await);
        }
        let returned = self.store.alone(self.cache.open(row.generation)).await?;
        match returned {
            // Another proxy is at it.
            None => tokio::time::sleep(RETRY_MIN).await,
            Some(Ok(identity)) => {
                tracing::info!(generation = row.generation.0, run_id = %identity.run_id, "the cache is empty and stamped");
                return Ok(self
                    .store
                    .activate(row.generation, &identity.run_id)
                    .await?);
            }
            // It was stamped before the activation was lost.
            Some(Err(CacheError::Fenced(_))) => {
                let (identity, mark) = self.cache.probe().await?;
                if mark == Some(row.generation) && identity.is_primary {
                    return Ok(self
                        .store
                        .activate(row.generation, &identity.run_id)
                        .await?);
                }
                tracing::error!(
                    ?mark,
                    "the cache holds a later generation than the store: was the store restored from a backup?"
                );
                return Ok(self.store.skip_to(row.generation, mark).await?);
            }
            Some(Err(error)) => {
                let current = self.store.fence().await?;
                if current == *row {
                    return Err(error.into());
                }
            }
        }
        Ok(self.store.fence().await?)
    }

    async fn carry_out(&self, order: Order, generation: Generation) -> Result<(), Refusal> {
        let mut tries = 1;
        let done = loop {
            let done = match order {
                Order::Flush(scope) => self.store.flush(scope, generation).await,
                Order::Swap(one, other) => self.store.swap(one, other, generation).await,
            };
            match done {
                // The index on ends is being made: it waits for us, and we for it.
                Err(StoreError::Conflict(_)) if tries < ORDER_TRIES_MAX => tries += 1,
                done => break done,
            }
        };
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Unsettled),
            Err(error) if error.is_outage() => Err(Refusal::StoreAway(error.to_string())),
            Err(error) => Err(Refusal::Refused(error.to_string())),
        }
    }

    /// Takes the orders that wait; what was said of the cache no longer matters.
    fn take_orders(&mut self) {
        while let Ok(signal) = self.inbox.try_recv() {
            if let Signal::Order(order, answer) = signal {
                self.orders.push((order, answer));
            }
        }
    }

    fn refuse_orders(&mut self, refusal: &Refusal) {
        self.take_orders();
        for (_, answer) in self.orders.drain(..) {
            // A client that has gone does not want its answer.
            let _ = answer.send(Err(refusal.clone()));
        }
    }
}

/// Why a step was not possible; it is tried again.
enum Trouble {
    Store(StoreError),
    Cache(CacheError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CacheError> for Trouble {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

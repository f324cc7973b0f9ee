//! When the cache may be used: generations, bypass, and the way back.
//!
//! ```text
//!            raise             nobody can have hits of before
//!  Active(g) ------> Closing(g+1) ----------------------> Bypass(g+1)
//!      ^                                                      |
//!      +---- cache emptied, stamped g+1, identity recorded ---+
//! ```
//! The states are durable in the row `freshet.fence`; one task per proxy
//! follows it, and only that task changes the [`Phase`] that all others read.
//! A proxy that alone cannot reach the cache is `Apart` while the row says `active`.

mod follower;
mod patience;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use self::follower::Follower;
use super::Refusal;
use crate::cache::{Cache, CacheError};
use crate::clock;
use crate::config;
use crate::model::{Db, Generation};
use crate::store::{FlushScope, Registration, Store, StoreError};

/// How long a request waits for the fence to settle.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(5);

/// How long a request waits for a cache that it gave up.
const GIVE_UP_MAX: Duration = Duration::from_secs(2);

/// How this proxy uses the cache now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The cache of this generation is used.
    Active(Generation),
    /// It is void: requests are held.
    Closing(Generation),
    /// All work is done on the store alone.
    Bypass(Generation),
    /// Others use the cache of this generation, and this proxy cannot reach it: it could tell the cache of
    /// no write and no read, and so does neither.
    Apart(Generation),
}

impl Phase {
    /// The generation.
    pub fn generation(self) -> Generation {
        match self {
            Self::Active(g) | Self::Closing(g) | Self::Bypass(g) | Self::Apart(g) => g,
        }
    }

    /// Whether the cache of `generation` is out of use everywhere.
    pub(super) fn is_after(self, generation: Generation) -> bool {
        match self {
            Self::Closing(_) => false,
            Self::Bypass(now) | Self::Active(now) | Self::Apart(now) => now > generation,
        }
    }

    /// As in `INFO` and in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active(_) => "active",
            Self::Closing(_) => "closing",
            Self::Bypass(_) => "bypass",
            Self::Apart(_) => "apart",
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

/// Why the cache of a generation must not be used any more.
#[derive(Clone, Debug)]
enum Blame {
    /// Its content cannot be trusted, whoever looks.
    Content(String),
    /// This proxy does not reach the server on record. Others may.
    Path(String),
}

impl Blame {
    fn of(error: &CacheError) -> Self {
        match error {
            CacheError::Fenced(_) => Self::Content(error.to_string()),
            _ => Self::Path(error.to_string()),
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Content(reason) | Self::Path(reason) => reason,
        }
    }
}

/// An order that waits, since when, and who waits for it.
struct Ordered {
    order: Order,
    since: Instant,
    answer: oneshot::Sender<Result<(), Refusal>>,
}

/// What makes the task look at the cache, or give it up.
enum Signal {
    /// Something failed: see whether the cache is still what it was.
    Suspect,
    /// The cache of that generation must not be used any more.
    Condemn(Generation, Blame),
    /// Do this while the cache is out of use.
    Order(Ordered),
}

/// The fence, as the rest of the program sees it.
pub struct Fence {
    phase: watch::Sender<Phase>,
    signals: mpsc::Sender<Signal>,
    registration: RwLock<i32>,
    /// Somebody has declared this proxy dead.
    declared_dead: AtomicBool,
    /// Until when hits may be used without news from the store, in ms of `clock::since_boot`.
    lease_until: AtomicI64,
    store_reachable: AtomicBool,
    last_reason: Mutex<String>,
    /// Committed batches of which the cache was not told yet, and that wait for it or for the fence.
    untold: AtomicUsize,
}

/// A batch counted as untold until this is dropped.
pub(super) struct Untold<'a>(&'a AtomicUsize);

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
        let lease = settings.reads_without_database;
        let registration = Registration::new(&store, &name, lease, None).await?;
        let row = store.fence().await?;
        let (signals, inbox) = mpsc::channel(1024);
        let fence = Arc::new(Self {
            phase: watch::Sender::new(Phase::Closing(row.generation)),
            signals,
            registration: RwLock::new(registration.id),
            declared_dead: AtomicBool::new(false),
            lease_until: AtomicI64::new(0),
            store_reachable: AtomicBool::new(true),
            last_reason: Mutex::new(String::new()),
            untold: AtomicUsize::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let parts = (Arc::clone(&fence), store, cache);
        let follower = Follower::new(parts, settings, inbox, (name, registration), stopped);
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
            && (clock::since_boot().as_millis() as i64) < self.lease_until.load(Ordering::Relaxed)
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
        match self.phase() {
            Phase::Closing(_) => {}
            Phase::Apart(_) => return Err(Refusal::Apart),
            now => return Ok(now),
        }
        // Without the store the fence cannot move: do not keep clients waiting for it.
        let limit = if self.store_reachable() {
            SETTLE_MAX
        } else {
            SETTLE_MAX / 10
        };
        let settled = self
            .wait(limit, |phase| !matches!(phase, Phase::Closing(_)))
            .await?;
        match settled {
            Phase::Apart(_) => Err(Refusal::Apart),
            settled => Ok(settled),
        }
    }

    /// Waits until the cache of `generation` is out of use everywhere: `Bypass`, or
    /// `Active` of a later one.
    pub async fn after(&self, generation: Generation, limit: Duration) -> Result<Phase, Refusal> {
        self.wait(limit, |phase| phase.is_after(generation)).await
    }

    /// The same, or until it is in use here again.
    pub(super) async fn after_or_again(
        &self,
        generation: Generation,
        limit: Duration,
    ) -> Result<Phase, Refusal> {
        self.wait(limit, |phase| {
            phase.is_after(generation) || *phase == Phase::Active(generation)
        })
        .await
    }

    /// Counts a committed batch that waits to be told to the cache.
    pub(super) fn untold(&self) -> Untold<'_> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        Untold(&self.untold)
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
            // One that is out of use here need not be blamed again.
            if self.phase() == Phase::Active(generation) {
                self.blame(generation, Blame::of(error)).await;
            }
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
        self.blame(generation, Blame::Content(reason)).await;
    }

    async fn blame(&self, generation: Generation, blame: Blame) {
        let _ = self.signals.send(Signal::Condemn(generation, blame)).await;
    }

    /// Tells that the store counts registration `proxy` as dead: this proxy must register anew.
    pub fn registration_lost(&self, proxy: i32) {
        if proxy == self.proxy() {
            self.declared_dead.store(true, Ordering::Relaxed);
            let _ = self.signals.try_send(Signal::Suspect);
        }
    }

    /// Has `order` carried out while the cache is out of use.
    pub async fn carry_out(&self, order: Order) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        let ordered = Ordered {
            order,
            since: Instant::now(),
            answer,
        };
        self.signals
            .send(Signal::Order(ordered))
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

    /// `asked` is when that was, by `clock::since_boot`.
    fn extend_lease(&self, asked: Duration, length: Duration) {
        let until = asked + length;
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

//! The task that follows the fence row, and moves it on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::patience::Patience;
use super::{Blame, Fence, Order, Ordered, Phase, Signal};
use crate::cache::{Cache, CacheError, Connection};
use crate::clock;
use crate::coherence::Refusal;
use crate::config;
use crate::model::Generation;
use crate::store::{
    FenceRow, FenceState, History, OldContent, Registration, Return, Store, StoreError,
};
use crate::telemetry;

/// Between two tries to move the fence on.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Tries of an order that other transactions are in the way of.
const ORDER_TRIES_MAX: u32 = 10;

/// How long an order waits for its turn.
const ORDER_MAX: Duration = Duration::from_secs(20);

/// How long requests are held when this proxy alone does not reach the cache, before they are refused:
/// it may only be later than others in finding a new one.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// How long others are given to confirm, before what they might still read is deleted.
const CONFIRM_MAX: Duration = Duration::from_millis(200);

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

/// The state of the task.
pub(super) struct Follower {
    fence: Arc<Fence>,
    store: Arc<Store>,
    cache: Arc<Cache>,
    renewal: Duration,
    reads_without_database: Duration,
    inbox: mpsc::Receiver<Signal>,
    orders: Vec<Ordered>,
    /// Keeps the cache out of use until the orders are carried out.
    held: Option<Return>,
    /// A generation that must not be used again, though the store could not be told yet.
    condemned: Option<(Generation, Blame)>,
    /// The store lost its latest past, and its generation must be above this one.
    lost_past: Option<(Generation, String)>,
    /// Which registration was declared to use which generation.
    declared: Option<(i32, Generation)>,
    /// The generation of the cache that this proxy used last.
    used: Option<Generation>,
    /// Since when others use a cache that this proxy does not reach.
    away_since: Option<Instant>,
    /// Since when it waits for others to obey which generation.
    closing_since: Option<(Generation, Instant)>,
    patience: Patience,
    registration: Option<Registration>,
    name: String,
    stopped: watch::Receiver<bool>,
}

impl Follower {
    pub fn new(
        (fence, store, cache): (Arc<Fence>, Arc<Store>, Arc<Cache>),
        settings: &config::Fence,
        inbox: mpsc::Receiver<Signal>,
        (name, registration): (String, Registration),
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            fence,
            store,
            cache,
            renewal: settings.renewal,
            reads_without_database: settings.reads_without_database,
            inbox,
            orders: Vec::new(),
            held: None,
            condemned: None,
            lost_past: None,
            declared: None,
            used: None,
            away_since: None,
            closing_since: None,
            patience: Patience::default(),
            registration: Some(registration),
            name,
            stopped,
        }
    }

    pub async fn run(mut self, first: FenceRow) {
        let mut row = first;
        let mut stopped = self.stopped.clone();
        let mut retry = RETRY_MIN;
        loop {
            let moved = tokio::select! {
                // Dropped at an await only when the program stops.
                moved = self.step_or_turn(&row) => moved,
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
            && let Err(error) = registration.end(&self.store).await
        {
            tracing::warn!(%error, "the registration could not be ended");
        }
    }

    async fn step_or_turn(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        match self.step(row).await {
            Err(Trouble::Store(StoreError::OtherHistory(found))) => {
                let known = self.store.history();
                let known = known.map_or_else(|| "none".to_owned(), |known| known.to_string());
                let reason = format!("PostgreSQL went from history {known} to {found}");
                self.turn_to(row.generation, found, reason).await
            }
            moved => moved,
        }
    }

    /// Does what the state of the row asks for, and returns the row after it.
    async fn step(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        self.keep_registration().await?;
        if let Some((known, reason)) = &self.lost_past {
            let row = self.store.void(*known, reason).await?;
            self.lost_past = None;
            return Ok(row);
        }
        if row.state != FenceState::Active {
            self.away_since = None;
        }
        match row.state {
            FenceState::Active => self.use_cache(row).await,
            FenceState::Closing => self.close(row).await,
            FenceState::Bypass => self.bypass(row).await,
        }
    }

    /// The store may lack what was committed, and shown: a promoted standby, a restored backup, another
    /// cluster. What the cache holds is void, whatever the store says of generations, and so is every
    /// number above the last one that this proxy knew.
    async fn turn_to(
        &mut self,
        known: Generation,
        found: History,
        reason: String,
    ) -> Result<FenceRow, Trouble> {
        tracing::error!(
            generation = known.0,
            reason,
            "the store has another history: what it had committed last may be lost; the cache is voided"
        );
        metrics::counter!(telemetry::STORE_HISTORIES).increment(1);
        self.fence.set(Phase::Closing(known));
        self.cache.set_holder(None, None);
        self.set_reason(&reason);
        self.lost_past = Some((known, reason));
        self.store.turn_to(found);
        // They were the old server's.
        (self.registration, self.held) = (None, None);
        Box::pin(self.step(&FenceRow {
            generation: known,
            state: FenceState::Closing,
            run_id: None,
            replication_id: None,
        }))
        .await
    }

    /// A session that ended lets others declare this proxy dead: register anew.
    async fn keep_registration(&mut self) -> Result<(), StoreError> {
        let dead = self.fence.declared_dead.swap(false, Ordering::Relaxed);
        let holds = |held: &Registration| !held.is_lost();
        if !dead && self.registration.as_ref().is_some_and(holds) {
            return Ok(());
        }
        self.register_anew().await
    }

    /// Takes a new number; the old one is over, so that others may bury what it left in the cache.
    async fn register_anew(&mut self) -> Result<(), StoreError> {
        let lease = self.reads_without_database;
        let uses = match self.fence.phase() {
            Phase::Active(generation) => Some(generation),
            _ => None,
        };
        let registration = Registration::new(&self.store, &self.name, lease, uses).await?;
        tracing::info!(proxy = registration.id, "registered anew");
        *self
            .fence
            .registration
            .write()
            .unwrap_or_else(PoisonError::into_inner) = registration.id;
        if let Some(old) = self.registration.replace(registration) {
            old.end(&self.store).await?;
        }
        Ok(())
    }

    /// The cache should be in use: check it, then renew until something happens.
    async fn use_cache(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        match self.condemned.take() {
            Some((generation, blame)) if generation >= row.generation => {
                return self.leave(row, blame).await;
            }
            _ => {}
        }
        if !self.orders.is_empty() {
            return self.raise_for_orders(row).await;
        }
        let ids = (row.run_id.as_deref(), row.replication_id.as_deref());
        let known = self.store.history().map(|history| history.to_string());
        let probe = match self
            .cache
            .renew(row.generation, ids, known.as_deref())
            .await
        {
            Ok(probe) => probe,
            Err(error) => return self.leave(row, Blame::of(&error)).await,
        };
        self.cache.set_holder(ids.0, ids.1);
        if !matches!(self.fence.phase(), Phase::Active(_)) {
            self.cache.load_library().await?;
        }
        let proxy = self.fence.proxy();
        if self.declared != Some((proxy, row.generation)) {
            self.store.declare_use(proxy, Some(row.generation)).await?;
            self.declared = Some((proxy, row.generation));
        }
        let (asked, at) = (clock::since_boot(), Instant::now());
        let sight = self.store.sight(proxy).await?;
        if !sight.is_alive {
            self.fence.registration_lost(proxy);
            return Ok(sight.row);
        }
        if sight.row != *row {
            return Ok(sight.row);
        }
        // Read before the store was asked: the store must have come at least so far.
        let noted: Option<History> = probe.history.and_then(|text| text.parse().ok());
        if let (Some(noted), Some(found)) = (noted, sight.history)
            && !found.continues(&noted)
        {
            let reason = format!("the cache is of history {noted}, PostgreSQL is at {found}");
            return self.turn_to(row.generation, found, reason).await;
        }
        self.fence.extend_lease(asked, self.reads_without_database);
        (self.used, self.away_since) = (Some(row.generation), None);
        self.patience.reached(at);
        self.fence.set(Phase::Active(row.generation));
        self.fence.store_reachable.store(true, Ordering::Relaxed);
        self.await_signal(row).await
    }

    /// Waits for the next renewal, or for a reason not to.
    async fn await_signal(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        match tokio::time::timeout(self.renewal, self.inbox.recv()).await {
            Err(_) | Ok(None | Some(Signal::Suspect)) => {}
            Ok(Some(Signal::Condemn(generation, blame))) => {
                if generation >= row.generation {
                    return self.leave(row, blame).await;
                }
            }
            Ok(Some(Signal::Order(ordered))) => self.orders.push(ordered),
        }
        Ok(row.clone())
    }

    /// Takes the cache out of use for the orders. Nobody can bring it back before they are carried out.
    async fn raise_for_orders(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        self.give_up_late_orders();
        if self.held.as_ref().is_none_or(Return::is_lost) {
            self.held = self.store.take_return().await?;
        }
        if self.held.is_none() {
            tokio::time::sleep(RETRY_MIN).await;
            return Ok(self.store.fence().await?);
        }
        let blame = Blame::Content("FLUSHALL, FLUSHDB or SWAPDB".to_owned());
        self.raise(row.generation, blame).await
    }

    /// The cache must not be used any more, at least here.
    async fn leave(&mut self, row: &FenceRow, blame: Blame) -> Result<FenceRow, Trouble> {
        let generation = row.generation;
        self.patience.missed();
        if self.fence.phase() != Phase::Apart(generation) {
            self.fence.set(Phase::Closing(generation));
        }
        self.cache.set_holder(None, None);
        self.condemned = Some((generation, blame.clone()));
        if matches!(blame, Blame::Path(_)) {
            let proxy = self.fence.proxy();
            if self.store.others_use(proxy, generation).await? {
                if !self.may_raise(generation) {
                    self.condemned = None;
                    return self.stand_apart(row, blame).await;
                }
                self.patience.begin(Instant::now());
            }
        }
        self.raise(generation, blame).await
    }

    /// Whether to take a cache out of use that others reach: since it may be only they who do not know
    /// yet that it is gone; and since a write that is committed waits for it. Seldom, in any case.
    fn may_raise(&self, generation: Generation) -> bool {
        let is_first = self.away_since.is_none();
        self.used == Some(generation)
            && self.patience.is_over(Instant::now())
            && (is_first || self.fence.untold.load(Ordering::Relaxed) > 0)
    }

    /// Others use the cache, and this proxy cannot: it gives up what rights it has, and looks on.
    async fn stand_apart(&mut self, row: &FenceRow, blame: Blame) -> Result<FenceRow, Trouble> {
        let phase = Phase::Apart(row.generation);
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= HOLD_MAX && self.fence.phase() != phase {
            tracing::error!(
                generation = row.generation.0,
                reason = blame.reason(),
                "this proxy cannot reach the cache that others use: it serves nobody until it can"
            );
            self.set_reason(blame.reason());
            self.fence.set(phase);
            self.register_anew().await?;
        }
        if self.fence.phase() == phase && self.declared.is_some() {
            self.store.declare_use(self.fence.proxy(), None).await?;
            self.declared = None;
        }
        self.take_orders();
        let current = self.store.fence().await?;
        if current == *row && self.orders.is_empty() {
            return Err(CacheError::Unreachable(blame.reason().to_owned()).into());
        }
        Ok(current)
    }

    async fn raise(&mut self, known: Generation, blame: Blame) -> Result<FenceRow, Trouble> {
        let reason = blame.reason().to_owned();
        if self.orders.is_empty() {
            tracing::warn!(
                generation = known.0,
                reason,
                "the cache is taken out of use"
            );
        }
        self.fence.set(Phase::Closing(known));
        self.cache.set_holder(None, None);
        self.condemned = Some((known, blame));
        let row = self.store.raise(known, &reason).await?;
        self.condemned = None;
        self.set_reason(&reason);
        Ok(row)
    }

    fn set_reason(&self, reason: &str) {
        let mut last = self.fence.last_reason.lock();
        let last = last.as_mut().unwrap_or_else(|poisoned| poisoned.get_mut());
        reason.clone_into(last);
    }

    /// Waits until nobody can have hits of the generation before.
    async fn close(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        self.fence.set(Phase::Closing(row.generation));
        self.cache.set_holder(None, None);
        let proxy = self.fence.proxy();
        let since = match self.closing_since {
            Some((generation, since)) if generation == row.generation => since,
            _ => Instant::now(),
        };
        self.closing_since = Some((row.generation, since));
        let waited = since.elapsed();
        let next = self
            .store
            .confirm(proxy, row.generation, OldContent::MayBeThere, waited)
            .await?;
        if next != *row {
            return Ok(next);
        }
        // A proxy that stands still, or that died and may only have lost its way to the store: its right
        // to hits lasts for a while, so there must be none to have.
        if since.elapsed() >= CONFIRM_MAX {
            match self
                .cache
                .close(row.generation, row.run_id.as_deref())
                .await
            {
                Ok(true) => {
                    return Ok(self
                        .store
                        .confirm(proxy, row.generation, OldContent::Gone, waited)
                        .await?);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "a proxy that does not answer is waited for");
                }
            }
        }
        tokio::time::sleep(RETRY_MIN).await;
        Ok(next)
    }

    /// Serves from the store alone, carries out orders, and brings the cache back.
    async fn bypass(&mut self, row: &FenceRow) -> Result<FenceRow, Trouble> {
        self.fence.set(Phase::Bypass(row.generation));
        self.take_orders();
        self.carry_out_orders(row.generation).await;
        if !self.orders.is_empty() {
            // The cache is back already, or an order came in between.
            return Ok(self.store.fence().await?);
        }
        // Who cannot reach it does not keep others from bringing it back.
        let connection = match self.cache.reach().await {
            Ok(connection) => connection,
            Err(error) => {
                self.held = None;
                let current = self.store.fence().await?;
                return if current == *row {
                    Err(error.into())
                } else {
                    Ok(current)
                };
            }
        };
        let held = match self.held.take() {
            Some(held) if !held.is_lost() => Some(held),
            _ => self.store.take_return().await?,
        };
        let Some(held) = held else {
            // Another proxy is at it.
            tokio::time::sleep(RETRY_MIN).await;
            return Ok(self.store.fence().await?);
        };
        let moved = self.bring_back(row, connection).await;
        held.give_back(&self.store).await;
        moved
    }

    /// Empties and stamps the cache, and lets it be used.
    async fn bring_back(
        &self,
        row: &FenceRow,
        connection: Connection,
    ) -> Result<FenceRow, Trouble> {
        let generation = row.generation;
        let history = self.store.history().map(|history| history.to_string());
        let opened = self
            .cache
            .open(connection, generation, history.as_deref())
            .await;
        let identity = match opened {
            Ok(identity) => {
                tracing::info!(generation = generation.0, run_id = %identity.run_id, "the cache is empty and stamped");
                identity
            }
            // It was stamped before the activation was lost.
            Err(CacheError::Fenced(_)) => {
                let probe = self.cache.probe().await?;
                if probe.mark == Some(generation) && probe.identity.is_primary {
                    probe.identity
                } else {
                    tracing::error!(
                        mark = ?probe.mark,
                        "the cache holds a later generation than the store: was the store restored from a backup?"
                    );
                    return Ok(self.store.skip_to(generation, probe.mark).await?);
                }
            }
            Err(error) => {
                let current = self.store.fence().await?;
                return if current == *row {
                    Err(error.into())
                } else {
                    Ok(current)
                };
            }
        };
        let (run_id, replication_id) = (&identity.run_id, &identity.replication_id);
        Ok(self
            .store
            .activate(generation, run_id, replication_id)
            .await?)
    }

    async fn carry_out_orders(&mut self, generation: Generation) {
        for ordered in std::mem::take(&mut self.orders) {
            match self.carry_out(ordered.order, generation).await {
                // Another proxy brought the cache back in between: once more.
                Err(Refusal::Unsettled) if ordered.since.elapsed() < ORDER_MAX => {
                    self.orders.push(ordered);
                }
                // A client that has gone does not want its answer.
                done => drop(ordered.answer.send(done)),
            }
        }
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
            Err(error) if error.is_unanswered() => Err(Refusal::Unknown(error.to_string())),
            Err(error) if error.is_outage() => Err(Refusal::StoreAway(error.to_string())),
            Err(error) => Err(Refusal::of_poison(&error)),
        }
    }

    /// Takes the orders that wait; what was said of the cache no longer matters.
    fn take_orders(&mut self) {
        while let Ok(signal) = self.inbox.try_recv() {
            if let Signal::Order(ordered) = signal {
                self.orders.push(ordered);
            }
        }
    }

    /// Refuses orders whose turn did not come.
    fn give_up_late_orders(&mut self) {
        let late = |ordered: &mut Ordered| ordered.since.elapsed() >= ORDER_MAX;
        for ordered in self.orders.extract_if(.., late) {
            // A client that has gone does not want its answer.
            let _ = ordered.answer.send(Err(Refusal::Unsettled));
        }
    }

    fn refuse_orders(&mut self, refusal: &Refusal) {
        self.take_orders();
        for ordered in self.orders.drain(..) {
            // A client that has gone does not want its answer.
            let _ = ordered.answer.send(Err(refusal.clone()));
        }
    }
}

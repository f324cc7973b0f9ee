//! What SQL changed reaches the cache, and those who want to hear.
//!
//! Who writes by SQL tells the cache nothing, neither before nor after COMMIT; the change
//! stands in `freshet.change` with the version that it made. One proxy reads them there and then does
//! what a reader does that has found this version in the store: it *observes* it. That is
//! harmless at any time and any number of times, so nothing rests on the order of changes, on there
//! being one such proxy, or on what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::plan::is_reserved;
use super::{Audience, Change, Ear, Fence, Phase, Waiting};
use crate::cache::{Applied, Cache, Op};
use crate::config;
use crate::fault::{self, Point};
use crate::model::{Event, EventClasses, Generation, Key, Version};
use crate::store::{ChangeLog, ChangePage, FenceState, Noting, SqlChange, Store, StoreError};
use crate::telemetry;

/// A registration that no batch has.
const OBSERVER: &str = "cdc";
/// How long a proxy has the turn without renewing it: after that another takes it.
const TURN: Duration = Duration::from_secs(4);
/// How often it is renewed, and how often the others ask for it.
const RENEWAL: Duration = Duration::from_secs(1);
/// How long a proxy that ends tries to leave its turn to others.
const LEAVING_MAX: Duration = Duration::from_secs(1);
/// Changes read and told at once: Redis serves nobody else meanwhile.
const PAGE: u16 = 500;
/// Between two looks while there is something, and behind one that found nothing.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
const IDLE_PAUSE: Duration = Duration::from_millis(20);
/// After so long without changes, whoever makes one has to wake this proxy.
const SLEEPY_AFTER: Duration = Duration::from_secs(1);
/// So much later it looks seldom: whoever saw it awake before has committed, if it was no long transaction.
const ASLEEP_AFTER: Duration = Duration::from_secs(2);
/// Between two tries while the cache is between its states.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The class of each event that SQL makes.
const EVENTS: &[(EventClasses, &str)] = &[
    (EventClasses::GENERIC, "del"),
    (EventClasses::GENERIC, "expire"),
    (EventClasses::GENERIC, "persist"),
    (EventClasses::STRING, "set"),
    (EventClasses::STRING, "incrby"),
    (EventClasses::HASH, "hset"),
    (EventClasses::HASH, "hdel"),
    (EventClasses::LIST, "lpush"),
    (EventClasses::LIST, "rpush"),
    (EventClasses::SET, "sadd"),
    (EventClasses::SET, "srem"),
    (EventClasses::SORTED_SET, "zadd"),
    (EventClasses::SORTED_SET, "zrem"),
];

/// Tells of changes made by SQL.
pub struct Capture {
    /// Where they are read.
    pub store: Arc<Store>,
    /// Who is told.
    pub cache: Arc<Cache>,
    /// Whether it is in use.
    pub fence: Arc<Fence>,
    /// Those who wait for keys.
    pub waiting: Arc<Waiting>,
    /// Everybody else who wants to hear.
    pub audience: Arc<dyn Audience>,
    /// How.
    pub settings: config::Cdc,
}

/// Where the one whose turn it is stands.
struct Progress {
    /// When the turn was last renewed.
    renewed: Instant,
    /// When there was something last.
    busy: Instant,
    /// Whether changes wake this proxy.
    is_asleep: bool,
    /// How often the cache has failed in a row.
    failures: u32,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            renewed: now,
            busy: now,
            is_asleep: false,
            failures: 0,
        }
    }
}

/// The running task that tells of changes made by SQL.
pub struct CaptureTask {
    stop: watch::Sender<bool>,
    handle: JoinHandle<()>,
}

impl CaptureTask {
    /// Ends it, and leaves its turn to others.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.handle.await {
            tracing::error!(%error, "the task that tells of changes made by SQL failed");
        }
    }
}

impl Capture {
    /// Starts to tell, whenever it is this proxy's turn.
    pub fn start(self) -> CaptureTask {
        let (stop, mut stopped) = watch::channel(false);
        let holder: i64 = rand::random();
        let handle = tokio::spawn(async move {
            tokio::select! {
                () = self.run(holder) => {}
                _ = stopped.wait_for(|is_stopped| *is_stopped) => {}
            }
            // Without it the others only wait until the turn is over.
            let leaving = self.store.leave_changes(holder);
            let _ = tokio::time::timeout(LEAVING_MAX, leaving).await;
        });
        CaptureTask { stop, handle }
    }

    async fn run(&self, holder: i64) {
        let mut has_warned = false;
        loop {
            let turn = self.take_turn(holder).await;
            metrics::gauge!(telemetry::CDC_TURN).set(0.0);
            match turn {
                Ok(()) => has_warned = false,
                Err(error) => {
                    if !std::mem::replace(&mut has_warned, true) {
                        tracing::warn!(%error, "changes made by SQL are told of later");
                    }
                }
            }
            tokio::time::sleep(RENEWAL).await;
        }
    }

    fn is_apart(&self) -> bool {
        matches!(self.fence.phase(), Phase::Apart(_))
    }

    /// Tells as long as the turn lasts, if this proxy gets it.
    async fn take_turn(&self, holder: i64) -> Result<(), StoreError> {
        if self.is_apart() || !self.store.claim_changes(holder, TURN).await? {
            return Ok(());
        }
        let mut log = self
            .store
            .open_changes(holder, self.settings.backlog)
            .await?;
        tracing::debug!("this proxy tells the cache of what SQL changes");
        metrics::gauge!(telemetry::CDC_TURN).set(1.0);
        let mut progress = Progress::new();
        loop {
            if progress.renewed.elapsed() > RENEWAL {
                if self.is_apart() {
                    return self.store.leave_changes(holder).await;
                }
                if !log.keep(TURN).await? {
                    return Ok(());
                }
                progress.renewed = Instant::now();
            }
            self.step(&mut log, &mut progress).await?;
        }
    }

    /// Reads once, tells of what there is, and rests.
    async fn step(
        &self,
        log: &mut ChangeLog<'_>,
        progress: &mut Progress,
    ) -> Result<(), StoreError> {
        let page = log.read(PAGE).await?;
        if page.noting != Noting::Open {
            self.start_over(log, &page).await?;
        }
        metrics::gauge!(telemetry::CDC_BACKLOG).set(page.backlog as f64);
        if page.changes.is_empty() {
            log.forget(page).await?;
            return self.rest(log, progress).await;
        }
        progress.busy = Instant::now();
        if std::mem::take(&mut progress.is_asleep) {
            log.sleep(false).await?;
        }
        fault::reached(Point::BeforeTell).await;
        if !self.tell(&page, progress).await {
            return Ok(());
        }
        fault::reached(Point::BeforeForget).await;
        count(&page.changes);
        let is_full = page.is_full;
        log.forget(page).await?;
        if !is_full {
            tokio::time::sleep(BUSY_PAUSE).await;
        }
        Ok(())
    }

    /// Waits for the next look: shortly, or if there was nothing for a while, until it is woken.
    async fn rest(&self, log: &ChangeLog<'_>, progress: &mut Progress) -> Result<(), StoreError> {
        let quiet = progress.busy.elapsed();
        if quiet < ASLEEP_AFTER {
            if quiet > SLEEPY_AFTER && !std::mem::replace(&mut progress.is_asleep, true) {
                log.sleep(true).await?;
            }
            tokio::time::sleep(IDLE_PAUSE).await;
            return Ok(());
        }
        // Found nothing in time is as good as woken.
        let _ = tokio::time::timeout(self.settings.poll, log.woken()).await;
        Ok(())
    }

    /// Tells the cache and then all others. `false`: the cache cannot be told now.
    async fn tell(&self, page: &ChangePage, progress: &mut Progress) -> bool {
        let versions = newest(&page.changes);
        let is_told = match page.state {
            // Nothing that was committed by then can be in the cache of the next generation in an older version.
            FenceState::Bypass => true,
            FenceState::Active if self.fence.phase() == Phase::Active(page.generation) => {
                self.tell_cache(page.generation, &versions, progress).await
            }
            FenceState::Active | FenceState::Closing => {
                tokio::time::sleep(RETRY_PAUSE).await;
                false
            }
        };
        if is_told {
            self.tell_others(page, &versions);
        }
        is_told
    }

    async fn tell_cache(
        &self,
        generation: Generation,
        versions: &BTreeMap<&Key, Version>,
        progress: &mut Progress,
    ) -> bool {
        // Keys that look like names of the cache's own are never cached.
        let cached = versions.iter().filter(|(key, _)| !is_reserved(key));
        let seen: Vec<Applied<'_>> = cached
            .map(|(key, version)| Applied {
                key,
                op: Op::Observe,
                version: *version,
            })
            .collect();
        if seen.is_empty() {
            return true;
        }
        match self.cache.apply(generation, OBSERVER, &seen).await {
            Ok(()) => {
                progress.failures = 0;
                true
            }
            Err(error) => {
                let attempt = progress.failures;
                progress.failures += 1;
                self.fence.cache_failed(generation, &error, attempt).await;
                false
            }
        }
    }

    /// Behind the cache: whoever reads because of what it hears reads the new.
    fn tell_others(&self, page: &ChangePage, versions: &BTreeMap<&Key, Version>) {
        let classes = self.audience.event_classes();
        if classes.is_active() {
            let events = page.changes.iter().filter_map(event);
            let wanted = events.filter(|event| classes.contains(event.class));
            self.audience.hear_events(&wanted.collect::<Vec<_>>());
        }
        if self.audience.wants_changes() {
            let changed = versions.keys().map(|key| Change { key, author: None });
            self.audience.hear_changes(&changed.collect::<Vec<_>>());
        }
        if self.waiting.is_any() {
            let keys: Vec<Key> = versions.keys().map(|key| (*key).clone()).collect();
            self.waiting.hear(&keys);
        }
    }

    /// There were too many changes to be noted: the whole cache is given up instead. Changes are noted again
    /// before that, and all transactions that noted none are over.
    async fn start_over(&self, log: &ChangeLog<'_>, page: &ChangePage) -> Result<(), StoreError> {
        if page.noting == Noting::Full {
            return log.note_again().await;
        }
        let is_void = match page.state {
            FenceState::Bypass => true,
            FenceState::Closing => false,
            FenceState::Active => {
                let reason = "SQL has changed more keys than freshet.change keeps ([cdc] backlog)";
                self.fence.condemn(page.generation, reason.to_owned()).await;
                self.fence.after(page.generation, TURN).await.is_ok()
            }
        };
        if is_void {
            log.reopen().await?;
            self.audience.hear_flush();
            self.waiting.note_all();
        }
        Ok(())
    }
}

/// The highest version of each key among these changes.
fn newest(changes: &[SqlChange]) -> BTreeMap<&Key, Version> {
    let mut versions: BTreeMap<&Key, Version> = BTreeMap::new();
    for change in changes {
        if let Some(key) = &change.key {
            let highest = versions.entry(key).or_insert(change.version);
            *highest = change.version.max(*highest);
        }
    }
    versions
}

/// What happened, if that has a name.
fn event(change: &SqlChange) -> Option<Event> {
    let key = change.key.clone()?;
    let name = change.event.as_deref()?;
    let (class, name) = EVENTS.iter().find(|(_, known)| *known == name)?;
    Some(Event {
        class: *class,
        name,
        key,
    })
}

fn count(told: &[SqlChange]) {
    metrics::counter!(telemetry::CDC_CHANGES).increment(told.len() as u64);
    let lag = metrics::histogram!(telemetry::CDC_LAG);
    for change in told {
        lag.record(change.made_at.elapsed());
    }
}

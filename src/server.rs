//! Builds and wires the parts: start order, reload, drain.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::Admin;
use crate::cache::Cache;
use crate::client::{Hub, Users};
use crate::config::{Config, Environment, Route, RouteList, Runtime, Strategy, TakesEffect};
use crate::flow::Flow;
use crate::net::Listener;
use crate::pubsub::Broker;
use crate::reconcile::reconcile_forever;
use crate::replica::replicate_forever;
use crate::store::Store;
use crate::telemetry::{self, LogControl};

/// Where a running server is reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Clients by TCP.
    pub clients: SocketAddr,
    /// Clients by Unix socket.
    pub unix_socket: Option<PathBuf>,
    /// Metrics and health.
    pub admin: SocketAddr,
}

/// Where the configuration came from, to read it again.
pub struct ConfigSource {
    /// The file.
    pub path: PathBuf,
    /// The variables, which the process keeps as they were at its start.
    pub environment: Environment,
}

/// What a server is started with.
pub struct Settings {
    /// The configuration.
    pub config: Config,
    /// Where to read it again; without it there is no reload.
    pub source: Option<ConfigSource>,
    /// The log whose level a reload may change.
    pub log: LogControl,
}

/// SIGTERM and SIGINT (Ctrl-C), from the moment it is installed.
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Takes both signals over from the system's default, which ends the process.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The runtime that `[runtime]` asks for.
pub fn runtime(settings: &Runtime) -> std::io::Result<tokio::runtime::Runtime> {
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2)),
        n => usize::from(n),
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("freshet")
        .enable_all()
        .build()
}

/// Files and sockets that are no clients: pools, listeners, the log, the runtime's own.
const OTHER_FILES: u64 = 128;

/// Raises the limit on open files, which is 1024 on most systems, so far that
/// `max_clients` fit; as Redis does.
fn allow_open_files(max_clients: u32) {
    let needed = u64::from(max_clients) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let current = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = Rlimit {
        current: Some(current),
        maximum: limit.maximum,
    };
    let failed = setrlimit(Resource::Nofile, raised).is_err();
    if failed || current < needed {
        tracing::warn!(
            needed,
            maximum = limit.maximum,
            "the system's limit on open files is below what [listen] max_clients needs"
        );
    }
}

/// Serves until `stop` asks to end; then finishes what was accepted.
///
/// `ready` is called once clients are served. Errors are those of the start,
/// and of a drain that took longer than `drain_timeout`.
pub async fn run(
    settings: Settings,
    stop: &mut StopSignal,
    ready: impl FnOnce(&Addresses),
) -> anyhow::Result<()> {
    telemetry::recorder();
    telemetry::record_start();
    allow_open_files(settings.config.listen.max_clients);
    let (sender, receiver) = watch::channel(Arc::new(settings.config.clone()));
    let mut started = tokio::select! {
        started = Running::start(receiver) => started?,
        () = stop.wait() => {
            tracing::info!("stopped before the start was complete");
            return Ok(());
        }
    };
    let mut background = JoinSet::new();
    background.spawn(upkeep());
    reconcile_in_background(&settings.config, &mut background)?;
    let (postgres, replicas) = (&settings.config.postgres, &settings.config.replica);
    background.spawn(replicate_forever(postgres.clone(), replicas.to_vec()));
    let broker = Arc::clone(started.flow.broker());
    background.spawn(follow_event_classes(sender.subscribe(), broker));
    background.spawn(follow_routes(sender.subscribe(), started.flow.clone()));
    if let Some(source) = settings.source {
        // Before anybody is told that the server is up: unhandled, SIGHUP would end it.
        let hangup = signal(SignalKind::hangup())?;
        background.spawn(reload_when_asked(
            hangup,
            source,
            sender.clone(),
            settings.log,
        ));
    }
    tracing::info!(
        version = telemetry::VERSION,
        clients = %started.addresses.clients,
        admin = %started.addresses.admin,
        postgres = %settings.config.postgres.url,
        redis = %settings.config.redis.url,
        "serving"
    );
    ready(&started.addresses);
    tokio::select! {
        () = stop.wait() => {}
        error = started.broken() => return Err(error),
    }
    let limit = sender.borrow().runtime.drain_timeout;
    started.drain(limit, stop).await
}

/// Compares the cache with the store now and then, if that is asked for, on connections of its own.
fn reconcile_in_background(config: &Config, background: &mut JoinSet<()>) -> anyhow::Result<()> {
    if !config.reconcile.interval.is_zero() {
        let store = Arc::new(Store::new(&config.postgres)?);
        let cache = Arc::new(Cache::new(&config.redis, &config.cache, Arc::default())?);
        background.spawn(reconcile_forever(store, cache, config.reconcile.clone()));
    }
    Ok(())
}

/// The parts of a server that clients are served by.
struct Running {
    addresses: Addresses,
    flow: Flow,
    admin: Admin,
    pages: JoinHandle<()>,
    clients: JoinHandle<()>,
    /// Tells `clients` to accept no more and to finish.
    finish: oneshot::Sender<()>,
}

impl Running {
    /// Reads the users and binds the sockets first, so that mistakes and an occupied
    /// port are found before anything was changed; clients wait in the backlog until all is up.
    async fn start(config: watch::Receiver<Arc<Config>>) -> anyhow::Result<Self> {
        let settings = config.borrow().clone();
        Users::check(&settings.auth).map_err(anyhow::Error::msg)?;
        let users = Users::default();
        if let Some(file) = &settings.acl.file {
            users.load(file).map_err(anyhow::Error::msg)?;
        }
        let listener = Listener::bind(&settings.listen).await?;
        let admin_socket = TcpListener::bind(settings.admin.address)
            .await
            .with_context(|| format!("[admin] address {}", settings.admin.address))?;
        let addresses = Addresses {
            clients: listener.address(),
            unix_socket: listener.unix_socket().map(Path::to_owned),
            admin: admin_socket.local_addr()?,
        };
        let flow = Flow::start(&settings).await.with_context(|| {
            let (postgres, redis) = (&settings.postgres.url, &settings.redis.url);
            format!("cannot start with {postgres} and {redis}")
        })?;
        let admin = Admin::new(flow.clone());
        let pages = admin.clone();
        let pages = tokio::spawn(async move {
            if let Err(error) = pages.serve(admin_socket).await {
                tracing::error!(%error, "the admin address is not served any more");
            }
        });
        let hub = Arc::new(Hub::new(config, flow.clone(), users));
        let (finish, finished) = oneshot::channel();
        let clients = tokio::spawn(listener.serve(hub, async {
            // A sender that is gone is also a reason to finish.
            let _ = finished.await;
        }));
        Ok(Self {
            addresses,
            flow,
            admin,
            pages,
            clients,
            finish,
        })
    }

    /// Waits for clients to be served no more, which nobody asked for: a
    /// program that lives on without them would look healthy and be of no use.
    async fn broken(&mut self) -> anyhow::Error {
        match (&mut self.clients).await {
            Ok(()) => anyhow!("clients are not served any more"),
            Err(error) => anyhow!("clients are not served any more: {error}"),
        }
    }

    /// Stops accepting, and waits until everything accepted is answered.
    async fn drain(self, limit: Duration, stop: &mut StopSignal) -> anyhow::Result<()> {
        let units = self.flow.status().units_in_flight;
        tracing::info!(units_in_flight = units, ?limit, "draining");
        self.admin.begin_drain();
        let connections = self.clients.abort_handle();
        let work = async {
            drop(self.finish);
            if let Err(error) = self.clients.await {
                tracing::error!(%error, "the clients' connections ended badly");
            }
            self.flow.drain().await;
        };
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(limit, work) => {
                outcome.context("accepted work was not finished within the drain limit")
            }
            () = stop.wait() => Err(anyhow!("asked to stop a second time: not drained")),
        };
        connections.abort();
        self.pages.abort();
        if outcome.is_ok() {
            tracing::info!("drained");
        }
        outcome
    }
}

/// Folds the samples of histograms, which are kept one by one until then.
async fn upkeep() {
    let recorder = telemetry::recorder();
    let mut ticks = tokio::time::interval(telemetry::UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
    }
}

/// Takes over which events of keys are told, whenever the file says otherwise
/// than before. (What clients set by `CONFIG SET` stands until then.)
async fn follow_event_classes(mut config: watch::Receiver<Arc<Config>>, broker: Arc<Broker>) {
    let mut known = config.borrow().notifications.keyspace_events;
    while config.changed().await.is_ok() {
        let new = config.borrow_and_update().notifications.keyspace_events;
        if new != known {
            broker.set_event_classes(new);
            known = new;
        }
    }
}

/// Puts other routes into force.
async fn follow_routes(mut config: watch::Receiver<Arc<Config>>, flow: Flow) {
    let mut known = config.borrow().route.clone();
    while config.changed().await.is_ok() {
        let new = config.borrow_and_update().route.clone();
        if new != known {
            flow.set_routes(&new);
            tracing::info!(routes = new.len(), "routes in force");
            known = new;
        }
    }
}

/// Whether `new` may replace the routes `old` while data are in use under them.
///
/// Between `atomic`, `eventual` and `read-only` any change may: what is under way ends as it
/// began, and the cache is told of it in the same way. Keys that only the cache has would
/// be out of sight, and so lost, under another strategy.
fn may_replace(old: &RouteList, new: &RouteList) -> bool {
    if let Some(route) = old.abandons(new) {
        tracing::error!(
            route = %route.pattern,
            "routes not reloaded, the old ones stay in force: keys of this cache-only route exist \
             only in the cache and might get another strategy, which would lose them; delete them \
             and restart to do so"
        );
        return false;
    }
    let tables = |list: &RouteList| -> Vec<_> {
        list.iter()
            .filter_map(|route| route.mapped.clone())
            .collect()
    };
    if tables(old) != tables(new) {
        tracing::error!(
            "routes not reloaded, the old ones stay in force: tables are mapped at the start, so a \
             route with `table` needs a restart"
        );
        return false;
    }
    if old.behind_digest() != new.behind_digest() {
        tracing::error!(
            "routes not reloaded, the old ones stay in force: other keys would be write-behind, which \
             takes a restart of all proxies (the first that starts has the journal written to \
             PostgreSQL)"
        );
        return false;
    }
    let is_new = |route: &&Route| {
        let mut before = old.iter().filter(|o| o.strategy == Strategy::CacheOnly);
        route.strategy == Strategy::CacheOnly && before.all(|o| o.pattern != route.pattern)
    };
    for route in new.iter().filter(is_new) {
        tracing::warn!(
            route = %route.pattern,
            "this route is cache-only now: keys that it matches and that are in PostgreSQL stay \
             there, and are not seen while it is"
        );
    }
    true
}

/// How often the configuration file is looked at.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Reads the configuration again at SIGHUP and whenever its file changes.
async fn reload_when_asked(
    mut hangup: Signal,
    source: ConfigSource,
    current: watch::Sender<Arc<Config>>,
    log: LogControl,
) {
    let mut seen = stamp(&source.path);
    let mut ticks = tokio::time::interval(FILE_CHECK_INTERVAL);
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = ticks.tick() => {
                if stamp(&source.path) == seen {
                    continue;
                }
            }
        }
        seen = stamp(&source.path);
        reload(&source, &current, &log);
    }
}

/// What changes when somebody writes or replaces the file.
fn stamp(path: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Takes over what can be changed while serving. A file with mistakes changes nothing.
fn reload(source: &ConfigSource, current: &watch::Sender<Arc<Config>>, log: &LogControl) {
    let mut new = match Config::load(&source.path, &source.environment) {
        Ok(new) => new,
        Err(error) => return tracing::error!(%error, "not reloaded"),
    };
    if let Err(error) = Users::check(&new.auth) {
        return tracing::error!(%error, "not reloaded");
    }
    let old = current.borrow().clone();
    if old.route != new.route && !may_replace(&old.route, &new.route) {
        new.route.clone_from(&old.route);
    }
    let differences = old.differences(&new);
    if differences.is_empty() {
        return tracing::info!("reloaded: nothing has changed");
    }
    let names = |effect: TakesEffect| {
        let chosen = differences.iter().filter(|d| d.takes_effect == effect);
        let names: Vec<_> = chosen
            .map(|d| format!("{}.{}", d.section, d.name))
            .collect();
        names.join(", ")
    };
    let (live, later) = (names(TakesEffect::Live), names(TakesEffect::AtRestart));
    if old.listen.max_clients < new.listen.max_clients {
        allow_open_files(new.listen.max_clients);
    }
    if old.log.level != new.log.level {
        log.set(&new.log.level);
    }
    if !live.is_empty() {
        current.send_replace(Arc::new(old.with_live_settings_of(&new)));
        tracing::info!(settings = live, "reloaded");
    }
    if !later.is_empty() {
        tracing::warn!(
            settings = later,
            "changed, but in force only after a restart"
        );
    }
}

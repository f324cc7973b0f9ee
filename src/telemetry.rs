//! What the program tells about itself: the metrics' names in one place, the
//! recorder behind them, and the log.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{Log, LogFilter, LogFormat};

/// The version and the commit that this program was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FRESHET_COMMIT"), ")");

/// Commands by `command` and `outcome` (`ok`, `error`).
pub const COMMANDS: &str = "freshet_commands_total";
/// Time from a command's arrival to its reply, by `class`.
pub const COMMAND_SECONDS: &str = "freshet_command_seconds";
/// Clients connected.
pub const CONNECTIONS: &str = "freshet_connections";
/// Connections by `outcome` (`accepted`, `refused`, `cut_off`).
pub const CONNECTIONS_TOTAL: &str = "freshet_connections_total";
/// Bytes of requests being worked on.
pub const IN_FLIGHT_BYTES: &str = "freshet_requests_in_flight_bytes";

/// Reads of keys by `outcome` (`hit`, `absent_hit`, `miss`, `bypass`).
pub const READS: &str = "freshet_reads_total";
/// Fills of the cache by `outcome` (`done`, `refused`, `failed`).
pub const FILLS: &str = "freshet_fills_total";
/// Reads that wait for the store.
pub const LOADS_WAITING: &str = "freshet_loads_waiting";

/// Keys of commands by `route` (its pattern), `strategy` and `access` (`read`, `write`, `refused`).
pub const ROUTE_KEYS: &str = "freshet_route_keys_total";
/// Time from a COMMIT to the cache's confirmation, of batches with units of `eventual` routes.
pub const EVENTUAL_LAG: &str = "freshet_eventual_lag_seconds";

/// Changes of write-behind keys that wait in the journal.
pub const JOURNAL_ENTRIES: &str = "freshet_journal_entries";
/// Age of the changes that are being written to the store, on the proxy that writes them.
pub const JOURNAL_LAG: &str = "freshet_journal_lag_seconds";
/// 1 while the journal is in use.
pub const JOURNAL_UP: &str = "freshet_journal_up";
/// Keys written from the journal to the store.
pub const JOURNAL_DRAINED: &str = "freshet_journal_drained_keys_total";
/// How often that failed.
pub const JOURNAL_ERRORS: &str = "freshet_journal_drain_errors_total";
/// Keys brought from the store to the journal's server.
pub const JOURNAL_LOADS: &str = "freshet_journal_loads_total";

/// Units by `outcome` (`committed`, `refused`, `unknown`).
pub const UNITS: &str = "freshet_units_total";
/// Units in one transaction.
pub const BATCH_UNITS: &str = "freshet_commit_batch_units";
/// Bytes of requests in one transaction.
pub const BATCH_BYTES: &str = "freshet_commit_batch_bytes";
/// Time that COMMIT took.
pub const COMMIT_SECONDS: &str = "freshet_commit_seconds";
/// Time from a batch's first step to its clients' replies.
pub const BATCH_SECONDS: &str = "freshet_batch_seconds";
/// Units that wait for a commit lane.
pub const LANE_UNITS: &str = "freshet_commit_lane_units";

/// Keys that clients waited for and that were written, by how that was noticed: `by`
/// (`commit` of this proxy, `message` of another, `look` at the store).
pub const WAKES: &str = "freshet_wakes_total";

/// Keys whose content in the cache was compared with the store in the background.
pub const RECONCILED_KEYS: &str = "freshet_reconciled_keys_total";
/// Differences found by that, by `kind`.
pub const DIFFERENCES: &str = "freshet_reconcile_differences_total";
/// Keys taken out of the cache because of them.
pub const REPAIRED: &str = "freshet_reconcile_repaired_total";
/// When this proxy last finished such a comparison, in seconds since 1970.
pub const RECONCILED_AT: &str = "freshet_reconcile_finished_timestamp_seconds";

/// Changes made by SQL that this proxy told the cache of.
pub const CDC_CHANGES: &str = "freshet_cdc_changes_total";
/// Time from such a change until the cache was told of it.
pub const CDC_LAG: &str = "freshet_cdc_lag_seconds";
/// Changes made by SQL that the cache was not told of yet, at most.
pub const CDC_BACKLOG: &str = "freshet_cdc_backlog";
/// 1 while it is this proxy's turn to tell of them.
pub const CDC_TURN: &str = "freshet_cdc_turn";
/// Seconds since the moment of which a replica tells, by `replica`; told by the proxy that feeds it.
pub const REPLICA_LAG: &str = "freshet_replica_lag_seconds";
/// Bytes of PostgreSQL's log that are kept for a replica, by `replica`.
pub const REPLICA_RETAINED: &str = "freshet_replica_retained_wal";
/// 1 while this proxy feeds the replica, by `replica`.
pub const REPLICA_FED: &str = "freshet_replica_fed";
/// Changes that were brought to a replica, by `replica`.
pub const REPLICA_CHANGES: &str = "freshet_replica_changes_total";
/// How often all keys were brought to a replica, by `replica`.
pub const REPLICA_SNAPSHOTS: &str = "freshet_replica_snapshots_total";
/// How often feeding a replica failed, by `replica`.
pub const REPLICA_FAILURES: &str = "freshet_replica_failures_total";

/// Connections to a server by `pool` (`postgres`, `redis`) and `state` (`used`, `idle`).
pub const POOL_CONNECTIONS: &str = "freshet_pool_connections";
/// The generation of the cache.
pub const GENERATION: &str = "freshet_generation";
/// 1 for the state that the cache is in, by `state` (`active`, `closing`, `bypass`, `apart`).
pub const CACHE_STATE: &str = "freshet_cache_state";
/// 1 while the store answers.
pub const STORE_UP: &str = "freshet_store_up";
/// How often the store was found to have another history than before.
pub const STORE_HISTORIES: &str = "freshet_store_history_changes_total";

const BUILD_INFO: &str = "freshet_build_info";
const START_TIME: &str = "process_start_time_seconds";
const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
const OPEN_FILES: &str = "process_open_fds";

/// From a cache hit on the same machine (tens of microseconds) to a time-out.
const SECONDS_BUCKETS: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    5.0,
];
const UNITS_BUCKETS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
const BYTES_BUCKETS: [f64; 9] = [
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    16_777_216.0,
    268_435_456.0,
];

/// How often samples of histograms are folded into buckets: it bounds the
/// memory that they take when nobody asks for `/metrics`.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The metrics recorder, installed at the first call.
///
/// The `metrics` macros write to one recorder per process, so this is the one
/// thing that several servers in one process share.
pub fn recorder() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed: /metrics stays empty");
            }
            describe();
            handle
        })
        .clone()
}

fn builder() -> PrometheusBuilder {
    const NOT_EMPTY: &str = "the list of buckets is not empty";
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .expect(NOT_EMPTY)
        .set_buckets_for_metric(Matcher::Suffix("_units".to_owned()), &UNITS_BUCKETS)
        .expect(NOT_EMPTY)
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES_BUCKETS)
        .expect(NOT_EMPTY)
}

#[rustfmt::skip] // One line each reads as a table.
fn describe() {
    describe_counter!(COMMANDS, "Commands by name and outcome (ok, error)");
    describe_histogram!(COMMAND_SECONDS, Unit::Seconds, "Time from a command's arrival to its reply, by class");
    describe_gauge!(CONNECTIONS, "Clients connected");
    describe_counter!(CONNECTIONS_TOTAL, "Connections by outcome (accepted, refused, cut_off)");
    describe_gauge!(IN_FLIGHT_BYTES, Unit::Bytes, "Bytes of requests being worked on");
    describe_counter!(READS, "Reads of keys by outcome (hit, absent_hit, miss, bypass)");
    describe_counter!(FILLS, "Fills of the cache by outcome (done, refused, failed)");
    describe_counter!(UNITS, "Units of writing by outcome (committed, refused, unknown)");
    describe_counter!(ROUTE_KEYS, "Keys of commands by route (its pattern), strategy and access (read, write, refused)");
    describe_histogram!(EVENTUAL_LAG, Unit::Seconds, "Time from a COMMIT to the cache's confirmation, of batches with units of eventual routes");
    describe_gauge!(JOURNAL_ENTRIES, "Changes of write-behind keys that wait in the journal");
    describe_gauge!(JOURNAL_LAG, Unit::Seconds, "Age of the changes that are being written to PostgreSQL, on the proxy that writes them");
    describe_gauge!(JOURNAL_UP, "1 while the journal of write-behind keys is in use");
    describe_counter!(JOURNAL_DRAINED, "Keys written from the journal to PostgreSQL");
    describe_counter!(JOURNAL_ERRORS, "How often writing the journal to PostgreSQL failed");
    describe_counter!(JOURNAL_LOADS, "Keys brought from PostgreSQL to the journal's server");
    describe_histogram!(BATCH_UNITS, "Units in one transaction");
    describe_histogram!(BATCH_BYTES, Unit::Bytes, "Bytes of requests in one transaction");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "Time that COMMIT took");
    describe_histogram!(BATCH_SECONDS, Unit::Seconds, "Time from a batch's first step to its clients' replies");
    describe_gauge!(LANE_UNITS, "Units that wait for a commit lane");
    describe_counter!(WAKES, "Keys that clients waited for and that were written, by how that was noticed (commit, message, look)");
    describe_counter!(RECONCILED_KEYS, "Keys of the cache compared with the store in the background");
    describe_counter!(DIFFERENCES, "Keys that the cache showed otherwise than the store, by kind");
    describe_counter!(REPAIRED, "Keys taken out of the cache because they differed");
    describe_gauge!(RECONCILED_AT, Unit::Seconds, "When this proxy last finished a comparison, in seconds since 1970");
    describe_counter!(CDC_CHANGES, "Changes made by SQL that the cache was told of");
    describe_histogram!(CDC_LAG, Unit::Seconds, "Time from a change made by SQL until the cache was told of it");
    describe_gauge!(CDC_BACKLOG, "Changes made by SQL that the cache was not told of yet, at most");
    describe_gauge!(CDC_TURN, "1 while this proxy tells the cache of changes made by SQL");
    describe_gauge!(REPLICA_LAG, Unit::Seconds, "Time since the moment of which a replica tells, by replica");
    describe_gauge!(REPLICA_RETAINED, Unit::Bytes, "PostgreSQL's log that is kept for a replica, by replica");
    describe_gauge!(REPLICA_FED, "1 while this proxy feeds the replica");
    describe_counter!(REPLICA_CHANGES, "Changes that were brought to a replica, by replica");
    describe_counter!(REPLICA_SNAPSHOTS, "How often all keys were brought to a replica, by replica");
    describe_counter!(REPLICA_FAILURES, "How often feeding a replica failed, by replica");
    describe_gauge!(POOL_CONNECTIONS, "Connections by pool (postgres, redis) and state (used, idle)");
    describe_gauge!(GENERATION, "Generation of the cache");
    describe_gauge!(CACHE_STATE, "1 for the state that the cache is in (active, closing, bypass, apart)");
    describe_gauge!(STORE_UP, "1 while PostgreSQL answers");
    describe_counter!(STORE_HISTORIES, "How often PostgreSQL was found to have another history than before");
    describe_gauge!(LOADS_WAITING, "Reads that wait for PostgreSQL");
    describe_gauge!(BUILD_INFO, "1, with the version and the commit of this program");
    describe_gauge!(START_TIME, Unit::Seconds, "When the process started, in seconds since 1970");
    describe_gauge!(RESIDENT_MEMORY, Unit::Bytes, "Memory of the process that is in RAM");
    describe_gauge!(OPEN_FILES, "Open files and sockets of the process");
}

/// Sets the metrics that never change while the process lives.
pub fn record_start() {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    metrics::gauge!(START_TIME).set(now.as_secs_f64());
    metrics::gauge!(
        BUILD_INFO,
        "version" => env!("CARGO_PKG_VERSION"),
        "commit" => env!("FRESHET_COMMIT")
    )
    .set(1.0);
}

/// Sets the metrics that the kernel knows; where it tells nothing, they stay.
pub fn record_process() {
    /// Linux gives `statm` in pages of 4 KiB on every platform we build for.
    const PAGE_BYTES: f64 = 4096.0;
    let resident_pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
    if let Some(pages) = resident_pages {
        metrics::gauge!(RESIDENT_MEMORY).set(pages * PAGE_BYTES);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!(OPEN_FILES).set(files.count() as f64);
    }
}

/// Changes the level of the log while the program runs.
#[derive(Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl LogControl {
    /// Puts `filter` into force.
    pub fn set(&self, filter: &LogFilter) {
        if let Err(error) = self.0.reload(EnvFilter::new(filter.directives())) {
            tracing::error!(%error, "the log level could not be changed");
        }
    }
}

/// Starts the log on standard error. If the process has one already, as in a
/// test, that one stays.
pub fn start_log(log: &Log) -> LogControl {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(log.level.directives()));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => registry
            .with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())))
            .try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "the log of this process was started before");
    }
    LogControl(handle)
}

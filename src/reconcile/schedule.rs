//! The same in the background of `freshet serve`, one proxy at a time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::compare::Kind;
use super::run::{Failure, Options, Reconciler, Repair};
use crate::cache::Cache;
use crate::config;
use crate::progress::Progress;
use crate::store::Store;
use crate::telemetry;

/// How often it is asked whether a run is due, at most.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// And at least.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(100);

/// Runs every `settings.interval`, for ever; ends only when it is aborted. Another proxy may do it in this one's place.
pub async fn reconcile_forever(store: Arc<Store>, cache: Arc<Cache>, settings: config::Reconcile) {
    describe_zero();
    loop {
        let pause = (settings.interval / 10).clamp(LOOK_EVERY_MIN, LOOK_EVERY);
        tokio::time::sleep(pause).await;
        match run_if_due(&store, &cache, &settings).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "the cache could not be compared with the store"),
        }
    }
}

async fn run_if_due(
    store: &Arc<Store>,
    cache: &Arc<Cache>,
    settings: &config::Reconcile,
) -> Result<(), Failure> {
    let interval = settings.interval.as_secs_f64();
    let Some(_turn) = store.reconcile_turn(interval).await? else {
        return Ok(());
    };
    let options = Options {
        pattern: "*".to_owned(),
        rate: settings.rate,
        repair: Repair::Invalidate,
    };
    let mut reconciler = Reconciler::new(Arc::clone(store), Arc::clone(cache));
    let progress = Progress::hidden();
    let report = Box::pin(reconciler.run(&options, &progress)).await?;
    metrics::counter!(telemetry::RECONCILED_KEYS).increment(report.keys);
    for (kind, count) in &report.by_kind {
        metrics::counter!(telemetry::DIFFERENCES, "kind" => kind.name()).increment(*count);
    }
    metrics::counter!(telemetry::REPAIRED).increment(report.repaired);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    metrics::gauge!(telemetry::RECONCILED_AT).set(now.as_secs_f64());
    for finding in &report.findings {
        tracing::error!(%finding, "the cache showed another value than the store");
    }
    tracing::info!(
        keys = report.keys,
        differences = report.differences,
        undecided = report.undecided,
        seconds = report.seconds,
        "the cache was compared with the store"
    );
    Ok(())
}

/// Metrics that are there from the start: that nothing was found is to be seen too.
fn describe_zero() {
    metrics::counter!(telemetry::RECONCILED_KEYS).increment(0);
    metrics::counter!(telemetry::REPAIRED).increment(0);
    for kind in Kind::ALL {
        metrics::counter!(telemetry::DIFFERENCES, "kind" => kind.name()).increment(0);
    }
}

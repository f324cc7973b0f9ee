//! HTTP for operators: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::flow::Flow;
use crate::telemetry;

/// What the pages are made of.
#[derive(Clone)]
pub struct Admin {
    flow: Flow,
    metrics: PrometheusHandle,
    draining: Arc<AtomicBool>,
}

impl Admin {
    /// Pages about `flow` and this process.
    pub fn new(flow: Flow) -> Self {
        Self {
            flow,
            metrics: telemetry::recorder(),
            draining: Arc::new(AtomicBool::new(false)),
        }
    }

    /// From now on `/readyz` says no, so that load balancers look elsewhere.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Answers requests on `listener` until the task is dropped.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let routes = Router::new()
            .route("/metrics", get(metrics_page))
            .route("/healthz", get(health_page))
            .route("/readyz", get(ready_page))
            .with_state(self);
        axum::serve(listener, routes).await
    }
}

async fn metrics_page(State(admin): State<Admin>) -> impl IntoResponse {
    record_status(&admin.flow);
    telemetry::record_process();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        admin.metrics.render(),
    )
}

/// The process lives and its runtime answers; nothing about the servers behind it.
async fn health_page() -> &'static str {
    "ok\n"
}

/// Whether clients should be sent here: writes can be committed, and reads do
/// not wait for a change of the cache's state.
async fn ready_page(State(admin): State<Admin>) -> (StatusCode, String) {
    let status = admin.flow.status();
    let draining = admin.draining.load(Ordering::Relaxed);
    let ready =
        status.store_reachable && !matches!(status.cache_state, "closing" | "apart") && !draining;
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let text = format!(
        "ready: {}\nstore: {}\ncache: {}\ngeneration: {}\ndraining: {}\n",
        yes_or_no(ready),
        if status.store_reachable {
            "reachable"
        } else {
            "out of reach"
        },
        status.cache_state,
        status.generation,
        yes_or_no(draining),
    );
    (code, text)
}

fn yes_or_no(fact: bool) -> &'static str {
    if fact { "yes" } else { "no" }
}

/// Sets the metrics that are read from the data path's status.
fn record_status(flow: &Flow) {
    let status = flow.status();
    for state in ["active", "closing", "bypass", "apart"] {
        let is_state = f64::from(u8::from(state == status.cache_state));
        metrics::gauge!(telemetry::CACHE_STATE, "state" => state).set(is_state);
    }
    let (store, cache) = (status.store_connections, status.cache_connections);
    let connections = [
        ("postgres", "used", store.0 as f64),
        ("postgres", "idle", store.1 as f64),
        ("redis", "used", f64::from(cache.0)),
        ("redis", "idle", f64::from(cache.1)),
    ];
    for (pool, state, count) in connections {
        metrics::gauge!(telemetry::POOL_CONNECTIONS, "pool" => pool, "state" => state).set(count);
    }
    metrics::gauge!(telemetry::LANE_UNITS).set(status.units_in_flight as f64);
    metrics::gauge!(telemetry::GENERATION).set(status.generation as f64);
    metrics::gauge!(telemetry::STORE_UP).set(f64::from(u8::from(status.store_reachable)));
}

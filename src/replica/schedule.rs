//! Who feeds which replica, and what happens when that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::task::JoinSet;

use super::Failure;
use super::run::{Run, name_of};
use crate::config;
use crate::store::Store;
use crate::telemetry;

/// How often a proxy that feeds not asks whether it should.
const ELECTION: Duration = Duration::from_secs(1);
/// Pauses after failures, one after the other.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Who fed for so long begins with the shortest pause.
const STEADY: Duration = Duration::from_secs(60);
/// How often it is noted that a replica is wanted.
const WANTED_EVERY: Duration = Duration::from_secs(30);
/// One that no proxy has wanted for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Connections to PostgreSQL: turn, two views, one besides.
const POOL: u16 = 4;

/// Feeds these replicas, each on its own, while no other proxy does, and drops the slots of those that no
/// configuration has any more; ends only when it is aborted.
pub async fn replicate_forever(postgres: config::Postgres, replicas: Vec<config::Replica>) {
    let mut tasks = JoinSet::new();
    let names = replicas.iter().map(|replica| replica.name.clone());
    tasks.spawn(forget_forever(postgres.clone(), names.collect()));
    for replica in replicas {
        tasks.spawn(feed_forever(postgres.clone(), replica));
    }
    while tasks.join_next().await.is_some() {}
}

async fn forget_forever(postgres: config::Postgres, wanted: Vec<String>) {
    loop {
        match forget(&postgres, &wanted).await {
            Ok(names) if names.is_empty() => {}
            Ok(names) => {
                tracing::info!(?names, "replicas that no proxy has any more are forgotten")
            }
            Err(error) => tracing::debug!(%error, "old replicas were not forgotten"),
        }
        tokio::time::sleep(FORGET_EVERY).await;
    }
}

async fn forget(postgres: &config::Postgres, wanted: &[String]) -> Result<Vec<String>, Failure> {
    let store = store(postgres)?;
    let forgotten = store.forget_replicas(FORGET_AFTER.as_secs_f64(), wanted);
    Ok(forgotten.await?)
}

fn store(postgres: &config::Postgres) -> Result<Store, Failure> {
    let mut settings = postgres.clone();
    settings.pool_size = POOL;
    Store::new(&settings).map_err(|error| Failure::Moving(error.into()))
}

async fn feed_forever(postgres: config::Postgres, replica: config::Replica) {
    let name = replica.name.clone();
    metrics::counter!(telemetry::REPLICA_CHANGES, "replica" => name.clone()).increment(0);
    metrics::counter!(telemetry::REPLICA_FAILURES, "replica" => name.clone()).increment(0);
    let mut feeder = Feeder {
        postgres,
        replica,
        store: None,
        wanted_at: None,
        is_warned: false,
    };
    let (mut pause, mut told) = (PAUSE_MIN, String::new());
    loop {
        let began = Instant::now();
        let failure = match Box::pin(feeder.turn()).await {
            Ok(()) => {
                tokio::time::sleep(ELECTION).await;
                continue;
            }
            Err(failure) => failure,
        };
        metrics::gauge!(telemetry::REPLICA_FED, "replica" => name.clone()).set(0.0);
        metrics::counter!(telemetry::REPLICA_FAILURES, "replica" => name.clone()).increment(1);
        let text = failure.to_string();
        if began.elapsed() >= STEADY {
            pause = PAUSE_MIN;
        }
        // The same again is no news.
        if told == text && pause > PAUSE_MIN {
            tracing::debug!(replica = name, error = text, "still not fed");
        } else {
            tracing::warn!(replica = name, error = text, "not fed; it is tried again");
        }
        feeder.note(&text).await;
        told = text;
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What a proxy keeps of a replica from one attempt to the next.
struct Feeder {
    postgres: config::Postgres,
    replica: config::Replica,
    /// Made anew after a failure: PostgreSQL may be another server then.
    store: Option<Arc<Store>>,
    wanted_at: Option<Instant>,
    is_warned: bool,
}

impl Feeder {
    /// Feeds the replica, if nobody does, until that fails.
    async fn turn(&mut self) -> Result<(), Failure> {
        let store = match &self.store {
            Some(store) => Arc::clone(store),
            None => Arc::new(store(&self.postgres)?),
        };
        self.store = Some(Arc::clone(&store));
        let is_noted = self.wanted_at.is_some_and(|at| at.elapsed() < WANTED_EVERY);
        if !is_noted {
            store.replica(&name_of(&self.replica)).await?;
            self.wanted_at = Some(Instant::now());
        }
        let Some(_turn) = store.replica_turn(&self.replica.name).await? else {
            return Ok(());
        };
        let name = self.replica.name.clone();
        if !std::mem::replace(&mut self.is_warned, true) && store.replication().await?.is_unbounded
        {
            tracing::info!(
                replica = name,
                max_behind = self.replica.max_behind.to_string(),
                "PostgreSQL's max_slot_wal_keep_size is -1: only max_behind bounds what it keeps, while a proxy runs"
            );
        }
        let (postgres, replica) = (self.postgres.clone(), self.replica.clone());
        let run = Box::pin(Run::start(store, postgres, replica)).await?;
        metrics::gauge!(telemetry::REPLICA_FED, "replica" => name).set(1.0);
        match run.feed().await? {}
    }

    /// Notes the failure where `freshet replica status` finds it, and forgets the connections.
    async fn note(&mut self, text: &str) {
        if let Some(store) = self.store.take() {
            // If PostgreSQL is what failed, this fails too.
            let _ = store.replica_failed(&self.replica.name, text).await;
        }
    }
}

//! `freshet replica status`.

use std::fmt;

use serde::Serialize;

use crate::config;
use crate::store::{Phase, ReplicaStatus, Store, StoreError};

/// Replicas, and how they are.
#[derive(Debug, Serialize)]
pub struct Status {
    /// One for each that the store or the configuration knows.
    pub replicas: Vec<Line>,
}

/// One of them.
#[derive(Debug, Default, Serialize)]
pub struct Line {
    name: String,
    url: String,
    patterns: Vec<String>,
    /// `new`, `snapshot`, `following`; `unknown` if no proxy has had it yet.
    phase: &'static str,
    /// Whether it is in the configuration that was read.
    is_configured: bool,
    /// Whether a proxy feeds it.
    is_fed: bool,
    snapshots: i64,
    lag_seconds: Option<f64>,
    behind_bytes: i64,
    retained_bytes: Option<i64>,
    error: Option<String>,
    error_since: Option<String>,
}

impl Status {
    /// How the replicas of `store` and of the configuration are.
    pub async fn of(store: &Store, configured: &[config::Replica]) -> Result<Self, StoreError> {
        let known = store.replica_status().await?;
        let mut replicas: Vec<Line> = known.into_iter().map(line).collect();
        for replica in configured {
            match replicas.iter_mut().find(|line| line.name == replica.name) {
                Some(line) => line.is_configured = true,
                None => replicas.push(Line {
                    name: replica.name.clone(),
                    url: replica.url.to_string(),
                    patterns: replica.patterns.clone(),
                    phase: "unknown",
                    is_configured: true,
                    ..Line::default()
                }),
            }
        }
        replicas.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { replicas })
    }

    /// Whether all that are wanted follow.
    pub fn is_well(&self) -> bool {
        let is_well = |line: &Line| {
            line.phase == Phase::Following.name() && line.is_fed && line.error.is_none()
        };
        let mut wanted = self.replicas.iter().filter(|line| line.is_configured);
        wanted.all(is_well)
    }
}

fn line(status: ReplicaStatus) -> Line {
    let (error, error_since) = status.error.unzip();
    Line {
        name: status.name,
        url: status.url,
        patterns: status.patterns,
        phase: status.phase.name(),
        is_configured: false,
        is_fed: status.is_fed,
        snapshots: status.snapshots,
        lag_seconds: status.lag_seconds,
        behind_bytes: status.behind_bytes,
        retained_bytes: status.retained_bytes,
        error,
        error_since,
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.replicas.is_empty() {
            return write!(f, "no replicas");
        }
        for (index, line) in self.replicas.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let fed = match (line.is_configured, line.is_fed) {
                (_, true) => "",
                (true, false) => ", fed by no proxy",
                (false, false) => ", not in this configuration",
            };
            write!(f, "{} ({}): {}{fed}", line.name, line.url, line.phase)?;
            if let Some(lag) = line.lag_seconds {
                write!(f, ", {lag:.1} s behind")?;
            }
            write!(f, ", {} bytes of log behind", line.behind_bytes)?;
            if let Some(retained) = line.retained_bytes {
                write!(f, ", {retained} kept for it")?;
            }
            if let (Some(error), Some(since)) = (&line.error, &line.error_since) {
                write!(f, "\n  since {since}: {error}")?;
            }
        }
        Ok(())
    }
}

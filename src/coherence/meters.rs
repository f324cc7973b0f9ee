//! The data path's metrics, as handles that cost no look-up.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::cache::Fill;
use crate::telemetry;

/// Reads and fills.
pub struct ReadMeters {
    /// Reads answered by the cache at once.
    pub hits: Counter,
    /// Reads of keys that the cache knows to be absent.
    pub absent_hits: Counter,
    /// Reads that went to the store.
    pub misses: Counter,
    /// Reads answered from the store because the cache was out of use.
    pub bypasses: Counter,
    fills_done: Counter,
    fills_refused: Counter,
}

impl ReadMeters {
    /// Registers them.
    pub fn new() -> Self {
        Self {
            hits: counter!(telemetry::READS, "outcome" => "hit"),
            absent_hits: counter!(telemetry::READS, "outcome" => "absent_hit"),
            misses: counter!(telemetry::READS, "outcome" => "miss"),
            bypasses: counter!(telemetry::READS, "outcome" => "bypass"),
            fills_done: counter!(telemetry::FILLS, "outcome" => "done"),
            fills_refused: counter!(telemetry::FILLS, "outcome" => "refused"),
        }
    }

    /// Counts what became of fills.
    pub fn fills(&self, fills: &[Fill]) {
        for fill in fills {
            match fill {
                Fill::Set => self.fills_done.increment(1),
                Fill::Refused => self.fills_refused.increment(1),
            }
        }
    }
}

/// The commit lane.
pub struct LaneMeters {
    /// Units that committed, or needed not to.
    pub committed: Counter,
    /// Units that were refused as a whole: nothing was written.
    pub refused: Counter,
    /// Units whose outcome could not be learnt.
    pub unknown: Counter,
    /// Units in one transaction.
    pub batch_units: Histogram,
    /// Bytes of requests in one transaction.
    pub batch_bytes: Histogram,
    /// Time of a COMMIT.
    pub commit_seconds: Histogram,
    /// Time from a batch's first step to its replies.
    pub batch_seconds: Histogram,
    /// Time from a COMMIT to the cache's confirmation, where clients were answered before.
    pub eventual_lag: Histogram,
    /// Units that wait or are worked on.
    pub depth: Gauge,
}

impl LaneMeters {
    /// Registers them.
    pub fn new() -> Self {
        Self {
            committed: counter!(telemetry::UNITS, "outcome" => "committed"),
            refused: counter!(telemetry::UNITS, "outcome" => "refused"),
            unknown: counter!(telemetry::UNITS, "outcome" => "unknown"),
            batch_units: histogram!(telemetry::BATCH_UNITS),
            batch_bytes: histogram!(telemetry::BATCH_BYTES),
            commit_seconds: histogram!(telemetry::COMMIT_SECONDS),
            batch_seconds: histogram!(telemetry::BATCH_SECONDS),
            eventual_lag: histogram!(telemetry::EVENTUAL_LAG),
            depth: gauge!(telemetry::LANE_UNITS),
        }
    }
}

/// Clients that wait.
pub struct WakeMeters {
    /// Keys that were waited for, written by this proxy.
    pub by_commit: Counter,
    /// The same, written by another that said so.
    pub by_message: Counter,
    /// The same, found by a look.
    pub by_look: Counter,
}

impl Default for WakeMeters {
    fn default() -> Self {
        Self {
            by_commit: counter!(telemetry::WAKES, "by" => "commit"),
            by_message: counter!(telemetry::WAKES, "by" => "message"),
            by_look: counter!(telemetry::WAKES, "by" => "look"),
        }
    }
}

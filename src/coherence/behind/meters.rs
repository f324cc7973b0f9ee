//! What is counted of the journal.

use metrics::{Counter, Gauge, counter, gauge};

use crate::telemetry;

/// Handles to the metrics of the journal.
pub(super) struct Meters {
    pub(super) entries: Gauge,
    pub(super) lag: Gauge,
    pub(super) is_up: Gauge,
    pub(super) drained: Counter,
    pub(super) errors: Counter,
    pub(super) loads: Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            entries: gauge!(telemetry::JOURNAL_ENTRIES),
            lag: gauge!(telemetry::JOURNAL_LAG),
            is_up: gauge!(telemetry::JOURNAL_UP),
            drained: counter!(telemetry::JOURNAL_DRAINED),
            errors: counter!(telemetry::JOURNAL_ERRORS),
            loads: counter!(telemetry::JOURNAL_LOADS),
        }
    }
}

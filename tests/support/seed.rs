//! Seeds that can be given again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `FRESHET_SEED`, or a new one. Who uses it prints it when a test fails.
pub fn seed() -> u64 {
    number("FRESHET_SEED").unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |time| time.as_nanos() as u64 % 1_000_000_000)
    })
}

/// Whether a seed was asked for: then only that one runs.
pub fn is_replay() -> bool {
    number("FRESHET_SEED").is_some()
}

/// The seconds that a variable gives a long test, or its default.
pub fn seconds(variable: &str, default: u64) -> Duration {
    Duration::from_secs(number(variable).unwrap_or(default))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

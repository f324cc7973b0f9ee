//! Seeds that can be given again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

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

/// Numbers that a seed decides.
pub struct Random(StdRng);

impl Random {
    /// Those of `seed` for the purpose number `stream`.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(StdRng::seed_from_u64(
            seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        ))
    }

    /// One of 0 to `bound` - 1.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound)
    }

    /// One of `from` to `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..=to)
    }

    /// A duration between two, in milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }

    /// Puts them in another order.
    pub fn shuffle<T>(&mut self, what: &mut [T]) {
        what.shuffle(&mut self.0);
    }
}

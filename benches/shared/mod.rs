//! What benchmark programs share.

use anyhow::{Context, Result};

/// The middle one of `numbers`; 0 of none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The number that the environment gives under `name`, or else `default`.
pub fn number(name: &str, default: f64) -> Result<f64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}: {text:?}")),
        Err(_) => Ok(default),
    }
}

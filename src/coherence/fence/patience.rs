//! How often one proxy may take a cache out of use that others reach.

use std::time::{Duration, Instant};

/// From one such time to the next, at first and at most. Less than a client waits for a write
/// that is committed and that the cache could not be told of.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// A proxy that reached the cache for so long without a break is as good as any other.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Grows with each time, so that a proxy whose way to the cache comes and goes does not keep it
/// out of use for those who have no trouble with it.
#[derive(Debug, Default)]
pub(super) struct Patience {
    pause: Duration,
    until: Option<Instant>,
    reached_since: Option<Instant>,
}

impl Patience {
    /// Whether it may be done.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// It was done.
    pub fn begin(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.until = Some(now + self.pause);
        self.reached_since = None;
    }

    /// The cache is reached.
    pub fn reached(&mut self, now: Instant) {
        let since = *self.reached_since.get_or_insert(now);
        if now.duration_since(since) >= FORGIVEN_AFTER {
            *self = Self {
                reached_since: Some(since),
                ..Self::default()
            };
        }
    }

    /// The cache is not reached.
    pub fn missed(&mut self) {
        self.reached_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_are_forgiven() {
        let mut patience = Patience::default();
        let mut now = Instant::now();
        assert!(patience.is_over(now));
        for pause in [5, 10, 20, 20] {
            patience.begin(now);
            assert!(!patience.is_over(now + Duration::from_secs(pause - 1)));
            now += Duration::from_secs(pause);
            assert!(patience.is_over(now));
        }
        patience.begin(now);
        patience.reached(now);
        patience.missed();
        patience.reached(now + Duration::from_secs(59));
        assert_eq!(patience.pause, PAUSE_MAX, "it was not reached throughout");
        patience.reached(now + Duration::from_secs(119));
        assert!(patience.is_over(now));
        patience.begin(now);
        assert_eq!(patience.pause, PAUSE_MIN);
    }
}

//! The clocks of the servers, as this program can know them without asking.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::UnixMs;

/// Two clocks are taken to drift apart by at most one part in so many.
const DRIFT: u32 = 5000;

/// What a server's clock said, and when it was asked.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    at: UnixMs,
    asked: Instant,
}

impl Reading {
    /// The server, asked at `asked` at the latest, said `at`.
    pub fn new(at: UnixMs, asked: Instant) -> Self {
        Self { at, asked }
    }

    /// The latest that it can be by the server's clock now, however long the answer was on its way.
    pub fn latest_now(&self) -> UnixMs {
        UnixMs(self.at.0 + ms(self.asked.elapsed()))
    }
}

/// Time since this machine was started, with the time for which it was suspended: what was allowed for
/// some seconds is over when it wakes.
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(CLOCK);
    // Neither is ever negative.
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

fn ms(time: Duration) -> i64 {
    time.as_millis() as i64
}

/// A server's wall clock: its best reading, carried on by our own monotonic clock.
///
/// It is late by at most the time that the reading was on its way, never early
/// by more than the two clocks drift apart. So a reading that was on its way for longer than the one
/// before it has become inexact does not count: a stalled network does not make the clock late.
#[derive(Debug)]
pub struct RemoteClock {
    best: Mutex<Best>,
}

#[derive(Clone, Copy, Debug)]
struct Best {
    at: UnixMs,
    arrived: Instant,
    /// By how much it may be late.
    error: Duration,
}

impl RemoteClock {
    /// A clock that was not read yet: that of this machine.
    pub fn new() -> Self {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, ms);
        Self {
            best: Mutex::new(Best {
                at: UnixMs(wall),
                arrived: Instant::now(),
                // Any reading of the server's own clock is better.
                error: Duration::MAX / 2,
            }),
        }
    }

    /// Takes a reading that has just arrived. Returns by how many milliseconds it
    /// is ahead of what this clock would have said.
    pub fn set(&self, reading: Reading) -> i64 {
        self.set_at(reading, Instant::now())
    }

    fn set_at(&self, reading: Reading, arrived: Instant) -> i64 {
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        let age = arrived.saturating_duration_since(best.arrived);
        let ahead = reading.at.0 - (best.at.0 + ms(age));
        let error = arrived.saturating_duration_since(reading.asked);
        // It was at least what the reading says: one that is ahead is better, however long it took.
        if ahead > 0 || error <= best.error + age / DRIFT + Duration::from_millis(1) {
            *best = Best {
                at: reading.at,
                arrived,
                error,
            };
        }
        ahead
    }

    /// What the server's clock says now.
    pub fn now(&self) -> UnixMs {
        let best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        UnixMs(best.at.0 + ms(best.arrived.elapsed()))
    }
}

impl Default for RemoteClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_the_start_goes_on_and_has_what_the_monotonic_clock_leaves_out() {
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let monotonic = Duration::new(
            monotonic.tv_sec.unsigned_abs(),
            monotonic.tv_nsec.unsigned_abs() as u32,
        );
        let first = since_boot();
        assert!(first >= monotonic);
        assert!(since_boot() >= first);
    }

    /// A clock whose server said 1,000,000 at `start`, one millisecond on its way.
    fn clock(start: Instant) -> RemoteClock {
        let clock = RemoteClock::new();
        let reading = Reading::new(UnixMs(1_000_000), start);
        clock.set_at(reading, start + Duration::from_millis(1));
        clock
    }

    fn says(clock: &RemoteClock, after: Duration, start: Instant) -> i64 {
        let best = *clock.best.lock().unwrap();
        best.at.0 + ms(start + after - best.arrived)
    }

    #[test]
    fn reading_that_was_long_on_its_way_does_not_make_the_clock_late() {
        let start = Instant::now();
        let clock = clock(start);
        let after = Duration::from_secs(3);
        // Asked and read after a second; it arrives two seconds later.
        let asked = start + Duration::from_secs(1);
        let late = clock.set_at(Reading::new(UnixMs(1_001_000), asked), start + after);
        assert!(late < -1900, "{late}");
        assert!(says(&clock, after, start) >= 1_002_999);
    }

    #[test]
    fn clock_that_is_set_anew_is_followed() {
        let start = Instant::now();
        let clock = clock(start);
        let after = Duration::from_secs(20);
        let asked = start + after - Duration::from_millis(5);
        clock.set_at(Reading::new(UnixMs(500_000), asked), start + after);
        assert_eq!(says(&clock, after, start), 500_000);
    }

    #[test]
    fn reading_tells_the_latest_that_it_can_be() {
        let asked = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let reading = Reading::new(UnixMs(1_000), asked);
        assert!(reading.latest_now().0 >= 3_000);
    }
}

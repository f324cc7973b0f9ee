//! The clocks of the servers, as this program can know them without asking.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use crate::model::UnixMs;

/// Milliseconds since this program first asked, by a clock that never steps.
fn monotonic_ms() -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as i64
}

/// A server's wall clock: its last reading, carried on by our own monotonic clock.
///
/// It is late by at most the time that the reading was on its way, never early
/// by more than the two clocks drift apart between two readings.
#[derive(Debug)]
pub struct RemoteClock {
    offset_ms: AtomicI64,
}

impl RemoteClock {
    /// A clock that was not read yet: that of this machine.
    pub fn new() -> Self {
        let clock = Self {
            offset_ms: AtomicI64::new(0),
        };
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64);
        clock.set(UnixMs(wall));
        clock
    }

    /// Takes a reading that has just arrived. Returns by how many milliseconds it
    /// is ahead of what this clock would have said.
    pub fn set(&self, reading: UnixMs) -> i64 {
        let offset = reading.0 - monotonic_ms();
        offset - self.offset_ms.swap(offset, Ordering::Relaxed)
    }

    /// What the server's clock says now.
    pub fn now(&self) -> UnixMs {
        UnixMs(monotonic_ms() + self.offset_ms.load(Ordering::Relaxed))
    }
}

impl Default for RemoteClock {
    fn default() -> Self {
        Self::new()
    }
}

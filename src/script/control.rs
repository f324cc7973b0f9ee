//! What ends a run of Lua that does not end by itself.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Why a run was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It needs what is not loaded.
    Short,
    /// It took longer than it may.
    TooLong,
    /// It wants what cannot be had where it runs.
    Elsewhere,
    /// Somebody has ended it (`SCRIPT KILL`).
    Killed,
}

/// The bounds of the run that a Lua state is in; looked at every few thousand instructions.
#[derive(Debug)]
pub(super) struct Control {
    base: Instant,
    /// Microseconds after `base`.
    deadline: AtomicU64,
    ended: AtomicU8,
    killed: AtomicBool,
}

impl Control {
    pub(super) fn new() -> Self {
        Self {
            base: Instant::now(),
            deadline: AtomicU64::new(u64::MAX),
            ended: AtomicU8::new(0),
            killed: AtomicBool::new(false),
        }
    }

    /// A new run begins, which may take so long.
    pub(super) fn begin(&self, limit: Duration) {
        let at = self.base.elapsed().saturating_add(limit).as_micros();
        self.deadline
            .store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.ended.store(0, Ordering::Relaxed);
        self.killed.store(false, Ordering::Relaxed);
    }

    /// Ends the run from outside, at its next instructions.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    /// Whether the run must end now.
    pub(super) fn look(&self) -> bool {
        if self.ended().is_none() {
            if self.killed.load(Ordering::Relaxed) {
                self.end(Ended::Killed);
            } else if self.base.elapsed().as_micros() as u64 > self.deadline.load(Ordering::Relaxed)
            {
                self.end(Ended::TooLong);
            }
        }
        self.ended().is_some()
    }

    pub(super) fn end(&self, why: Ended) {
        let code = match why {
            Ended::Short => 1,
            Ended::TooLong => 2,
            Ended::Killed => 3,
            Ended::Elsewhere => 4,
        };
        self.ended.store(code, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        match self.ended.load(Ordering::Relaxed) {
            1 => Some(Ended::Short),
            2 => Some(Ended::TooLong),
            3 => Some(Ended::Killed),
            4 => Some(Ended::Elsewhere),
            _ => None,
        }
    }
}

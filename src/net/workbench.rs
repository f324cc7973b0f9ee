//! The buffers that a connection works with, lent only while it has work.

use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;

use super::unsent::Unsent;
use crate::command::Call;

/// What one read takes, and what an idle connection does not hold.
pub const READ_BYTES: usize = 16 * 1024;

/// Larger buffers than this go back to the allocator at once.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Longer lists than this go back to the allocator at once.
const KEPT_CALLS_MAX: usize = 1024;

/// As many benches are kept for the next connections that have work.
const KEPT_BENCHES_MAX: usize = 64;

/// What a connection works with.
#[derive(Debug, Default)]
pub struct Workbench {
    /// Received bytes that are not worked on yet.
    pub input: BytesMut,
    /// Replies that are not sent yet.
    pub output: BytesMut,
    /// The calls that run together; empty between runs.
    pub calls: Vec<Call>,
}

/// Benches that nobody uses, and how much lies on those that clients are slow to empty.
#[derive(Debug, Default)]
pub struct Pool {
    // Boxed, because a connection that waits must not hold the room for one.
    #[allow(clippy::vec_box)]
    benches: Mutex<Vec<Box<Workbench>>>,
    unsent: Unsent,
}

impl Pool {
    /// What waits for clients to read it.
    pub fn unsent(&self) -> &Unsent {
        &self.unsent
    }

    /// An empty bench.
    pub fn take(&self) -> Box<Workbench> {
        self.benches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    /// Takes a bench back. What lies on it must have been dealt with.
    pub fn give(&self, mut bench: Box<Workbench>) {
        bench.input.clear();
        bench.output.clear();
        bench.calls.clear();
        // Requests that are still held somewhere keep their part of the buffer.
        if bench.input.capacity() > KEPT_BYTES_MAX || !bench.input.try_reclaim(READ_BYTES) {
            bench.input = BytesMut::new();
        }
        if bench.output.capacity() > KEPT_BYTES_MAX {
            bench.output = BytesMut::new();
        }
        if bench.calls.capacity() > KEPT_CALLS_MAX {
            bench.calls = Vec::new();
        }
        let mut benches = self.benches.lock().unwrap_or_else(PoisonError::into_inner);
        if benches.len() < KEPT_BENCHES_MAX {
            benches.push(bench);
        }
    }
}

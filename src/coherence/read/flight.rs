//! One fill at a time for each key of a proxy: who misses it meanwhile waits.

use std::collections::hash_map::Entry as MapEntry;
use std::sync::PoisonError;

use tokio::sync::watch;

use super::{Reads, WAIT_MAX};
use crate::model::Key;

impl Reads {
    /// Marks `keys` as being filled by the caller; `None` if one of them is already.
    pub(super) fn board(&self, keys: &[Key]) -> Option<Flight<'_>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.iter().any(|key| flights.contains_key(key)) {
            return None;
        }
        let (over, watching) = watch::channel(());
        for key in keys {
            flights.insert(key.clone(), watching.clone());
        }
        Some(Flight {
            reads: self,
            keys: keys.to_vec(),
            _over: over,
        })
    }

    pub(super) async fn await_flights(&self, keys: &[Key]) {
        for key in keys {
            let watching = self
                .flights
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(key)
                .cloned();
            if let Some(mut watching) = watching {
                // The sender never sends: the change is its end.
                let _ = tokio::time::timeout(WAIT_MAX, watching.changed()).await;
            }
        }
    }
}

/// Keys that one read is filling, until it is dropped.
pub(super) struct Flight<'a> {
    reads: &'a Reads,
    keys: Vec<Key>,
    _over: watch::Sender<()>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = self
            .reads
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            if let MapEntry::Occupied(entry) = flights.entry(key.clone()) {
                entry.remove();
            }
        }
    }
}

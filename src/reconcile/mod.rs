//! Compares the cache with the store, key by key, while both are in use.
//!
//! What can be wrong is what the cache shows. A key that it does not hold is only a miss,
//! so a run goes through the cache by SCAN, and looks each key up in the store.
//!
//! A look at the cache and one at the store are never at the same moment. So a difference
//! is believed only when it was seen twice, some time apart, each time under these
//! conditions: the key has the same version in the store before and after the look at the
//! cache, and no writer is registered at its companion. What the cache shows then must be that version:
//! a write hides the native before it commits, and shows it (or takes it away) after.
//! What goes on being written is counted as undecided.
//!
//! A repair is an invalidation by the protocol: floor raised, native deleted.

mod compare;
mod report;
mod run;
mod schedule;
mod suspects;

pub use compare::{Difference, Kind};
pub use report::{Finding, Report};
pub use run::{Failure, Options, Reconciler, Repair};
pub use schedule::reconcile_forever;

//! What became of the keys.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::model::Key;

/// Keys named in a report at most.
const NAMED_MAX: usize = 20;

/// How many keys came to what, and the first that did not go well.
#[derive(Debug, Default)]
pub struct Counts(Mutex<Inner>);

#[derive(Clone, Debug, Default)]
struct Inner {
    read: u64,
    written: u64,
    same: u64,
    deleted: u64,
    conflicts: u64,
    kept: BTreeSet<String>,
    refused: BTreeSet<String>,
    hidden: u64,
}

impl Counts {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn read(&self, keys: u64) {
        self.with(|inner| inner.read += keys);
    }

    pub(super) fn written(&self, keys: u64) {
        self.with(|inner| inner.written += keys);
    }

    pub(super) fn same(&self, keys: u64) {
        self.with(|inner| inner.same += keys);
    }

    pub(super) fn deleted(&self, keys: u64) {
        self.with(|inner| inner.deleted += keys);
    }

    /// A key that is there already, with another value.
    pub(super) fn conflict(&self, key: String) {
        self.with(|inner| {
            inner.conflicts += 1;
            if inner.kept.len() < NAMED_MAX {
                inner.kept.insert(key);
            }
        });
    }

    /// A key that cannot be moved, and why.
    pub(super) fn refused(&self, key: &str, why: &str) {
        self.with(|inner| {
            if inner.refused.len() < NAMED_MAX {
                inner.refused.insert(format!("{key}: {why}"));
            } else {
                inner.hidden += 1;
            }
        });
    }

    /// A key whose value is too long to be moved.
    pub(super) fn too_large(&self, key: &Key) {
        let why =
            "it takes more memory at once than [postgres] load_limit, or than a request may have";
        self.refused(&format!("{key:?}"), why);
    }

    /// Forgets conflicts: a new round finds those that are left.
    pub(super) fn begin_round(&self) {
        self.with(|inner| {
            inner.conflicts = 0;
            inner.kept.clear();
        });
    }

    /// Keys that were looked at, those of all rounds together.
    pub fn all_read(&self) -> u64 {
        self.with(|inner| inner.read)
    }

    /// Keys that were left as they are here though the source has another value.
    pub fn conflicts(&self) -> u64 {
        self.with(|inner| inner.conflicts)
    }

    /// Keys that were brought to where they should be.
    pub fn all_written(&self) -> u64 {
        self.with(|inner| inner.written)
    }

    /// Keys that could not be moved; the first of them with the reason.
    pub fn not_moved(&self) -> (u64, Vec<String>) {
        self.with(|inner| {
            let refused = inner.refused.iter().cloned();
            let count = inner.refused.len() as u64 + inner.hidden;
            (count, refused.collect())
        })
    }

    /// Whether all keys could be moved.
    pub fn is_complete(&self) -> bool {
        self.with(|inner| inner.conflicts == 0 && inner.refused.is_empty())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.with(|inner| inner.clone());
        for refused in &inner.refused {
            writeln!(f, "not moved: {refused}")?;
        }
        if inner.hidden > 0 {
            writeln!(f, "not moved: {} more", inner.hidden)?;
        }
        for conflict in &inner.kept {
            writeln!(f, "kept as it is here: {conflict}")?;
        }
        write!(
            f,
            "{} keys read, {} written, {} were the same, {} deleted, {} kept as they are here, {} not moved",
            inner.read,
            inner.written,
            inner.same,
            inner.deleted,
            inner.conflicts,
            inner.refused.len() as u64 + inner.hidden
        )
    }
}

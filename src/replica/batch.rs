//! Changes that are brought to a replica together.

use ahash::AHashSet;

use super::run::MARK;
use crate::model::{Key, UnixMs};
use crate::moving::is_chosen;
use crate::stream::{Event, Lsn};

/// Keys of a batch at most. The more wait, the more changes of one key are one.
const KEYS_MAX: usize = 20_000;

/// Keys that changed, each once, however often it did.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub keys: AHashSet<Key>,
    /// Whether all keys were deleted among that.
    pub is_truncated: bool,
    /// All changes before this place are here or were before, and when that was so.
    pub until: Option<(Lsn, UnixMs)>,
    /// The transactions that made these changes.
    pub transactions: AHashSet<u32>,
    /// Changes that were told.
    pub events: u64,
}

impl Batch {
    /// Adds an event, of a key only if it matches one of `patterns`.
    pub fn add(&mut self, event: Event, patterns: &[String]) {
        match event {
            Event::Key(key, transaction) => {
                self.events += 1;
                if &key.name[..] != MARK.as_bytes() && is_chosen(patterns, &key.name) {
                    self.keys.insert(key);
                    self.transactions.insert(transaction);
                }
            }
            Event::Truncate(transaction) => {
                self.events += 1;
                self.is_truncated = true;
                self.transactions.insert(transaction);
            }
            Event::Until { end, at } => self.until = Some((end, at)),
        }
    }

    /// Whether there is something to be brought.
    pub fn is_due(&self) -> bool {
        self.is_truncated || !self.keys.is_empty()
    }

    /// Whether no more should be waited for.
    pub fn is_full(&self) -> bool {
        self.keys.len() >= KEYS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Db;

    #[test]
    fn changes_of_one_key_are_one() {
        let mut batch = Batch::default();
        let patterns = ["a*".to_owned(), "fresh*".to_owned()];
        assert!(!batch.is_due());
        for name in ["a1", "b", "a2", "a1", MARK] {
            batch.add(Event::Key(Key::new(Db::default(), name), 7), &patterns);
        }
        assert_eq!((batch.keys.len(), batch.events), (2, 5));
        assert!(batch.is_due() && !batch.is_full());
    }
}

//! Replies that clients are slow to read, of all of them together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What waits for clients to read it.
#[derive(Debug, Default)]
pub struct Unsent {
    bytes: AtomicUsize,
    clients: AtomicUsize,
}

/// One client's part, taken out when it is dropped.
#[derive(Debug)]
pub struct Part<'a> {
    all: &'a Unsent,
    bytes: usize,
}

impl Unsent {
    /// A client that did not take all at once.
    pub fn part(&self) -> Part<'_> {
        self.clients.fetch_add(1, Ordering::Relaxed);
        Part {
            all: self,
            bytes: 0,
        }
    }
}

impl Part<'_> {
    /// Now so many bytes wait for this client.
    pub fn set(&mut self, bytes: usize) {
        // The sum may wrap on the way to what it is.
        let change = bytes.wrapping_sub(self.bytes);
        self.all.bytes.fetch_add(change, Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// Whether more than `limit` bytes wait for all clients together, and for this one no
    /// less than for most: some client always is such a one.
    pub fn is_too_much(&self, limit: usize) -> bool {
        let total = self.all.bytes.load(Ordering::Relaxed);
        let clients = self.all.clients.load(Ordering::Relaxed).max(1);
        total > limit && self.bytes >= total / clients
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.set(0);
        self.all.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_the_most_are_too_much_once_all_together_are() {
        let all = Unsent::default();
        let (mut small, mut large) = (all.part(), all.part());
        small.set(10);
        large.set(90);
        assert!(!small.is_too_much(100) && !large.is_too_much(100));
        assert!(!small.is_too_much(99) && large.is_too_much(99));
        large.set(60);
        assert!(!large.is_too_much(99) && large.is_too_much(69));
        drop(large);
        assert!(!small.is_too_much(10) && small.is_too_much(9));
    }
}

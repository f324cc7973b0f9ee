//! What one client is subscribed to.

use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;

use super::broker::{Broker, Unreached};
use super::mailbox::{Listens, Mailbox};
use super::topics::Space;

/// One client's subscriptions; they end with it.
pub struct Subscriptions {
    broker: Arc<Broker>,
    id: u64,
    mailbox: Arc<Mailbox>,
    /// Names and when they came.
    names: [AHashMap<Bytes, u64>; 3],
    last: u64,
}

impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions")
            .field("id", &self.id)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Subscriptions {
    /// None yet, of client `id`, whose messages go to `mailbox`.
    pub fn new(broker: Arc<Broker>, id: u64, mailbox: Arc<Mailbox>) -> Self {
        Self {
            broker,
            id,
            mailbox,
            names: Default::default(),
            last: 0,
        }
    }

    /// How many names of this space.
    pub fn count(&self, space: Space) -> usize {
        self.names[space as usize].len()
    }

    /// Whether there is any.
    pub fn listens(&self) -> Listens {
        match self.names.iter().any(|names| !names.is_empty()) {
            true => Listens::Yes,
            false => Listens::No,
        }
    }

    /// The count that confirmations tell: of channels and patterns together,
    /// or of channels of shards.
    pub fn told_count(&self, space: Space) -> usize {
        match space {
            Space::Channel | Space::Pattern => {
                self.count(Space::Channel) + self.count(Space::Pattern)
            }
            Space::Shard => self.count(Space::Shard),
        }
    }

    /// Subscribes to `names`, and gives each with the count that its confirmation
    /// tells. When this returns, no later message of them is lost while the
    /// connection to Redis lasts.
    ///
    /// # Errors
    /// If Redis does not confirm in time; nothing has changed then.
    pub async fn subscribe(
        &mut self,
        space: Space,
        names: Vec<Bytes>,
    ) -> Result<Vec<(Bytes, usize)>, Unreached> {
        let mut new: Vec<Bytes> = Vec::new();
        for name in &names {
            if !self.names[space as usize].contains_key(name) {
                self.last += 1;
                // Its own copy: a name must not keep a whole read buffer alive.
                let name = Bytes::copy_from_slice(name);
                self.names[space as usize].insert(name.clone(), self.last);
                new.push(name);
            }
        }
        let after = self.told_count(space);
        let mut count = after - new.len();
        let done = self.broker.subscribe(space, &new, self.id, &self.mailbox);
        if let Err(error) = done.await {
            for name in &new {
                self.names[space as usize].remove(name);
            }
            return Err(error);
        }
        let mut new = new.into_iter().peekable();
        let confirm = |name: Bytes| {
            if new.next_if_eq(&name).is_some() {
                count += 1;
            }
            (name, count)
        };
        Ok(names.into_iter().map(confirm).collect())
    }

    /// Ends the subscription to `names`, or to all names of the space; gives
    /// each with the count that its confirmation tells. From then on nothing
    /// more comes into the mailbox for them.
    pub fn unsubscribe(&mut self, space: Space, names: Option<Vec<Bytes>>) -> Vec<(Bytes, usize)> {
        let names = names.unwrap_or_else(|| {
            let mut all: Vec<_> = self.names[space as usize].iter().collect();
            all.sort_unstable_by_key(|(_, came)| **came);
            all.into_iter().map(|(name, _)| name.clone()).collect()
        });
        let mut ended = Vec::new();
        let mut told = Vec::with_capacity(names.len());
        for name in names {
            if self.names[space as usize].remove(&name).is_some() {
                ended.push(name.clone());
            }
            told.push((name, self.told_count(space)));
        }
        if !ended.is_empty() {
            self.broker.unsubscribe(space, &ended, self.id);
        }
        told
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        for space in Space::ALL {
            self.unsubscribe(space, None);
        }
    }
}

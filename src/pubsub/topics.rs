//! Who of this proxy's clients wants which messages.

use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;

use super::mailbox::{Mail, Mailbox};
use crate::cache::RESERVED_PREFIX;
use crate::command::glob::{Case, matches};

/// The three kinds of things that clients subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Channels (`SUBSCRIBE`).
    Channel,
    /// Patterns of channels (`PSUBSCRIBE`).
    Pattern,
    /// Channels of a shard (`SSUBSCRIBE`).
    Shard,
}

impl Space {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];

    /// The command that subscribes.
    pub fn subscribe(self) -> &'static str {
        match self {
            Self::Channel => "SUBSCRIBE",
            Self::Pattern => "PSUBSCRIBE",
            Self::Shard => "SSUBSCRIBE",
        }
    }

    /// The command that ends it.
    pub fn unsubscribe(self) -> &'static str {
        match self {
            Self::Channel => "UNSUBSCRIBE",
            Self::Pattern => "PUNSUBSCRIBE",
            Self::Shard => "SUNSUBSCRIBE",
        }
    }

    /// The space that messages of this kind are for.
    pub(super) fn of_message(kind: &[u8]) -> Option<Self> {
        match kind {
            b"message" => Some(Self::Channel),
            b"pmessage" => Some(Self::Pattern),
            b"smessage" => Some(Self::Shard),
            _ => None,
        }
    }
}

/// The command with this number made the subscription; not made yet.
pub(super) const NOT_SENT: u64 = u64::MAX;

/// One channel or pattern that clients wait for.
#[derive(Debug)]
struct Topic {
    subscribers: AHashMap<u64, Arc<Mailbox>>,
    /// The number of the command to Redis that subscribed to it.
    sent: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Topics {
    spaces: [AHashMap<Bytes, Topic>; 3],
}

/// Names that Freshet keeps for itself are never asked for.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

impl Topics {
    /// Notes a subscriber. Gives the number of the command that made the
    /// subscription, or `None` if it has to be made: then tell it by [`Self::mark_sent`].
    pub fn add(
        &mut self,
        space: Space,
        name: &Bytes,
        id: u64,
        mailbox: &Arc<Mailbox>,
    ) -> Option<u64> {
        let topics = &mut self.spaces[space as usize];
        if let Some(topic) = topics.get_mut(name) {
            topic.subscribers.insert(id, Arc::clone(mailbox));
            return Some(topic.sent);
        }
        let topic = Topic {
            subscribers: [(id, Arc::clone(mailbox))].into_iter().collect(),
            sent: if is_reserved(name) { 0 } else { NOT_SENT },
        };
        let sent = topic.sent;
        topics.insert(name.clone(), topic);
        (sent != NOT_SENT).then_some(sent)
    }

    /// The command of this number subscribes to `name`.
    pub fn mark_sent(&mut self, space: Space, name: &[u8], number: u64) {
        if let Some(topic) = self.spaces[space as usize].get_mut(name) {
            topic.sent = number;
        }
    }

    /// Takes a subscriber out; whether Redis has to be told, because nobody is left.
    pub fn remove(&mut self, space: Space, name: &[u8], id: u64) -> bool {
        let topics = &mut self.spaces[space as usize];
        let Some(topic) = topics.get_mut(name) else {
            return false;
        };
        topic.subscribers.remove(&id);
        if !topic.subscribers.is_empty() {
            return false;
        }
        let was_sent = topic.sent != NOT_SENT;
        topics.remove(name);
        was_sent && !is_reserved(name)
    }

    /// Names that Redis has to be asked for on a new connection.
    pub fn names(&self, space: Space) -> Vec<Bytes> {
        let names = self.spaces[space as usize].keys();
        names.filter(|name| !is_reserved(name)).cloned().collect()
    }

    /// On a connection that is gone nothing is subscribed to.
    pub fn forget_sent(&mut self) {
        for (name, topic) in self.spaces.iter_mut().flatten() {
            if !is_reserved(name) {
                topic.sent = NOT_SENT;
            }
        }
    }

    /// Hands a message, as RESP3 pushes it, to everybody who waits for it.
    pub fn deliver(&self, space: Space, name: &[u8], push: &[u8]) {
        let Some(topic) = self.spaces[space as usize].get(name) else {
            return;
        };
        // One copy for all of them, and none of the buffer that it came in.
        let message = Bytes::copy_from_slice(push);
        for mailbox in topic.subscribers.values() {
            mailbox.put(Mail::Message(message.clone()));
        }
    }

    /// How many clients of this proxy a message to `name` reaches, and how
    /// many times Redis sends it to this proxy.
    pub fn reach(&self, space: Space, name: &[u8]) -> Reach {
        let mut reach = Reach::default();
        reach.add(self.spaces[space as usize].get(name));
        if space == Space::Channel {
            for (pattern, topic) in &self.spaces[Space::Pattern as usize] {
                if matches(pattern, name, Case::Sensitive) {
                    reach.add(Some(topic));
                }
            }
        }
        reach
    }

    /// Clients of this proxy that subscribed to exactly `name`, likewise.
    pub fn reach_exactly(&self, space: Space, name: &[u8]) -> Reach {
        let mut reach = Reach::default();
        if !is_reserved(name) {
            reach.add(self.spaces[space as usize].get(name));
        }
        reach
    }

    /// How many channels or patterns this proxy's clients wait for.
    pub fn count(&self, space: Space) -> usize {
        self.spaces[space as usize].len()
    }
}

/// See [`Topics::reach`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub clients: i64,
    pub copies: i64,
}

impl Reach {
    fn add(&mut self, topic: Option<&Topic>) {
        if let Some(topic) = topic {
            self.clients += i64::try_from(topic.subscribers.len()).unwrap_or(i64::MAX);
            self.copies += i64::from(topic.sent != NOT_SENT);
        }
    }

    /// The number of receivers, from the one that Redis counted: it counts
    /// this proxy once for each of its subscriptions.
    pub fn receivers(self, counted: i64) -> i64 {
        (counted - self.copies).max(0) + self.clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_counted_as_if_each_client_had_its_own_connection() {
        let mut topics = Topics::default();
        let mailbox = Arc::new(Mailbox::new(Arc::default(), 1000));
        let news = Bytes::from_static(b"news");
        let pattern = Bytes::from_static(b"n*");
        assert_eq!(topics.add(Space::Channel, &news, 1, &mailbox), None);
        topics.mark_sent(Space::Channel, &news, 1);
        assert_eq!(topics.add(Space::Channel, &news, 2, &mailbox), Some(1));
        assert_eq!(topics.add(Space::Pattern, &pattern, 2, &mailbox), None);
        topics.mark_sent(Space::Pattern, &pattern, 2);
        let reach = topics.reach(Space::Channel, b"news");
        // Redis: the channel and the pattern, and another proxy's channel.
        assert_eq!(reach.receivers(3), 4);
        assert_eq!(topics.reach(Space::Shard, b"news"), Reach::default());
        assert!(!topics.remove(Space::Channel, b"news", 1));
        assert!(topics.remove(Space::Channel, b"news", 2));
        assert_eq!(topics.reach(Space::Channel, b"news").receivers(1), 1);
    }
}

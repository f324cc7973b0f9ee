//! What commits tell: events of keys for whoever subscribed to them, and
//! changed keys for clients that keep copies, of this proxy and of others.
//!
//! Proxies talk through two channels of the cache's shard, which patterns of
//! clients do not match. On [`CONTROL`] a proxy whose first client turns
//! tracking on says so, and waits until every other proxy has answered that
//! it will tell of its changes from now on, on [`CHANGES`]. A proxy stops when
//! nobody listens any more, which the number of receivers tells. All of it
//! passes one connection of each proxy in order, so no change falls into a gap;
//! where a connection was lost, everything is forgotten instead.
//!
//! Who waits for keys hears of others' changes by the same messages; there nothing rests
//! on them but how soon it is woken.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;

use super::broker::{Broker, State};
use super::topics::{Space, is_reserved};
use super::upstream::{Due, Wire};
use crate::coherence::{Audience, Change, Ear};
use crate::model::{Db, Event, EventClasses, Key, Reply, Request};

/// Where proxies ask each other to tell of changes.
pub(super) const CONTROL: &[u8] = b"\0f:trackers";

/// Where proxies tell of changes.
pub(super) const CHANGES: &[u8] = b"\0f:changes";

/// How long the first tracking client waits for other proxies' answers.
const ANSWERS_MAX: Duration = Duration::from_secs(2);

/// The kinds of messages between proxies, behind the sender's token.
const QUESTION: u8 = b'?';
const ANSWER: u8 = b'!';
const KEYS: u8 = b'k';
const EVERYTHING: u8 = b'*';

/// Whether other proxies want to hear of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Curiosity {
    /// Not known: they are told.
    #[default]
    Unknown,
    /// They do.
    Yes,
    /// They do not.
    No,
}

/// What is known of the other proxies on the same cache.
pub(super) struct Peers {
    curiosity: Curiosity,
    /// This proxy listens to the others' changes.
    listens: bool,
    /// Changes were made that others could not be told of.
    owes: bool,
    /// Proxies that were asked, once that is known, and their answers.
    asked: Option<i64>,
    answers: i64,
    /// Whether all others tell of their changes.
    informed: watch::Sender<bool>,
    /// A connection was lost since they last did.
    renews: bool,
    /// Proxies on this Redis when they were last counted.
    count: i64,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            curiosity: Curiosity::Unknown,
            listens: false,
            owes: false,
            asked: None,
            answers: 0,
            informed: watch::Sender::new(false),
            renews: false,
            count: 0,
        }
    }
}

impl Peers {
    /// The connection is gone.
    pub fn lose(&mut self) {
        self.curiosity = Curiosity::Unknown;
        self.listens = false;
        self.asked = None;
        self.answers = 0;
        self.count = 0;
        self.informed.send_replace(false);
    }

    /// Looks whether all answers have come.
    fn check_answers(&mut self) -> Gap {
        let complete = self.listens && self.asked.is_some_and(|asked| self.answers >= asked);
        if !complete || self.informed.send_replace(true) {
            return Gap::None;
        }
        if std::mem::take(&mut self.renews) {
            Gap::Copies
        } else {
            Gap::Waiters
        }
    }
}

/// For whom changes of other proxies may have been missed until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    /// For nobody.
    None,
    /// For those who wait: they do not wait for others to listen.
    Waiters,
    /// For them and for those who keep copies.
    Copies,
}

impl Broker {
    fn message(&self, kind: u8) -> BytesMut {
        let mut message = BytesMut::from(self.token.as_bytes());
        message.put_u8(kind);
        message
    }

    /// Asks what a new connection must know, and goes on listening.
    pub(super) fn begin_peers(&self, wire: &mut Wire, peers: &mut Peers) {
        let question: [&[u8]; 3] = [b"PUBSUB", b"SHARDNUMSUB", CHANGES];
        wire.send_words(&question, Due::Curious);
        if std::mem::take(&mut peers.owes) {
            self.tell_everything(wire);
        }
        if !self.tracking().is_empty() || self.ear().is_some() {
            peers.renews = true;
            self.listen_to_peers(wire, peers);
        }
    }

    fn listen_to_peers(&self, wire: &mut Wire, peers: &mut Peers) {
        peers.listens = true;
        peers.asked = None;
        peers.answers = 0;
        wire.subscribe(Space::Shard, &[Bytes::from_static(CHANGES)]);
        let question = self.message(QUESTION);
        wire.send_words(&[b"SPUBLISH", CONTROL, &question], Due::Asked);
    }

    fn tell_everything(&self, wire: &mut Wire) {
        let message = self.message(EVERYTHING);
        wire.send_words(&[b"SPUBLISH", CHANGES, &message], Due::Nobody);
    }

    /// Sees to it that changes of all proxies are heard of, before the first
    /// tracking client is told that it may keep copies. Without a connection
    /// (for so long) there is nothing to wait for: when it comes, all copies are forgotten.
    pub async fn begin_tracking(&self) {
        let mut informed = {
            let mut state = self.lock();
            let State { wire, peers, .. } = &mut *state;
            if !wire.is_open {
                return;
            }
            if !peers.listens {
                self.listen_to_peers(wire, peers);
            }
            let informed = peers.informed.subscribe();
            self.note_room(&state);
            informed
        };
        let waiting = informed.wait_for(|informed| *informed);
        if tokio::time::timeout(ANSWERS_MAX, waiting).await.is_err() {
            tracing::warn!("another proxy did not answer: its changes may be told late");
        }
    }

    /// Stops listening to other proxies when no client tracks any more, and none waits.
    pub fn end_tracking(&self) {
        let is_wanted = self.ear().is_some();
        let mut state = self.lock();
        let State { wire, peers, .. } = &mut *state;
        if peers.listens && self.tracking().is_empty() && !is_wanted {
            peers.listens = false;
            peers.asked = None;
            peers.answers = 0;
            peers.informed.send_replace(false);
            wire.unsubscribe(Space::Shard, &[Bytes::from_static(CHANGES)]);
            self.note_room(&state);
        }
    }

    /// Asks for a sign of life, and whether all proxies are still there.
    pub(super) fn ping(&self) {
        let mut state = self.lock();
        let State { wire, peers, .. } = &mut *state;
        if peers.listens {
            let question: [&[u8]; 3] = [b"PUBSUB", b"SHARDNUMSUB", CONTROL];
            wire.send_words(&question, Due::Proxies);
        } else {
            wire.send_words(&[b"PING"], Due::Nobody);
        }
        self.note_room(&state);
    }

    /// A message of another proxy, or of this one.
    pub(super) fn hear(&self, channel: &[u8], payload: &[u8]) {
        let Some((token, [kind, rest @ ..])) = payload.split_at_checked(self.token.len()) else {
            return;
        };
        let is_own = token == self.token.as_bytes();
        if channel == CHANGES {
            match *kind {
                _ if is_own => {}
                KEYS => self.hear_keys(rest),
                _ => self.close_gap(Gap::Copies),
            }
            return;
        }
        let mut state = self.lock();
        let State { wire, peers, .. } = &mut *state;
        let mut gap = Gap::None;
        match *kind {
            QUESTION if is_own => {
                peers.answers += 1;
                gap = peers.check_answers();
            }
            QUESTION => {
                peers.curiosity = Curiosity::Yes;
                let mut answer = self.message(ANSWER);
                answer.put_slice(token);
                wire.send_words(&[b"SPUBLISH", CONTROL, &answer], Due::Nobody);
                self.note_room(&state);
            }
            ANSWER if rest == self.token.as_bytes() => {
                peers.answers += 1;
                gap = peers.check_answers();
            }
            _ => {}
        }
        drop(state);
        self.close_gap(gap);
    }

    /// Another proxy changed these keys.
    fn hear_keys(&self, message: &[u8]) {
        let names = keys(message).map(|(_, name)| (name, None));
        self.tracking().changed(names);
        if let Some(ear) = self.ear() {
            let named = |(db, name): (Db, &[u8])| Key::new(db, Bytes::copy_from_slice(name));
            ear.hear(&keys(message).map(named).collect::<Vec<_>>());
        }
    }

    /// Changes may have been missed: copies are forgotten, waited keys looked at.
    fn close_gap(&self, gap: Gap) {
        if gap == Gap::Copies {
            self.tracking().forget_all();
        }
        if let (Gap::Copies | Gap::Waiters, Some(ear)) = (gap, self.ear()) {
            ear.doubt();
        }
    }

    /// A count that this proxy asked for itself.
    pub(super) fn hear_count(&self, due: &Due, reply: &Reply) {
        let mut state = self.lock();
        let peers = &mut state.peers;
        let mut gap = Gap::None;
        match (due, reply) {
            (Due::Curious, Reply::Array(items)) => {
                let listeners = match items.last() {
                    Some(Reply::Integer(count)) => *count,
                    _ => 1,
                };
                // A question that came meanwhile is the newer word.
                if peers.curiosity == Curiosity::Unknown && listeners == 0 {
                    peers.curiosity = Curiosity::No;
                }
            }
            (Due::Changes(own), Reply::Integer(receivers)) if receivers <= own => {
                peers.curiosity = Curiosity::No;
            }
            (Due::Proxies, Reply::Array(items)) => {
                let count = match items.last() {
                    Some(Reply::Integer(count)) => *count,
                    _ => 0,
                };
                // One that is gone may have died behind a commit that it told nobody of.
                if peers.listens && count < peers.count {
                    gap = Gap::Copies;
                }
                peers.count = count;
            }
            (Due::Asked, Reply::Integer(receivers)) => {
                peers.asked = Some(*receivers);
                gap = peers.check_answers();
            }
            _ => {}
        }
        drop(state);
        self.close_gap(gap);
    }

    /// Tells other proxies of changed keys, or of so many that none is named.
    fn tell_peers(&self, keys: Option<&[Change<'_>]>) {
        let mut state = self.lock();
        let State { wire, peers, .. } = &mut *state;
        if !wire.takes_more() {
            peers.owes = true;
            return;
        }
        if peers.curiosity == Curiosity::No {
            return;
        }
        let own = i64::from(peers.listens);
        let mut message = self.message(EVERYTHING);
        if let (Some(changes), false) = (keys, peers.owes) {
            message = self.message(KEYS);
            for change in changes {
                message.put_u8(change.key.db.index());
                message.put_u32(u32::try_from(change.key.name.len()).unwrap_or(u32::MAX));
                message.put_slice(&change.key.name);
            }
        }
        peers.owes = false;
        wire.send_words(&[b"SPUBLISH", CHANGES, &message], Due::Changes(own));
        self.note_room(&state);
    }

    fn publish_events(&self, events: &[Event]) {
        let classes = self.event_classes();
        let mut state = self.lock();
        if !state.wire.takes_more() {
            return self.count_dropped(events.len());
        }
        let wire = &mut state.wire;
        for event in events {
            if !classes.contains(event.class) {
                continue;
            }
            let (db, key) = (event.key.db.index(), &event.key.name[..]);
            if classes.contains(EventClasses::KEYSPACE) {
                let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
                let words: [&[u8]; 3] = [b"PUBLISH", &channel, event.name.as_bytes()];
                wire.send_words(&words, Due::Nobody);
            }
            if classes.contains(EventClasses::KEYEVENT) {
                let channel = format!("__keyevent@{db}__:{}", event.name);
                let words: [&[u8]; 3] = [b"PUBLISH", channel.as_bytes(), key];
                wire.send_words(&words, Due::Nobody);
            }
        }
        self.note_room(&state);
    }
}

impl Audience for Broker {
    fn event_classes(&self) -> EventClasses {
        self.event_classes()
    }

    fn wants_changes(&self) -> bool {
        // The curiosity of others is not looked up without the lock: a batch
        // of commits takes it once.
        !self.tracking().is_empty() || self.lock().peers.curiosity != Curiosity::No
    }

    fn wants_ends(&self) -> bool {
        let classes = self.event_classes();
        classes.is_active() && classes.contains(EventClasses::EXPIRED)
            || !self.tracking().is_empty()
    }

    fn hear_events(&self, events: &[Event]) {
        if !events.is_empty() {
            self.publish_events(events);
        }
    }

    fn publish(&self, request: &Request) {
        if is_reserved(request.arg(1)) {
            return;
        }
        let mut state = self.lock();
        if !state.wire.takes_more() {
            return self.count_dropped(1);
        }
        state.wire.send(request.raw(), Due::Nobody);
        self.note_room(&state);
    }

    fn hear_changes(&self, changes: &[Change<'_>]) {
        if changes.is_empty() {
            return;
        }
        let own = changes
            .iter()
            .map(|change| (&change.key.name[..], change.author));
        self.tracking().changed(own);
        self.tell_peers(Some(changes));
    }

    fn hear_flush(&self) {
        self.tracking().forget_all();
        self.tell_peers(None);
    }

    fn begin_hearing(&self, ear: Arc<dyn Ear>) {
        self.set_ear(Some(ear));
        let mut state = self.lock();
        let State { wire, peers, .. } = &mut *state;
        if wire.is_open && !peers.listens {
            self.listen_to_peers(wire, peers);
            self.note_room(&state);
        }
    }

    fn end_hearing(&self) {
        self.set_ear(None);
        self.end_tracking();
    }
}

/// The keys of a message.
fn keys(mut rest: &[u8]) -> impl Iterator<Item = (Db, &[u8])> {
    std::iter::from_fn(move || {
        let (db, after) = rest.split_first()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (key, after) = after.split_at_checked(length)?;
        rest = after;
        Some((Db::new(*db)?, key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_message_are_read_to_its_end_and_not_beyond() {
        let message = b"\0\0\0\0\x01a\x03\0\0\0\0\0\0\0\0\x02bc\0\0\0\0\x09x";
        let found: Vec<(u8, &[u8])> = keys(message).map(|(db, key)| (db.index(), key)).collect();
        assert_eq!(found, [(0, &b"a"[..]), (3, b""), (0, b"bc")]);
    }
}

//! Clients that keep copies of values (`CLIENT TRACKING`): which keys they
//! read, or which prefixes they asked for, and what they are told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ahash::AHashMap;
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::frames;
use super::mailbox::{Mail, Mailbox, lock};
use crate::model::Protocol;
use crate::resp::append;

/// Keys that are remembered, as Redis's `tracking-table-max-keys`; beyond, the
/// oldest is forgotten and its clients are told so.
const KEYS_MAX: usize = 1_000_000;

/// When keys are remembered for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All that it reads.
    #[default]
    Default,
    /// Those that it reads right behind `CLIENT CACHING YES`.
    OptIn,
    /// All but those that it reads right behind `CLIENT CACHING NO`.
    OptOut,
    /// None: it hears of all keys with its prefixes.
    Broadcast,
}

/// What a client asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// When keys are remembered.
    pub mode: Mode,
    /// It does not want to hear of its own changes.
    pub own_changes: OwnChanges,
    /// Its prefixes; one that is empty fits all keys.
    pub prefixes: Vec<Bytes>,
    /// Who hears of it instead: a client's number and mailbox.
    pub redirect: Option<(u64, Arc<Mailbox>)>,
}

/// Whether a client hears of what it changed itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnChanges {
    /// It does.
    #[default]
    Told,
    /// It does not (`NOLOOP`).
    Untold,
}

/// How much there is, for `INFO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackingSizes {
    /// Clients that track.
    pub clients: usize,
    /// Keys that are remembered.
    pub keys: usize,
    /// Pairs of a key and a client.
    pub items: usize,
    /// Prefixes.
    pub prefixes: usize,
}

#[derive(Debug)]
struct Tracker {
    options: Options,
    mailbox: Arc<Mailbox>,
    protocol: Protocol,
    /// The client that its invalidations went to is gone.
    is_broken: bool,
}

impl Tracker {
    fn tell(&mut self, keys: Bytes) {
        let Some((target, mailbox)) = &self.options.redirect else {
            return self.mailbox.put(Mail::Invalid(keys));
        };
        if !mailbox.is_closed() {
            return mailbox.put(Mail::InvalidOfOther(keys));
        }
        self.is_broken = true;
        let mut push = BytesMut::from(&b">2\r\n"[..]);
        append::bulk(b"tracking-redir-broken", &mut push);
        append::integer(i64::try_from(*target).unwrap_or(i64::MAX), &mut push);
        self.mailbox.put(Mail::Push(push.freeze()));
    }

    fn tell_everything(&mut self) {
        self.tell(Bytes::from_static(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        }));
    }
}

#[derive(Debug)]
struct Remembered {
    clients: SmallVec<[u64; 2]>,
    /// When it was remembered: its place in the queue of ages.
    number: u64,
}

#[derive(Debug, Default)]
struct Table {
    trackers: AHashMap<u64, Tracker>,
    keys: AHashMap<Bytes, Remembered>,
    /// Keys by age; one whose number is another by now has been remembered anew.
    ages: VecDeque<(u64, Bytes)>,
    last: u64,
    prefixes: AHashMap<Bytes, Vec<u64>>,
}

/// All clients that track.
#[derive(Debug, Default)]
pub struct Tracking {
    table: Mutex<Table>,
    /// As many as are in the table; to look without the lock.
    clients: AtomicUsize,
}

impl Tracking {
    /// Whether nobody tracks.
    pub fn is_empty(&self) -> bool {
        self.clients.load(Ordering::Acquire) == 0
    }

    /// Client `id` tracks from now on, or otherwise than before. Prefixes are
    /// added to those that it had.
    pub fn begin(&self, id: u64, mailbox: Arc<Mailbox>, protocol: Protocol, options: Options) {
        let mut table = lock(&self.table);
        let before = table.trackers.remove(&id);
        let mut options = options;
        let new = std::mem::take(&mut options.prefixes);
        if let Some(before) = before {
            options.prefixes = before.options.prefixes;
        }
        for prefix in new {
            if !options.prefixes.contains(&prefix) {
                table.prefixes.entry(prefix.clone()).or_default().push(id);
                options.prefixes.push(prefix);
            }
        }
        let tracker = Tracker {
            options,
            mailbox,
            protocol,
            is_broken: false,
        };
        table.trackers.insert(id, tracker);
        self.clients.store(table.trackers.len(), Ordering::Release);
    }

    /// Client `id` tracks no more. Keys that it read are dropped when they change.
    pub fn end(&self, id: u64) {
        let mut table = lock(&self.table);
        let Some(tracker) = table.trackers.remove(&id) else {
            return;
        };
        for prefix in &tracker.options.prefixes {
            if let Some(ids) = table.prefixes.get_mut(prefix) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    table.prefixes.remove(prefix);
                }
            }
        }
        if table.trackers.is_empty() {
            *table = Table::default();
        }
        self.clients.store(table.trackers.len(), Ordering::Release);
    }

    /// Whether the client that `id` redirects to is known to be gone.
    pub fn is_broken(&self, id: u64) -> bool {
        let table = lock(&self.table);
        table
            .trackers
            .get(&id)
            .is_some_and(|tracker| tracker.is_broken)
    }

    /// The prefixes of client `id`, in the order of bytes, as Redis shows them.
    pub fn prefixes(&self, id: u64) -> Vec<Bytes> {
        let table = lock(&self.table);
        let tracker = table.trackers.get(&id);
        let mut prefixes = tracker.map_or_else(Vec::new, |t| t.options.prefixes.clone());
        prefixes.sort_unstable();
        prefixes
    }

    /// How much there is.
    pub fn sizes(&self) -> TrackingSizes {
        let table = lock(&self.table);
        TrackingSizes {
            clients: table.trackers.len(),
            keys: table.keys.len(),
            items: table.keys.values().map(|key| key.clients.len()).sum(),
            prefixes: table.prefixes.len(),
        }
    }

    /// Client `id` is about to read these keys: it is told when they change.
    pub fn remember<'a>(&self, id: u64, names: impl Iterator<Item = &'a [u8]>) {
        let mut table = lock(&self.table);
        for name in names {
            if let Some(known) = table.keys.get_mut(name) {
                if !known.clients.contains(&id) {
                    known.clients.push(id);
                }
                continue;
            }
            table.last += 1;
            let number = table.last;
            // Its own copy: a key must not keep a whole read buffer alive.
            let name = Bytes::copy_from_slice(name);
            let clients = SmallVec::from_slice(&[id]);
            table.ages.push_back((number, name.clone()));
            table.keys.insert(name, Remembered { clients, number });
            table.bound(KEYS_MAX);
        }
    }

    /// These keys have changed, each by that client if it is known. Everybody
    /// who read them is told, once.
    pub fn changed<'a>(&self, changes: impl Iterator<Item = (&'a [u8], Option<u64>)>) {
        if self.is_empty() {
            return;
        }
        let mut table = lock(&self.table);
        let mut broadcast: Vec<(&[u8], Option<u64>)> = Vec::new();
        for (name, author) in changes {
            table.tell_readers(name, author);
            if !table.prefixes.is_empty() {
                broadcast.push((name, author));
            }
        }
        if !broadcast.is_empty() {
            table.broadcast(&broadcast);
        }
    }

    /// Any key may have changed: everybody is told to forget all.
    pub fn forget_all(&self) {
        if self.is_empty() {
            return;
        }
        let mut table = lock(&self.table);
        table.keys = AHashMap::new();
        table.ages = VecDeque::new();
        for tracker in table.trackers.values_mut() {
            tracker.tell_everything();
        }
    }
}

impl Table {
    fn tell_readers(&mut self, name: &[u8], author: Option<u64>) {
        let Some(known) = self.keys.remove(name) else {
            return;
        };
        let keys = frames::keys(std::iter::once(name));
        for id in known.clients {
            let Some(tracker) = self.trackers.get_mut(&id) else {
                continue;
            };
            let options = &tracker.options;
            let is_own = author == Some(id) && options.own_changes == OwnChanges::Untold;
            if options.mode != Mode::Broadcast && !is_own {
                tracker.tell(keys.clone());
            }
        }
    }

    /// One message for each prefix and client, with all keys that fit.
    fn broadcast(&mut self, changes: &[(&[u8], Option<u64>)]) {
        for (prefix, ids) in &self.prefixes {
            let fitting: Vec<_> = changes
                .iter()
                .filter(|(name, _)| name.starts_with(prefix))
                .collect();
            if fitting.is_empty() {
                continue;
            }
            let all: Vec<&[u8]> = fitting.iter().map(|(name, _)| *name).collect();
            let all = frames::keys(all.into_iter());
            for id in ids {
                let Some(tracker) = self.trackers.get_mut(id) else {
                    continue;
                };
                if tracker.options.own_changes == OwnChanges::Told {
                    tracker.tell(all.clone());
                    continue;
                }
                let others: Vec<&[u8]> = fitting
                    .iter()
                    .filter(|(_, author)| *author != Some(*id))
                    .map(|(name, _)| *name)
                    .collect();
                if !others.is_empty() {
                    tracker.tell(frames::keys(others.into_iter()));
                }
            }
        }
    }

    /// Keeps the bounds: forgets the oldest keys, and ages of keys that are not there.
    fn bound(&mut self, keys_max: usize) {
        while self.keys.len() > keys_max {
            let Some((number, name)) = self.ages.pop_front() else {
                return;
            };
            if self.keys.get(&name).is_some_and(|key| key.number == number) {
                self.tell_readers(&name, None);
            }
        }
        if self.ages.len() > 2 * self.keys.len() + 1024 {
            let keys = &self.keys;
            self.ages
                .retain(|(number, name)| keys.get(name).is_some_and(|key| key.number == *number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::mailbox::Listens;

    fn tracked(options: Options) -> (Tracking, Arc<Mailbox>) {
        let tracking = Tracking::default();
        let mailbox = Arc::new(Mailbox::new(Arc::default(), 10_000));
        tracking.begin(7, Arc::clone(&mailbox), Protocol::Resp3, options);
        (tracking, mailbox)
    }

    fn told(mailbox: &Mailbox) -> String {
        let mut out = BytesMut::new();
        mailbox.take(Protocol::Resp3, Listens::No, &mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        text.replace(">2\r\n$10\r\ninvalidate\r\n", "!")
            .replace("\r\n", " ")
    }

    fn changed(tracking: &Tracking, names: &[&str], author: Option<u64>) {
        tracking.changed(names.iter().map(|name| (name.as_bytes(), author)));
    }

    #[test]
    fn a_key_that_was_read_is_told_of_once() {
        let (tracking, mailbox) = tracked(Options::default());
        tracking.remember(7, [&b"a"[..], b"b"].into_iter());
        changed(&tracking, &["a", "x"], None);
        changed(&tracking, &["a"], Some(7));
        assert_eq!(told(&mailbox), "!*1 $1 a ");
        changed(&tracking, &["b"], Some(7));
        assert_eq!(told(&mailbox), "!*1 $1 b ");
        tracking.remember(7, [&b"a"[..]].into_iter());
        tracking.forget_all();
        assert_eq!(told(&mailbox), "!_ ");
        assert_eq!(tracking.sizes().keys, 0);
    }

    #[test]
    fn prefixes_and_own_changes() {
        let (tracking, mailbox) = tracked(Options {
            mode: Mode::Broadcast,
            own_changes: OwnChanges::Untold,
            prefixes: vec!["u:".into()],
            redirect: None,
        });
        changed(&tracking, &["u:1", "v:1", "u:2"], None);
        assert_eq!(told(&mailbox), "!*2 $3 u:1 $3 u:2 ");
        changed(&tracking, &["u:1"], Some(7));
        assert_eq!(told(&mailbox), "");
        tracking.end(7);
        assert!(tracking.is_empty());
        assert_eq!(tracking.sizes(), TrackingSizes::default());
    }

    #[test]
    fn keys_and_ages_are_bounded() {
        let (tracking, mailbox) = tracked(Options::default());
        for name in ["a", "b", "c"] {
            tracking.remember(7, [name.as_bytes()].into_iter());
        }
        lock(&tracking.table).bound(1);
        assert_eq!(told(&mailbox), "!*1 $1 a !*1 $1 b ");
        for _ in 0..5000 {
            tracking.remember(7, [&b"d"[..]].into_iter());
            changed(&tracking, &["d"], None);
        }
        assert!(lock(&tracking.table).ages.len() < 2000);
    }
}

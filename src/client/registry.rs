//! All connected clients: what `CLIENT LIST` shows of each, and how one of
//! them is told to end.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;

use super::state::{Eviction, Library};
use crate::model::{Db, Protocol};
use crate::pubsub::{Bell, Mailbox};

/// Where a client, or the socket that it connected to, is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp(SocketAddr),
    /// On the Unix socket of that path.
    Unix(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{path}:0"),
        }
    }
}

/// What a connection was told to do; it looks whenever it waits for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Go on.
    Serve,
    /// Answer what has been received, then close.
    Drain,
    /// Close before the next read.
    Close,
}

/// How a waiting command is ended from outside (`CLIENT UNBLOCK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// As if its time were over.
    Timeout,
    /// With an error.
    Error,
}

const NOT_BLOCKED: u8 = 0;
const BLOCKED: u8 = 1;

/// What others may see of a connection.
#[derive(Clone, Debug)]
pub struct Profile {
    /// When the client last sent something.
    pub active_at: Instant,
    /// The command that it sent last, in the table's form; empty before the first.
    pub command: &'static str,
    /// Its selected database.
    pub db: Db,
    /// The user that it is.
    pub user: Arc<str>,
    /// The name that it gave itself.
    pub name: Bytes,
    /// Its client library.
    pub library: Library,
    /// The protocol that it speaks.
    pub protocol: Protocol,
    /// Whether it asked not to be evicted.
    pub eviction: Eviction,
    /// Between MULTI and EXEC: the number of commands that wait.
    pub queued: Option<usize>,
    /// To how many channels, patterns and channels of shards it is subscribed.
    pub subscribed: Subscribed,
    /// Whether it is told of changes of what it read.
    pub tracks: Tracks,
}

/// Numbers of channels, patterns and channels of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscribed {
    /// Channels.
    pub channels: usize,
    /// Patterns.
    pub patterns: usize,
    /// Channels of shards.
    pub shards: usize,
}

impl Subscribed {
    /// Whether there is any.
    pub fn is_any(self) -> bool {
        self.channels + self.patterns + self.shards > 0
    }
}

/// What others see of a client's tracking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracks {
    /// It does not.
    #[default]
    No,
    /// Keys that it reads; and the client that is told instead, or 0.
    Reads(u64),
    /// Keys with its prefixes; likewise.
    Prefixes(u64),
}

/// One connected client.
#[derive(Debug)]
pub struct Entry {
    /// Its number, never given twice.
    pub id: u64,
    /// Where it is.
    pub peer: Address,
    /// Where it connected to.
    pub local: Address,
    /// Its socket's number in this process.
    pub descriptor: i32,
    /// When it connected.
    pub since: Instant,
    order: AtomicU8,
    idle_check: AtomicBool,
    bell: Arc<Bell>,
    /// What it is told without asking; made when it may be told something.
    mailbox: OnceLock<Arc<Mailbox>>,
    blocked: AtomicU8,
    profile: Mutex<Profile>,
}

impl Entry {
    /// What the connection was told.
    pub fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Drain,
            _ => Order::Close,
        }
    }

    /// Tells the connection; never takes back a stronger order.
    pub fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.wake();
    }

    /// Whether a command of the client waits.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire) != NOT_BLOCKED
    }

    /// Notes that a command of the client begins to wait.
    pub fn begin_block(&self) {
        self.blocked.store(BLOCKED, Ordering::Release);
    }

    /// Notes that it does not wait any more.
    pub fn end_block(&self) {
        self.blocked.store(NOT_BLOCKED, Ordering::Release);
    }

    /// Ends the waiting of the client's command; whether it was waiting.
    pub fn unblock(&self, how: Unblock) -> bool {
        let to = match how {
            Unblock::Timeout => BLOCKED + 1,
            Unblock::Error => BLOCKED + 2,
        };
        let swapped =
            self.blocked
                .compare_exchange(BLOCKED, to, Ordering::AcqRel, Ordering::Acquire);
        if swapped.is_ok() {
            self.wake();
        }
        swapped.is_ok()
    }

    /// How the waiting of the client's command is to end, if it is.
    pub fn unblocked(&self) -> Option<Unblock> {
        match self.blocked.load(Ordering::Acquire) {
            NOT_BLOCKED | BLOCKED => None,
            asked if asked == BLOCKED + 1 => Some(Unblock::Timeout),
            _ => Some(Unblock::Error),
        }
    }

    /// Asks the connection to close if it has waited too long for its client.
    pub fn ask_idle(&self) {
        self.idle_check.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the connection was asked since it last looked.
    pub fn take_idle_check(&self) -> bool {
        self.idle_check.load(Ordering::Acquire) && self.idle_check.swap(false, Ordering::AcqRel)
    }

    /// Makes the connection look around, if it waits for its client.
    fn wake(&self) {
        self.bell.ring();
    }

    /// Called by the connection's task whenever it begins to wait.
    pub fn will_wait(&self, waker: &Waker) {
        self.bell.will_wait(waker);
    }

    /// Where mail for the client goes; if it is new, it holds so many bytes.
    pub fn mailbox(&self, bytes_max: usize) -> &Arc<Mailbox> {
        self.mailbox
            .get_or_init(|| Arc::new(Mailbox::new(Arc::clone(&self.bell), bytes_max)))
    }

    /// Where its mail is, if there may be any.
    pub fn mail(&self) -> Option<&Mailbox> {
        self.mailbox.get().map(|mailbox| &**mailbox)
    }

    /// What others may see of the connection.
    pub fn profile(&self) -> MutexGuard<'_, Profile> {
        lock(&self.profile)
    }

    /// Notes that the client sent something, and which command was the last.
    pub fn note_activity(&self, at: Instant, command: &'static str) {
        let mut profile = self.profile();
        profile.active_at = at;
        profile.command = command;
    }

    /// The client's line in `CLIENT LIST`, without its end.
    pub fn line(&self, now: Instant) -> Vec<u8> {
        let profile = self.profile().clone();
        let whole_seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let flags = flags(&self.peer, &profile, self.is_blocked());
        let queued = profile.queued.map_or("-1".to_owned(), |n| n.to_string());
        let mut line = format!(
            "id={} addr={} laddr={} fd={} name=",
            self.id, self.peer, self.local, self.descriptor
        )
        .into_bytes();
        line.extend_from_slice(&profile.name);
        let command = match profile.command {
            "" => "NULL".to_owned(),
            name => name.to_ascii_lowercase(),
        };
        let rest = format!(
            " age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={queued} qbuf=0 qbuf-free=0 \
             argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={command} \
             user={} redir={} resp={} lib-name=",
            whole_seconds(self.since),
            whole_seconds(profile.active_at),
            profile.db.index(),
            profile.subscribed.channels,
            profile.subscribed.patterns,
            profile.subscribed.shards,
            profile.user,
            match profile.tracks {
                Tracks::No => -1,
                Tracks::Reads(id) | Tracks::Prefixes(id) => i64::try_from(id).unwrap_or(i64::MAX),
            },
            match profile.protocol {
                Protocol::Resp2 => 2,
                Protocol::Resp3 => 3,
            },
        );
        line.extend_from_slice(rest.as_bytes());
        line.extend_from_slice(&profile.library.name);
        line.extend_from_slice(b" lib-ver=");
        line.extend_from_slice(&profile.library.version);
        line
    }
}

/// The letters that say in which states a client is, in Redis's order.
fn flags(peer: &Address, profile: &Profile, is_blocked: bool) -> String {
    let letters = [
        ('P', profile.subscribed.is_any()),
        ('x', profile.queued.is_some()),
        ('b', is_blocked),
        ('t', profile.tracks != Tracks::No),
        ('B', matches!(profile.tracks, Tracks::Prefixes(_))),
        ('U', matches!(peer, Address::Unix(_))),
        ('e', profile.eviction == Eviction::Refused),
    ];
    let set: String = letters
        .iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(letter, _)| letter)
        .collect();
    if set.is_empty() { "N".to_owned() } else { set }
}

/// All connected clients, by number; as many as the limit on clients allows.
#[derive(Debug, Default)]
pub struct Registry {
    last_id: AtomicU64,
    entries: Mutex<BTreeMap<u64, Arc<Entry>>>,
    ended: tokio::sync::Notify,
}

/// No room for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Registry {
    /// Notes a new client, if fewer than `max` are connected.
    pub fn admit(
        &self,
        max: usize,
        peer: Address,
        local: Address,
        descriptor: i32,
    ) -> Result<Arc<Entry>, Full> {
        let mut entries = lock(&self.entries);
        if entries.len() >= max {
            return Err(Full);
        }
        let now = Instant::now();
        let entry = Arc::new(Entry {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            peer,
            local,
            descriptor,
            since: now,
            order: AtomicU8::new(Order::Serve as u8),
            idle_check: AtomicBool::new(false),
            bell: Arc::default(),
            mailbox: OnceLock::new(),
            blocked: AtomicU8::new(NOT_BLOCKED),
            profile: Mutex::new(Profile {
                active_at: now,
                command: "",
                db: Db::default(),
                user: super::access::default_user(),
                name: Bytes::new(),
                library: Library::default(),
                protocol: Protocol::default(),
                eviction: Eviction::default(),
                queued: None,
                subscribed: Subscribed::default(),
                tracks: Tracks::default(),
            }),
        });
        entries.insert(entry.id, Arc::clone(&entry));
        Ok(entry)
    }

    /// Forgets a client whose connection has ended.
    pub fn remove(&self, id: u64) {
        let mut entries = lock(&self.entries);
        let gone = entries.remove(&id);
        if let Some(mailbox) = gone.as_ref().and_then(|entry| entry.mail()) {
            mailbox.close();
        }
        if entries.is_empty() {
            self.ended.notify_waiters();
        }
    }

    /// The number of connected clients.
    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client of that number, while it is connected.
    pub fn find(&self, id: u64) -> Option<Arc<Entry>> {
        lock(&self.entries).get(&id).cloned()
    }

    /// All clients, in the order in which they connected.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }

    /// Tells every connection.
    pub fn tell_all(&self, order: Order) {
        for entry in self.entries() {
            entry.tell(order);
        }
    }

    /// Waits until nobody is connected.
    pub async fn wait_empty(&self) {
        loop {
            let ended = self.ended.notified();
            if self.is_empty() {
                return;
            }
            ended.await;
        }
    }
}

/// Nothing that runs under these locks can leave what they guard half-done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[test]
    fn no_more_clients_are_admitted_than_allowed() {
        let registry = Registry::default();
        let first = registry.admit(1, address(1), address(2), 3).unwrap();
        assert_eq!(
            registry.admit(1, address(1), address(2), 3).unwrap_err(),
            Full
        );
        registry.remove(first.id);
        let second = registry.admit(1, address(1), address(2), 3).unwrap();
        assert_eq!(second.id, 2);
    }

    #[test]
    fn orders_only_grow_stronger() {
        let registry = Registry::default();
        let entry = registry.admit(1, address(1), address(2), 3).unwrap();
        entry.tell(Order::Close);
        entry.tell(Order::Drain);
        assert_eq!(entry.order(), Order::Close);
    }
}

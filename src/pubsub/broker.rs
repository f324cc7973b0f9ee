//! Messages from clients to clients, through the backing Redis.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::frames;
use super::mailbox::{self, Mailbox};
use super::news::{self, Peers};
use super::topics::{NOT_SENT, Space, Topics, is_reserved};
use super::tracking::Tracking;
use super::upstream::{self, Due, Wire};
use crate::cache::LinkOptions;
use crate::coherence::Ear;
use crate::model::{EventClasses, Reply, Request};

/// How long a client waits for the connection to Redis before it hears of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Why Redis did not do what a client asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// No connection was to be had in time.
    #[error("TRYAGAIN Redis is out of reach: nothing was done")]
    Away,
    /// The connection ended before the answer came.
    #[error("UNKNOWN the connection to Redis was lost: the message may or may not have been sent")]
    Lost,
    /// Redis answered with this error.
    #[error("{0}")]
    Refused(String),
    /// The name is one that Freshet keeps for itself.
    #[error("ERR channels whose names begin with \\x00f are Freshet's own")]
    Reserved,
}

impl Unreached {
    /// As an error reply.
    pub fn reply(&self) -> Reply {
        Reply::error(self.to_string())
    }
}

/// What is guarded together, so that Redis hears of subscriptions and
/// messages in the order in which the tables changed.
#[derive(Default)]
pub(super) struct State {
    pub topics: Topics,
    pub wire: Wire,
    pub peers: Peers,
}

/// The one place through which this proxy's messages go.
pub struct Broker {
    state: Mutex<State>,
    /// Wakes the task that writes.
    more: Notify,
    /// Whether something may be sent for somebody who can wait.
    ready: watch::Sender<bool>,
    /// Which events of keys are published.
    event_classes: AtomicU32,
    /// Events that were dropped, because Redis was away or slow.
    dropped: AtomicU64,
    /// Clients that keep copies of values.
    tracking: Tracking,
    /// Who hears of other proxies' changes besides.
    ear: Mutex<Option<Arc<dyn Ear>>>,
    /// What tells this proxy's messages about changes from those of others.
    pub(super) token: String,
}

impl Broker {
    /// Starts the task that keeps the connection.
    pub fn start(options: LinkOptions, classes: EventClasses) -> (Arc<Self>, Task) {
        let broker = Arc::new(Self {
            state: Mutex::default(),
            more: Notify::new(),
            ready: watch::Sender::new(false),
            event_classes: AtomicU32::new(classes.bits()),
            dropped: AtomicU64::new(0),
            tracking: Tracking::default(),
            ear: Mutex::default(),
            token: format!("{:016x}", rand::random::<u64>()),
        });
        let task = tokio::spawn(upstream::run(Arc::clone(&broker), options));
        (broker, Task(task))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        mailbox::lock(&self.state)
    }

    /// Clients that keep copies of values.
    pub fn tracking(&self) -> &Tracking {
        &self.tracking
    }

    pub(super) fn ear(&self) -> Option<Arc<dyn Ear>> {
        mailbox::lock(&self.ear).clone()
    }

    pub(super) fn set_ear(&self, ear: Option<Arc<dyn Ear>>) {
        *mailbox::lock(&self.ear) = ear;
    }

    /// Which events of keys are published.
    pub fn event_classes(&self) -> EventClasses {
        EventClasses::from_bits(self.event_classes.load(Ordering::Relaxed))
    }

    /// Publishes events of these classes from now on.
    pub fn set_event_classes(&self, classes: EventClasses) {
        self.event_classes.store(classes.bits(), Ordering::Relaxed);
    }

    /// Events that were not published, because Redis was away or slow.
    pub fn dropped_events(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn count_dropped(&self, events: usize) {
        self.dropped.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// How many channels or patterns this proxy's clients wait for.
    pub fn count(&self, space: Space) -> usize {
        self.lock().topics.count(space)
    }

    /// Publishes a message by the client's own request. The number of
    /// receivers: each client of this proxy counts, and each *proxy* beside it
    /// whose clients subscribed, once for each of its subscriptions that fit.
    pub async fn publish(&self, space: Space, request: &Request) -> Result<i64, Unreached> {
        let channel = request.arg(1);
        if is_reserved(channel) {
            return Err(Unreached::Reserved);
        }
        let (reach, answered) = self
            .when_ready(|state| {
                let (answer, answered) = oneshot::channel();
                state.wire.send(request.raw(), Due::Client(answer));
                // All that Redis was told before this request is in the tables,
                // and nothing else is.
                (state.topics.reach(space, channel), answered)
            })
            .await?;
        match answered.await.unwrap_or(Err(Unreached::Lost))? {
            Reply::Integer(counted) => Ok(reach.receivers(counted)),
            other => Err(unexpected(&other)),
        }
    }

    /// `PUBSUB CHANNELS` and `SHARDCHANNELS` of all proxies on this Redis.
    pub async fn channels(
        &self,
        space: Space,
        pattern: Option<&[u8]>,
    ) -> Result<Vec<Reply>, Unreached> {
        let mut words: Vec<&[u8]> = vec![b"PUBSUB", word(space, "CHANNELS", "SHARDCHANNELS")];
        words.extend(pattern);
        let (reply, ()) = self.ask(&words, |_| ()).await?;
        let (Reply::Array(mut names) | Reply::Set(mut names)) = reply else {
            return Err(unexpected(&reply));
        };
        names.retain(|name| !matches!(name, Reply::Bulk(name) if is_reserved(name)));
        Ok(names)
    }

    /// `PUBSUB NUMSUB` and `SHARDNUMSUB`; counted as by [`Self::publish`].
    pub async fn subscribers(
        &self,
        space: Space,
        names: &[Bytes],
    ) -> Result<Vec<Reply>, Unreached> {
        let mut words: Vec<&[u8]> = vec![b"PUBSUB", word(space, "NUMSUB", "SHARDNUMSUB")];
        words.extend(names.iter().map(|name| &name[..]));
        let (reply, reaches) = self
            .ask(&words, |state| {
                let reach = |name: &Bytes| state.topics.reach_exactly(space, name);
                names.iter().map(reach).collect::<Vec<_>>()
            })
            .await?;
        let Reply::Array(mut pairs) = reply else {
            return Err(unexpected(&reply));
        };
        let counts = pairs.iter_mut().skip(1).step_by(2);
        for (count, reach) in counts.zip(reaches) {
            if let Reply::Integer(count) = count {
                *count = reach.receivers(*count);
            }
        }
        Ok(pairs)
    }

    /// `PUBSUB NUMPAT`: different patterns, of all proxies on this Redis.
    pub async fn patterns(&self) -> Result<Reply, Unreached> {
        let (reply, ()) = self.ask(&[b"PUBSUB", b"NUMPAT"], |_| ()).await?;
        Ok(reply)
    }

    /// Asks Redis; `look` sees the tables as they are for Redis at that moment.
    pub(super) async fn ask<T>(
        &self,
        words: &[&[u8]],
        mut look: impl FnMut(&State) -> T,
    ) -> Result<(Reply, T), Unreached> {
        let (answered, seen) = self
            .when_ready(|state| {
                let (answer, answered) = oneshot::channel();
                state.wire.send_words(words, Due::Client(answer));
                (answered, look(state))
            })
            .await?;
        match answered.await.unwrap_or(Err(Unreached::Lost))? {
            Reply::Error(text) => Err(unexpected(&Reply::Error(text))),
            reply => Ok((reply, seen)),
        }
    }

    /// Sends something as soon as the connection takes it.
    async fn when_ready<T>(&self, mut send: impl FnMut(&mut State) -> T) -> Result<T, Unreached> {
        let deadline = Instant::now() + PATIENCE;
        let mut ready = self.ready.subscribe();
        loop {
            {
                let mut state = self.lock();
                if state.wire.takes_more() {
                    let sent = send(&mut state);
                    self.note_room(&state);
                    return Ok(sent);
                }
            }
            match timeout_at(deadline, ready.wait_for(|ready| *ready)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return Err(Unreached::Away),
            }
        }
    }

    /// To be called under the lock after anything was sent.
    pub(super) fn note_room(&self, state: &State) {
        let takes_more = state.wire.takes_more();
        self.ready.send_if_modified(|ready| {
            let changed = *ready != takes_more;
            *ready = takes_more;
            changed
        });
        if !state.wire.out.is_empty() {
            self.more.notify_one();
        }
    }

    /// Waits until there is a connection, for so long.
    pub async fn await_open(&self, limit: Duration) {
        let mut ready = self.ready.subscribe();
        // Whoever calls goes on without one, too.
        let _ = tokio::time::timeout(limit, ready.wait_for(|ready| *ready)).await;
    }

    /// Subscribes a client to `names`; returns when Redis has confirmed, or
    /// with nothing changed.
    pub(super) async fn subscribe(
        &self,
        space: Space,
        names: &[Bytes],
        id: u64,
        mailbox: &Arc<Mailbox>,
    ) -> Result<(), Unreached> {
        let waiting = {
            let mut state = self.lock();
            let State { topics, wire, .. } = &mut *state;
            let mut number = 0;
            let mut missing = Vec::new();
            for name in names {
                match topics.add(space, name, id, mailbox) {
                    Some(sent) => number = number.max(sent),
                    None => missing.push(name.clone()),
                }
            }
            if !missing.is_empty() {
                number = NOT_SENT;
                if wire.is_open {
                    number = wire.subscribe(space, &missing);
                    for name in &missing {
                        topics.mark_sent(space, name, number);
                    }
                }
            }
            self.note_room(&state);
            state.wire.waiter(number)
        };
        let Some(waiting) = waiting else {
            return Ok(());
        };
        match timeout_at(Instant::now() + PATIENCE, waiting).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.unsubscribe(space, names, id);
                Err(Unreached::Away)
            }
        }
    }

    /// Ends a client's subscriptions at once; Redis hears of it where nobody is left.
    pub(super) fn unsubscribe(&self, space: Space, names: &[Bytes], id: u64) {
        let mut state = self.lock();
        let State { topics, wire, .. } = &mut *state;
        let mut unwanted = Vec::new();
        for name in names {
            if topics.remove(space, name, id) {
                unwanted.push(name.clone());
            }
        }
        if wire.is_open && !unwanted.is_empty() {
            wire.unsubscribe(space, &unwanted);
            self.note_room(&state);
        }
    }

    /// A connection is open: all subscriptions are made anew, before anything else is sent.
    pub(super) fn opened(&self) {
        let mut state = self.lock();
        let State {
            topics,
            wire,
            peers,
        } = &mut *state;
        wire.open();
        wire.subscribe(Space::Shard, &[Bytes::from_static(news::CONTROL)]);
        for space in Space::ALL {
            let names = topics.names(space);
            let number = wire.subscribe(space, &names);
            for name in &names {
                topics.mark_sent(space, name, number);
            }
        }
        wire.await_last();
        self.begin_peers(wire, peers);
        self.note_room(&state);
    }

    /// The connection is gone, and with it whatever was under way.
    pub(super) fn lost(&self) {
        {
            let mut state = self.lock();
            state.wire.close();
            state.topics.forget_sent();
            state.peers.lose();
            self.note_room(&state);
        }
        // What others changed meanwhile is not heard of.
        self.tracking.forget_all();
    }

    /// The bytes that wait to be sent.
    pub(super) fn take_out(&self) -> BytesMut {
        let mut state = self.lock();
        let out = state.wire.out.split();
        self.note_room(&state);
        out
    }

    /// Returns when there is more to send.
    pub(super) async fn sent(&self) {
        self.more.notified().await;
    }

    /// Hands a message to those who wait for it; `rest` is where its third item begins.
    pub(super) fn deliver(&self, space: Space, name: &[u8], push: &[u8], rest: usize) {
        if space == Space::Shard && is_reserved(name) {
            if let Some((payload, _)) = frames::bulk(push, rest) {
                self.hear(name, payload);
            }
            return;
        }
        self.lock().topics.deliver(space, name, push);
    }

    /// Hands a reply to whom it is owed.
    pub(super) fn answer(&self, due: Due, reply: Reply) {
        match due {
            Due::Client(client) => {
                // A client that has gone does not want its answer.
                let _ = client.send(Ok(reply));
            }
            Due::Curious | Due::Changes(_) | Due::Asked | Due::Proxies => {
                self.hear_count(&due, &reply)
            }
            Due::Nobody | Due::Confirmations(..) => {}
        }
        let state = self.lock();
        self.note_room(&state);
    }
}

/// The task that keeps the connection, until this is dropped.
pub struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn word(space: Space, of_channels: &'static str, of_shards: &'static str) -> &'static [u8] {
    match space {
        Space::Channel | Space::Pattern => of_channels.as_bytes(),
        Space::Shard => of_shards.as_bytes(),
    }
}

fn unexpected(reply: &Reply) -> Unreached {
    match reply {
        Reply::Error(text) => Unreached::Refused(String::from_utf8_lossy(text).into_owned()),
        other => Unreached::Refused(format!("ERR Redis answered {other:?}")),
    }
}

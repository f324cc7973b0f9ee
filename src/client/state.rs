//! What one connection has set up for itself.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::access;
use super::hub::Hub;
use super::registry::{Entry, Subscribed, Tracks};
use super::tracking::Tracked;
use super::transaction::{Block, Watchlist};
use super::users::Account;
use crate::command::{Call, Class, flags};
use crate::flow::{Origin, Refused};
use crate::model::{Db, Protocol};
use crate::pubsub::{Listens, Mailbox, Space, Subscriptions};
use crate::resp::Trust;

/// Whether replies are sent (`CLIENT REPLY`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replies {
    /// Each request is answered.
    #[default]
    On,
    /// None is.
    Off,
    /// The next request is not answered; then `On`.
    SkipNext,
}

/// What a connection is there for.
#[derive(Debug, Default)]
pub enum Mode {
    /// Requests are answered as they come.
    #[default]
    Normal,
    /// Requests wait for EXEC.
    Queueing(Box<Block>),
}

impl Mode {
    /// The commands that wait for EXEC.
    pub fn queued(&self) -> &[Call] {
        match self {
            Self::Normal => &[],
            Self::Queueing(block) => block.calls(),
        }
    }
}

/// Whether the client may be evicted for its memory (`CLIENT NO-EVICT`).
/// Freshet bounds each client and evicts none, so this is shown only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// As all clients.
    #[default]
    Allowed,
    /// It asked not to be.
    Refused,
}

/// What a client said of its library (`CLIENT SETINFO`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Library {
    /// Its name.
    pub name: Bytes,
    /// Its version.
    pub version: Bytes,
}

/// One connection's state; only its own task changes it.
#[derive(Debug)]
pub struct Client {
    /// What others see of it.
    pub entry: Arc<Entry>,
    /// The selected database.
    pub db: Db,
    /// The protocol in which it is answered.
    pub protocol: Protocol,
    /// Who it is, once it has authenticated, or need not.
    pub user: Option<Arc<Account>>,
    /// Whether it is answered.
    pub replies: Replies,
    /// What it is there for.
    pub mode: Mode,
    /// The keys that the next EXEC must find unchanged.
    pub watched: Watchlist,
    /// What it is subscribed to, if it ever was to anything.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// What it is told of changes, if it asked for that.
    pub tracked: Option<Box<Tracked>>,
}

impl Client {
    /// The state of a new connection.
    pub fn new(hub: &Hub, entry: Arc<Entry>) -> Self {
        Self {
            entry,
            db: Db::default(),
            protocol: Protocol::default(),
            user: access::initial_user(hub),
            replies: Replies::default(),
            mode: Mode::default(),
            watched: Watchlist::default(),
            subscriptions: None,
            tracked: None,
        }
    }

    /// Where its mail goes.
    pub fn mailbox(&self, hub: &Hub) -> Arc<Mailbox> {
        let bytes_max = hub.config().limits.output_buffer.as_usize();
        Arc::clone(self.entry.mailbox(bytes_max))
    }

    /// Whether it is subscribed to anything.
    pub fn listens(&self) -> Listens {
        match &self.subscriptions {
            Some(subscriptions) => subscriptions.listens(),
            None => Listens::No,
        }
    }

    /// Ends its subscriptions and its tracking.
    pub fn leave(&mut self) {
        self.subscriptions = None;
        self.tracked = None;
    }

    /// Appends the mail that has come to `out`.
    pub fn take_mail(&self, out: &mut BytesMut) {
        if let Some(mailbox) = self.entry.mail() {
            mailbox.take(self.protocol, self.listens(), out);
        }
    }

    /// Called before `call` is answered in place.
    pub fn note_command(&mut self, call: &Call) {
        if let Some(tracked) = &mut self.tracked
            && call.command.family() != "CLIENT"
        {
            tracked.after_command();
        }
    }

    /// Called before `calls` run: if it keeps copies, it is told from now on
    /// when one of the keys that they read changes.
    pub fn remember_reads(&mut self, hub: &Hub, calls: &[Call]) {
        let Some(tracked) = &mut self.tracked else {
            return;
        };
        for call in calls {
            remember(tracked, hub, self.entry.id, call);
            tracked.after_command();
        }
    }

    /// The same for a block, which is one command for `CLIENT CACHING`.
    pub fn remember_block(&mut self, hub: &Hub, calls: &[Call]) {
        let Some(tracked) = &mut self.tracked else {
            return;
        };
        for call in calls {
            remember(tracked, hub, self.entry.id, call);
        }
        tracked.after_command();
    }

    /// What the data path must know of this connection to run `calls`.
    pub fn origin(&self, calls: &[Call]) -> Origin {
        let runs_scripts = calls.iter().any(|call| call.command.class == Class::Script);
        let user = self.user.as_ref().filter(|_| runs_scripts);
        Origin {
            user: user.map(|user| user.rules()),
            db: self.db,
            protocol: self.protocol,
            client: self.entry.id,
            refused: user.map(|_| Refused::default()),
        }
    }

    /// Puts into the ACL log what scripts were refused that it ran.
    pub fn note_refused(&self, hub: &Hub, origin: &Origin) {
        let Some(user) = self.user.as_ref().filter(|_| origin.user.is_some()) else {
            return;
        };
        for (call, denied) in origin.take_refused() {
            hub.users
                .note_denied(&self.entry, "lua", user, (&call, &denied));
        }
    }

    /// What its requests may be, before it has authenticated and after.
    pub fn trust(&self) -> Trust {
        match self.user {
            Some(_) => Trust::Known,
            None => Trust::Unknown,
        }
    }

    /// Goes back to the state of a new connection (`RESET`).
    pub fn reset(&mut self, hub: &Hub) {
        *self = Self::new(hub, Arc::clone(&self.entry));
        self.entry.profile().name = Bytes::new();
        self.publish();
    }

    /// Shows others the state that it has now.
    pub fn publish(&self) {
        let mut profile = self.entry.profile();
        profile.db = self.db;
        profile.protocol = self.protocol;
        profile.queued = match &self.mode {
            Mode::Normal => None,
            Mode::Queueing(block) => Some(block.queued()),
        };
        if let Some(subscriptions) = &self.subscriptions {
            profile.subscribed = Subscribed {
                channels: subscriptions.count(Space::Channel),
                patterns: subscriptions.count(Space::Pattern),
                shards: subscriptions.count(Space::Shard),
            };
        } else {
            profile.subscribed = Subscribed::default();
        }
        profile.tracks = self.tracked.as_ref().map_or(Tracks::No, |t| t.shown());
        profile.user = match &self.user {
            Some(user) => Arc::clone(&user.name),
            None => access::default_user(),
        };
    }
}

fn remember(tracked: &Tracked, hub: &Hub, id: u64, call: &Call) {
    if tracked.remembers() && call.command.flags.has(flags::READONLY) {
        let names = call.key_indices().map(|index| call.request.arg(index));
        hub.flow.broker().tracking().remember(id, names);
    }
}

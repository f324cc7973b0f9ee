//! What one connection has set up for itself.

use std::sync::Arc;

use bytes::Bytes;

use super::access;
use super::hub::Hub;
use super::registry::Entry;
use super::transaction::{Block, Watchlist};
use crate::flow::Origin;
use crate::model::{Db, Protocol};
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

/// What a connection is there for. Subscriptions are to be a further mode.
#[derive(Debug, Default)]
pub enum Mode {
    /// Requests are answered as they come.
    #[default]
    Normal,
    /// Requests wait for EXEC.
    Queueing(Box<Block>),
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
    pub user: Option<Arc<str>>,
    /// Whether it is answered.
    pub replies: Replies,
    /// What it is there for.
    pub mode: Mode,
    /// The keys that the next EXEC must find unchanged.
    pub watched: Watchlist,
}

impl Client {
    /// The state of a new connection.
    pub fn new(hub: &Hub, entry: Arc<Entry>) -> Self {
        Self {
            entry,
            db: Db::default(),
            protocol: Protocol::default(),
            user: access::initial_user(&hub.config().auth),
            replies: Replies::default(),
            mode: Mode::default(),
            watched: Watchlist::default(),
        }
    }

    /// What the data path must know of this connection.
    pub fn origin(&self) -> Origin {
        Origin {
            db: self.db,
            protocol: self.protocol,
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
        profile.user = match &self.user {
            Some(user) => Arc::clone(user),
            None => access::default_user(),
        };
    }
}

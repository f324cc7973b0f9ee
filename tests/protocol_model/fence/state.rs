//! The state: the fence row, the proxies, the cache's server, batches and readers.

use super::Troubles;
use crate::cache::{Entry, Version};
use crate::history::History;
use crate::scenario::{KEYS, READERS, WRITERS};

/// How many proxies there are.
pub const PROXIES: usize = 2;

/// How many generations there may be, with none as 0.
pub const GENERATIONS: usize = 4;

/// How the cache is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is in use.
    Active,
    /// It is void: requests are held.
    Closing,
    /// All work is done on the store alone.
    Bypass,
}

/// The row of the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// The generation.
    pub generation: u8,
    /// Its state.
    pub mode: Mode,
    /// `run_id` of the server that holds this generation, or held the one before.
    pub run_id: u8,
}

/// One proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// How it uses the cache, as far as it knows.
    pub mode: Mode,
    /// The generation that it knows; while it is closing, the one to come.
    pub generation: u8,
    /// Whether its lease on the generation runs. Forgotten when it leaves `Active`.
    pub lease: bool,
    /// Whether its registration is alive.
    pub alive: bool,
    /// Whether its lease may still run, as far as the store can tell since it was declared dead.
    pub owed: bool,
    /// The generation that it is on record to obey.
    pub confirmed: u8,
}

/// The server that answers at the cache's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Its `run_id`.
    pub run_id: u8,
    /// The generation that it is stamped with (0: not at all).
    pub mark: u8,
    /// The generation before which it was emptied (0: never).
    pub emptied_for: u8,
    /// Its keys.
    pub keys: [Entry; KEYS],
}

/// Which of the servers that may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one that answers at the cache's address.
    Address,
    /// The one before, on connections that were open.
    Old,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Stage {
    /// No transaction yet.
    #[default]
    Idle,
    /// The transaction is open and holds the row locks of all its keys.
    Open,
    /// Committed, not answered.
    Committed,
    /// Its clients are answered.
    Done,
}

/// One batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Batch {
    /// How far it is.
    pub stage: Stage,
    /// How its proxy used the cache when it was made.
    pub made: Option<(Mode, u8)>,
    /// Whether its begin ran.
    pub begun: bool,
    /// Whether the registration under which it was begun is dead.
    pub dead: bool,
    /// The versions it made or loaded.
    pub seen: [Version; KEYS],
}

/// How far a reader is; numbers first are of the generation in which it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Reading {
    /// Not started, or to begin again.
    #[default]
    Idle,
    /// A hit is under way with these versions; clients had been told of the second ones before.
    Asked(u8, [Version; KEYS], [Version; KEYS]),
    /// It looked; it may hold leases.
    Looked(u8),
    /// The store answered with these versions.
    Loaded(u8, [Version; KEYS]),
    /// Answered.
    Done,
}

/// A burial between reading the version and calling the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Burial {
    /// The dead batch.
    pub batch: u8,
    /// The key.
    pub key: u8,
    /// The generation of the call.
    pub generation: u8,
    /// The version that the store showed after the proof.
    pub version: Version,
}

/// What went wrong in a step, where the state alone does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Wrong {
    /// A call replaced a native by an older one.
    pub stale_over_fresh: bool,
    /// A reader was answered with an older version than one told before it started.
    pub stale_answer: bool,
    /// A reader was answered with versions that were never current at once.
    pub torn_answer: bool,
}

/// What was seen to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Worked {
    /// A batch was committed and answered in bypass.
    pub bypass_write: bool,
    /// A reader was answered in bypass.
    pub bypass_read: bool,
    /// A committed batch that could not tell the cache was answered when that was out of use.
    pub fenced_answer: bool,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What the store committed.
    pub history: History,
    /// The fence.
    pub row: Row,
    /// Whether the content of the generation before was deleted since the fence was raised.
    pub emptied: bool,
    /// The server that was emptied and stamped for the row's generation (0: none).
    pub stamped: u8,
    /// The proxies.
    pub proxies: [Proxy; PROXIES],
    /// The server at the cache's address.
    pub server: Server,
    /// The one before, if it still answers those who are connected to it.
    pub old: Option<Server>,
    /// `run_id` of the server on record, by generation.
    pub on_record: [u8; GENERATIONS],
    /// A copy of an earlier state of it.
    pub copy: Option<(u8, [Entry; KEYS])>,
    /// The batches.
    pub batches: [Batch; WRITERS],
    /// The readers.
    pub readers: [Reading; READERS],
    /// The highest version of each key that a client was told of.
    pub told: [Version; KEYS],
    /// The burial going on, if any.
    pub burial: Option<Burial>,
    /// The faults that may still happen.
    pub left: Troubles,
    /// What went wrong.
    pub wrong: Wrong,
    /// What was seen to work.
    pub worked: Worked,
}

impl State {
    /// Both proxies use the cache, in generation 1 on server 1.
    pub fn start(troubles: Troubles, keys: [Entry; KEYS]) -> Self {
        let proxy = Proxy {
            mode: Mode::Active,
            generation: 1,
            lease: true,
            alive: true,
            owed: false,
            confirmed: 1,
        };
        Self {
            history: History::default(),
            row: Row {
                generation: 1,
                mode: Mode::Active,
                run_id: 1,
            },
            emptied: false,
            stamped: 0,
            proxies: [proxy; PROXIES],
            server: Server {
                run_id: 1,
                mark: 1,
                emptied_for: 0,
                keys,
            },
            old: None,
            on_record: [0, 1, 0, 0],
            copy: None,
            batches: Default::default(),
            readers: Default::default(),
            told: [0; KEYS],
            burial: None,
            left: troubles,
            wrong: Wrong::default(),
            worked: Worked::default(),
        }
    }

    /// The server at `place`, which is there.
    pub fn at(&self, place: Place) -> &Server {
        match (place, &self.old) {
            (Place::Old, Some(old)) => old,
            _ => &self.server,
        }
    }

    /// The same, to change it.
    pub fn at_mut(&mut self, place: Place) -> &mut Server {
        match (place, &mut self.old) {
            (Place::Old, Some(old)) => old,
            _ => &mut self.server,
        }
    }

    /// Where the server answers that is on record for `generation`.
    pub fn place_of(&self, generation: u8) -> Option<Place> {
        let wanted = self.on_record[generation as usize];
        if self.server.run_id == wanted {
            return Some(Place::Address);
        }
        let old = self.old.is_some_and(|old| old.run_id == wanted);
        old.then_some(Place::Old)
    }

    /// Whether a write transaction is open.
    pub fn open(&self) -> bool {
        self.batches.iter().any(|batch| batch.stage == Stage::Open)
    }

    /// Records that a client was told of `version`.
    pub fn tell(&mut self, key: usize, version: Version) {
        self.told[key] = self.told[key].max(version);
    }
}

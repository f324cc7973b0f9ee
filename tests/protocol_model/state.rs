//! The whole state: store, cache, batches, readers, and what clients were told.

use crate::cache::{Entry, Version};
use crate::history::History;
use crate::scenario::{Faults, KEYS, Kind, READERS, Scenario, Shape, WRITERS};

/// In how many steps a large collection is filled, before the last.
pub const STAGES: usize = 2;

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Stage {
    /// No transaction yet.
    #[default]
    Idle,
    /// The transaction is open and holds the row locks of all its keys.
    Open,
    /// Committed, not applied.
    Committed,
    /// Rolled back, abort not called.
    RolledBack,
    /// Its clients are answered.
    Done,
}

/// One batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Writer {
    /// How far it is.
    pub stage: Stage,
    /// Whether its begin ran in the present generation.
    pub begun: bool,
    /// Whether its proxy's registration is marked dead.
    pub dead: bool,
    /// Whether it committed.
    pub committed: bool,
    /// The versions it made, or loaded, by key.
    pub seen: [Version; KEYS],
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Reading {
    /// Not started.
    #[default]
    Idle,
    /// It missed; it may hold leases. The hits among its keys count only without `OneSnapshot`.
    Looked([Option<Version>; KEYS]),
    /// The store answered with these versions.
    Loaded([Version; KEYS]),
    /// The store answered, and somebody joined when clients had been told of the second versions.
    Joined([Version; KEYS], [Version; KEYS]),
    /// Answered from a lease that is not told yet (only without `AnswerAfterFill`).
    Untold([Version; KEYS]),
    /// Answered with these versions (forgotten where no call can be repeated).
    Done([Version; KEYS]),
}

/// What a reader has staged of a large collection, in [`STAGES`] parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Staged {
    /// How many parts were sent.
    pub sent: u8,
    /// The version that each part is of, where it is there.
    pub parts: [Option<Version>; STAGES],
}

/// A burial between reading the version and calling the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Burial {
    /// The dead batch.
    pub writer: u8,
    /// The key.
    pub key: u8,
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
    /// A reader of several keys was answered with versions that were never current at once.
    pub torn_answer: bool,
}

/// What was seen to work, for the `sometimes` properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Worked {
    /// A delta ran on content in the cache.
    pub delta: bool,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What the store committed.
    pub history: History,
    /// The keys in the cache.
    pub cache: [Entry; KEYS],
    /// The batches.
    pub writers: [Writer; WRITERS],
    /// The readers.
    pub readers: [Reading; READERS],
    /// What is staged in the cache, by reader.
    pub staged: [Staged; READERS],
    /// The highest version of each key that a client was told of.
    pub told: [Version; KEYS],
    /// The burial going on, if any.
    pub burial: Option<Burial>,
    /// The faults that may still happen.
    pub left: Faults,
    /// What went wrong.
    pub wrong: Wrong,
    /// What was seen to work.
    pub worked: Worked,
}

impl State {
    /// The state before anything happened, on this cache.
    pub fn start(scenario: &Scenario, cache: [Entry; KEYS]) -> Self {
        Self {
            history: History::default(),
            cache,
            writers: Default::default(),
            readers: Default::default(),
            staged: Default::default(),
            told: [0; KEYS],
            burial: None,
            left: scenario.faults,
            wrong: Wrong::default(),
            worked: Worked::default(),
        }
    }

    /// The version that the store has now.
    pub fn version(&self, scenario: &Scenario, key: usize) -> Version {
        self.history.version(&scenario.writers, key)
    }

    /// What `key` held at `version`.
    pub fn shape(&self, scenario: &Scenario, key: usize, version: Version) -> Shape {
        let initial = scenario.initial[key];
        self.history.shape(&scenario.writers, initial, key, version)
    }

    /// Whether an open transaction holds the lock of a row that `writer` needs.
    pub fn locked(&self, scenario: &Scenario, writer: usize) -> bool {
        let work = &scenario.writers[writer];
        scenario.writers.iter().enumerate().any(|(other, theirs)| {
            self.writers[other].stage == Stage::Open
                && (0..KEYS).any(|key| work.touches(key) && theirs.touches(key))
        })
    }

    /// Whether a transaction is open in the store for which the fence waits.
    pub fn open(&self, scenario: &Scenario) -> bool {
        let works = scenario.writers.iter().zip(&self.writers);
        works
            .filter(|(work, _)| work.kind != Kind::Sql)
            .any(|(_, w)| w.stage == Stage::Open)
    }

    /// Records that a client was told of `version`.
    pub fn tell(&mut self, key: usize, version: Version) {
        self.told[key] = self.told[key].max(version);
    }

    /// The oldest version of each key that a reader who starts now may see.
    pub fn bound(&self, scenario: &Scenario) -> [Version; KEYS] {
        self.history.bound(&scenario.writers, self.told)
    }

    /// Whether the store ever had these two versions at once.
    pub fn was_current(&self, scenario: &Scenario, versions: [Version; KEYS]) -> bool {
        self.history.was_current(&scenario.writers, versions)
    }
}

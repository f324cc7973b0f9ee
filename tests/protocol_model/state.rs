//! The whole state: store, cache, batches, readers, and what clients were told.

use crate::cache::{Entry, Version};
use crate::scenario::{Faults, KEYS, Op, READERS, Scenario, Shape, WRITERS};

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
    /// The batches that committed, in order: the store's history.
    pub log: [u8; WRITERS],
    /// How many of them there are.
    pub commits: u8,
    /// The keys in the cache.
    pub cache: [Entry; KEYS],
    /// The batches.
    pub writers: [Writer; WRITERS],
    /// The readers.
    pub readers: [Reading; READERS],
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
            log: [0; WRITERS],
            commits: 0,
            cache,
            writers: Default::default(),
            readers: Default::default(),
            told: [0; KEYS],
            burial: None,
            left: scenario.faults,
            wrong: Wrong::default(),
            worked: Worked::default(),
        }
    }

    /// The committed batches in order.
    pub fn history(&self) -> impl Iterator<Item = usize> + '_ {
        self.log[..self.commits as usize]
            .iter()
            .map(|&writer| writer as usize)
    }

    /// The version of `key` after the first `commits` batches.
    pub fn version_at(&self, scenario: &Scenario, key: usize, commits: usize) -> Version {
        let changes = self
            .history()
            .take(commits)
            .filter(|&writer| scenario.writers[writer].writes(key))
            .count();
        changes as Version
    }

    /// The version that the store has now.
    pub fn version(&self, scenario: &Scenario, key: usize) -> Version {
        self.version_at(scenario, key, self.commits as usize)
    }

    /// What `key` held at `version`.
    pub fn shape(&self, scenario: &Scenario, key: usize, version: Version) -> Shape {
        if version == 0 {
            return scenario.initial[key];
        }
        let writer = self
            .history()
            .filter(|&writer| scenario.writers[writer].writes(key))
            .nth(version as usize - 1);
        match writer.and_then(|writer| scenario.writers[writer].ops[key]) {
            Some(Op::Put(shape) | Op::Delta(shape)) => shape,
            _ => Shape::Absent,
        }
    }

    /// Whether an open transaction holds the lock of a row that `writer` needs.
    pub fn locked(&self, scenario: &Scenario, writer: usize) -> bool {
        let work = &scenario.writers[writer];
        scenario.writers.iter().enumerate().any(|(other, theirs)| {
            self.writers[other].stage == Stage::Open
                && (0..KEYS).any(|key| work.touches(key) && theirs.touches(key))
        })
    }

    /// Whether a transaction is open in the store.
    pub fn open(&self) -> bool {
        self.writers.iter().any(|w| w.stage == Stage::Open)
    }

    /// Records that a client was told of `version`.
    pub fn tell(&mut self, key: usize, version: Version) {
        self.told[key] = self.told[key].max(version);
    }

    /// The oldest version of each key that a reader who starts now may see: what
    /// was told, and with one key of a unit also the others.
    pub fn bound(&self, scenario: &Scenario) -> [Version; KEYS] {
        let mut bound = self.told;
        // Twice: with two keys, a unit can pull in another key's unit, which pulls back once.
        for _ in 0..=self.commits {
            for (index, writer) in self.history().enumerate() {
                self.pull(scenario, writer, index + 1, &mut bound);
            }
        }
        bound
    }

    /// Raises `bound` for all keys of one unit, if one of the keys it wrote is known.
    fn pull(
        &self,
        scenario: &Scenario,
        writer: usize,
        commits: usize,
        bound: &mut [Version; KEYS],
    ) {
        let work = &scenario.writers[writer];
        if work.kind == crate::scenario::Kind::Batch {
            return;
        }
        let known = (0..KEYS)
            .any(|key| work.writes(key) && bound[key] >= self.version_at(scenario, key, commits));
        if !known {
            return;
        }
        for (key, bound) in bound.iter_mut().enumerate() {
            if work.touches(key) {
                *bound = (*bound).max(self.version_at(scenario, key, commits));
            }
        }
    }

    /// Whether the store ever had these two versions at once.
    pub fn was_current(&self, scenario: &Scenario, versions: [Version; KEYS]) -> bool {
        (0..=self.commits as usize).any(|commits| {
            (0..KEYS).all(|key| self.version_at(scenario, key, commits) == versions[key])
        })
    }
}

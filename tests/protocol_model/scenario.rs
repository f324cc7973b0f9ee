//! What runs in a model: writers, readers, and the faults they may meet.

use crate::rules::{Rule, Rules};

/// How many keys a model has at most: a string (0), and a collection (1).
pub const KEYS: usize = 2;
/// How many writers (batches) a model has at most.
pub const WRITERS: usize = 4;
/// How many readers a model has at most.
pub const READERS: usize = 3;

/// What a key holds at a version, as far as the cache must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Nothing: the key does not exist.
    Absent,
    /// A whole string without expiry: a companion has nothing to say about it.
    Plain,
    /// A collection, or a string with an expiry: its companion is kept.
    Rich,
}

/// What a batch does to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Writes a whole value (`Absent`: deletes the key).
    Put(Shape),
    /// Changes the version directly before; the result has this shape.
    Delta(Shape),
    /// Reads the key under its row lock and tells of it.
    Read,
    /// Means to write, begins, but finds under the row lock that there is nothing to change
    /// (`SETNX` of a key that is there), and tells so.
    Keep,
}

/// Whether a batch's keys belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Units of one key each, committed together under one id.
    Batch,
    /// One unit over all keys: no reader may see it half done.
    Unit,
    /// A transaction of somebody who writes by SQL: the cache is told nothing before it commits, and some time
    /// after, by a proxy that found the change, its versions. Nobody is promised to see it before that.
    Sql,
}

/// One batch of a commit lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Whether its keys belong together.
    pub kind: Kind,
    /// What it does to each key.
    pub ops: [Option<Op>; KEYS],
}

impl Work {
    /// A batch of single-key units.
    pub const fn batch(s: Option<Op>, c: Option<Op>) -> Self {
        Self {
            kind: Kind::Batch,
            ops: [s, c],
        }
    }

    /// One unit over both keys.
    pub const fn unit(s: Op, c: Op) -> Self {
        Self {
            kind: Kind::Unit,
            ops: [Some(s), Some(c)],
        }
    }

    /// A transaction by SQL.
    pub const fn sql(s: Option<Op>, c: Option<Op>) -> Self {
        Self {
            kind: Kind::Sql,
            ops: [s, c],
        }
    }

    /// Whether it changes `key`.
    pub fn writes(&self, key: usize) -> bool {
        matches!(self.ops[key], Some(Op::Put(_) | Op::Delta(_)))
    }

    /// Whether it registers itself at `key` before it commits.
    pub fn begins(&self, key: usize) -> bool {
        self.kind != Kind::Sql && (self.writes(key) || self.ops[key] == Some(Op::Keep))
    }

    /// Whether it touches `key` at all.
    pub fn touches(&self, key: usize) -> bool {
        self.ops[key].is_some()
    }
}

/// Which companions the cache may evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// `volatile-*`: only those without writers, since those with writers have no TTL.
    Idle,
    /// `allkeys-*`: any.
    Any,
}

/// How often each fault may happen in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// Evictions (or early expiries) of a native or hidden key.
    pub content: u8,
    /// Evictions of a companion.
    pub companion: u8,
    /// Flushes: of everything, or of one database.
    pub flush: u8,
    /// Losses of one key's three entries without any trace (`DEL` behind our back).
    pub drop_key: u8,
    /// Second runs of an apply, an abort or a fill.
    pub repeat: u8,
    /// Begins that got no answer, were repeated, and run once more later.
    pub late_begin: u8,
    /// Looks that got no answer, were repeated, and run once more later.
    pub late_look: u8,
    /// Proxies declared dead, in the middle of whatever their batch was doing.
    pub death: u8,
    /// Fences that somebody raises without need.
    pub fence: u8,
    /// Applies that can only invalidate (a full cache refused the content).
    pub invalidate: u8,
    /// Batches that roll back.
    pub rollback: u8,
    /// Evictions of what is staged for a fill.
    pub staged: u8,
    /// Readers that join the flight of another reader after its load.
    pub join: u8,
}

/// A model's bounds.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, for the report.
    pub name: &'static str,
    /// The batches, each of which runs at most once.
    pub writers: Vec<Work>,
    /// The keys that each reader reads at once, as bits; each reads once by a miss.
    pub readers: Vec<u8>,
    /// What each key holds at version 0.
    pub initial: [Shape; KEYS],
    /// Whether the collection is large: it is filled in steps.
    pub large: bool,
    /// Which companions may be evicted.
    pub eviction: Eviction,
    /// What may go wrong.
    pub faults: Faults,
    /// The rules that are kept.
    pub rules: Rules,
}

impl Scenario {
    /// A scenario without faults over `initial` content.
    pub fn new(name: &'static str, initial: [Shape; KEYS]) -> Self {
        Self {
            name,
            writers: Vec::new(),
            readers: Vec::new(),
            initial,
            large: false,
            eviction: Eviction::Idle,
            faults: Faults::default(),
            rules: Rules::default(),
        }
    }

    /// With these batches.
    pub fn writers(mut self, writers: &[Work]) -> Self {
        assert!(writers.len() <= WRITERS, "too many writers");
        self.writers = writers.to_vec();
        self
    }

    /// With one reader for each set of keys.
    pub fn readers(mut self, readers: &[u8]) -> Self {
        assert!(readers.len() <= READERS, "too many readers");
        self.readers = readers.to_vec();
        self
    }

    /// With these faults.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// With a large collection.
    pub fn large(mut self) -> Self {
        self.large = true;
        self
    }

    /// Under this policy of eviction.
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.eviction = eviction;
        self
    }

    /// Without this rule.
    pub fn without(mut self, rule: Rule) -> Self {
        self.rules = self.rules.without(rule);
        self
    }

    /// Whether the cache may lose a registration without anybody noticing.
    pub fn loses_registrations(&self) -> bool {
        self.eviction == Eviction::Any || self.faults.drop_key > 0
    }

    /// The keys that any batch or reader touches, as bits.
    pub fn keys(&self) -> impl Iterator<Item = usize> + '_ {
        (0..KEYS).filter(|&key| {
            self.readers.iter().any(|keys| keys & (1 << key) != 0)
                || self.writers.iter().any(|work| work.touches(key))
        })
    }
}

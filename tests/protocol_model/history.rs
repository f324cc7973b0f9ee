//! What the store committed, in order, and what that means for each key.

use crate::cache::Version;
use crate::scenario::{KEYS, Kind, Op, Shape, WRITERS, Work};

/// The batches that committed, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct History {
    log: [u8; WRITERS],
    commits: u8,
}

impl History {
    /// How many batches committed.
    pub fn commits(&self) -> usize {
        self.commits as usize
    }

    /// The committed batches in order.
    pub fn batches(&self) -> impl Iterator<Item = usize> + '_ {
        self.log[..self.commits()]
            .iter()
            .map(|&writer| writer as usize)
    }

    /// The batch `writer` commits.
    pub fn commit(&mut self, writer: usize) {
        self.log[self.commits()] = writer as u8;
        self.commits += 1;
    }

    /// Gives each batch the number that `exchange` says.
    pub fn renumber(&mut self, exchange: impl Fn(u8) -> u8) {
        for writer in &mut self.log[..self.commits as usize] {
            *writer = exchange(*writer);
        }
    }

    /// The version of `key` after the first `commits` batches.
    fn version_at(&self, works: &[Work], key: usize, commits: usize) -> Version {
        let changes = self
            .batches()
            .take(commits)
            .filter(|&writer| works[writer].writes(key))
            .count();
        changes as Version
    }

    /// The version that the store has now.
    pub fn version(&self, works: &[Work], key: usize) -> Version {
        self.version_at(works, key, self.commits())
    }

    /// What `key`, which was `initial` at version 0, held at `version`.
    pub fn shape(&self, works: &[Work], initial: Shape, key: usize, version: Version) -> Shape {
        if version == 0 {
            return initial;
        }
        let writer = self
            .batches()
            .filter(|&writer| works[writer].writes(key))
            .nth(version as usize - 1);
        match writer.and_then(|writer| works[writer].ops[key]) {
            Some(Op::Put(shape) | Op::Delta(shape)) => shape,
            _ => Shape::Absent,
        }
    }

    /// The oldest version of each key that a reader who starts now may see: what
    /// was `told`, and with one key of a unit also the others.
    pub fn bound(&self, works: &[Work], told: [Version; KEYS]) -> [Version; KEYS] {
        let mut bound = told;
        // Twice: with two keys, a unit can pull in another key's unit, which pulls back once.
        for _ in 0..=self.commits {
            for (index, writer) in self.batches().enumerate() {
                self.pull(works, writer, index + 1, &mut bound);
            }
        }
        bound
    }

    /// Raises `bound` for all keys of one unit, if one of the keys it wrote is known.
    fn pull(&self, works: &[Work], writer: usize, commits: usize, bound: &mut [Version; KEYS]) {
        let work = &works[writer];
        if work.kind != Kind::Unit {
            return;
        }
        let known = (0..KEYS)
            .any(|key| work.writes(key) && bound[key] >= self.version_at(works, key, commits));
        if !known {
            return;
        }
        for (key, bound) in bound.iter_mut().enumerate() {
            if work.touches(key) {
                *bound = (*bound).max(self.version_at(works, key, commits));
            }
        }
    }

    /// Whether the store ever had these versions at once.
    pub fn was_current(&self, works: &[Work], versions: [Version; KEYS]) -> bool {
        (0..=self.commits()).any(|commits| {
            (0..KEYS).all(|key| self.version_at(works, key, commits) == versions[key])
        })
    }
}

//! What was done with the keys of a pattern.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::monitor::Ran;
use super::pattern;
use crate::command::args::{integer, is_word};
use crate::command::{Call, Class, flags};

/// Keys of one pattern that are told apart.
const KEYS_MAX: usize = 100_000;
/// Patterns at most, before those that belong together are joined.
const PATTERNS_MAX: usize = 20_000;

/// Counts of one pattern.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Commands that read.
    pub reads: u64,
    /// Commands that write.
    pub writes: u64,
    /// Of these, those that add to what is there.
    pub additions: u64,
    /// Bytes of what was written.
    pub bytes: u64,
    /// Commands that gave a life, and the longest life in seconds.
    pub lives: u64,
    /// The longest of them, in seconds.
    pub life_max: i64,
    /// Commands that wait, or that locks and queues are made of.
    pub coordinations: u64,
    /// Different keys, by their hashes.
    pub(super) keys: HashSet<u64>,
}

impl Tally {
    /// Different keys that were seen, up to a bound.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.additions += other.additions;
        self.bytes += other.bytes;
        self.lives += other.lives;
        self.life_max = self.life_max.max(other.life_max);
        self.coordinations += other.coordinations;
        for key in other.keys {
            self.see(key);
        }
    }

    fn see(&mut self, key: u64) {
        if self.keys.len() < KEYS_MAX {
            self.keys.insert(key);
        }
    }
}

/// A sample of commands.
#[derive(Debug, Default)]
pub struct Sample {
    by_pattern: BTreeMap<String, Tally>,
    first: Option<f64>,
    last: f64,
    /// Commands in it.
    pub commands: u64,
}

impl Sample {
    /// Counts a command.
    pub fn note(&mut self, ran: &Ran) {
        self.first.get_or_insert(ran.at);
        self.last = self.last.max(ran.at);
        self.commands += 1;
        let call = &ran.call;
        let keys: Vec<_> = call.keys(ran.db).collect();
        for key in &keys {
            let name = pattern::of(&key.name);
            if !self.by_pattern.contains_key(&name) && self.by_pattern.len() >= PATTERNS_MAX {
                continue;
            }
            let tally = self.by_pattern.entry(name).or_default();
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            tally.see(hasher.finish());
            count(tally, call, keys.len());
        }
    }

    /// How long it is, in seconds.
    pub fn seconds(&self) -> f64 {
        (self.last - self.first.unwrap_or(self.last)).max(1.0)
    }

    /// The counts, of patterns that belong together at once.
    pub fn tallies(self) -> BTreeMap<String, Tally> {
        pattern::join(self.by_pattern, Tally::add)
    }
}

fn count(tally: &mut Tally, call: &Call, keys: usize) {
    let name = call.command.name;
    match call.command.class {
        Class::Read | Class::Expiry if !call.command.flags.has(flags::WRITE) => tally.reads += 1,
        // What a script calls is in the sample, too.
        Class::Script | Class::Transaction => tally.coordinations += 1,
        _ if !call.command.flags.has(flags::WRITE) => tally.reads += 1,
        _ => {
            tally.writes += 1;
            tally.bytes += (call.request.raw().len() / keys.max(1)) as u64;
        }
    }
    if is_addition(name) {
        tally.additions += 1;
    }
    if call.command.flags.has(flags::BLOCKING) || is_coordination(call) {
        tally.coordinations += 1;
    }
    if let Some(life) = life(call) {
        tally.lives += 1;
        tally.life_max = tally.life_max.max(life);
    }
}

fn is_addition(name: &str) -> bool {
    name.starts_with("INCR")
        || name.starts_with("DECR")
        || name.starts_with("HINCRBY")
        || matches!(name, "ZINCRBY" | "PFADD" | "SETBIT" | "BITFIELD" | "APPEND")
}

/// Locks by `SET NX`, queues, groups of consumers.
fn is_coordination(call: &Call) -> bool {
    let name = call.command.name;
    let mut options = call.request.args().skip(3);
    matches!(
        name,
        "SETNX" | "RPOPLPUSH" | "LMOVE" | "LPOP" | "RPOP" | "WATCH" | "XREADGROUP" | "XACK"
    ) || name == "SET" && options.any(|option| is_word(option, "NX"))
}

/// The life that a command gives, in seconds.
fn life(call: &Call) -> Option<i64> {
    let request = &call.request;
    let at = |index: usize| (index < request.len()).then(|| integer(request.arg(index)))?;
    match call.command.name {
        "EXPIRE" | "SETEX" => at(2),
        "PEXPIRE" | "PSETEX" => Some(at(2)? / 1000),
        "SET" | "GETEX" => (2..request.len()).find_map(|index| {
            let option = request.arg(index);
            if is_word(option, "EX") {
                at(index + 1)
            } else if is_word(option, "PX") {
                Some(at(index + 1)? / 1000)
            } else {
                None
            }
        }),
        _ => None,
    }
}

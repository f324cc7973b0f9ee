//! A run of random commands of every type against Freshet and a plain Redis side by side, and
//! the search for the shortest run that still shows a difference.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::generator::{self, Command, DATABASES};
use super::pair::{Pair, Tested, resolve};
use crate::patterns::open;
use crate::support::client::show;
use crate::support::{Client, Redis, Value};

/// How many connections take turns.
const CONNECTIONS: usize = 3;
/// How many steps an episode has.
const STEPS: usize = 300;
/// No command of an episode takes longer.
const REPLY_LIMIT: Duration = Duration::from_secs(5);
/// How long the search for a shorter story may take.
const SHRINK_LIMIT: Duration = Duration::from_secs(90);

/// One thing that happens in an episode.
#[derive(Clone, Debug)]
pub enum Step {
    /// A connection sends commands at once.
    Pipeline(usize, Vec<Command>),
    /// A connection sends commands in a `MULTI` block.
    Block(usize, Vec<Command>),
    /// A connection lists all that a scan finds: the words before the cursor, and those behind.
    Scan(usize, Vec<Vec<u8>>, Vec<String>),
    /// Something happens to the cache behind Freshet's back.
    Accident(Accident),
}

/// What can happen to a cache.
#[derive(Clone, Copy, Debug)]
pub enum Accident {
    /// All its content is gone.
    Flush,
    /// Up to this many random keys of a database are gone, internal ones included.
    Evict(u8, usize),
    /// One key of a client is gone.
    Delete(u8, usize),
    /// The functions are gone.
    ForgetFunctions,
    /// All connections are cut.
    CutConnections,
}

/// The steps that a seed stands for.
pub fn steps(seed: u64) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..STEPS).map(|_| step(&mut rng)).collect()
}

fn step(rng: &mut StdRng) -> Step {
    let connection = rng.random_range(0..CONNECTIONS);
    match rng.random_range(0..100) {
        0..6 => Step::Accident(accident(rng)),
        6..8 => scan(rng, connection),
        8..16 => Step::Block(connection, some(rng, generator::for_block)),
        16..28 => pipeline(connection, some(rng, generator::command)),
        _ => pipeline(connection, vec![generator::command(rng)]),
    }
}

fn some(rng: &mut StdRng, command: impl Fn(&mut StdRng) -> Command) -> Vec<Command> {
    let count = rng.random_range(2..12);
    (0..count).map(|_| command(rng)).collect()
}

/// What would wait if there is nothing does not within a block.
fn pipeline(connection: usize, mut commands: Vec<Command>) -> Step {
    if commands.len() == 1 && generator::waits(&commands[0]) {
        return Step::Block(connection, commands);
    }
    commands.retain(|command| !generator::waits(command));
    Step::Pipeline(connection, commands)
}

fn scan(rng: &mut StdRng, connection: usize) -> Step {
    let options = [
        "",
        "MATCH k*",
        "COUNT 3",
        "TYPE string",
        "TYPE list",
        "TYPE zset",
        "MATCH *1 COUNT 100",
    ];
    let (head, words) = if rng.random() {
        let (name, keys) = generator::one_key_scan(rng);
        (vec![name, keys], options[rng.random_range(0..3)])
    } else {
        let words = options[rng.random_range(0..options.len())];
        (vec![b"SCAN".to_vec()], words)
    };
    let words = words.split_whitespace().map(str::to_owned).collect();
    Step::Scan(connection, head, words)
}

fn accident(rng: &mut StdRng) -> Accident {
    let db = rng.random_range(0..DATABASES);
    match rng.random_range(0..20) {
        0..3 => Accident::Flush,
        3..10 => Accident::Evict(db, rng.random_range(1..8)),
        10..17 => Accident::Delete(db, rng.random_range(0..generator::keys().len())),
        17..19 => Accident::ForgetFunctions,
        _ => Accident::CutConnections,
    }
}

/// Who is compared with whom.
pub struct Arena<'a> {
    /// What is tested.
    pub tested: Tested,
    /// Where it listens.
    pub ours: SocketAddr,
    /// Its cache.
    pub cache: &'a Redis,
    /// The Redis that knows the right answers.
    pub judge: &'a Redis,
}

impl Arena<'_> {
    /// Runs these steps from empty servers; an error tells the first difference.
    pub fn run(&self, steps: &[Step]) -> Result<()> {
        let mut pairs = Vec::new();
        for index in 0..CONNECTIONS {
            pairs.push(self.pair(index)?);
        }
        pairs[0].ours.ok(&["FLUSHALL"])?;
        pairs[0].theirs.ok(&["FLUSHALL"])?;
        let mut payload = None;
        for step in steps {
            match step {
                Step::Pipeline(connection, commands) => {
                    let commands = resolve(commands, payload.as_deref());
                    self.prepare(&commands)?;
                    pairs[*connection].compare(&commands, &mut payload)?;
                }
                Step::Block(connection, commands) => {
                    let commands = resolve(commands, payload.as_deref());
                    self.prepare(&commands)?;
                    pairs[*connection].compare_blocks(&commands, &mut payload)?;
                }
                Step::Scan(connection, head, words) => {
                    pairs[*connection].compare_scans(head, words)?;
                }
                Step::Accident(accident) => self.happen(*accident)?,
            }
        }
        self.compare_content()
    }

    fn pair(&self, index: usize) -> Result<Pair> {
        let mut pair = Pair {
            tested: self.tested,
            ours: Client::connect(self.ours)?,
            theirs: self.judge.client()?,
        };
        pair.ours.set_reply_limit(REPLY_LIMIT)?;
        // Every second connection speaks RESP3.
        if index % 2 == 1 {
            pair.ours.ok(&["HELLO", "3"])?;
            pair.theirs.ok(&["HELLO", "3"])?;
        }
        Ok(pair)
    }

    /// SORT of Redis depends on what came before it.
    fn prepare(&self, commands: &[Vec<Vec<u8>>]) -> Result<()> {
        let has = |name: &[u8]| {
            commands
                .iter()
                .any(|command| command[0].to_ascii_uppercase().starts_with(name))
        };
        if has(b"SORT") {
            open::reset_errno(&mut self.cache.client()?)?;
        }
        Ok(())
    }

    fn happen(&self, accident: Accident) -> Result<()> {
        let mut cache = self.cache.client()?;
        match accident {
            Accident::Flush => drop(cache.ok(&["FLUSHALL"])?),
            Accident::Evict(db, count) => {
                cache.ok(&["SELECT", &db.to_string()])?;
                for _ in 0..count {
                    if let Value::Bulk(key) = cache.ok(&["RANDOMKEY"])? {
                        cache.ok(&[b"DEL".to_vec(), key])?;
                    }
                }
            }
            Accident::Delete(db, index) => {
                cache.ok(&["SELECT", &db.to_string()])?;
                cache.ok(&[b"DEL".to_vec(), generator::keys()[index].clone()])?;
            }
            Accident::ForgetFunctions => drop(cache.ok(&["FUNCTION", "FLUSH"])?),
            Accident::CutConnections => {
                cache.ok(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
            }
        }
        Ok(())
    }

    /// All keys with value and expiry, in all databases.
    fn compare_content(&self) -> Result<()> {
        let mut pair = self.pair(0)?;
        for db in 0..DATABASES {
            let select = vec![b"SELECT".to_vec(), db.to_string().into_bytes()];
            let keys = vec![b"KEYS".to_vec(), b"*".to_vec()];
            pair.compare(&[select, keys], &mut None)?;
            pair.compare_contents(&generator::keys())?;
        }
        Ok(())
    }
}

/// The fewest steps and commands that still fail, by leaving out ever smaller
/// pieces, for a while; with what they said.
pub fn shrink(steps: Vec<Step>, failure: String, arena: &Arena) -> (Vec<Step>, String) {
    let mut shortest = (steps, failure);
    let start = Instant::now();
    let attempt = |shortest: &mut (Vec<Step>, String), shorter: Vec<Step>| {
        if start.elapsed() > SHRINK_LIMIT {
            return false;
        }
        match arena.run(&shorter) {
            Ok(()) => false,
            Err(error) => {
                *shortest = (shorter, format!("{error:#}"));
                true
            }
        }
    };
    let mut piece = shortest.0.len() / 2;
    while piece >= 1 {
        let mut start = 0;
        while start < shortest.0.len() {
            let mut shorter = shortest.0.clone();
            shorter.drain(start..(start + piece).min(shortest.0.len()));
            if !attempt(&mut shortest, shorter) {
                start += piece;
            }
        }
        piece /= 2;
    }
    for index in 0..shortest.0.len() {
        let mut place = 0;
        while let Some(shorter) = without_command(&shortest.0, index, place) {
            if !attempt(&mut shortest, shorter) {
                place += 1;
            }
        }
    }
    shortest
}

/// The steps without one command of a pipeline; `None` if it is not there or the last one.
fn without_command(steps: &[Step], index: usize, place: usize) -> Option<Vec<Step>> {
    let mut steps = steps.to_vec();
    match steps.get_mut(index)? {
        Step::Pipeline(_, commands) | Step::Block(_, commands)
            if commands.len() > 1 && place < commands.len() =>
        {
            commands.remove(place);
            Some(steps)
        }
        _ => None,
    }
}

/// A step as a person would read it.
pub fn describe(step: &Step) -> String {
    let lines = |commands: &[Command]| {
        let lines: Vec<String> = resolve(commands, None)
            .iter()
            .map(|one| show(one))
            .collect();
        lines.join("\n              ")
    };
    match step {
        Step::Pipeline(connection, commands) => {
            format!("connection {connection}: {}", lines(commands))
        }
        Step::Block(connection, commands) => {
            format!("connection {connection}, a block: {}", lines(commands))
        }
        Step::Scan(connection, head, words) => {
            format!("connection {connection}: {} {words:?}", show(head))
        }
        Step::Accident(accident) => format!("{accident:?}"),
    }
}

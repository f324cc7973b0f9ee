//! A run of random commands against Freshet and a plain Redis side by side, and
//! the search for the shortest run that still shows a difference.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::comparison::rule;
use super::generator::{self, Argument, Command, DATABASES};
use crate::support::client::{encode, show};
use crate::support::{Client, Redis, Value};

/// How many connections take turns.
const CONNECTIONS: usize = 3;
/// How many steps an episode has.
const STEPS: usize = 300;
/// No command of an episode takes longer.
const REPLY_LIMIT: Duration = Duration::from_secs(5);
/// How long the search for a shorter story may take.
const SHRINK_LIMIT: Duration = Duration::from_secs(90);
/// A scan of so few keys ends within so many calls.
const SCAN_CALLS: usize = 1000;

/// One thing that happens in an episode.
#[derive(Clone, Debug)]
pub enum Step {
    /// A connection sends commands at once.
    Pipeline(usize, Vec<Command>),
    /// A connection lists all keys, with these words after the cursor.
    Scan(usize, Vec<String>),
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
        6..8 => {
            let options = [
                "",
                "MATCH k*",
                "COUNT 3",
                "TYPE string",
                "TYPE list",
                "MATCH *1 COUNT 100",
            ];
            let words = options[rng.random_range(0..options.len())];
            Step::Scan(
                connection,
                words.split_whitespace().map(str::to_owned).collect(),
            )
        }
        8..25 => {
            let count = rng.random_range(2..12);
            Step::Pipeline(
                connection,
                (0..count).map(|_| generator::command(rng)).collect(),
            )
        }
        _ => Step::Pipeline(connection, vec![generator::command(rng)]),
    }
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
    /// The server that is tested.
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
        let mut payloads = HashMap::new();
        for step in steps {
            match step {
                Step::Pipeline(connection, commands) => {
                    let commands: Vec<Vec<Vec<u8>>> = commands
                        .iter()
                        .map(|command| resolve(command, &payloads))
                        .collect();
                    self.forget_expired(&commands)?;
                    pairs[*connection].compare(&commands, &mut payloads)?;
                }
                Step::Scan(connection, words) => pairs[*connection].compare_scans(words)?,
                Step::Accident(accident) => self.happen(*accident)?,
            }
        }
        self.compare_content()
    }

    fn pair(&self, index: usize) -> Result<Pair> {
        let mut pair = Pair {
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

    /// DBSIZE of Redis counts keys whose end has come until somebody looks at them.
    fn forget_expired(&self, commands: &[Vec<Vec<u8>>]) -> Result<()> {
        if commands
            .iter()
            .any(|command| command[0].eq_ignore_ascii_case(b"DBSIZE"))
        {
            let mut client = self.judge.client()?;
            for db in 0..DATABASES {
                client.ok(&["SELECT", &db.to_string()])?;
                let mut exists = vec![b"EXISTS".to_vec()];
                exists.extend(generator::keys());
                client.ok(&exists)?;
            }
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
            let mut commands = vec![vec![b"SELECT".to_vec(), db.to_string().into_bytes()]];
            commands.push(vec![b"KEYS".to_vec(), b"*".to_vec()]);
            for key in generator::keys() {
                commands.push(vec![b"GET".to_vec(), key.clone()]);
                commands.push(vec![b"PEXPIRETIME".to_vec(), key]);
            }
            pair.compare(&commands, &mut HashMap::new())?;
        }
        Ok(())
    }
}

/// The bytes of a command; a payload is what DUMP of the judge last said.
fn resolve(command: &Command, payloads: &HashMap<Vec<u8>, Vec<u8>>) -> Vec<Vec<u8>> {
    let payload = payloads.values().next();
    command
        .iter()
        .map(|argument| match argument {
            Argument::Bytes(bytes) => bytes.clone(),
            Argument::Payload => payload.map_or_else(|| b"nonsense".to_vec(), Vec::clone),
        })
        .collect()
}

struct Pair {
    ours: Client,
    theirs: Client,
}

impl Pair {
    /// Sends the commands to both and compares all replies.
    fn compare(
        &mut self,
        commands: &[Vec<Vec<u8>>],
        payloads: &mut HashMap<Vec<u8>, Vec<u8>>,
    ) -> Result<()> {
        let bytes: Vec<u8> = commands.iter().flat_map(|one| encode(one)).collect();
        self.ours.send_raw(&bytes)?;
        self.theirs.send_raw(&bytes)?;
        for command in commands {
            let ours = self
                .ours
                .read_with_bytes()
                .with_context(|| format!("no reply to {}", show(command)))?;
            let theirs = self.theirs.read_with_bytes()?;
            if !rule(command).agrees((&ours.0, &ours.1), (&theirs.0, &theirs.1)) {
                bail!(
                    "{}\n  Freshet: {}\n  Redis:   {}",
                    show(command),
                    show(&[ours.1]),
                    show(&[theirs.1])
                );
            }
            if let (true, Value::Bulk(payload)) =
                (command[0].eq_ignore_ascii_case(b"DUMP"), theirs.0)
            {
                payloads.clear();
                payloads.insert(Vec::new(), payload);
            }
        }
        Ok(())
    }

    fn compare_scans(&mut self, words: &[String]) -> Result<()> {
        let ours = scan(&mut self.ours, words)?;
        let theirs = scan(&mut self.theirs, words)?;
        if ours != theirs {
            bail!("SCAN {words:?}\n  Freshet: {ours:?}\n  Redis:   {theirs:?}");
        }
        Ok(())
    }
}

fn scan(client: &mut Client, words: &[String]) -> Result<BTreeSet<Vec<u8>>> {
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    for _ in 0..SCAN_CALLS {
        let mut command = vec!["SCAN".to_owned(), cursor];
        command.extend(words.iter().cloned());
        let reply = client.ok(&command)?;
        let [next, keys] = reply.items() else {
            bail!("SCAN replied {reply:?}");
        };
        for key in keys.items() {
            if let Value::Bulk(key) = key {
                found.insert(key.clone());
            }
        }
        cursor = next.text().unwrap_or_default();
        if cursor == "0" {
            return Ok(found);
        }
    }
    bail!("SCAN {words:?} does not end")
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
        Step::Pipeline(_, commands) if commands.len() > 1 && place < commands.len() => {
            commands.remove(place);
            Some(steps)
        }
        _ => None,
    }
}

/// A step as a person would read it.
pub fn describe(step: &Step) -> String {
    match step {
        Step::Pipeline(connection, commands) => {
            let lines: Vec<String> = commands
                .iter()
                .map(|command| show(&resolve(command, &HashMap::new())))
                .collect();
            format!(
                "connection {connection}: {}",
                lines.join("\n              ")
            )
        }
        other => format!("{other:?}"),
    }
}

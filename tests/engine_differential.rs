//! Random commands of every kind that the engine runs, to the engine (on keys in
//! memory) and to a real Redis 7: the replies must be the same bytes in RESP2
//! and RESP3, and so must the keys afterwards.
//!
//! `FRESHET_SEED` repeats a run; `FRESHET_DIFFERENTIAL_SECONDS` sets how long it
//! takes (default 5).

#[allow(
    dead_code,
    reason = "shared with the integration tests, which use all of it"
)]
mod support {
    pub mod client;
    pub mod port;
    pub mod process;
    pub mod redis;
}

#[path = "engine/collections.rs"]
mod collections;
#[path = "engine/stream.rs"]
mod memory_stream;
#[allow(
    dead_code,
    reason = "shared with the integration tests, which use all of it"
)]
mod patterns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use freshet::command::{Call, Class, TABLE, resolve};
use freshet::engine::{Content, Loaded, Need, Refusal, Workspace, execute, needs};
use freshet::model::{Db, Effect, Entry, Key, Protocol, Reply, Request, UnixMs, Value, Version};
use freshet::resp::encode;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::client::{Client, show};
use support::redis::Redis;

use patterns::commands::{self, Arguments, DATABASES_USED};
use patterns::{hyperloglog, open, rdb, stream};

/// How far the two clocks may be apart in what they say of a time to live.
const CLOCK_TOLERANCE_MS: i64 = 2_000;

/// How many calls are shown after a difference.
const HISTORY_LEN: usize = 30;

/// How often a unit is run, each time with more loaded.
const ROUNDS_MAX: usize = 20;

/// How many payloads of `DUMP` are kept.
const PAYLOADS_MAX: usize = 36;

/// After so many calls every command has come up.
const CALLS_FOR_ALL: usize = 8_000;

#[test]
fn engine_answers_as_redis() -> Result<()> {
    let seed = match std::env::var("FRESHET_SEED") {
        Ok(text) => text.parse().context("FRESHET_SEED is a number")?,
        Err(_) => rand::rng().random(),
    };
    let seconds = match std::env::var("FRESHET_DIFFERENTIAL_SECONDS") {
        Ok(text) => text
            .parse()
            .context("FRESHET_DIFFERENTIAL_SECONDS is a number")?,
        Err(_) => 5,
    };
    println!("FRESHET_SEED={seed}");
    let redis = Redis::start()?;
    let mut session = Session::new(&redis, seed)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if let Err(error) = session.unit() {
            for call in &session.history {
                println!("before: {call}");
            }
            return Err(error.context(format!("FRESHET_SEED={seed}")));
        }
    }
    println!(
        "{} calls, {} of them errors, {} units run again, {} for the whole of a key; {} names of commands",
        session.calls,
        session.errors,
        session.repeated,
        session.whole,
        session.names.len()
    );
    session.all_keys_are_equal()?;
    session.every_command_was_sent()
}

/// The same keys twice: in Redis, and in memory for the engine.
struct Session {
    random: StdRng,
    /// One connection for each database and protocol.
    connections: BTreeMap<(Db, bool), Client>,
    entries: BTreeMap<Key, Entry>,
    /// What `DUMP` replied so far, a few.
    payloads: Vec<Vec<u8>>,
    /// The last calls, newest first.
    history: VecDeque<String>,
    calls: usize,
    errors: usize,
    /// Units that had to be run again with more loaded.
    repeated: usize,
    /// Calls of which only that showed that they need the whole of a key.
    whole: usize,
    names: BTreeSet<&'static str>,
}

impl Session {
    fn new(redis: &Redis, seed: u64) -> Result<Self> {
        let mut connections = BTreeMap::new();
        // One database more, for what the cache would hold of streams.
        for index in 0..=DATABASES_USED {
            let db = Db::new(index).context("a database")?;
            for (is_resp3, version) in [(false, "2"), (true, "3")] {
                let mut client = redis.client()?;
                client.ok(&["HELLO", version])?;
                client.ok(&["SELECT", &index.to_string()])?;
                connections.insert((db, is_resp3), client);
            }
        }
        Ok(Self {
            random: StdRng::seed_from_u64(seed),
            connections,
            entries: BTreeMap::new(),
            payloads: rdb::OLD.iter().map(|payload| payload.to_vec()).collect(),
            history: VecDeque::new(),
            calls: 0,
            errors: 0,
            repeated: 0,
            whole: 0,
            names: BTreeSet::new(),
        })
    }

    /// One to four calls on one workspace, as in a MULTI block.
    fn unit(&mut self) -> Result<()> {
        let db = Db::new(self.random.random_range(0..DATABASES_USED)).context("a database")?;
        let mut unit = Vec::new();
        for _ in 0..self.random.random_range(1..=4) {
            unit.extend(commands::some(&mut self.random, now(), &self.payloads));
        }
        let calls: Vec<Result<Call, Reply>> = unit
            .iter()
            .map(|arguments| resolve(Request::from_args(arguments)))
            .collect();
        let mut workspace = self.workspace(db, &calls)?;
        for (arguments, call) in unit.iter().zip(calls) {
            self.history.truncate(HISTORY_LEN);
            self.history
                .push_front(format!("{db:?} {}", show(arguments)));
            self.call(db, arguments, call, &mut workspace)
                .with_context(|| format!("{db:?} {}", show(arguments)))?;
        }
        self.adopt(workspace.take_effects())
    }

    /// What the calls need, loaded. As in the commit lane, that is learnt by
    /// running them: once more with more loaded, if they turn out to need it.
    fn workspace(&mut self, db: Db, calls: &[Result<Call, Reply>]) -> Result<Workspace> {
        let mut needed: BTreeMap<Key, Need> = BTreeMap::new();
        for call in calls.iter().flatten() {
            for (key, need) in needs(call, db) {
                needed.entry(key).or_default().add(need);
            }
        }
        for _ in 0..ROUNDS_MAX {
            let mut workspace = self.load_all(&needed);
            let mut is_enough = true;
            for call in calls {
                let reply = Self::reply(call, db, &mut workspace)?;
                is_enough &= reply != Some(Refusal::NotLoaded.into());
            }
            if is_enough {
                return Ok(self.load_all(&needed));
            }
            self.repeated += 1;
            for (key, need) in workspace.take_wanted() {
                self.whole += usize::from(need.whole);
                needed.entry(key).or_default().add(need);
            }
        }
        anyhow::bail!("what is loaded is never enough")
    }

    fn load_all(&mut self, needed: &BTreeMap<Key, Need>) -> Workspace {
        let mut workspace = Workspace::default();
        for (key, need) in needed {
            self.load(&mut workspace, key.clone(), need);
        }
        workspace
    }

    /// What the engine replies; `None` if it is not the engine that does.
    fn reply(
        call: &Result<Call, Reply>,
        db: Db,
        workspace: &mut Workspace,
    ) -> Result<Option<Reply>> {
        let call = match call {
            Ok(call) => call,
            Err(reply) => return Ok(Some(reply.clone())),
        };
        if !matches!(
            call.command.class,
            Class::Read | Class::Expiry | Class::Write
        ) {
            return Ok(None);
        }
        let before = workspace.effects().clone();
        let reply = execute(call, db, workspace, now());
        if matches!(reply, Reply::Error(_)) {
            ensure!(*workspace.effects() == before, "an error left an effect");
        }
        Ok(Some(reply))
    }

    /// Loads what is needed and no more; of strings sometimes the value though
    /// only the header is.
    fn load(&mut self, workspace: &mut Workspace, key: Key, need: &Need) {
        let entry = self.entries.get(&key);
        let content = match entry.map(|entry| &entry.value) {
            None => Content::Absent,
            Some(Value::Collection(whole)) => {
                Content::Value(Value::Collection(Box::new(need.part_of(whole))))
            }
            Some(value) if !need.whole && self.random.random_bool(0.5) => {
                Content::Header(value.kind())
            }
            Some(value) => Content::Value(value.clone()),
        };
        let loaded = Loaded {
            version: Version(1),
            content,
            expires_at: entry.and_then(|entry| entry.expires_at),
        };
        workspace.load(key, loaded);
    }

    fn is_cut_sketch(&self, key: &Key, workspace: &Workspace) -> bool {
        let entry = match workspace.effect(key) {
            Some(Effect::Whole(entry)) => Some(entry),
            Some(Effect::Delete) => None,
            _ => self.entries.get(key),
        };
        matches!(entry.map(|entry| &entry.value), Some(Value::String(s)) if hyperloglog::is_cut(s))
    }

    fn call(
        &mut self,
        db: Db,
        arguments: &Arguments,
        call: Result<Call, Reply>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.calls += 1;
        if let Ok(call) = &call
            && open::is_open(call.command.name, arguments, self.client(db, false)?)?
        {
            return Ok(());
        }
        if let Ok(call) = &call
            && call.command.name.starts_with("PF")
            && call.keys(db).any(|key| self.is_cut_sketch(&key, workspace))
        {
            return Ok(());
        }
        let mut reply = Self::reply(&call, db, workspace)?;
        if reply == Some(Refusal::NotLoaded.into()) {
            // A choice by chance was another one before.
            for (key, need) in workspace.take_wanted() {
                self.load(workspace, key, &need);
            }
            reply = Self::reply(&call, db, workspace)?;
        }
        let Some(reply) = reply else {
            return Ok(());
        };
        if matches!(&reply, Reply::Error(text) if text.starts_with(b"ERR Freshet does not serve")) {
            return Ok(());
        }
        let mut name = "";
        if let Ok(call) = &call {
            name = call.command.name;
            self.names.insert(name);
        }
        self.errors += usize::from(matches!(reply, Reply::Error(_)));
        if let ("DUMP", Reply::Bulk(payload)) = (name, &reply) {
            self.keep_payload(payload);
            if !rdb::is_of_string(payload) {
                let theirs = rdb::dumped(arguments, self.client(db, false)?)?;
                self.keep_payload(&theirs);
                return Ok(());
            }
        }
        self.compare(db, name, arguments, &reply, workspace)
    }

    /// Keeps what was dumped, for later `RESTORE`s, behind the old ones.
    fn keep_payload(&mut self, payload: &[u8]) {
        self.payloads.truncate(PAYLOADS_MAX);
        self.payloads.insert(rdb::OLD.len(), payload.to_vec());
    }

    fn compare(
        &mut self,
        db: Db,
        name: &str,
        arguments: &Arguments,
        reply: &Reply,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let is_resp3 = self.random.random();
        let protocol = if is_resp3 {
            Protocol::Resp3
        } else {
            Protocol::Resp2
        };
        let mut ours = BytesMut::new();
        encode(reply, protocol, &mut ours);
        let reply = &support::client::decode(&ours)?;
        let client = self.client(db, is_resp3)?;
        if let Some(choice) = open::same_choice(name, arguments, reply) {
            let taken = client.integer(&choice)?;
            ensure!(
                taken as usize == choice.len() - 2,
                "{name} chose what is not there"
            );
            return Ok(());
        }
        if name.starts_with("SORT") {
            open::reset_errno(client)?;
        }
        let theirs = if open::BLOCKING.contains(&name) {
            open::without_waiting(client, arguments)?
        } else if hyperloglog::is_damaged(reply) {
            hyperloglog::sent_without_effect(name, arguments, client)?
        } else {
            let sent = stream::as_repeated(name, arguments, reply);
            client.send(&open::as_sent(name, &sent))?;
            client.read_with_bytes()?.1
        };
        if matches!(
            name,
            "TTL" | "PTTL" | "EXPIRETIME" | "PEXPIRETIME" | "OBJECT|IDLETIME"
        ) && times_are_close(name, &ours, &theirs)
        {
            return Ok(());
        }
        if open::equal_but_for_choice(name, &ours, &theirs)
            || open::equal_but_for_order(name, arguments, &ours, &theirs)
            || stream::equal_but_for_times(name, &ours, &theirs)
            || rdb::equal_but_for_history(name, &ours, &theirs)
            || is_yes_or_no(&ours)
                && is_yes_or_no(&theirs)
                && self.ends_are_too_close(db, name, arguments, workspace)?
        {
            return Ok(());
        }
        ensure!(
            ours == theirs,
            "engine: {}\nRedis:  {}",
            shortened(&ours),
            shortened(&theirs)
        );
        Ok(())
    }

    /// Whether this is an `EXPIRE` or `PEXPIRE` that compares with the end that the key has, and the two ends are
    /// so close that it depends on the clock which is the later one: ours was read some milliseconds before
    /// that of Redis, before each of the two calls. Then the key ends at nearly the same time in both afterwards.
    fn ends_are_too_close(
        &mut self,
        db: Db,
        name: &str,
        arguments: &Arguments,
        workspace: &mut Workspace,
    ) -> Result<bool> {
        let compares =
            |word: &Vec<u8>| word.eq_ignore_ascii_case(b"GT") || word.eq_ignore_ascii_case(b"LT");
        if !matches!(name, "EXPIRE" | "PEXPIRE") || !arguments.iter().any(compares) {
            return Ok(false);
        }
        let ask = [b"PEXPIRETIME".to_vec(), arguments[1].clone()];
        let call = resolve(Request::from_args(&ask));
        let Some(Reply::Integer(ours)) = Self::reply(&call, db, workspace)? else {
            return Ok(false);
        };
        let theirs = self.client(db, false)?.integer(&ask)?;
        Ok(ours > 0 && theirs > 0 && ours.abs_diff(theirs) < CLOCK_TOLERANCE_MS as u64)
    }

    fn client(&mut self, db: Db, is_resp3: bool) -> Result<&mut Client> {
        self.connections
            .get_mut(&(db, is_resp3))
            .context("a connection")
    }

    /// Applies a unit's effects, and checks each key against Redis. Takes over the
    /// exact ends that Redis gave keys by its own clock, so that later
    /// comparisons of times are exact.
    fn adopt(&mut self, effects: impl IntoIterator<Item = (Key, Effect)>) -> Result<()> {
        for (key, effect) in effects {
            let ours = match &effect {
                Effect::Whole(entry) | Effect::Delta(entry) => entry.expires_at,
                Effect::Expiry(end) => *end,
                Effect::Delete => None,
            };
            let client = self.client(key.db, false)?;
            let theirs = client.integer(&[&b"PEXPIRETIME"[..], &key.name])?;
            let end = match ours {
                Some(UnixMs(ours)) => {
                    ensure!(
                        ours.abs_diff(theirs) < CLOCK_TOLERANCE_MS as u64,
                        "{key:?} ends at {ours}, in Redis at {theirs}"
                    );
                    Some(UnixMs(theirs))
                }
                None => {
                    ensure!(theirs < 0, "{key:?} has no end, in Redis {theirs}");
                    None
                }
            };
            self.apply(key.clone(), &effect, end)?;
            self.same_as_redis(&key)?;
            self.same_in_cache(&key, &effect)?;
        }
        Ok(())
    }

    /// Fails unless Redis holds the same under `key`.
    fn same_as_redis(&mut self, key: &Key) -> Result<()> {
        let held = self.entries.get(key).map(|entry| entry.value.clone());
        let client = self.client(key.db, false)?;
        let theirs = match held {
            Some(Value::Collection(ours)) => {
                return collections::same_as_redis(key, &ours, client);
            }
            _ => client.ok(&[&b"GET"[..], &key.name])?,
        };
        let ours = match held {
            Some(Value::String(bytes)) => support::client::Value::Bulk(bytes.to_vec()),
            _ => support::client::Value::Null,
        };
        ensure!(
            theirs == ours,
            "{key:?} is {theirs:?} in Redis, here {ours:?}"
        );
        Ok(())
    }

    /// Does to the copy of a stream what the cache is told to do, and checks that
    /// it is the same stream then.
    fn same_in_cache(&mut self, key: &Key, effect: &Effect) -> Result<()> {
        let held = self.entries.get(key).map(|entry| entry.value.clone());
        let begin = if self.random.random_bool(0.2) {
            memory_stream::Copying::Afresh
        } else {
            memory_stream::Copying::Changes
        };
        let db = Db::new(DATABASES_USED).context("a database")?;
        let cache = self.client(db, false)?;
        memory_stream::same_in_cache(key, held.as_ref(), effect, begin, cache)
    }

    /// Does what the effect says to the keys in memory.
    fn apply(&mut self, key: Key, effect: &Effect, end: Option<UnixMs>) -> Result<()> {
        match effect {
            Effect::Whole(entry) => {
                let mut value = entry.value.clone();
                if let Value::Collection(collection) = &mut value {
                    collection.settle();
                }
                let expires_at = end;
                self.entries.insert(key, Entry { value, expires_at });
            }
            Effect::Delta(entry) => {
                let held = self.entries.get_mut(&key).context("a delta of no key")?;
                held.expires_at = end;
                let (Value::Collection(held), Value::Collection(delta)) =
                    (&mut held.value, &entry.value)
                else {
                    anyhow::bail!("a delta of a string");
                };
                held.follow(delta);
            }
            Effect::Delete => drop(self.entries.remove(&key)),
            Effect::Expiry(_) => {
                let entry = self.entries.get_mut(&key).context("an expiry of no key")?;
                entry.expires_at = end;
            }
        }
        Ok(())
    }

    /// A long enough run leaves no command of the engine out.
    fn every_command_was_sent(&self) -> Result<()> {
        let rows = TABLE
            .iter()
            .flat_map(|row| row.subcommands.iter().chain([row]));
        let missing: Vec<&str> = rows
            .filter(|row| matches!(row.class, Class::Read | Class::Expiry | Class::Write))
            .map(|row| row.name)
            .filter(|name| !self.names.contains(name))
            .collect();
        ensure!(
            missing.is_empty() || self.calls < CALLS_FOR_ALL,
            "never sent: {missing:?}"
        );
        Ok(())
    }

    fn all_keys_are_equal(&mut self) -> Result<()> {
        for index in 0..DATABASES_USED {
            let db = Db::new(index).context("a database")?;
            let ours = self.entries.keys().filter(|key| key.db == db).count();
            let theirs = self.client(db, false)?.integer(&["DBSIZE"])?;
            ensure!(
                ours as i64 == theirs,
                "{db:?}: {ours} keys, in Redis {theirs}"
            );
        }
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        for key in keys {
            self.same_as_redis(&key)?;
        }
        Ok(())
    }
}

/// The time by our clock; Redis runs on the same machine.
fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMs(since.map_or(0, |since| since.as_millis() as i64))
}

/// Whether both replies are times that differ only by the moment of asking.
fn times_are_close(name: &str, ours: &[u8], theirs: &[u8]) -> bool {
    let number = |bytes: &[u8]| -> Option<i64> {
        let text = std::str::from_utf8(bytes).ok()?;
        text.strip_prefix(':')?.trim_end().parse().ok()
    };
    let tolerance = match name {
        "PTTL" | "PEXPIRETIME" => CLOCK_TOLERANCE_MS,
        _ => CLOCK_TOLERANCE_MS / 1000,
    };
    match (number(ours), number(theirs)) {
        (Some(ours), Some(theirs)) if ours >= 0 && theirs >= 0 => {
            (ours - theirs).abs() <= tolerance
        }
        _ => false,
    }
}

fn is_yes_or_no(reply: &[u8]) -> bool {
    matches!(reply, b":0\r\n" | b":1\r\n")
}

fn shortened(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(2000)];
    format!("{} ({} bytes)", cut.escape_ascii(), bytes.len())
}

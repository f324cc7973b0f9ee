//! From a call to the function that runs it, and to what it must have loaded.

use std::sync::LazyLock;

use ahash::AHashMap;
use bytes::Bytes;

use super::workspace::Live;
use super::{
    Need, Needs, Refusal, Scan, Workspace, bitfield, bits, expiry, geo, hash, hyperloglog,
    keyspace, lcs, list, rdb, set, sets, sort, stream, string, zset,
};
use crate::command::{Call, Class, args};
use crate::model::{Collection, Db, Key, Kind, Reply, UnixMs, Value};

/// How one command of a data type is run.
pub(super) struct Family {
    name: &'static str,
    needs: fn(&Call, Db) -> Needs,
    run: fn(&mut Run<'_>) -> Result<Reply, Refusal>,
}

impl Family {
    /// The command `name`: what it needs, and what it does.
    pub const fn new(
        name: &'static str,
        needs: fn(&Call, Db) -> Needs,
        run: fn(&mut Run<'_>) -> Result<Reply, Refusal>,
    ) -> Self {
        Self { name, needs, run }
    }
}

/// The commands of the data types beside strings, by name.
static FAMILIES: LazyLock<AHashMap<&str, &Family>> = LazyLock::new(|| {
    let all = [
        geo::COMMANDS,
        hash::COMMANDS,
        hyperloglog::COMMANDS,
        list::COMMANDS,
        sets::COMMANDS,
        sets::ALGEBRA,
        sort::COMMANDS,
        zset::COMMANDS,
    ];
    let rows = all.iter().chain(stream::COMMANDS).copied().flatten();
    rows.map(|family| (family.name, family)).collect()
});

/// What `call` must have loaded into the workspace; nothing for a blind write
/// (a plain `SET`), whose outcome does not depend on what was there.
///
/// A key may appear twice (`LCS k k`). Calls of other classes than `Read`,
/// `Expiry` and `Write` need nothing.
pub fn needs(call: &Call, db: Db) -> Needs {
    let every = |need: Need| call.keys(db).map(|key| (key, need.clone())).collect();
    match call.command.name {
        "SET" => match set::need(&call.request) {
            Some(need) => every(need),
            None => Needs::new(),
        },
        "MSET" | "SETEX" | "PSETEX" => Needs::new(),
        "SETNX" | "MSETNX" | "EXISTS" | "TOUCH" | "TYPE" | "DEL" | "UNLINK" | "PERSIST"
        | "RESTORE" | "OBJECT|REFCOUNT" | "OBJECT|IDLETIME" | "OBJECT|FREQ" | "EXPIRE"
        | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" | "FRESHET|EXPIRED" => every(Need::header()),
        "COPY" | "MOVE" | "RENAME" | "RENAMENX" => keyspace::needs(call, db),
        "BITOP" => every(Need::value()),
        name => match (call.command.class, FAMILIES.get(name)) {
            (_, Some(family)) => (family.needs)(call, db),
            (Class::Expiry, None) => every(Need::header()),
            (Class::Read | Class::Write, None) => every(Need::value()),
            (
                Class::Local
                | Class::Keyspace
                | Class::Flush
                | Class::Script
                | Class::Transaction
                | Class::Unserved,
                None,
            ) => Needs::new(),
        },
    }
}

/// Whether only the store can answer `call`, a read: it reads keys that it does not name, which the
/// cache may have or not; or it goes on with a scan that the store began.
pub fn is_for_the_store(call: &Call) -> bool {
    sort::reads_other_keys(call) || Scan::of(call).is_some_and(|scan| scan.is_of_the_store())
}

/// Runs `call` in `db` at `now` on what `workspace` holds, and leaves its
/// effects there. An error reply leaves the workspace as it was, and so does a
/// call that changes nothing.
pub fn execute(call: &Call, db: Db, workspace: &mut Workspace, now: UnixMs) -> Reply {
    let wanted_before = workspace.wanted_count();
    let mut run = Run {
        call,
        db,
        workspace,
        now,
    };
    run.dispatch().unwrap_or_else(|refusal| {
        if refusal == Refusal::NotLoaded {
            run.workspace.note_short();
            if run.workspace.wanted_count() == wanted_before {
                let wanted = match run.workspace.is_scripted() {
                    // What a script calls was not known before: this was not loaded yet.
                    true => needs(call, db),
                    false => call.keys(db).map(|key| (key, Need::value())).collect(),
                };
                run.workspace.want(wanted);
            }
        }
        refusal.into()
    })
}

/// One call in the course of being run.
///
/// Every command first computes all it will do, and changes the workspace only
/// when nothing can fail any more.
pub(super) struct Run<'a> {
    /// The call.
    pub call: &'a Call,
    /// The database it runs in.
    pub db: Db,
    /// What it runs on.
    pub workspace: &'a mut Workspace,
    /// The time by the store's clock.
    pub now: UnixMs,
}

impl Run<'_> {
    /// The most frequent commands stand first: the names are compared in order.
    fn dispatch(&mut self) -> Result<Reply, Refusal> {
        match self.call.command.name {
            "SET" => set::set(self),
            "GET" => string::get(self),
            "INCR" => string::incr(self),
            "DEL" | "UNLINK" => keyspace::del(self),
            "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => expiry::expire(self),
            "MSET" => string::mset(self),
            "MGET" => string::mget(self),
            "SETNX" => set::setnx(self),
            "SETEX" | "PSETEX" => set::setex(self),
            "GETEX" => set::getex(self),
            "GETDEL" => string::getdel(self),
            "GETSET" => string::getset(self),
            "MSETNX" => string::msetnx(self),
            "APPEND" => string::append(self),
            "STRLEN" => string::strlen(self),
            "SETRANGE" => string::setrange(self),
            "GETRANGE" | "SUBSTR" => string::getrange(self),
            "DECR" => string::decr(self),
            "INCRBY" => string::incrby(self),
            "DECRBY" => string::decrby(self),
            "INCRBYFLOAT" => string::incrbyfloat(self),
            "LCS" => lcs::lcs(self),
            "SETBIT" => bits::setbit(self),
            "GETBIT" => bits::getbit(self),
            "BITCOUNT" => bits::bitcount(self),
            "BITPOS" => bits::bitpos(self),
            "BITOP" => bits::bitop(self),
            "BITFIELD" | "BITFIELD_RO" => bitfield::bitfield(self),
            "TTL" | "PTTL" | "EXPIRETIME" | "PEXPIRETIME" => expiry::ttl(self),
            "PERSIST" => expiry::persist(self),
            "EXISTS" | "TOUCH" => keyspace::exists(self),
            "TYPE" => keyspace::type_of(self),
            "RENAME" | "RENAMENX" => keyspace::rename(self),
            "COPY" => keyspace::copy(self),
            "MOVE" => keyspace::move_to(self),
            "OBJECT|ENCODING" => keyspace::object_encoding(self),
            "OBJECT|REFCOUNT" => keyspace::object_refcount(self),
            "OBJECT|IDLETIME" => keyspace::object_idletime(self),
            "OBJECT|FREQ" => keyspace::object_freq(self),
            "MEMORY|USAGE" => keyspace::memory_usage(self),
            "DUMP" => rdb::dump(self),
            "RESTORE" => rdb::restore(self),
            "FRESHET|EXPIRED" => Ok(expiry::expired(self)),
            name => match FAMILIES.get(name) {
                Some(family) => (family.run)(self),
                None => Err(Refusal::Other(
                    "ERR Freshet internal error: a command that runs elsewhere reached the engine; nothing was changed",
                )),
            },
        }
    }

    /// The number of arguments, the command's name included.
    pub fn len(&self) -> usize {
        self.call.request.len()
    }

    /// Argument `index`; the arity says that it is there.
    pub fn arg(&self, index: usize) -> &[u8] {
        self.call.request.arg(index)
    }

    /// Argument `index` as a string to be kept.
    pub fn arg_bytes(&self, index: usize) -> Bytes {
        self.call.request.arg_bytes(index)
    }

    /// Argument `index` as an integer.
    pub fn integer(&self, index: usize) -> Result<i64, Refusal> {
        args::integer(self.arg(index)).ok_or(Refusal::NotInteger)
    }

    /// Whether argument `index` is the option `word`.
    pub fn is(&self, index: usize, word: &str) -> bool {
        args::is_word(self.arg(index), word)
    }

    /// The key that argument `index` names in the call's database.
    pub fn key(&self, index: usize) -> Key {
        Key {
            db: self.db,
            name: self.arg_bytes(index),
        }
    }

    /// `key` as this call sees it.
    pub fn live(&self, key: &Key) -> Result<Option<Live<'_>>, Refusal> {
        self.workspace.live(key, self.now)
    }

    /// Refuses the call, which is run again with `need` of argument `index`'s key loaded too.
    pub fn want(&mut self, index: usize, need: Need) -> Refusal {
        let key = self.key(index);
        self.workspace.want(Needs::from_iter([(key, need)]));
        Refusal::NotLoaded
    }

    /// The string that `key` holds, if it is there.
    pub fn string(&self, key: &Key) -> Result<Option<Bytes>, Refusal> {
        match self.live(key)? {
            Some(live) => Ok(Some(live.string()?.clone())),
            None => Ok(None),
        }
    }

    /// The string that `key` holds and its expiry, if it is there.
    pub fn string_and_expiry(&self, key: &Key) -> Result<Option<(Bytes, Option<UnixMs>)>, Refusal> {
        match self.live(key)? {
            Some(live) => Ok(Some((live.string()?.clone(), live.expires_at))),
            None => Ok(None),
        }
    }

    /// The collection of type `kind` that `key` holds, if it is there.
    pub fn collection(&self, key: &Key, kind: Kind) -> Result<Option<&Collection>, Refusal> {
        match self.live(key)? {
            Some(live) => live.collection(kind).map(Some),
            None => Ok(None),
        }
    }

    /// How many elements the collection of type `kind` at `key` has; 0 if it is not there.
    pub fn length(&self, key: &Key, kind: Kind) -> Result<u64, Refusal> {
        Ok(self.collection(key, kind)?.map_or(0, Collection::len))
    }

    /// Changes the collection at the key that argument `index` names; see [`Workspace::edit`].
    pub fn edit<T>(
        &mut self,
        index: usize,
        kind: Kind,
        change: impl FnOnce(&mut Collection) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let key = self.key(index);
        self.workspace.edit(&key, kind, self.now, change)
    }

    /// `key` now holds this string until `expires_at`.
    pub fn put(&mut self, key: Key, value: impl Into<Bytes>, expires_at: Option<UnixMs>) {
        let value = Value::String(value.into());
        self.workspace.put(key, value, expires_at, self.now);
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! A session on keys in memory, for the tests of the families.

    use super::*;
    use crate::command::resolve;
    use crate::engine::{Content, Loaded};
    use crate::model::{Effect, Entry, Request, Version};
    use std::collections::BTreeMap;

    /// Runs each call of a new session and compares its reply.
    pub fn check(lines: &[(&str, &str)]) {
        let mut session = Session::default();
        for (line, reply) in lines {
            assert_eq!(session.text(line), *reply, "{line}");
        }
    }

    /// What the keys hold, and the time.
    #[derive(Default)]
    pub struct Session {
        pub entries: BTreeMap<Key, Entry>,
        pub now: UnixMs,
        /// The effects of the last call.
        pub effects: BTreeMap<Key, Effect>,
    }

    impl Session {
        pub fn run<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
            let call = match resolve(Request::from_args(args)) {
                Ok(call) => call,
                Err(reply) => return reply,
            };
            let db = Db::default();
            let mut needed = needs(&call, db);
            let (reply, mut workspace) = loop {
                let mut workspace = self.loaded(&needed);
                let reply = execute(&call, db, &mut workspace, self.now);
                let wanted = workspace.take_wanted();
                if wanted.is_empty() {
                    break (reply, workspace);
                }
                needed.extend(wanted);
                assert!(needed.len() < 100, "{call:?} is never satisfied");
            };
            self.effects = workspace.take_effects().into_iter().collect();
            if matches!(reply, Reply::Error(_)) {
                assert!(self.effects.is_empty(), "an error left {:?}", self.effects);
            }
            for (key, effect) in &self.effects {
                match effect {
                    Effect::Whole(entry) => {
                        let mut entry = entry.clone();
                        if let Value::Collection(collection) = &mut entry.value {
                            collection.settle();
                        }
                        self.entries.insert(key.clone(), entry);
                    }
                    Effect::Delta(entry) => {
                        let held = self.entries.get_mut(key).unwrap();
                        held.expires_at = entry.expires_at;
                        let (Value::Collection(held), Value::Collection(delta)) =
                            (&mut held.value, &entry.value)
                        else {
                            panic!("a delta of no collection");
                        };
                        held.follow(delta);
                    }
                    Effect::Delete => drop(self.entries.remove(key)),
                    Effect::Expiry(end) => {
                        self.entries.get_mut(key).unwrap().expires_at = *end;
                    }
                }
            }
            reply
        }

        /// What is needed, as a store would load it.
        fn loaded(&self, needed: &Needs) -> Workspace {
            let mut added: BTreeMap<&Key, Need> = BTreeMap::new();
            for (key, need) in needed {
                added.entry(key).or_default().add(need.clone());
            }
            let mut workspace = Workspace::default();
            for (key, need) in added {
                let entry = self.entries.get(key);
                let content = match entry.map(|entry| &entry.value) {
                    None => Content::Absent,
                    Some(Value::Collection(whole)) => {
                        Content::Value(Value::Collection(Box::new(need.part_of(whole))))
                    }
                    Some(value) if !need.whole => Content::Header(value.kind()),
                    Some(value) => Content::Value(value.clone()),
                };
                let loaded = Loaded {
                    version: Version(1),
                    content,
                    expires_at: entry.and_then(|e| e.expires_at),
                };
                workspace.load(key.clone(), loaded);
            }
            workspace
        }

        /// Runs a command given as words, and shows the reply as text.
        pub fn text(&mut self, line: &str) -> String {
            let args: Vec<&str> = line.split_whitespace().collect();
            show(&self.run(&args))
        }
    }

    pub fn show(reply: &Reply) -> String {
        match reply {
            Reply::Simple(text) => (*text).to_owned(),
            Reply::Error(text) => format!("-{}", String::from_utf8_lossy(text)),
            Reply::Integer(n) => format!(":{n}"),
            Reply::Bulk(bytes) => format!("\"{}\"", bytes.escape_ascii()),
            Reply::Null => "nil".to_owned(),
            Reply::Array(items) => {
                let items: Vec<String> = items.iter().map(show).collect();
                format!("[{}]", items.join(" "))
            }
            Reply::Map(pairs) | Reply::MapOfPairs(pairs) => {
                let pairs: Vec<String> = pairs
                    .iter()
                    .map(|(k, v)| format!("{}={}", show(k), show(v)))
                    .collect();
                format!("{{{}}}", pairs.join(" "))
            }
            other => format!("{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::TABLE;
    use crate::model::Request;

    #[test]
    fn every_served_key_command_is_run_by_the_engine() {
        let rows = TABLE.iter().flat_map(|c| c.subcommands.iter().chain([c]));
        for command in rows {
            if !matches!(command.class, Class::Read | Class::Expiry | Class::Write) {
                continue;
            }
            // Enough arguments for any of them to find its place.
            let count = usize::from(command.arity.unsigned_abs()).max(4);
            let call = Call::new(command, Request::from_args(&vec!["1"; count]));
            let reply = execute(&call, Db::default(), &mut Workspace::default(), UnixMs(1));
            if let Reply::Error(text) = &reply {
                assert!(!text.windows(9).any(|w| w == b"elsewhere"), "{command:?}");
            }
        }
    }
}

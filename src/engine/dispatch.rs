//! From a call to the function that runs it, and to what it must have loaded.

use bytes::Bytes;
use smallvec::SmallVec;

use super::workspace::Live;
use super::{Refusal, Workspace, bitfield, bits, expiry, keyspace, lcs, rdb, set, string};
use crate::command::{Call, Class, args};
use crate::model::{Db, Key, Reply, UnixMs, Value};

/// What a call must know of a key before it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Whether it is there, its type, version and expiry.
    Header,
    /// All that, and its value.
    Value,
}

/// What `call` must have loaded into the workspace; nothing for a blind write
/// (a plain `SET`), whose outcome does not depend on what was there.
///
/// A key may appear twice (`LCS k k`). Calls of other classes than `Read`,
/// `Expiry` and `Write` need nothing.
pub fn needs(call: &Call, db: Db) -> SmallVec<[(Key, Need); 2]> {
    let every = |need| call.keys(db).map(|key| (key, need)).collect();
    match call.command.name {
        "SET" => match set::need(&call.request) {
            Some(need) => every(need),
            None => SmallVec::new(),
        },
        "MSET" | "SETEX" | "PSETEX" => SmallVec::new(),
        "SETNX" | "MSETNX" | "EXISTS" | "TOUCH" | "TYPE" | "DEL" | "UNLINK" | "PERSIST"
        | "RESTORE" | "OBJECT|REFCOUNT" | "OBJECT|IDLETIME" | "OBJECT|FREQ" | "EXPIRE"
        | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => every(Need::Header),
        "COPY" | "MOVE" | "RENAME" | "RENAMENX" => keyspace::needs(call, db),
        "BITOP" => every(Need::Value),
        _ => match call.command.class {
            Class::Expiry => every(Need::Header),
            Class::Read | Class::Write => every(Need::Value),
            Class::Local | Class::Keyspace | Class::Flush | Class::Unserved => SmallVec::new(),
        },
    }
}

/// Runs `call` in `db` at `now` on what `workspace` holds, and leaves its
/// effects there. An error reply leaves the workspace as it was, and so does a
/// call that changes nothing.
pub fn execute(call: &Call, db: Db, workspace: &mut Workspace, now: UnixMs) -> Reply {
    let mut run = Run {
        call,
        db,
        workspace,
        now,
    };
    run.dispatch().unwrap_or_else(Reply::from)
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
            _ => Err(Refusal::Other(
                "ERR Freshet internal error: a command that runs elsewhere reached the engine; nothing was changed",
            )),
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
            let mut workspace = Workspace::default();
            for (key, need) in needs(&call, db) {
                let entry = self.entries.get(&key);
                let content = match entry {
                    None => Content::Absent,
                    Some(entry) if need == Need::Header => Content::Header(entry.value.kind()),
                    Some(entry) => Content::Value(entry.value.clone()),
                };
                let loaded = Loaded {
                    version: Version(1),
                    content,
                    expires_at: entry.and_then(|e| e.expires_at),
                };
                workspace.load(key, loaded);
            }
            let reply = execute(&call, db, &mut workspace, self.now);
            self.effects = workspace.take_effects().into_iter().collect();
            if matches!(reply, Reply::Error(_)) {
                assert!(self.effects.is_empty(), "an error left {:?}", self.effects);
            }
            for (key, effect) in &self.effects {
                match effect {
                    Effect::Whole(entry) => drop(self.entries.insert(key.clone(), entry.clone())),
                    Effect::Delete => drop(self.entries.remove(key)),
                    Effect::Expiry(end) => {
                        self.entries.get_mut(key).unwrap().expires_at = *end;
                    }
                }
            }
            reply
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
            Reply::Map(pairs) => {
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
            let call = Call {
                command,
                request: Request::from_args(&vec!["1"; count]),
            };
            let reply = execute(&call, Db::default(), &mut Workspace::default(), UnixMs(1));
            if let Reply::Error(text) = &reply {
                assert!(!text.windows(9).any(|w| w == b"elsewhere"), "{command:?}");
            }
        }
    }
}

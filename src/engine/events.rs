//! What a call told about keys, in the words of Redis's notifications.
//!
//! Pure: a call, and which of its keys it changed how, in; events out.

mod misses;

use super::{Workspace, dispatch};
use crate::command::{Call, args};
use crate::model::{Db, Event, EventClasses, Key, Reply, UnixMs, Value};

const GENERIC: EventClasses = EventClasses::GENERIC;
const STRING: EventClasses = EventClasses::STRING;
const LIST: EventClasses = EventClasses::LIST;
const SET: EventClasses = EventClasses::SET;
const HASH: EventClasses = EventClasses::HASH;
const ZSET: EventClasses = EventClasses::SORTED_SET;
const STREAM: EventClasses = EventClasses::STREAM;

/// What a command's change of its key is called. If nothing is left of the
/// key, `del` follows.
#[rustfmt::skip]
const CHANGES: &[(&[&str], EventClasses, &str)] = &[
    (&["SET", "SETEX", "PSETEX", "SETNX", "MSET", "MSETNX", "GETSET"], STRING, "set"),
    (&["APPEND"], STRING, "append"),
    (&["SETRANGE"], STRING, "setrange"),
    (&["INCR", "DECR", "INCRBY", "DECRBY"], STRING, "incrby"),
    (&["INCRBYFLOAT"], STRING, "incrbyfloat"),
    (&["SETBIT", "BITFIELD"], STRING, "setbit"),
    (&["PFADD", "PFMERGE"], STRING, "pfadd"),
    (&["HSET", "HMSET", "HSETNX"], HASH, "hset"),
    (&["HINCRBY"], HASH, "hincrby"),
    (&["HINCRBYFLOAT"], HASH, "hincrbyfloat"),
    (&["HDEL"], HASH, "hdel"),
    (&["LPUSH", "LPUSHX"], LIST, "lpush"),
    (&["RPUSH", "RPUSHX"], LIST, "rpush"),
    (&["LINSERT"], LIST, "linsert"),
    (&["LSET"], LIST, "lset"),
    (&["LREM"], LIST, "lrem"),
    (&["LTRIM"], LIST, "ltrim"),
    (&["LPOP", "BLPOP"], LIST, "lpop"),
    (&["RPOP", "BRPOP"], LIST, "rpop"),
    (&["SADD"], SET, "sadd"),
    (&["SREM"], SET, "srem"),
    (&["SPOP"], SET, "spop"),
    (&["ZADD", "GEOADD"], ZSET, "zadd"),
    (&["ZINCRBY"], ZSET, "zincr"),
    (&["ZREM"], ZSET, "zrem"),
    (&["ZPOPMIN", "BZPOPMIN"], ZSET, "zpopmin"),
    (&["ZPOPMAX", "BZPOPMAX"], ZSET, "zpopmax"),
    (&["ZREMRANGEBYRANK"], ZSET, "zremrangebyrank"),
    (&["ZREMRANGEBYSCORE"], ZSET, "zremrangebyscore"),
    (&["ZREMRANGEBYLEX"], ZSET, "zremrangebylex"),
    (&["XADD"], STREAM, "xadd"),
    (&["XDEL"], STREAM, "xdel"),
    (&["XTRIM"], STREAM, "xtrim"),
    (&["XSETID"], STREAM, "xsetid"),
    (&["XGROUP|CREATE"], STREAM, "xgroup-create"),
    (&["XGROUP|SETID"], STREAM, "xgroup-setid"),
    (&["XGROUP|DESTROY"], STREAM, "xgroup-destroy"),
    (&["XGROUP|CREATECONSUMER"], STREAM, "xgroup-createconsumer"),
    (&["XGROUP|DELCONSUMER"], STREAM, "xgroup-delconsumer"),
];

/// What storing a result in a key is called; an empty result is `del` only.
#[rustfmt::skip]
const STORES: &[(&[&str], EventClasses, &str)] = &[
    (&["BITOP"], STRING, "set"),
    (&["SORT"], LIST, "sortstore"),
    (&["SINTERSTORE"], SET, "sinterstore"),
    (&["SUNIONSTORE"], SET, "sunionstore"),
    (&["SDIFFSTORE"], SET, "sdiffstore"),
    (&["ZINTERSTORE"], ZSET, "zinterstore"),
    (&["ZUNIONSTORE"], ZSET, "zunionstore"),
    (&["ZDIFFSTORE"], ZSET, "zdiffstore"),
    (&["ZRANGESTORE"], ZSET, "zrangestore"),
    (&["GEOSEARCHSTORE"], ZSET, "geosearchstore"),
    (&["GEORADIUS", "GEORADIUSBYMEMBER"], ZSET, "georadiusstore"),
    (&["RESTORE"], GENERIC, "restore"),
    (&["COPY"], GENERIC, "copy_to"),
    (&["PERSIST"], GENERIC, "persist"),
    (&["EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"], GENERIC, "expire"),
    (&["DEL", "UNLINK", "GETDEL"], GENERIC, "del"),
];

fn find(
    table: &'static [(&[&str], EventClasses, &'static str)],
    command: &str,
) -> Option<(EventClasses, &'static str)> {
    let row = table.iter().find(|(names, ..)| names.contains(&command));
    row.map(|(_, class, event)| (*class, *event))
}

/// A key as it is seen at some moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nobody looked: the call does not depend on it.
    Unknown,
    Absent,
    /// With so many elements.
    There(u64),
}

fn see(workspace: &Workspace, key: &Key, now: UnixMs) -> Seen {
    match workspace.live(key, now) {
        Err(_) => Seen::Unknown,
        Ok(None) => Seen::Absent,
        Ok(Some(live)) => Seen::There(match live.value {
            Some(Value::Collection(collection)) => collection.len(),
            _ => 0,
        }),
    }
}

/// Runs `call` like [`super::execute`], and appends to `events` what it told.
pub fn execute_telling(
    call: &Call,
    db: Db,
    workspace: &mut Workspace,
    now: UnixMs,
    events: &mut Vec<Event>,
) -> Reply {
    let mut before: Vec<(Key, Seen)> = Vec::new();
    let named = call.keys(db);
    for key in named.chain(dispatch::needs(call, db).into_iter().map(|(key, _)| key)) {
        if !before.iter().any(|(known, _)| *known == key) {
            // As in Redis: who touches a key whose end has passed finds it deleted.
            if workspace.end_if_passed(&key) {
                events.push(Event {
                    class: EventClasses::EXPIRED,
                    name: "expired",
                    key: key.clone(),
                });
            }
            let seen = see(workspace, &key, now);
            before.push((key, seen));
        }
    }
    workspace.begin_noting();
    let reply = dispatch::execute(call, db, workspace, now);
    let mut telling = Telling {
        call,
        before,
        changed: workspace.end_noting(),
        workspace,
        now,
        events,
    };
    if misses::has_looked(&reply) {
        telling.tell_misses(db);
    }
    if !matches!(reply, Reply::Error(_)) {
        telling.tell();
    }
    reply
}

struct Telling<'a> {
    call: &'a Call,
    before: Vec<(Key, Seen)>,
    /// Keys that the call changed, in the order in which it did.
    changed: Vec<Key>,
    workspace: &'a Workspace,
    now: UnixMs,
    events: &'a mut Vec<Event>,
}

impl Telling<'_> {
    fn tell_misses(&mut self, db: Db) {
        let mut missing = misses::looked_for(self.call, db);
        missing.retain(|key| self.seen_before(key) == Seen::Absent);
        if self.call.command.name == "XREADGROUP" {
            missing.truncate(1);
        }
        for key in missing {
            self.push(EventClasses::MISS, "keymiss", key);
        }
    }

    fn tell(&mut self) {
        let command = self.call.command.name;
        match command {
            "RENAME" | "RENAMENX" => self.tell_move("rename_from", "rename_to"),
            "MOVE" => self.tell_move("move_from", "move_to"),
            "SMOVE" => self.tell_smove(),
            "LMOVE" | "BLMOVE" | "RPOPLPUSH" | "BRPOPLPUSH" => self.tell_lmove(),
            "GETEX" => self.tell_getex(),
            "LTRIM" if self.changed.is_empty() => self.tell_idle_ltrim(),
            _ => {
                for key in std::mem::take(&mut self.changed) {
                    self.tell_change(key);
                }
            }
        }
    }

    fn tell_change(&mut self, key: Key) {
        let command = self.call.command.name;
        self.tell_new(&key);
        let is_gone = self.is_gone(&key);
        if let Some((class, event)) = find(STORES, command) {
            let (class, event) = if is_gone {
                (GENERIC, "del")
            } else {
                (class, event)
            };
            return self.push(class, event, key);
        }
        if let Some(event) = popped(self.call) {
            let class = if event.starts_with('z') { ZSET } else { LIST };
            self.push(class, event, key.clone());
        } else if command == "ZADD" && self.has_option(2, "INCR") {
            self.push(ZSET, "zincr", key.clone());
        } else if let Some((class, event)) = find(CHANGES, command) {
            self.push(class, event, key.clone());
        }
        if self.sets_expiry() {
            self.push(GENERIC, "expire", key);
        } else if command == "XADD" {
            self.tell_trim(key);
        } else if is_gone {
            self.push(GENERIC, "del", key);
        }
    }

    /// A key that was not there has been made; or one was made anew, which
    /// Redis does by deleting the old.
    fn tell_new(&mut self, key: &Key) {
        let anew = ["RENAME", "RENAMENX", "COPY", "RESTORE"].contains(&self.call.command.name);
        let was_absent = self.seen_before(key) == Seen::Absent;
        if (was_absent || anew) && !self.is_gone(key) {
            self.push(EventClasses::NEW, "new", key.clone());
        }
    }

    fn tell_move(&mut self, from: &'static str, to: &'static str) {
        let changed = std::mem::take(&mut self.changed);
        let (gone, made): (Vec<Key>, Vec<Key>) =
            changed.into_iter().partition(|key| self.is_gone(key));
        for key in &made {
            self.tell_new(key);
        }
        for key in gone {
            self.push(GENERIC, from, key);
        }
        for key in made {
            self.push(GENERIC, to, key);
        }
    }

    fn tell_smove(&mut self) {
        let mut keys = self.call_keys();
        let (Some(from), Some(to)) = (keys.next(), keys.next()) else {
            return;
        };
        if self.changed.contains(&from) {
            self.push(SET, "srem", from.clone());
            if self.is_gone(&from) {
                self.push(GENERIC, "del", from);
            }
        }
        if self.changed.contains(&to) {
            self.tell_new(&to);
            self.push(SET, "sadd", to);
        }
    }

    fn tell_lmove(&mut self) {
        let mut keys = self.call_keys();
        let (Some(from), Some(to)) = (keys.next(), keys.next()) else {
            return;
        };
        if !self.changed.contains(&from) {
            return;
        }
        let request = &self.call.request;
        let is_left = |index: usize| match self.call.command.name {
            "LMOVE" | "BLMOVE" => args::is_word(request.arg(index), "LEFT"),
            // RPOPLPUSH says it in its name.
            _ => index == 4,
        };
        let pop = if is_left(3) { "lpop" } else { "rpop" };
        let push = if is_left(4) { "lpush" } else { "rpush" };
        self.tell_new(&to);
        self.push(LIST, push, to);
        self.push(LIST, pop, from.clone());
        if self.is_gone(&from) {
            self.push(GENERIC, "del", from);
        }
    }

    fn tell_getex(&mut self) {
        for key in std::mem::take(&mut self.changed) {
            let event = if self.is_gone(&key) {
                "del"
            } else if self.has_option(2, "PERSIST") {
                "persist"
            } else {
                "expire"
            };
            self.push(GENERIC, event, key);
        }
    }

    /// Redis tells of a trim also where nothing was cut off.
    fn tell_idle_ltrim(&mut self) {
        let key = self.call_keys().next();
        if let Some(key) = key
            && matches!(self.seen_before(&key), Seen::There(_))
        {
            self.push(LIST, "ltrim", key);
        }
    }

    /// An entry came and others went.
    fn tell_trim(&mut self, key: Key) {
        let before = match self.seen_before(&key) {
            Seen::There(length) => length,
            Seen::Absent | Seen::Unknown => 0,
        };
        if matches!(see(self.workspace, &key, self.now), Seen::There(now) if now <= before) {
            self.push(STREAM, "xtrim", key);
        }
    }

    fn call_keys(&self) -> impl Iterator<Item = Key> + use<> {
        let db = self
            .before
            .first()
            .map_or_else(Db::default, |(key, _)| key.db);
        let keys: Vec<Key> = self.call.keys(db).collect();
        keys.into_iter()
    }

    fn seen_before(&self, key: &Key) -> Seen {
        let known = self.before.iter().find(|(known, _)| known == key);
        known.map_or(Seen::Unknown, |(_, seen)| *seen)
    }

    fn is_gone(&self, key: &Key) -> bool {
        see(self.workspace, key, self.now) == Seen::Absent
    }

    fn has_option(&self, from: usize, word: &str) -> bool {
        let mut options = self.call.request.args().skip(from);
        options.any(|option| args::is_word(option, word))
    }

    fn sets_expiry(&self) -> bool {
        match self.call.command.name {
            "SETEX" | "PSETEX" => true,
            "SET" => ["EX", "PX", "EXAT", "PXAT"]
                .iter()
                .any(|word| self.has_option(3, word)),
            _ => false,
        }
    }

    fn push(&mut self, class: EventClasses, name: &'static str, key: Key) {
        self.events.push(Event { class, name, key });
    }
}

/// What `LMPOP`, `ZMPOP` and their blocking forms did to the key that they chose.
fn popped(call: &Call) -> Option<&'static str> {
    let at = match call.command.name {
        "LMPOP" | "ZMPOP" => 1,
        "BLMPOP" | "BZMPOP" => 2,
        _ => return None,
    };
    let count = args::integer(call.request.arg(at))?;
    let side = call
        .request
        .args()
        .nth(at + 1 + usize::try_from(count).ok()?)?;
    ["LEFT", "RIGHT", "MIN", "MAX"]
        .iter()
        .zip(["lpop", "rpop", "zpopmin", "zpopmax"])
        .find(|(word, _)| args::is_word(side, word))
        .map(|(_, event)| event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::resolve;
    use crate::engine::{Content, Loaded};
    use crate::model::{Kind, Request, Version};

    /// Runs a command given as words on keys of which only these are there.
    fn told(line: &str, there: &[(&str, Value)]) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let call = resolve(Request::from_args(&words)).unwrap();
        let mut workspace = Workspace::default();
        for (key, _) in dispatch::needs(&call, Db::default()) {
            let found = there.iter().find(|(name, _)| name.as_bytes() == key.name);
            let content = match found {
                Some((_, value)) if key.db == Db::default() => Content::Value(value.clone()),
                _ => Content::Absent,
            };
            let loaded = Loaded {
                version: Version(1),
                content,
                expires_at: None,
            };
            workspace.load(key, loaded);
        }
        let mut events = Vec::new();
        execute_telling(
            &call,
            Db::default(),
            &mut workspace,
            UnixMs(1000),
            &mut events,
        );
        events
            .iter()
            .map(|event| {
                let db = event.key.db.index();
                let key = event.key.name.escape_ascii();
                format!("{}:{db}:{key}", event.name)
            })
            .collect()
    }

    fn string(text: &'static str) -> Value {
        Value::String(text.into())
    }

    #[test]
    fn strings_and_keys() {
        let a = [("a", string("1"))];
        for (line, events) in [
            ("SET a 1", &["set:0:a"][..]),
            ("SET a 1 EX 10", &["set:0:a", "expire:0:a"]),
            ("SETEX a 10 x", &["set:0:a", "expire:0:a"]),
            ("SET a x NX", &[]),
            ("SET b x NX", &["new:0:b", "set:0:b"]),
            ("INCR a", &["incrby:0:a"]),
            ("INCR b", &["new:0:b", "incrby:0:b"]),
            ("APPEND a x", &["append:0:a"]),
            ("DEL a b a", &["del:0:a"]),
            ("GETDEL a", &["del:0:a"]),
            ("GETEX a", &[]),
            ("GETEX a EX 5", &["expire:0:a"]),
            ("GETEX a EXAT 1", &["del:0:a"]),
            ("EXPIRE a 10", &["expire:0:a"]),
            ("EXPIRE a -1", &["del:0:a"]),
            ("EXPIRE b 10", &[]),
            (
                "RENAME a b",
                &["new:0:b", "rename_from:0:a", "rename_to:0:b"],
            ),
            ("MOVE a 1", &["new:1:a", "move_from:0:a", "move_to:1:a"]),
            ("COPY a b", &["new:0:b", "copy_to:0:b"]),
            ("BITOP AND b c c", &["keymiss:0:c", "keymiss:0:c"]),
            ("BITOP NOT a c", &["keymiss:0:c", "del:0:a"]),
            (
                "MSETNX b 1 c 2",
                &["new:0:b", "set:0:b", "new:0:c", "set:0:c"],
            ),
        ] {
            assert_eq!(told(line, &a), events, "{line}");
        }
    }

    #[test]
    fn the_last_element_takes_the_key_with_it() {
        let mut hash = crate::model::Collection::new(Kind::Hash);
        let element = crate::model::Element {
            value: "v".into(),
            ..Default::default()
        };
        hash.set("f".into(), element).unwrap();
        hash.settle();
        let there = [("h", Value::Collection(Box::new(hash)))];
        assert_eq!(told("HSET h f w", &there), ["hset:0:h"]);
        assert_eq!(told("HDEL h f", &there), ["hdel:0:h", "del:0:h"]);
        assert_eq!(told("HDEL h x", &there), Vec::<String>::new());
        assert_eq!(told("HSET g f w", &there), ["new:0:g", "hset:0:g"]);
        assert_eq!(told("APPEND h x", &there), Vec::<String>::new());
    }
}

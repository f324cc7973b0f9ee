//! The server that keeps the values of write-behind keys, and the journal of their changes.
//!
//! A server of its own: the cache is emptied at any fault of it, and may evict.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;

use super::functions::library::JOURNAL;
use super::{CacheError, Connection, Identity, LinkOptions, Pipe, Replies};
use crate::config::{Redis, WriteBehind};
use crate::model::{Db, JournalId, Key, Protocol, Reply, Request};
use crate::tls::TlsError;

/// What stands before the tail of a key while a client's command runs on it.
pub const WORKING_PREFIX: &[u8] = b"\x01f=";

/// What stands before the tail of a key at all other times.
pub const RESTING_PREFIX: &[u8] = b"\x01f~";

/// The mark of the incarnation.
const MARK: &[u8] = b"\x01f:mark";

/// The stream.
const LOG: &[u8] = b"\x01f:log";

/// What a new connection found.
#[derive(Clone, Debug)]
pub struct JournalFound {
    /// Who answers.
    pub identity: Identity,
    /// Which journal it holds.
    pub mark: Option<String>,
    /// Whether there is nothing in its database 0.
    pub is_empty: bool,
    /// The id of the last entry that ever was in the journal.
    pub last: JournalId,
    /// What of its settings may lose what it has acknowledged.
    pub dangers: Vec<String>,
}

/// What is held of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resting {
    /// Nothing: it does not exist.
    Nothing,
    /// A string.
    String(Bytes),
    /// Anything, in the format of `DUMP`.
    Dump(Bytes),
}

/// A key as the journal's server has it.
#[derive(Clone, Debug)]
pub struct RestingKey {
    /// The key.
    pub key: Key,
    /// What is held of it.
    pub held: Resting,
    /// When it ends, in milliseconds since the Unix epoch.
    pub ends: Option<i64>,
}

/// Keys that were changed, as they are now.
#[derive(Clone, Debug)]
pub struct JournalPage {
    /// Changes that wait in the journal.
    pub length: u64,
    /// The server's clock.
    pub now_ms: i64,
    /// The last entry that is covered.
    pub to: JournalId,
    /// Each changed key once.
    pub keys: Vec<RestingKey>,
}

/// Which part of a function's answer to a burst says whether it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// The commands ran.
    Ran,
    /// The journal is full; nothing was done.
    Full,
    /// Nothing is known of the names at these places; nothing was done.
    Missing {
        /// For [`Journal::admit`].
        dropped: i64,
        /// Among the names that were given.
        places: Vec<usize>,
    },
    /// The journal is another one, or the function is not there; nothing was done.
    Refused(String),
}

/// The connections to the journal's server.
pub struct Journal {
    options: LinkOptions,
    /// One for each protocol.
    pipes: [Slot; 2],
    control: AsyncMutex<Option<Connection>>,
    /// `run_id` of the server that was last looked at: no other one is used.
    server: Mutex<Option<String>>,
}

#[derive(Default)]
struct Slot {
    current: Mutex<Option<Arc<Pipe>>>,
    opening: AsyncMutex<()>,
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Pipe>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key's name but for the prefix.
pub fn tail(key: &Key) -> Vec<u8> {
    let mut tail = Vec::with_capacity(1 + key.name.len());
    tail.push(b"0123456789abcdef"[usize::from(key.db.index() & 15)]);
    tail.extend_from_slice(&key.name);
    tail
}

fn key_of(tail: &Bytes) -> Option<Key> {
    let digit = char::from(*tail.first()?).to_digit(16)?;
    let db = Db::new(u8::try_from(digit).ok()?)?;
    Some(Key::new(db, tail.slice(1..)))
}

impl Journal {
    /// Prepares connections; nothing if there is no url.
    ///
    /// # Errors
    /// If the TLS settings cannot be used.
    pub fn new(settings: &WriteBehind) -> Result<Option<Self>, TlsError> {
        let Some(url) = settings.url.clone() else {
            return Ok(None);
        };
        let server = Redis {
            url,
            password: settings.password.clone(),
            tls_ca: settings.tls_ca.clone(),
            connect_timeout: settings.connect_timeout,
            reply_timeout: settings.reply_timeout,
            ..Redis::default()
        };
        Ok(Some(Self {
            options: LinkOptions::new(&server)?,
            pipes: Default::default(),
            control: AsyncMutex::new(None),
            server: Mutex::default(),
        }))
    }

    /// Connects anew, brings the functions there, and tells who answers and what it holds. From then on
    /// only connections to that server are used.
    pub async fn probe(&self) -> Result<JournalFound, CacheError> {
        let mut control = self.control.lock().await;
        *control = None;
        let mut connection = Connection::open(&self.options).await?;
        *self.server() = Some(connection.identity().run_id.clone());
        let load = Request::from_args(&["FUNCTION", "LOAD", "REPLACE", JOURNAL.source()]);
        connection.call(load.raw()).await?;
        let info = Request::from_args(&["INFO", "persistence", "memory"]);
        let info = text(connection.call(info.raw()).await?);
        let get = Request::from_args(&[b"GET", MARK]);
        let mark = match connection.call(get.raw()).await? {
            Reply::Bulk(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            _ => None,
        };
        let size = Request::from_args(&["DBSIZE"]);
        let is_empty = connection.call(size.raw()).await? == Reply::Integer(0);
        let stream = Request::from_args(&[b"XINFO", &b"STREAM"[..], LOG]);
        let last = match connection.call(stream.raw()).await {
            Ok(Reply::Array(fields)) => last_id(&fields)?,
            Err(CacheError::Refused(text)) if text.contains("no such key") => JournalId::default(),
            Err(error) => return Err(error),
            Ok(_) => return Err(malformed("XINFO")),
        };
        let found = JournalFound {
            identity: connection.identity().clone(),
            mark,
            is_empty,
            last,
            dangers: dangers(&info),
        };
        *control = Some(connection);
        Ok(found)
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `requests`, which give `replies` replies, on the connection that all share.
    ///
    /// # Errors
    /// [`CacheError::Unreachable`]: nothing was sent.
    pub async fn send(
        &self,
        protocol: Protocol,
        requests: &[u8],
        replies: usize,
    ) -> Result<Replies, CacheError> {
        let slot = &self.pipes[usize::from(protocol == Protocol::Resp3)];
        let pipe = match self.pipe(slot) {
            Some(pipe) => pipe,
            None => {
                let _one_at_a_time = slot.opening.lock().await;
                match self.pipe(slot) {
                    Some(pipe) => pipe,
                    None => {
                        let pipe = Pipe::open(&self.options, Db::default(), protocol).await;
                        let pipe = Arc::new(pipe.map_err(|e| unreachable(&e))?);
                        if !self.is_server(&pipe) {
                            let why = "another server answers than before";
                            return Err(CacheError::Unreachable(why.into()));
                        }
                        *slot.lock() = Some(Arc::clone(&pipe));
                        pipe
                    }
                }
            }
        };
        pipe.send(std::iter::once(requests), replies).await
    }

    fn pipe(&self, slot: &Slot) -> Option<Arc<Pipe>> {
        let pipe = slot.lock().clone();
        pipe.filter(|pipe| !pipe.is_closed() && self.is_server(pipe))
    }

    fn is_server(&self, pipe: &Pipe) -> bool {
        self.server().as_deref() == Some(&pipe.identity().run_id)
    }

    async fn call<A: AsRef<[u8]>>(&self, name: &str, args: &[A]) -> Result<Reply, CacheError> {
        let mut control = self.control.lock().await;
        let request = function(name, &[] as &[&[u8]], args);
        let Some(connection) = control.as_mut() else {
            return Err(CacheError::Unreachable("not connected".into()));
        };
        let answer = connection.call(&request).await;
        if matches!(
            &answer,
            Err(CacheError::Lost(_) | CacheError::Unreachable(_))
        ) {
            *control = None;
        }
        answer
    }

    /// The mark as `DUMP` gives it.
    pub async fn dump_of_mark(&self) -> Result<Resting, CacheError> {
        let mut control = self.control.lock().await;
        let Some(connection) = control.as_mut() else {
            return Err(CacheError::Unreachable("not connected".into()));
        };
        let request = Request::from_args(&[b"DUMP", MARK]);
        Ok(match connection.call(request.raw()).await? {
            Reply::Bulk(payload) => Resting::Dump(payload),
            _ => Resting::Nothing,
        })
    }

    /// Gives the journal the mark `new` in place of `old` (empty: it has none).
    pub async fn set_mark(&self, old: &str, new: &str) -> Result<(), CacheError> {
        self.call("mark", &[old, new, ""]).await.map(drop)
    }

    /// The same, and empties the server.
    pub async fn begin(&self, old: &str, new: &str) -> Result<(), CacheError> {
        self.call("mark", &[old, new, "empty"]).await.map(drop)
    }

    /// Brings in keys of which nothing is known; `false` if what was read of them may be old:
    /// `dropped` is what the guard said.
    pub async fn admit(
        &self,
        mark: &str,
        dropped: i64,
        keys: &[RestingKey],
    ) -> Result<bool, CacheError> {
        let mut args: Vec<Bytes> = vec![copy(mark), dropped.to_string().into()];
        for one in keys {
            let (kind, value) = match &one.held {
                Resting::Nothing => ("none", Bytes::new()),
                Resting::String(value) => ("string", value.clone()),
                Resting::Dump(payload) => ("dump", payload.clone()),
            };
            let ends = one.ends.map(|ends| ends.to_string()).unwrap_or_default();
            args.extend([tail(&one.key).into(), copy(kind), value, ends.into()]);
        }
        Ok(self.call("admit", &args).await? == Reply::Integer(1))
    }

    /// The keys of the next entries behind `from`, as they are now, until so many keys or bytes of values
    /// are there.
    pub async fn read(
        &self,
        mark: &str,
        from: JournalId,
        (keys, bytes): (usize, usize),
    ) -> Result<JournalPage, CacheError> {
        let args = [
            mark.to_owned(),
            from.to_string(),
            keys.to_string(),
            bytes.to_string(),
        ];
        let Reply::Array(items) = self.call("read", &args).await? else {
            return Err(malformed("read"));
        };
        page(items).ok_or_else(|| malformed("read"))
    }

    /// Forgets the entries up to `to`; how many changes are left.
    pub async fn trim(&self, mark: &str, to: JournalId) -> Result<u64, CacheError> {
        match self.call("trim", &[mark, &to.to_string()]).await? {
            Reply::Integer(left) => Ok(left.unsigned_abs()),
            _ => Err(malformed("trim")),
        }
    }

    /// Drops values that are in the store and were not changed for so long, of a part of the
    /// keys. Returns the cursor for the next part.
    pub async fn drop_idle(
        &self,
        mark: &str,
        cursor: &str,
        keep_ms: u128,
    ) -> Result<String, CacheError> {
        let args = [mark, cursor, &keep_ms.to_string()];
        Ok(text(self.call("drop", &args).await?))
    }
}

/// The request that lets commands work on `names` (working ones), if the journal is `mark` and
/// has fewer than `most` changes that wait. Of those with `y` in `free` nothing need be known.
pub fn guard(mark: &str, most: u32, names: &[Vec<u8>], free: &str) -> Bytes {
    function("guard", names, &[mark, &most.to_string(), free])
}

/// The request that puts `names` to rest; those with `w` in `written` go into the journal.
pub fn finish(names: &[Vec<u8>], written: &str) -> Bytes {
    function("finish", names, &[written])
}

/// The request that tells whether commands that only read may run on `names` (resting ones).
pub fn look(mark: &str, names: &[Vec<u8>]) -> Bytes {
    function("look", names, &[mark])
}

impl Guarded {
    /// What the answer to `guard` or `look` says.
    pub fn of(reply: Reply) -> Self {
        let items = match reply {
            Reply::Array(items) => items,
            Reply::Error(text) => return Self::Refused(String::from_utf8_lossy(&text).into()),
            _ => return Self::Refused("the guard gave no array".into()),
        };
        let number = |item: &Reply| match item {
            Reply::Integer(number) => Some(*number),
            _ => None,
        };
        match items.first() {
            Some(Reply::Bulk(word)) if word == "ok" => Self::Ran,
            Some(Reply::Bulk(word)) if word == "full" => Self::Full,
            Some(Reply::Bulk(word)) if word == "missing" => Self::Missing {
                dropped: items.get(1).and_then(number).unwrap_or(-1),
                places: items[2..]
                    .iter()
                    .filter_map(|item| usize::try_from(number(item)?).ok())
                    .collect(),
            },
            _ => Self::Refused("the guard gave something else".into()),
        }
    }
}

fn function<K: AsRef<[u8]>, A: AsRef<[u8]>>(name: &str, keys: &[K], args: &[A]) -> Bytes {
    let command = match name {
        "look" | "read" => "FCALL_RO",
        _ => "FCALL",
    };
    let name = format!("{}_{name}", JOURNAL.name());
    let count = keys.len().to_string();
    let mut words: Vec<&[u8]> = vec![command.as_bytes(), name.as_bytes(), count.as_bytes()];
    words.extend(keys.iter().map(AsRef::as_ref));
    words.extend(args.iter().map(AsRef::as_ref));
    Request::from_args(&words).raw().clone()
}

fn copy(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn text(reply: Reply) -> String {
    match reply {
        Reply::Bulk(text) => String::from_utf8_lossy(&text).into_owned(),
        _ => String::new(),
    }
}

fn malformed(what: &str) -> CacheError {
    CacheError::Refused(format!("the journal answered {what} with something else"))
}

fn unreachable(error: &CacheError) -> CacheError {
    CacheError::Unreachable(error.to_string())
}

fn last_id(fields: &[Reply]) -> Result<JournalId, CacheError> {
    let mut pairs = fields.chunks(2);
    let last = pairs.find_map(|pair| match pair {
        [Reply::Bulk(name), Reply::Bulk(id)] if name == "last-generated-id" => {
            JournalId::parse(std::str::from_utf8(id).ok()?)
        }
        _ => None,
    });
    last.ok_or_else(|| malformed("XINFO"))
}

fn page(items: Vec<Reply>) -> Option<JournalPage> {
    let mut items = items.into_iter();
    let (Reply::Integer(length), Reply::Integer(now_ms)) = (items.next()?, items.next()?) else {
        return None;
    };
    let to = JournalId::parse(&text(items.next()?))?;
    let mut keys = Vec::with_capacity(items.len() / 4);
    while let Some(tail) = items.next() {
        let (kind, value, ends) = (items.next()?, items.next()?, items.next()?);
        let (Reply::Bulk(tail), Reply::Bulk(value), Reply::Integer(ends)) = (tail, value, ends)
        else {
            return None;
        };
        let held = match text(kind).as_str() {
            "string" => Resting::String(value),
            "dump" => Resting::Dump(value),
            _ => Resting::Nothing,
        };
        keys.push(RestingKey {
            key: key_of(&tail)?,
            held,
            ends: (ends >= 0).then_some(ends),
        });
    }
    Some(JournalPage {
        length: length.unsigned_abs(),
        now_ms,
        to,
        keys,
    })
}

/// What `INFO` says that makes a server unfit to keep what is nowhere else.
fn dangers(info: &str) -> Vec<String> {
    let field = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let mut dangers = Vec::new();
    if field("aof_enabled") != Some("1") {
        dangers.push("it does not persist: set appendonly yes".to_owned());
    }
    let policy = field("maxmemory_policy").unwrap_or("unknown");
    if policy != "noeviction" && field("maxmemory") != Some("0") {
        dangers.push(format!(
            "it evicts (maxmemory-policy {policy}): set maxmemory-policy noeviction"
        ));
    }
    dangers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_tells_its_key() {
        let key = Key::new(Db::new(11).unwrap(), "a:1");
        assert_eq!(tail(&key), b"ba:1");
        assert_eq!(key_of(&tail(&key).into()), Some(key));
        assert_eq!(key_of(&Bytes::new()), None);
    }

    #[test]
    fn a_server_that_does_not_persist_or_evicts_is_told() {
        let info = |aof, memory, policy| {
            dangers(&format!(
                "aof_enabled:{aof}\r\nmaxmemory:{memory}\r\nmaxmemory_policy:{policy}\r\n"
            ))
        };
        assert!(info(1, 0, "allkeys-lru").is_empty());
        assert!(info(1, 100, "noeviction").is_empty());
        assert_eq!(info(1, 100, "volatile-lru").len(), 1);
        assert_eq!(info(0, 100, "allkeys-lru").len(), 2);
        assert_eq!(dangers("").len(), 2);
    }
}

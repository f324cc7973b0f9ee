//! Another Redis: where data comes from, or goes to. Ordinary commands, many in one round trip.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::Failure;
use crate::cache::{CacheError, LinkOptions, Pipe};
use crate::config::RedisUrl;
use crate::model::{DATABASES, Db, Key, Protocol, Reply, Request, UnixMs};
use crate::resp;

/// Until it is connected, and until the next byte of a reply.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Keys of one round trip: fewer where values are long.
const KEYS_MAX: usize = 500;
const KEYS_MIN: usize = 4;
/// Bytes of one round trip that are thought right.
const BYTES: usize = 4 << 20;
/// The newest form of `DUMP` that is read.
const DUMP_VERSION_MAX: u16 = 10;

/// A key as another server tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Which.
    pub key: Key,
    /// Its content, as `DUMP` tells it.
    pub payload: Bytes,
    /// When it ends.
    pub expires_at: Option<UnixMs>,
}

/// The connections to it, one for each database that is used.
pub struct Peer {
    options: LinkOptions,
    pipes: Mutex<Vec<Option<Arc<Pipe>>>>,
    /// Whether it tells ends as points of time (Redis 7.0).
    tells_ends: bool,
    keys_at_once: AtomicUsize,
}

impl Peer {
    /// Connects.
    pub async fn connect(url: &RedisUrl) -> Result<Self, Failure> {
        let options = LinkOptions::of_another(url, CONNECT_TIMEOUT, REPLY_TIMEOUT)?;
        let mut peer = Self {
            options,
            pipes: Mutex::new(vec![None; usize::from(DATABASES)]),
            tells_ends: true,
            keys_at_once: AtomicUsize::new(KEYS_MIN * 8),
        };
        let probe = [Request::from_args(&["PEXPIRETIME", ""])];
        let replies = peer.ask(Db::default(), &probe).await?;
        peer.tells_ends = !matches!(replies.as_slice(), [Reply::Error(_)]);
        Ok(peer)
    }

    /// Sends requests in `db`; their replies, error replies among them.
    pub async fn ask(&self, db: Db, requests: &[Request]) -> Result<Vec<Reply>, CacheError> {
        let pipe = self.pipe(db).await?;
        let bytes = requests.iter().map(|request| &request.raw()[..]);
        let replies = pipe.send(bytes, requests.len()).await?;
        let decoded = (0..replies.len()).map(|index| {
            resp::decode_reply(&replies.get(index))
                .map_err(|error| CacheError::Lost(error.to_string()))
        });
        decoded.collect()
    }

    async fn pipe(&self, db: Db) -> Result<Arc<Pipe>, CacheError> {
        let index = usize::from(db.index());
        let lock = || self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let current = lock()[index].clone();
        if let Some(pipe) = current.filter(|pipe| !pipe.is_closed()) {
            return Ok(pipe);
        }
        let pipe = Arc::new(Pipe::open(&self.options, db, Protocol::Resp2).await?);
        lock()[index] = Some(Arc::clone(&pipe));
        Ok(pipe)
    }

    /// Which server it is: a name that it takes at each start.
    pub async fn run_id(&self) -> Result<String, Failure> {
        Ok(self.pipe(Db::default()).await?.identity().run_id.clone())
    }

    /// The databases that have keys, with their number.
    pub async fn databases(&self) -> Result<Vec<(Db, u64)>, Failure> {
        let request = [Request::from_args(&["INFO", "keyspace"])];
        let replies = self.ask(Db::default(), &request).await?;
        let [Reply::Bulk(text)] = replies.as_slice() else {
            return Err(unexpected("INFO"));
        };
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().filter_map(|line| {
            let (number, rest) = line.strip_prefix("db")?.split_once(":keys=")?;
            Some((
                number.parse::<u32>().ok()?,
                rest.split(',').next()?.parse::<u64>().ok()?,
            ))
        });
        lines
            .map(|(number, keys)| {
                let db = u8::try_from(number).ok().and_then(Db::new);
                let db = db.ok_or_else(|| {
                    Failure::Other(format!("database {number} has keys; Freshet has 0 to 15"))
                })?;
                Ok((db, keys))
            })
            .collect()
    }

    /// One step of a SCAN: the next cursor (0 at the end) and keys, with duplicates.
    pub async fn scan(
        &self,
        db: Db,
        cursor: u64,
        (pattern, count): (&str, usize),
    ) -> Result<(u64, Vec<Bytes>), Failure> {
        let (cursor, count) = (cursor.to_string(), count.to_string());
        let mut words = vec!["SCAN", &cursor, "COUNT", &count];
        if pattern != "*" {
            words.extend(["MATCH", pattern]);
        }
        let replies = self.ask(db, &[Request::from_args(&words)]).await?;
        scanned(&replies).ok_or_else(|| unexpected("SCAN"))
    }

    /// What it holds under `names`; `None` where nothing is.
    pub async fn read(&self, db: Db, names: &[Bytes]) -> Result<Vec<Option<Incoming>>, Failure> {
        let mut found = Vec::with_capacity(names.len());
        while found.len() < names.len() {
            let count = self.keys_at_once.load(Ordering::Relaxed);
            let rest = &names[found.len()..];
            let some = &rest[..rest.len().min(count)];
            let read = self.read_some(db, some).await?;
            let bytes: usize = read.iter().flatten().map(|one| one.payload.len()).sum();
            let next = if bytes > BYTES { count / 2 } else { count * 2 };
            let next = next.clamp(KEYS_MIN, KEYS_MAX);
            self.keys_at_once.store(next, Ordering::Relaxed);
            found.extend(read);
        }
        Ok(found)
    }

    async fn read_some(&self, db: Db, names: &[Bytes]) -> Result<Vec<Option<Incoming>>, Failure> {
        let end = if self.tells_ends {
            "PEXPIRETIME"
        } else {
            "PTTL"
        };
        let mut requests = vec![Request::from_args(&["TIME"])];
        for name in names {
            requests.push(Request::from_args(&[&b"DUMP"[..], name]));
            requests.push(Request::from_args(&[end.as_bytes(), name]));
        }
        let replies = self.ask(db, &requests).await?;
        let (time, replies) = replies.split_first().ok_or_else(|| unexpected("TIME"))?;
        let now = milliseconds(time).ok_or_else(|| unexpected("TIME"))?;
        let (pairs, _) = replies.as_chunks::<2>();
        names
            .iter()
            .zip(pairs)
            .map(|(name, [payload, end])| {
                let payload = match payload {
                    Reply::Null => return Ok(None),
                    Reply::Bulk(payload) => payload.clone(),
                    Reply::Error(text) => {
                        let text = String::from_utf8_lossy(text);
                        return Err(Failure::Other(format!("DUMP: {text}")));
                    }
                    _ => return Err(unexpected("DUMP")),
                };
                check_version(&payload)?;
                let expires_at = match end {
                    Reply::Integer(-1) => None,
                    // It has just ended.
                    Reply::Integer(end) if *end < 0 => return Ok(None),
                    Reply::Integer(at) if self.tells_ends => Some(UnixMs(*at)),
                    Reply::Integer(left) => Some(UnixMs(now + left)),
                    _ => return Err(unexpected("PTTL")),
                };
                Ok(Some(Incoming {
                    key: Key::new(db, name.clone()),
                    payload,
                    expires_at,
                }))
            })
            .collect()
    }

    /// Which of `names` it holds.
    pub async fn present(&self, db: Db, names: &[Bytes]) -> Result<Vec<bool>, Failure> {
        let requests: Vec<Request> = names
            .iter()
            .map(|name| Request::from_args(&[&b"EXISTS"[..], name]))
            .collect();
        let replies = self.ask(db, &requests).await?;
        Ok(replies
            .iter()
            .map(|reply| *reply != Reply::Integer(0))
            .collect())
    }

    /// Sets keys of one database, whatever it held under their names.
    pub async fn write(&self, db: Db, keys: &[Incoming]) -> Result<(), Failure> {
        let requests: Vec<Request> = keys.iter().map(restore_request).collect();
        let replies = self.ask(db, &requests).await?;
        for (reply, key) in replies.iter().zip(keys) {
            if let Reply::Error(text) = reply {
                let text = String::from_utf8_lossy(text);
                return Err(Failure::Other(format!(
                    "the target refuses {:?}: {text} (DUMP and RESTORE of Redis 7.0 are used: an older server does not take them)",
                    key.key
                )));
            }
        }
        Ok(())
    }
}

fn restore_request(one: &Incoming) -> Request {
    let end = one.expires_at.map_or(0, |at| at.0).to_string();
    let words: [&[u8]; 6] = [
        b"RESTORE",
        &one.key.name,
        end.as_bytes(),
        &one.payload,
        b"ABSTTL",
        b"REPLACE",
    ];
    Request::from_args(&words)
}

/// The form of a payload, which stands before its checksum.
fn check_version(payload: &[u8]) -> Result<(), Failure> {
    let version = payload
        .split_last_chunk::<8>()
        .and_then(|(rest, _)| rest.last_chunk::<2>());
    let version = version.map_or(0, |version| u16::from_le_bytes(*version));
    if version > DUMP_VERSION_MAX {
        return Err(Failure::Other(format!(
            "the source tells values in RDB version {version}; Freshet reads up to version \
             {DUMP_VERSION_MAX} (Redis 7.0)"
        )));
    }
    Ok(())
}

fn milliseconds(time: &Reply) -> Option<i64> {
    let Reply::Array(parts) = time else {
        return None;
    };
    let number = |index: usize| match parts.get(index)? {
        Reply::Bulk(text) => std::str::from_utf8(text).ok()?.parse::<i64>().ok(),
        _ => None,
    };
    Some(number(0)? * 1000 + number(1)? / 1000)
}

fn scanned(replies: &[Reply]) -> Option<(u64, Vec<Bytes>)> {
    let [Reply::Array(parts)] = replies else {
        return None;
    };
    let [Reply::Bulk(cursor), Reply::Array(names)] = parts.as_slice() else {
        return None;
    };
    let name = |name: &Reply| match name {
        Reply::Bulk(name) => Some(name.clone()),
        _ => None,
    };
    let cursor = std::str::from_utf8(cursor).ok()?.parse().ok()?;
    Some((cursor, names.iter().map(name).collect::<Option<_>>()?))
}

fn unexpected(what: &str) -> Failure {
    Failure::Other(format!(
        "the other server answered {what} in another form than Redis does"
    ))
}

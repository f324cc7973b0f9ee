//! What the cache holds, looked at from outside: nothing here changes it.

use bytes::Bytes;

use super::{Cache, CacheError, Call, Function, RESERVED_PREFIX, Repeat, SOLE_PREFIX};
use crate::model::{Db, Generation, Key, Kind, Protocol, Reply, Request, UnixMs, Version};
use crate::resp;

/// Bytes of content after which one look ends.
const LOOK_BYTES: usize = 256 << 10;

/// A name that a SCAN of the cache came upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A key as clients name it.
    Native(Bytes),
    /// The companion of this key.
    Companion(Bytes),
    /// Another name of Freshet's own: hidden content, a mark.
    Internal,
}

impl Name {
    /// Which that is.
    pub fn of(name: Bytes) -> Self {
        match name.strip_prefix(RESERVED_PREFIX) {
            None if name.starts_with(SOLE_PREFIX) => Self::Internal,
            None => Self::Native(name),
            Some([b'C', ..]) => Self::Companion(name.slice(RESERVED_PREFIX.len() + 1..)),
            Some([b'c', b'{', .., b'}']) => {
                Self::Companion(name.slice(RESERVED_PREFIX.len() + 2..name.len() - 1))
            }
            Some(_) => Self::Internal,
        }
    }
}

/// What a companion says of content that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Unknown,
    /// The key does not exist.
    Absent(Version),
    /// The native has this version.
    Content(Version),
}

/// A companion; one that is not there says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// The highest version that anybody was told of while it was there.
    pub floor: Version,
    /// What it says of the content.
    pub held: Held,
    /// The true expiry, if it knows one.
    pub expires_at: Option<UnixMs>,
    /// Whether writers are in flight.
    pub is_written: bool,
}

impl Companion {
    const NONE: Self = Self {
        floor: Version(0),
        held: Held::Unknown,
        expires_at: None,
        is_written: false,
    };

    /// As `functions.lua` writes it.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut fields = text.split(' ');
        let floor = Version(fields.next()?.parse().ok()?);
        let held = match fields.next()? {
            "-" => Held::Unknown,
            content => match content.split_at_checked(1)? {
                ("a", version) => Held::Absent(Version(version.parse().ok()?)),
                ("c", version) => Held::Content(Version(version.parse().ok()?)),
                _ => Held::Content(Version(content.parse().ok()?)),
            },
        };
        let expires_at = fields.next()?.parse().ok().map(UnixMs);
        let _lease = fields.next()?;
        Some(Self {
            floor,
            held,
            expires_at,
            is_written: !fields.next()?.is_empty(),
        })
    }
}

/// The native of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Nothing,
    /// A string.
    String(Bytes),
    /// Another type, as `DUMP` tells it.
    Dump(Bytes),
    /// A type that Freshet does not know.
    Foreign(String),
}

/// What the cache holds of one key, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Its companion.
    pub companion: Companion,
    /// Its native.
    pub native: Found,
    /// When the native dies, by the cache's clock; `None`: never.
    pub dies_at: Option<UnixMs>,
    /// The cache's clock then.
    pub now: UnixMs,
}

impl Inspected {
    /// What a TTL command would be answered without asking the store: `Some(None)` is
    /// "never". See `functions.lua`: a native without true expiry dies at an even millisecond.
    pub fn told_expiry(&self) -> Option<Option<UnixMs>> {
        if self.companion.held != Held::Unknown && self.companion.expires_at.is_some() {
            return Some(self.companion.expires_at);
        }
        match self.dies_at {
            Some(at) if at.0 % 2 == 0 => Some(None),
            _ => None,
        }
    }
}

impl Cache {
    /// What the cache of `generation` holds of the first of `keys`, as many as are enough for
    /// one look; at least one.
    pub async fn inspect(
        &self,
        generation: Generation,
        keys: &[&Key],
    ) -> Result<Vec<Inspected>, CacheError> {
        let mut call = Call::new(Function::Inspect, keys.iter().copied(), generation, 1);
        call.number(LOOK_BYTES as i64);
        let reply = self.call(call, Repeat::Same).await?;
        inspected(reply).ok_or_else(|| unexpected("inspect"))
    }

    /// One step of a SCAN of `db`: the next cursor (0 at the end) and names, with duplicates.
    pub async fn scan(
        &self,
        db: Db,
        cursor: u64,
        count: u32,
    ) -> Result<(u64, Vec<Name>), CacheError> {
        let words = ["SCAN", &cursor.to_string(), "COUNT", &count.to_string()];
        let reply = self.ask(db, &Request::from_args(&words)).await?;
        scanned(reply).ok_or_else(|| unexpected("SCAN"))
    }

    /// How many names there are in `db`, Freshet's own included.
    pub async fn name_count(&self, db: Db) -> Result<u64, CacheError> {
        match self.ask(db, &Request::from_args(&["DBSIZE"])).await? {
            Reply::Integer(count) => Ok(count as u64),
            _ => Err(unexpected("DBSIZE")),
        }
    }

    async fn ask(&self, db: Db, request: &Request) -> Result<Reply, CacheError> {
        let requests = std::iter::once(&request.raw()[..]);
        let replies = self.read(db, Protocol::Resp2, requests, 1).await?;
        match resp::decode_reply(&replies.get(0)) {
            Ok(Reply::Error(text)) => Err(CacheError::from_reply(&text)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(CacheError::Lost(error.to_string())),
        }
    }
}

fn unexpected(what: &str) -> CacheError {
    CacheError::Refused(format!("{what} gave an answer of another form"))
}

fn scanned(reply: Reply) -> Option<(u64, Vec<Name>)> {
    let Reply::Array(parts) = reply else {
        return None;
    };
    let [Reply::Bulk(cursor), Reply::Array(names)] = parts.as_slice() else {
        return None;
    };
    let cursor = std::str::from_utf8(cursor).ok()?.parse().ok()?;
    let name = |name: &Reply| match name {
        Reply::Bulk(name) => Some(Name::of(name.clone())),
        _ => None,
    };
    Some((cursor, names.iter().map(name).collect::<Option<_>>()?))
}

fn inspected(reply: Reply) -> Option<Vec<Inspected>> {
    let Reply::Array(answers) = reply else {
        return None;
    };
    let (now, keys) = answers.split_first()?;
    let Reply::Integer(now) = now else {
        return None;
    };
    keys.iter().map(|key| one(key, UnixMs(*now))).collect()
}

fn one(answer: &Reply, now: UnixMs) -> Option<Inspected> {
    let Reply::Array(parts) = answer else {
        return None;
    };
    let [companion, Reply::Integer(dies), Reply::Bulk(kind), content] = parts.as_slice() else {
        return None;
    };
    let companion = match companion {
        Reply::Bulk(text) => Companion::parse(text)?,
        _ => Companion::NONE,
    };
    let native = match content {
        Reply::Bulk(content) if *kind == "string" => Found::String(content.clone()),
        Reply::Bulk(content) if Kind::ALL.iter().any(|known| known.name() == kind) => {
            Found::Dump(content.clone())
        }
        Reply::Bulk(_) => Found::Foreign(String::from_utf8_lossy(kind).into_owned()),
        _ => Found::Nothing,
    };
    Some(Inspected {
        companion,
        native,
        dies_at: (*dies >= 0).then_some(UnixMs(*dies)),
        now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (name, expected) in [
            ("k", Name::Native("k".into())),
            ("\0fc{k}", Name::Companion("k".into())),
            ("\0fC{a}b", Name::Companion("{a}b".into())),
            ("\0fh{k}", Name::Internal),
            ("\0f:gen", Name::Internal),
            ("\0fc{", Name::Internal),
        ] {
            assert_eq!(Name::of(name.into()), expected, "{name:?}");
        }
    }

    #[test]
    fn companions_are_read_as_they_are_written() {
        let read = |text: &str| Companion::parse(text.as_bytes()).unwrap();
        let held = |text| read(text).held;
        assert_eq!(held("7 - - - "), Held::Unknown);
        assert_eq!(held("7 a6 - - "), Held::Absent(Version(6)));
        assert_eq!(held("7 c6 - - "), Held::Content(Version(6)));
        assert_eq!(held("7 6 123 - "), Held::Content(Version(6)));
        assert_eq!(read("7 6 123 - ").expires_at, Some(UnixMs(123)));
        assert!(read("7 6 - - 3.4;").is_written);
        assert!(!read("7 6 - 3.t4 ").is_written);
        assert_eq!(Companion::parse(b"nonsense"), None);
    }
}

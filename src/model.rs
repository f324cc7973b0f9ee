//! The words that every layer shares: keys, values, versions, requests, replies.
//!
//! Nothing here does I/O or reads a clock.

mod collection;
mod events;
pub mod glob;
mod known;
mod number;
mod range;

pub use collection::{CacheCommand, Collection, Element, NotLoaded, Page, Ranked, STREAM_ENTRY};
pub use events::{Event, EventClasses};
pub use known::Known;
pub use number::format_double;
pub use range::{Bounds, FieldRange, Holding, ORDERED_BYTES, Places, RankRange, Side};

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// The number of logical databases, as in Redis's default configuration.
pub const DATABASES: u8 = 16;

/// Longer keys do not fit into PostgreSQL's index pages (a third of 8 kB, less headers).
pub const KEY_BYTES_MAX: usize = 2600;

/// A logical database, `0..DATABASES` (`SELECT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Db(u8);

impl Db {
    /// The database of that number, if there is one.
    pub fn new(index: u8) -> Option<Self> {
        (index < DATABASES).then_some(Self(index))
    }

    /// Its number, `0..DATABASES`.
    pub fn index(self) -> u8 {
        self.0
    }
}

/// A key as the client names it: a database and arbitrary bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The logical database it lives in.
    pub db: Db,
    /// Its name, up to 512 MB of arbitrary bytes.
    pub name: Bytes,
}

impl Key {
    /// The key called `name` in `db`.
    pub fn new(db: Db, name: impl Into<Bytes>) -> Self {
        Self {
            db,
            name: name.into(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.db.0, self.name.escape_ascii())
    }
}

/// A number that the store gives a key at every change; it only grows, also
/// across delete and re-create. A key that never existed has version 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub i64);

/// One incarnation of the cache; raising it makes all cached data void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub i64);

/// Milliseconds since the Unix epoch, by the store's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixMs(pub i64);

/// The id of an entry of the journal of write-behind keys, as streams have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JournalId {
    /// Milliseconds since the Unix epoch, by the clock of the journal's server.
    pub ms: i64,
    /// Its number among those of that millisecond.
    pub seq: i64,
}

impl JournalId {
    /// What is written so: two numbers with a dash between.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        let (ms, seq) = (ms.parse().ok()?, seq.parse().ok()?);
        Some(Self { ms, seq })
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// The content of a key, by Redis type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Arbitrary bytes, up to 512 MB.
    String(Bytes),
    /// Any other type: elements under fields.
    Collection(Box<Collection>),
}

/// The Redis type of a value, as `TYPE` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A string.
    String,
    /// A hash.
    Hash,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A stream.
    Stream,
}

impl Value {
    /// Its Redis type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::String(_) => Kind::String,
            Self::Collection(collection) => collection.kind(),
        }
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::String,
        Self::Hash,
        Self::List,
        Self::Set,
        Self::SortedSet,
        Self::Stream,
    ];

    /// The name that `TYPE` replies with.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Hash => "hash",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Stream => "stream",
        }
    }
}

/// What a key holds: a value, and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The content.
    pub value: Value,
    /// Absolute expiry by the store's clock; `None` lives for ever.
    pub expires_at: Option<UnixMs>,
}

/// What a unit did to a key, in deterministic form.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The key now holds this, whatever it held before. Of a collection
    /// everything is known.
    Whole(Entry),
    /// The collection that was loaded has the [changes](Collection::changes)
    /// that it tells, and ends then.
    Delta(Entry),
    /// The key is gone.
    Delete,
    /// The value is as it was directly before; only the expiry is new. A delta.
    Expiry(Option<UnixMs>),
}

/// The version of the Redis protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RESP2, the default of a new connection.
    #[default]
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

/// One request: the bytes as a RESP array of bulk strings, and where its
/// arguments lie in them. The first argument is the command's name.
///
/// Arguments are ranges, not `Bytes`, so that a request costs one reference
/// count however many arguments it has.
#[derive(Clone, Debug)]
pub struct Request {
    raw: Bytes,
    args: SmallVec<[Range<u32>; 4]>,
}

impl Request {
    /// A request whose arguments lie at `args` in `raw`.
    ///
    /// `raw` is exactly `*<n>\r\n` and `n` bulk strings, below 4 GiB, and every
    /// range lies within it; the decoder sees to both.
    pub fn new(raw: Bytes, args: SmallVec<[Range<u32>; 4]>) -> Self {
        Self { raw, args }
    }

    /// Encodes `args` as a request: what inline commands and rewritten ones go through.
    ///
    /// # Panics
    /// If the encoded request is 4 GiB or longer.
    pub fn from_args<A: AsRef<[u8]>>(args: &[A]) -> Self {
        let mut raw =
            BytesMut::with_capacity(16 + args.iter().map(|a| a.as_ref().len() + 16).sum::<usize>());
        raw.put_slice(format!("*{}\r\n", args.len()).as_bytes());
        let mut ranges = SmallVec::with_capacity(args.len());
        for arg in args {
            let arg = arg.as_ref();
            raw.put_slice(format!("${}\r\n", arg.len()).as_bytes());
            let start = u32::try_from(raw.len()).expect("a request is below 4 GiB");
            raw.put_slice(arg);
            ranges.push(start..u32::try_from(raw.len()).expect("a request is below 4 GiB"));
            raw.put_slice(b"\r\n");
        }
        Self {
            raw: raw.freeze(),
            args: ranges,
        }
    }

    /// The same in memory of its own, for a request that is kept for longer than
    /// the buffer that it was received in.
    pub fn detached(&self) -> Self {
        Self {
            raw: Bytes::copy_from_slice(&self.raw),
            args: self.args.clone(),
        }
    }

    /// The whole request as a RESP array of bulk strings.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The number of arguments, the command's name included.
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// Whether it has no arguments at all (`*0`), which Redis skips silently.
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// Argument `index`, borrowed.
    ///
    /// # Panics
    /// If there are not that many, like a slice.
    pub fn arg(&self, index: usize) -> &[u8] {
        let range = &self.args[index];
        &self.raw[range.start as usize..range.end as usize]
    }

    /// Argument `index`, sharing the request's buffer.
    ///
    /// # Panics
    /// If there are not that many, like a slice.
    pub fn arg_bytes(&self, index: usize) -> Bytes {
        let range = &self.args[index];
        self.raw.slice(range.start as usize..range.end as usize)
    }

    /// All arguments in order, borrowed.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.args
            .iter()
            .map(|r| &self.raw[r.start as usize..r.end as usize])
    }
}

/// A reply, before it is encoded for the protocol that the client speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `+OK` and its like.
    Simple(&'static str),
    /// The same with a text of a script's own, of one line.
    Status(Bytes),
    /// `-CODE text`, without the leading dash.
    Error(Bytes),
    /// `:n`.
    Integer(i64),
    /// A binary-safe string.
    Bulk(Bytes),
    /// No value: `$-1` in RESP2, `_` in RESP3.
    Null,
    /// No array: `*-1` in RESP2, `_` in RESP3.
    NullArray,
    /// An array.
    Array(Vec<Reply>),
    /// A map; in RESP2 an array of alternating keys and values.
    Map(Vec<(Reply, Reply)>),
    /// An array of arrays of two; in RESP2 one flat array.
    Pairs(Vec<(Reply, Reply)>),
    /// A map; in RESP2 an array of arrays of two.
    MapOfPairs(Vec<(Reply, Reply)>),
    /// A set; in RESP2 an array.
    Set(Vec<Reply>),
    /// A floating-point number; in RESP2 a bulk string.
    Double(f64),
    /// The same, written out in digits of the command's own choice.
    Decimal(Bytes),
    /// A boolean; in RESP2 `:1` or `:0`.
    Boolean(bool),
    /// An integer of any size, in digits; in RESP2 a bulk string.
    BigNumber(Bytes),
    /// Text with a three-letter format; in RESP2 a bulk string.
    Verbatim([u8; 3], Bytes),
    /// An out-of-band message; in RESP2 an array.
    Push(Vec<Reply>),
    /// Bytes already encoded for this client's protocol: what the cache said.
    Raw(Bytes),
}

impl Reply {
    /// `+OK`.
    pub const OK: Self = Self::Simple("OK");

    /// An error reply with this text, its code included.
    pub fn error(text: impl Into<String>) -> Self {
        Self::Error(Bytes::from(text.into()))
    }

    /// A bulk string.
    pub fn bulk(bytes: impl Into<Bytes>) -> Self {
        Self::Bulk(bytes.into())
    }
}

//! The calls of the protocol as requests, and their replies as answers.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};

use super::CacheError;
use super::functions::library;
use crate::model::{CacheCommand, Generation, Key, Reply, UnixMs, Version};

/// What a batch did to a key, as the cache is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// It holds this string and has no expiry.
    String(Bytes),
    /// It holds this string until `expires_at`; the native dies at `deadline`.
    Expiring {
        /// The value.
        value: Bytes,
        /// True expiry, by the store's clock.
        expires_at: UnixMs,
        /// When the native dies, by the cache's clock.
        deadline: UnixMs,
    },
    /// The same, where the native's life is not that of others: it dies at `deadline`.
    Lasting {
        /// The value.
        value: Bytes,
        /// When the native dies, by the cache's clock.
        deadline: UnixMs,
    },
    /// It does not exist.
    Absent,
    /// The same, where the mark's life is not that of others.
    AbsentFor {
        /// How long the cache remembers that.
        life_ms: u64,
    },
    /// Its value is as before and only the expiry is new; the native dies at `deadline`.
    Expiry {
        /// True expiry, by the store's clock.
        expires_at: Option<UnixMs>,
        /// When the native dies, by the cache's clock.
        deadline: UnixMs,
    },
    /// It holds another type than a string.
    Collection {
        /// Whether the commands make all of it, or change what was there directly before.
        told: Told,
        /// The number of its elements.
        size: u64,
        /// The commands.
        commands: Vec<CacheCommand>,
        /// True expiry, by the store's clock.
        expires_at: Option<UnixMs>,
        /// When the native dies, by the cache's clock.
        deadline: UnixMs,
    },
    /// It holds the collection that was staged under the token of the fill.
    Staged {
        /// The number of its elements.
        size: u64,
        /// True expiry, by the store's clock.
        expires_at: Option<UnixMs>,
        /// When the native dies, by the cache's clock.
        deadline: UnixMs,
    },
    /// It changed; to what is not told.
    Invalidate,
    /// It was only seen.
    Observe,
}

/// How much of a collection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// All of it.
    Whole,
    /// What was changed since the version directly before.
    Delta,
}

/// The effect of a batch on one key, with the key's version after it.
#[derive(Clone, Debug)]
pub struct Applied<'a> {
    /// The key.
    pub key: &'a Key,
    /// What happened to it.
    pub op: Op,
    /// Its version now.
    pub version: Version,
}

/// What a reader found in place of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The native is there: run the command again.
    Hit,
    /// The key is known not to exist.
    Absent,
    /// Nothing is known, and the caller holds the lease to fill it.
    Leased,
    /// Batches that write the key are in flight: their ids, as `proxy.batch`.
    Writers(Vec<String>),
}

/// Whether a fill was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// The content is set.
    Set,
    /// The cache was told the version, and keeps what is fresher.
    Refused,
}

/// A function of the library; its name in `functions.lua` begins with that of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Begin,
    Apply,
    Settle,
    Look,
    Stage,
    Fill,
    Observe,
    Bury,
    Close,
    Inspect,
    Open,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Apply => "apply",
            Self::Settle => "settle",
            Self::Look => "look",
            Self::Stage => "stage",
            Self::Fill => "fill",
            Self::Observe => "observe",
            Self::Bury => "bury",
            Self::Inspect => "inspect",
            Self::Close => "close",
            Self::Open => "open",
        }
    }
}

/// An FCALL as it is built.
pub(super) struct Call {
    out: BytesMut,
    scratch: String,
}

impl Call {
    /// `FCALL function <keys> generation databases`; `further` arguments follow.
    pub(super) fn new<'a>(
        function: Function,
        keys: impl ExactSizeIterator<Item = &'a Key> + Clone,
        generation: Generation,
        further: usize,
    ) -> Self {
        let size: usize = keys.clone().map(|key| key.name.len() + 16).sum();
        let mut call = Self {
            out: BytesMut::with_capacity(size + 64 * (further + 2)),
            scratch: String::new(),
        };
        let _ = write!(call.scratch, "*{}\r\n", 3 + keys.len() + 2 + further);
        call.out.put_slice(call.scratch.as_bytes());
        call.scratch.clear();
        call.bytes(b"FCALL");
        let _ = write!(call.scratch, "{}_{}", library::name(), function.name());
        let name = std::mem::take(&mut call.scratch);
        call.bytes(name.as_bytes());
        call.scratch = name;
        call.number(keys.len() as i64);
        let mut databases = Vec::new();
        let mut elsewhere = false;
        for key in keys {
            call.bytes(&key.name);
            elsewhere |= key.db.index() != 0;
            databases.push(b'0' + key.db.index());
        }
        call.number(generation.0);
        call.bytes(if elsewhere { &databases } else { b"" });
        call
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.header(bytes.len());
        self.out.put_slice(bytes);
        self.out.put_slice(b"\r\n");
    }

    pub(super) fn number(&mut self, number: i64) {
        self.scratch.clear();
        let _ = write!(self.scratch, "{number}");
        let text = std::mem::take(&mut self.scratch);
        self.bytes(text.as_bytes());
        self.scratch = text;
    }

    /// `op`, version and value of one key.
    pub(super) fn applied(&mut self, applied: &Applied<'_>) {
        let (op, value) = operation(&applied.op);
        self.bytes(op.as_bytes());
        self.number(applied.version.0);
        self.bytes(&value);
    }

    pub(super) fn finish(self) -> Bytes {
        self.out.freeze()
    }

    fn header(&mut self, length: usize) {
        if length < 10 {
            self.out
                .put_slice(&[b'$', b'0' + length as u8, b'\r', b'\n']);
        } else {
            let mut digits = [0u8; 20];
            let mut at = digits.len();
            let mut rest = length;
            while rest > 0 {
                at -= 1;
                digits[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            self.out.put_u8(b'$');
            self.out.put_slice(&digits[at..]);
            self.out.put_slice(b"\r\n");
        }
    }
}

/// As `functions.lua` reads it.
fn operation(op: &Op) -> (Cow<'static, str>, Cow<'_, [u8]>) {
    let nothing = Cow::Borrowed(&b""[..]);
    match op {
        Op::String(value) => ("S".into(), Cow::Borrowed(value)),
        Op::Expiring {
            value,
            expires_at,
            deadline,
        } => (
            format!("S{} {}", deadline.0, expires_at.0).into(),
            Cow::Borrowed(value),
        ),
        Op::Lasting { value, deadline } => {
            (format!("S{} -", deadline.0).into(), Cow::Borrowed(value))
        }
        Op::Absent => ("D".into(), nothing),
        Op::AbsentFor { life_ms } => (format!("D{life_ms}").into(), nothing),
        Op::Expiry {
            expires_at: Some(at),
            deadline,
        } => (format!("E{} {}", deadline.0, at.0).into(), nothing),
        Op::Expiry {
            expires_at: None,
            deadline,
        } => (format!("E{} -", deadline.0).into(), nothing),
        Op::Collection {
            told,
            commands,
            expires_at,
            deadline,
            ..
        } => {
            let mark = match told {
                Told::Whole => 'B',
                Told::Delta => 'C',
            };
            let expiry = text_of(*expires_at);
            let packed = pack(commands).to_vec();
            (
                format!("{mark}{} {expiry}", deadline.0).into(),
                packed.into(),
            )
        }
        Op::Staged {
            size,
            expires_at,
            deadline,
        } => {
            let expiry = text_of(*expires_at);
            let size = size.to_string().into_bytes();
            (format!("R{} {expiry}", deadline.0).into(), size.into())
        }
        Op::Invalidate => ("I".into(), nothing),
        Op::Observe => ("O".into(), nothing),
    }
}

fn text_of(expires_at: Option<UnixMs>) -> String {
    expires_at.map_or("-".to_owned(), |at| at.0.to_string())
}

/// Commands as `functions.lua` unpacks them: a MessagePack array of arrays of
/// strings (<https://github.com/msgpack/msgpack/blob/master/spec.md>).
pub(super) fn pack(commands: &[CacheCommand]) -> Bytes {
    let words = commands.iter().flatten();
    let size: usize = words.map(|word| word.len() + 5).sum();
    let mut out = BytesMut::with_capacity(size + 5 * commands.len() + 5);
    array(&mut out, commands.len());
    for command in commands {
        array(&mut out, command.len());
        for word in command {
            string(&mut out, word);
        }
    }
    out.freeze()
}

fn array(out: &mut BytesMut, length: usize) {
    match length {
        0..16 => out.put_u8(0x90 | length as u8),
        16..65_536 => {
            out.put_u8(0xdc);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(0xdd);
            out.put_u32(length as u32);
        }
    }
}

fn string(out: &mut BytesMut, word: &[u8]) {
    match word.len() {
        length @ 0..32 => out.put_u8(0xa0 | length as u8),
        length @ 32..65_536 => {
            out.put_u8(0xda);
            out.put_u16(length as u16);
        }
        length => {
            out.put_u8(0xdb);
            out.put_u32(length as u32);
        }
    }
    out.put_slice(word);
}

/// The answers to `look`, one for each key.
pub(super) fn looks(reply: Reply) -> Result<Vec<Look>, CacheError> {
    items(reply)?
        .into_iter()
        .map(|item| match item {
            Reply::Bulk(text) => match text.first() {
                Some(b'h') => Ok(Look::Hit),
                Some(b'a') => Ok(Look::Absent),
                Some(b'l') => Ok(Look::Leased),
                Some(b'w') => Ok(Look::Writers(
                    String::from_utf8_lossy(&text[1..])
                        .split_terminator(';')
                        .map(ToOwned::to_owned)
                        .collect(),
                )),
                _ => Err(unexpected()),
            },
            _ => Err(unexpected()),
        })
        .collect()
}

/// The answers to `fill`, one for each key.
pub(super) fn fills(reply: Reply) -> Result<Vec<Fill>, CacheError> {
    items(reply)?
        .into_iter()
        .map(|item| match item {
            Reply::Integer(1) => Ok(Fill::Set),
            Reply::Integer(0) => Ok(Fill::Refused),
            _ => Err(unexpected()),
        })
        .collect()
}

fn items(reply: Reply) -> Result<Vec<Reply>, CacheError> {
    match reply {
        Reply::Array(items) => Ok(items),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> CacheError {
    CacheError::Refused("a function of the cache gave an answer of another form".into())
}

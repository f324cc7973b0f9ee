//! What the cache tells beside a native: its companion, and with it the true expiry.

use bytes::{Bytes, BytesMut};

use crate::cache::RESERVED_PREFIX;
use crate::command::Call;
use crate::engine::{self, Content, Loaded, Workspace};
use crate::model::{Db, Key, Kind, Reply, Request, UnixMs};
use crate::resp;

/// The native's end and the companion, at one moment.
pub(super) fn expiry_block(call: &Call) -> Bytes {
    let key = call.request.arg(1);
    let mut block = BytesMut::new();
    block.extend_from_slice(Request::from_args(&["MULTI"]).raw());
    block.extend_from_slice(Request::from_args(&[b"PEXPIRETIME", key]).raw());
    block.extend_from_slice(Request::from_args(&[&b"GET"[..], &companion(key)]).raw());
    block.extend_from_slice(Request::from_args(&["EXEC"]).raw());
    block.freeze()
}

/// The part of a companion that readers understand; `functions.lua` writes it.
pub(super) struct Companion {
    /// Whether the cache knows that the key is absent.
    pub absent: bool,
    expires_at: Option<UnixMs>,
}

impl Companion {
    /// `None` while writers are in flight, or if nothing is known of the content.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut fields = text.split(' ');
        let (_floor, content, expiry, _lease, writers) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        if !writers.is_empty() || content == "-" {
            return None;
        }
        Some(Self {
            absent: content.starts_with('a'),
            expires_at: expiry.parse().ok().map(UnixMs),
        })
    }
}

/// The companion's name in the cache; `functions.lua` makes the same.
pub(super) fn companion(key: &[u8]) -> Vec<u8> {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        key[open + 1..]
            .iter()
            .position(|&byte| byte == b'}')
            .filter(|&length| length > 0)
    });
    let mut name = Vec::with_capacity(key.len() + 5);
    name.extend_from_slice(RESERVED_PREFIX);
    if tag.is_some() {
        name.push(b'C');
        name.extend_from_slice(key);
    } else {
        name.extend_from_slice(b"c{");
        name.extend_from_slice(key);
        name.push(b'}');
    }
    name
}

/// The true expiry, if the cache knows it: `Some(None)` lives for ever.
pub(super) fn told_expiry(exec: &[u8]) -> Option<Option<UnixMs>> {
    let Ok(Reply::Array(items)) = resp::decode_reply(&Bytes::copy_from_slice(exec)) else {
        return None;
    };
    match items.as_slice() {
        [Reply::Integer(ends), _] if *ends > 0 && ends % 2 == 0 => Some(None),
        [Reply::Integer(ends), Reply::Bulk(companion)] if *ends > 0 => {
            let companion = Companion::parse(companion)?;
            companion.expires_at.filter(|_| !companion.absent).map(Some)
        }
        _ => None,
    }
}

pub(super) fn expiry_reply(call: &Call, db: Db, expires_at: Option<UnixMs>, now: UnixMs) -> Reply {
    let mut workspace = Workspace::default();
    let content = Content::Header(Kind::String);
    let loaded = Loaded {
        version: Default::default(),
        content,
        expires_at,
    };
    workspace.load(Key::new(db, call.request.arg_bytes(1)), loaded);
    engine::execute(call, db, &mut workspace, now)
}

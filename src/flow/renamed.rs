//! Names under which keys stand elsewhere, taken out of replies.

use bytes::{Bytes, BytesMut};

use crate::command::Call;
use crate::model::{Protocol, Reply};
use crate::resp;

/// Commands whose replies name keys.
const NAMING: &[&str] = &[
    "LMPOP",
    "ZMPOP",
    "BLMPOP",
    "BZMPOP",
    "BLPOP",
    "BRPOP",
    "BZPOPMIN",
    "BZPOPMAX",
    "XREAD",
    "XREADGROUP",
];

/// What stands before the names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renamed {
    pub(super) prefix: &'static [u8],
    /// Bytes behind the prefix that belong to it.
    pub(super) more: usize,
}

impl Renamed {
    /// Whether the reply may have to be changed.
    pub(super) fn concerns(call: &Call, reply: &[u8]) -> bool {
        reply.starts_with(b"-") || NAMING.contains(&call.command.name)
    }

    /// Appends what was said to `call`, as the client knows its keys.
    pub(super) fn append(self, call: &Call, reply: &Bytes, protocol: Protocol, out: &mut BytesMut) {
        if !Self::concerns(call, reply) {
            return out.extend_from_slice(reply);
        }
        match resp::decode_reply(reply) {
            Ok(decoded) => resp::encode(&self.unnamed(call, decoded), protocol, out),
            Err(_) => out.extend_from_slice(reply),
        }
    }

    /// The reply with the keys' own names.
    pub(super) fn unnamed(self, call: &Call, reply: Reply) -> Reply {
        let own = |name: Reply| match name {
            Reply::Bulk(name) if name.starts_with(self.prefix) => {
                Reply::Bulk(name.slice(name.len().min(self.prefix.len() + self.more)..))
            }
            other => other,
        };
        match reply {
            Reply::Error(text) => Reply::Error(self.without(&text)),
            reply if !NAMING.contains(&call.command.name) => reply,
            Reply::Map(pairs) => Reply::MapOfPairs(
                pairs
                    .into_iter()
                    .map(|(key, held)| (own(key), held))
                    .collect(),
            ),
            Reply::Array(items) if call.command.name.starts_with('X') => {
                let stream = |item| match item {
                    Reply::Array(mut pair) if !pair.is_empty() => {
                        pair[0] = own(std::mem::replace(&mut pair[0], Reply::Null));
                        Reply::Array(pair)
                    }
                    other => other,
                };
                Reply::Array(items.into_iter().map(stream).collect())
            }
            Reply::Array(mut items) if !items.is_empty() => {
                items[0] = own(std::mem::replace(&mut items[0], Reply::Null));
                Reply::Array(items)
            }
            other => other,
        }
    }

    fn without(self, text: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((byte, after)) = rest.split_first() {
            match rest.strip_prefix(self.prefix) {
                Some(name) => rest = &name[name.len().min(self.more)..],
                None => {
                    out.push(*byte);
                    rest = after;
                }
            }
        }
        out.into()
    }
}

//! How a waiting call is tried: as it came, or for the one key that was written; and
//! what the replies to a try mean for it.

use bytes::Bytes;

use crate::coherence::{Step, Unit};
use crate::command::{Call, args, resolve};
use crate::engine;
use crate::model::{Db, Key, Reply, Request};

/// What a call takes of a key; those that take the same stand in one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Taking {
    /// Items of a list.
    Items,
    /// Members of a sorted set.
    Members,
    /// What a group of a stream was not given yet.
    Deliveries(Bytes),
    /// It only reads a stream: all who do are served by one entry.
    Nothing,
}

impl Taking {
    /// What `call` takes.
    pub fn of(call: &Call) -> Self {
        let request = &call.request;
        match call.command.name {
            "BZPOPMIN" | "BZPOPMAX" | "BZMPOP" => Self::Members,
            "XREAD" => Self::Nothing,
            "XREADGROUP" => {
                let word = (1..request.len().saturating_sub(1))
                    .find(|index| args::is_word(request.arg(*index), "GROUP"));
                Self::Deliveries(word.map_or_else(Bytes::new, |word| request.arg_bytes(word + 1)))
            }
            _ => Self::Items,
        }
    }

    /// Whether it ends, too, when the key is deleted.
    pub fn ends_with_key(&self) -> bool {
        matches!(self, Self::Deliveries(_))
    }
}

/// What is tried for a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Try {
    /// The call as it came, or for those of its keys that nobody else waits for.
    First,
    /// Only whether these keys hold what it waits for: others come before it.
    Check(Vec<Key>),
    /// The call for one key that was written.
    Woken,
}

/// The unit of `call` when `key` was written. Where its reply does not tell enough,
/// the type of the key stands before it.
pub fn woken(call: &Call, key: &Key, client: u64) -> Unit {
    let narrow = engine::narrowed(call, |name| name == &key.name[..]);
    let mut unit = Unit::single(key.db, narrow).by(client);
    let needs_type = matches!(call.command.name, "BLMOVE" | "BRPOPLPUSH" | "XREADGROUP");
    if let Some(look) = needs_type.then(|| step("TYPE", key)).flatten() {
        unit.steps.insert(0, look);
    }
    unit
}

/// The unit that finds out which of `keys` hold something else than what is waited for:
/// an error for each of those.
pub fn check(taking: &Taking, keys: &[Key], client: u64) -> Unit {
    let name = match taking {
        Taking::Items => "LLEN",
        Taking::Members => "ZCARD",
        Taking::Deliveries(_) | Taking::Nothing => "XLEN",
    };
    Unit {
        steps: keys.iter().filter_map(|key| step(name, key)).collect(),
        client,
        ..Unit::default()
    }
}

fn step(name: &str, key: &Key) -> Option<Step> {
    let request = Request::from_args(&[name.as_bytes(), &key.name]);
    let call = resolve(request).ok()?;
    Some(Step { db: key.db, call })
}

/// The first try of `call`, for the keys that `is_free` names.
pub fn first(call: &Call, db: Db, client: u64, is_free: impl Fn(&[u8]) -> bool) -> Unit {
    Unit::single(db, engine::narrowed(call, is_free)).by(client)
}

/// What the replies to a try of a call that takes `taking` come to; `None`: it goes on waiting.
pub fn outcome(
    tried: &Try,
    taking: &Taking,
    replies: impl IntoIterator<Item = Reply>,
) -> Option<Reply> {
    let mut replies: Vec<Reply> = replies.into_iter().collect();
    let reply = replies.pop()?;
    if let Some(kind) = replies.pop() {
        return typed_outcome(taking, &kind, reply);
    }
    let goes_on = is_null(&reply) || *tried == Try::Woken && is_error(&reply, b"WRONGTYPE");
    (!goes_on).then_some(reply)
}

/// The same, where the type of the key was asked for.
fn typed_outcome(taking: &Taking, kind: &Reply, reply: Reply) -> Option<Reply> {
    let is = |name: &str| matches!(kind, Reply::Simple(text) if *text == name);
    match taking {
        Taking::Deliveries(_) if !is("stream") => {
            Some(Reply::error("UNBLOCKED the stream key no longer exists"))
        }
        Taking::Deliveries(_) if is_error(&reply, b"NOGROUP") => Some(Reply::error(
            "NOGROUP the consumer group this client was blocked on no longer exists",
        )),
        // Otherwise it is the destination that has the wrong type.
        Taking::Items if is_error(&reply, b"WRONGTYPE") && !is("list") => None,
        _ => Some(reply).filter(|reply| !is_null(reply)),
    }
}

fn is_null(reply: &Reply) -> bool {
    matches!(reply, Reply::Null | Reply::NullArray)
}

fn is_error(reply: &Reply, code: &[u8]) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with(code))
}

//! Collections held in memory beside those of Redis: what must be equal, and
//! which replies have no order of their own.

use anyhow::{Result, ensure};
use freshet::model::{Collection, Key, Kind, Reply};

use super::support::client::{Client, Value};

/// Commands that reply in an order that Redis leaves open.
const UNORDERED: &[&str] = &["HGETALL"];

/// Commands that choose at random: what they reply cannot be compared.
pub const RANDOM: &[&str] = &[];

/// What makes Redis take the members that `reply` to a random write names;
/// `None` if it names none or the command does not choose.
pub fn same_choice(name: &str, arguments: &[Vec<u8>], reply: &Reply) -> Option<Vec<Vec<u8>>> {
    let chosen: Vec<Vec<u8>> = match reply {
        Reply::Bulk(member) => vec![member.to_vec()],
        Reply::Array(members) | Reply::Set(members) => members
            .iter()
            .filter_map(|member| match member {
                Reply::Bulk(bytes) => Some(bytes.to_vec()),
                _ => None,
            })
            .collect(),
        _ => return None,
    };
    if name != "SPOP" || chosen.is_empty() {
        return None;
    }
    let command = [b"SREM".to_vec(), arguments[1].clone()];
    Some(command.into_iter().chain(chosen).collect())
}

/// Whether two encoded replies to `name` are equal but for an order that is open.
pub fn equal_but_for_order(name: &str, ours: &[u8], theirs: &[u8]) -> bool {
    UNORDERED.contains(&name) && ours.len() == theirs.len() && sorted(ours) == sorted(theirs)
}

fn sorted(reply: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = reply.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}

/// The command that shows all of a key of this type.
pub fn show_all(kind: Kind, key: &Key) -> Vec<Vec<u8>> {
    let words: &[&str] = match kind {
        Kind::String => &["GET", "k"],
        Kind::Hash => &["HGETALL", "k"],
        Kind::List => &["LRANGE", "k", "0", "-1"],
        Kind::Set => &["SMEMBERS", "k"],
        Kind::SortedSet => &["ZRANGE", "k", "0", "-1", "WITHSCORES"],
        Kind::Stream => &["XINFO", "STREAM", "k", "FULL", "COUNT", "0"],
    };
    let argument = |word: &&str| match *word {
        "k" => key.name.to_vec(),
        word => word.as_bytes().to_vec(),
    };
    words.iter().map(argument).collect()
}

/// Fails unless Redis holds the same elements under `key`.
pub fn same_as_redis(key: &Key, ours: &Collection, redis: &mut Client) -> Result<()> {
    if ours.kind() == Kind::Stream {
        return super::stream::same_as_redis(key, ours, redis);
    }
    let theirs = redis.ok(&show_all(ours.kind(), key))?;
    let mut theirs = flat(&theirs);
    let mut held: Vec<Vec<u8>> = match ours.kind() {
        Kind::Hash => ours
            .present()
            .flat_map(|(field, element)| [field.to_vec(), element.value.to_vec()])
            .collect(),
        Kind::List => ours.present().map(|(_, e)| e.value.to_vec()).collect(),
        Kind::Set => ours.present().map(|(field, _)| field.to_vec()).collect(),
        // Scores are compared in the replies; here the members in their order.
        Kind::SortedSet => ours
            .by_rank()?
            .map(|ranked| ranked.field.to_vec())
            .collect(),
        Kind::String | Kind::Stream => return Ok(()),
    };
    match ours.kind() {
        Kind::SortedSet => theirs = theirs.into_iter().step_by(2).collect(),
        Kind::Hash => {
            theirs = pairs_sorted(theirs);
            held = pairs_sorted(held);
        }
        Kind::Set => {
            theirs.sort_unstable();
            held.sort_unstable();
        }
        _ => {}
    }
    ensure!(
        theirs == held,
        "{key:?} holds {held:?}, in Redis {theirs:?}"
    );
    Ok(())
}

fn pairs_sorted(flat: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut pairs: Vec<_> = flat.chunks(2).map(<[_]>::to_vec).collect();
    pairs.sort_unstable();
    pairs.concat()
}

fn flat(value: &Value) -> Vec<Vec<u8>> {
    match value {
        Value::Bulk(bytes) => vec![bytes.clone()],
        Value::Integer(number) => vec![number.to_string().into_bytes()],
        Value::Simple(text) | Value::Other(text) => vec![text.clone().into_bytes()],
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        Value::Map(pairs) => pairs
            .iter()
            .flat_map(|(k, v)| [flat(k), flat(v)].concat())
            .collect(),
        Value::Null | Value::Error(_) => Vec::new(),
    }
}

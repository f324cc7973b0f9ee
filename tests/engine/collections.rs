//! Collections held in memory beside those of Redis: what must be equal.

use anyhow::{Result, ensure};
use freshet::model::{Collection, Key, Kind, format_double};

use crate::patterns::open::flat;
use crate::support::client::Client;

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
        return crate::memory_stream::same_as_redis(key, ours, redis);
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
        Kind::SortedSet => ours
            .by_rank()?
            .flat_map(|ranked| {
                let score = format_double(ranked.rank).into_bytes();
                [ranked.field.to_vec(), score]
            })
            .collect(),
        Kind::String | Kind::Stream => return Ok(()),
    };
    match ours.kind() {
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

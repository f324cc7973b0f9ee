//! How members are held, and the encoding that Redis would give them.

use bytes::Bytes;

use crate::model::{Collection, Element, Kind, NotLoaded, Ranked, Reply};

/// A set of more members is a skip list in Redis (`zset-max-listpack-entries`).
const LISTPACK_MEMBERS_MAX: u64 = 128;
/// A set with a longer member is (`zset-max-listpack-value`).
const LISTPACK_MEMBER_LEN_MAX: usize = 64;

/// What `meta` says of a set that is a skip list in Redis; it never becomes a
/// listpack again. A listpack's `meta` is empty.
const SKIP_LIST: &[u8] = b"s";

/// Whether Redis would hold `zset` as a skip list.
pub(in crate::engine) fn is_skip_list(zset: &Collection) -> bool {
    zset.meta() == SKIP_LIST
}

/// Gives `member` this score.
///
/// # Errors
/// If it is not known whether it is there.
pub(super) fn put(zset: &mut Collection, member: Bytes, score: f64) -> Result<(), NotLoaded> {
    if !is_skip_list(zset) && zset.get(&member)?.is_none() {
        let is_long = member.len() > LISTPACK_MEMBER_LEN_MAX;
        if is_long || zset.len() >= LISTPACK_MEMBERS_MAX {
            zset.set_meta(SKIP_LIST);
        }
    }
    set(zset, member, score)
}

fn set(zset: &mut Collection, member: Bytes, score: f64) -> Result<(), NotLoaded> {
    let element = Element {
        value: Bytes::new(),
        rank: if is_skip_list(zset) || score != 0.0 {
            score
        } else {
            // A listpack has integers, which know no negative zero.
            0.0
        },
    };
    zset.set(member, element).map(drop)
}

/// A new set of `members`, no two of which are equal: its encoding is that
/// of the whole (`ZUNIONSTORE`, `GEOSEARCHSTORE`).
pub(in crate::engine) fn built(members: Vec<(Bytes, f64)>) -> Result<Collection, NotLoaded> {
    let mut zset = Collection::new(Kind::SortedSet);
    let is_long = |(member, _): &(Bytes, f64)| member.len() > LISTPACK_MEMBER_LEN_MAX;
    if members.len() as u64 > LISTPACK_MEMBERS_MAX || members.iter().any(is_long) {
        zset.set_meta(SKIP_LIST);
    }
    for (member, score) in members {
        set(&mut zset, member, score)?;
    }
    Ok(zset)
}

/// What replies with members tell of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Members,
    WithScores,
}

impl Shown {
    /// The reply with these members, in their order.
    pub fn reply<'a>(self, members: impl IntoIterator<Item = &'a Ranked>) -> Reply {
        let members = members.into_iter();
        match self {
            Self::Members => Reply::Array(members.map(member).collect()),
            Self::WithScores => Reply::Pairs(members.map(|m| (member(m), score(m))).collect()),
        }
    }
}

/// A member, as replies tell it.
pub(super) fn member(ranked: &Ranked) -> Reply {
    Reply::Bulk(ranked.field.clone())
}

/// Its score, as replies tell it.
pub(super) fn score(ranked: &Ranked) -> Reply {
    Reply::Double(ranked.rank)
}

//! What Redis leaves open: the order of some replies, choices by chance, and
//! what depends on how a value came to be.

use anyhow::{Context, Result, ensure};

use crate::support::client::{Client, Value};

/// Commands that reply in an order that Redis leaves open.
const UNORDERED: &[&str] = &[
    "HGETALL", "HKEYS", "HVALS", "SDIFF", "SINTER", "SMEMBERS", "SUNION",
];

/// Commands that Redis may answer in several parts.
const SCANS: &[&str] = &["HSCAN", "SSCAN", "ZSCAN"];

/// Commands that choose at random: only how much they reply can be compared.
const RANDOM: &[&str] = &["HRANDFIELD", "SRANDMEMBER", "ZRANDMEMBER"];

/// What Redis is sent instead of a command. A `PFCOUNT` of one key writes the count
/// into the string there, which it is not to do here; of a key twice it does not.
pub fn as_sent(name: &str, arguments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut sent = arguments.to_vec();
    if name == "PFCOUNT" && sent.len() == 2 {
        sent.push(sent[1].clone());
    }
    sent
}

/// Whether two encoded replies to `name` tell of as many elements, whichever these are.
pub fn equal_but_for_choice(name: &str, ours: &[u8], theirs: &[u8]) -> bool {
    RANDOM.contains(&name)
        && match (ours.first(), theirs.first()) {
            (Some(b'$'), Some(b'$')) => ours.starts_with(b"$-1") == theirs.starts_with(b"$-1"),
            (Some(b'*'), Some(b'*')) => first_line(ours) == first_line(theirs),
            _ => false,
        }
}

/// Whether both replies to a scan of a key are a part of it.
pub fn is_a_page(name: &str, ours: &[u8], theirs: &[u8]) -> bool {
    SCANS.contains(&name) && ours.starts_with(b"*2\r\n$") && theirs.starts_with(b"*2\r\n$")
}

/// Commands that wait if there is nothing: the engine, which does not, answers
/// as Redis does within MULTI.
pub const BLOCKING: &[&str] = &["BLPOP", "BRPOP", "BLMPOP", "BLMOVE", "BRPOPLPUSH"];

/// The bytes that Redis replies to a command that waits, within MULTI.
pub fn without_waiting(redis: &mut Client, arguments: &[Vec<u8>]) -> Result<Vec<u8>> {
    redis.ok(&["MULTI"])?;
    redis.ok(arguments)?;
    redis.send(&["EXEC"])?;
    let replies = redis.read_with_bytes()?.1;
    let reply = replies.strip_prefix(b"*1\r\n");
    Ok(reply.context("one reply within EXEC's")?.to_vec())
}

/// Redis's `SORT` reads numbers by `strtod`, and fails if `errno` says so from
/// an earlier command (`INCRBYFLOAT k 1e5000`). Reading a time to wait resets it.
pub fn reset_errno(redis: &mut Client) -> Result<()> {
    let refused = redis.call(&["BLPOP", "k", "x"])?;
    ensure!(refused.error().is_some(), "BLPOP with no time to wait");
    Ok(())
}

/// What makes Redis take the members that `reply` to a random write names;
/// `None` if it names none or the command does not choose.
pub fn same_choice(name: &str, arguments: &[Vec<u8>], reply: &Value) -> Option<Vec<Vec<u8>>> {
    let chosen = flat(reply);
    if name != "SPOP" || chosen.is_empty() {
        return None;
    }
    let command = [b"SREM".to_vec(), arguments[1].clone()];
    Some(command.into_iter().chain(chosen).collect())
}

/// Whether Redis leaves open what the call does.
pub fn is_open(name: &str, arguments: &[Vec<u8>], redis: &mut Client) -> Result<bool> {
    let has = |word: &[u8]| arguments.iter().any(|it| it.eq_ignore_ascii_case(word));
    let source = match name {
        "ZRANGESTORE" | "GEOSEARCHSTORE" => 2,
        _ => 1,
    };
    let Some(key) = arguments.get(source) else {
        return Ok(false);
    };
    if matches!(name, "SORT" | "SORT_RO") {
        // Reading it so makes a skip list of a small sorted set, which tells scores
        // otherwise afterwards (-0); the store does not follow that.
        let kind = redis.call(&[&b"TYPE"[..], key])?;
        let encoding = redis.call(&[&b"OBJECT"[..], b"ENCODING", key])?;
        return Ok(kind.text().as_deref() == Some("zset")
            && encoding.text().as_deref() == Some("listpack"));
    }
    if matches!(name, "XADD" | "XTRIM") && has(b"~") {
        return are_blocks_open(key, redis);
    }
    if name.contains("LEX") || has(b"BYLEX") {
        return is_range_of_members_open(key, redis);
    }
    if name.starts_with("GEO") && has(b"COUNT") {
        return are_distances_equal(key, redis);
    }
    Ok(false)
}

/// Whether Redis may leave open what the call does, depending on what is there.
pub fn may_be_open(name: &str, arguments: &[Vec<u8>]) -> bool {
    let has = |word: &[u8]| arguments.iter().any(|it| it.eq_ignore_ascii_case(word));
    name.starts_with("SORT")
        || name.contains("LEX")
        || has(b"BYLEX")
        || (name.starts_with("GEO") && has(b"COUNT"))
        || (matches!(name, "XADD" | "XTRIM") && has(b"~"))
}

/// A trim with `~` takes whole blocks, and how entries stand in blocks depends in Redis on what was
/// ever deleted: a block goes when its last entry is deleted, and the one before, if it is not full,
/// is filled up; and a block that ends with deleted entries reaches as far as these did. Nothing of
/// that is promised (never fewer entries than asked for is), and the store does not keep it.
fn are_blocks_open(key: &[u8], redis: &mut Client) -> Result<bool> {
    let info = redis.call(&[&b"XINFO"[..], b"STREAM", key])?;
    let told = flat(&info);
    let deleted = told.iter().position(|name| name == b"max-deleted-entry-id");
    Ok(deleted.is_some_and(|at| told[at + 1] != b"0-0"))
}

/// A range of members of several scores has no sense, and in a skip list is found
/// from places that were drawn at random.
fn is_range_of_members_open(key: &[u8], redis: &mut Client) -> Result<bool> {
    let encoding = redis.call(&[&b"OBJECT"[..], b"ENCODING", key])?;
    let scores = redis.call(&[&b"ZRANGE"[..], key, b"0", b"-1", b"WITHSCORES"])?;
    let scores: Vec<Vec<u8>> = flat(&scores).into_iter().skip(1).step_by(2).collect();
    let are_equal = scores.windows(2).all(|pair| pair[0] == pair[1]);
    Ok(encoding.text().as_deref() == Some("skiplist") && !are_equal)
}

/// Which of several members at the same place are the nearest ones depends on how
/// a partial sort happens to go.
fn are_distances_equal(key: &[u8], redis: &mut Client) -> Result<bool> {
    let members = redis.call(&[&b"ZRANGE"[..], key, b"0", b"-1"])?;
    let command = [b"GEOPOS".to_vec(), key.to_vec()];
    let command: Vec<Vec<u8>> = command.into_iter().chain(flat(&members)).collect();
    let places = redis.call(&command)?;
    let mut places: Vec<Vec<Vec<u8>>> = places.items().iter().map(flat).collect();
    places.sort_unstable();
    Ok(places.windows(2).any(|pair| pair[0] == pair[1]))
}

/// Whether two encoded replies to `name` are equal but for an order that is open.
pub fn equal_but_for_order(name: &str, arguments: &[Vec<u8>], ours: &[u8], theirs: &[u8]) -> bool {
    const ALL_AT_ONCE: &[u8] = b"*2\r\n$1\r\n0\r\n*";
    if SCANS.contains(&name) {
        let is_all = arguments[2] == b"0" && theirs.starts_with(ALL_AT_ONCE);
        return ours.starts_with(ALL_AT_ONCE)
            && theirs.starts_with(b"*2\r\n$")
            && (!is_all || ours.len() == theirs.len())
            && items_of_scan(theirs).all(|line| items_of_scan(ours).any(|other| other == line));
    }
    let is_limited = arguments
        .iter()
        .any(|word| word.eq_ignore_ascii_case(b"LIMIT"));
    if is_unsorted(name, arguments) && is_limited {
        return first_line(ours) == first_line(theirs);
    }
    let is_open = UNORDERED.contains(&name) || is_unsorted(name, arguments);
    is_open && ours.len() == theirs.len() && sorted(ours) == sorted(theirs)
}

/// Whether this sorts by what may be the same for several (texts: up to a zero byte):
/// these then come in an order of their own.
fn is_unsorted(name: &str, arguments: &[Vec<u8>]) -> bool {
    let is_by = |pair: &[Vec<u8>]| pair[0].eq_ignore_ascii_case(b"BY") && !pair[1].contains(&b'*');
    let is_alpha = arguments
        .iter()
        .any(|word| word.eq_ignore_ascii_case(b"ALPHA"));
    matches!(name, "SORT" | "SORT_RO") && (is_alpha || arguments.windows(2).any(is_by))
}

/// The lines behind the header, the cursor and the number of items.
fn items_of_scan(reply: &[u8]) -> impl Iterator<Item = &[u8]> {
    reply.split(|byte| *byte == b'\n').skip(4)
}

fn first_line(reply: &[u8]) -> Option<&[u8]> {
    reply.split(|byte| *byte == b'\n').next()
}

fn sorted(reply: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = reply.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}

/// All strings and numbers in a reply, one after the other.
pub fn flat(value: &Value) -> Vec<Vec<u8>> {
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

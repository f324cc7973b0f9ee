//! `XINFO`.

use super::super::Refusal;
use super::super::dispatch::{Family, Run};
use super::deliver::Counter;
use super::entries::last_entry;
use super::entry;
use super::id::Id;
use super::state::{self, Group, Header, Pending};
use super::{no_group, subcommand_syntax};
use crate::model::{Collection, Kind, NotLoaded, Reply};

pub(in super::super) const COMMANDS: &[Family] = &[
    Family::new("XINFO|STREAM", super::whole, stream),
    Family::new("XINFO|GROUPS", super::whole, groups),
    Family::new("XINFO|CONSUMERS", super::whole, consumers),
];

/// How many entries `FULL` shows of each kind, unless `COUNT` says otherwise.
const COUNT_DEFAULT: usize = 10;

type Fields = Vec<(Reply, Reply)>;

fn field(name: &'static str, value: Reply) -> (Reply, Reply) {
    (Reply::bulk(name), value)
}

fn number(value: usize) -> Reply {
    Reply::Integer(value as i64)
}

fn held<'a>(run: &'a Run<'_>) -> Result<&'a Collection, Refusal> {
    let stream = run.collection(&run.key(2), Kind::Stream)?;
    stream.ok_or(Refusal::NoSuchKey)
}

fn stream(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let stream = held(run)?;
    let count = full_count(run)?;
    let header = Header::of(stream);
    let blocks = blocks(stream)?;
    let first = state::first_entry(stream)?;
    let first_id = first.map_or(Id::MIN, |(id, _)| id);
    let mut fields: Fields = vec![
        field("length", Reply::Integer(stream.len() as i64)),
        field("radix-tree-keys", number(blocks.len())),
        field("radix-tree-nodes", number(tree_nodes(&blocks))),
        field("last-generated-id", header.last.reply()),
        field("max-deleted-entry-id", header.max_deleted.reply()),
        field("entries-added", Reply::Integer(header.added as i64)),
        field("recorded-first-entry-id", first_id.reply()),
    ];
    let groups = state::groups(stream)?;
    let Some(count) = count else {
        let shown = |found: Option<(Id, _)>| {
            found.map_or(Reply::Null, |(id, element)| entry::reply(id, element))
        };
        fields.push(field("groups", number(groups.len())));
        fields.push(field("first-entry", shown(first)));
        fields.push(field("last-entry", shown(last_entry(stream)?)));
        return Ok(Reply::Map(fields));
    };
    let entries = state::entries_from(stream, Id::MIN, count)?;
    let entries = entries.into_iter();
    let entries = entries.map(|(id, element)| entry::reply(id, element));
    fields.push(field("entries", Reply::Array(entries.collect())));
    let groups: Result<Vec<Reply>, NotLoaded> = groups
        .iter()
        .map(|(name, group)| full_group(stream, name, group, count))
        .collect();
    fields.push(field("groups", Reply::Array(groups?)));
    Ok(Reply::Map(fields))
}

/// How many of each kind `FULL` shows; `None` without `FULL`.
fn full_count(run: &Run<'_>) -> Result<Option<usize>, Refusal> {
    if run.len() == 3 {
        return Ok(None);
    }
    if run.len() != 4 && run.len() != 6 || !run.is(3, "FULL") {
        return Err(subcommand_syntax(run));
    }
    if run.len() == 4 {
        return Ok(Some(COUNT_DEFAULT));
    }
    if !run.is(4, "COUNT") {
        return Err(subcommand_syntax(run));
    }
    Ok(Some(match usize::try_from(run.integer(5)?) {
        Ok(0) => usize::MAX,
        Ok(count) => count,
        Err(_) => COUNT_DEFAULT,
    }))
}

fn full_group(
    stream: &Collection,
    name: &[u8],
    group: &Group,
    count: usize,
) -> Result<Reply, NotLoaded> {
    let all = state::pending(stream, name)?;
    let shown = all.iter().take(count).map(|(id, held)| {
        Reply::Array(vec![
            id.reply(),
            Reply::Bulk(held.consumer.clone()),
            Reply::Integer(held.delivered),
            Reply::Integer(held.count as i64),
        ])
    });
    let consumers = state::consumers(stream, name)?.into_iter();
    let consumers = consumers.map(|(consumer, seen)| {
        let own: Vec<_> = all
            .iter()
            .filter(|(_, held)| held.consumer == consumer)
            .collect();
        Reply::Map(vec![
            field("name", Reply::Bulk(consumer)),
            field("seen-time", Reply::Integer(seen)),
            field("pel-count", number(own.len())),
            field("pending", own_pending(&own, count)),
        ])
    });
    let mut fields = vec![field("name", Reply::bulk(name.to_vec()))];
    fields.extend(progress(stream, group)?);
    fields.extend([
        field("pel-count", number(all.len())),
        field("pending", Reply::Array(shown.collect())),
        field("consumers", Reply::Array(consumers.collect())),
    ]);
    Ok(Reply::Map(fields))
}

fn own_pending(own: &[&(Id, Pending)], count: usize) -> Reply {
    let shown = own.iter().take(count).map(|(id, held)| {
        Reply::Array(vec![
            id.reply(),
            Reply::Integer(held.delivered),
            Reply::Integer(held.count as i64),
        ])
    });
    Reply::Array(shown.collect())
}

/// How far a group has read.
fn progress(stream: &Collection, group: &Group) -> Result<[(Reply, Reply); 3], NotLoaded> {
    let known = |count: Option<u64>| count.map_or(Reply::Null, |n| Reply::Integer(n as i64));
    Ok([
        field("last-delivered-id", group.last.reply()),
        field("entries-read", known(group.read)),
        field("lag", known(Counter::of(stream).lag(group)?)),
    ])
}

fn groups(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let stream = held(run)?;
    let mut found = Vec::new();
    for (name, group) in state::groups(stream)? {
        let consumers = state::consumers(stream, &name)?.len();
        let pending = state::pending(stream, &name)?.len();
        let mut fields = vec![
            field("name", Reply::Bulk(name)),
            field("consumers", number(consumers)),
            field("pending", number(pending)),
        ];
        fields.extend(progress(stream, &group)?);
        found.push(Reply::Map(fields));
    }
    Ok(Reply::Array(found))
}

fn consumers(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let stream = held(run)?;
    let name = run.arg(3);
    if Group::load(stream, name)?.is_none() {
        return Err(no_group(run));
    }
    let pending = state::pending(stream, name)?;
    let found = state::consumers(stream, name)?.into_iter();
    let found = found.map(|(consumer, seen)| {
        let own = pending.iter().filter(|(_, held)| held.consumer == consumer);
        let own = own.count();
        Reply::Map(vec![
            field("name", Reply::Bulk(consumer)),
            field("pending", number(own)),
            field("idle", Reply::Integer((run.now.0 - seen).max(0))),
        ])
    });
    Ok(Reply::Array(found.collect()))
}

/// The ids that the stream's blocks began with.
fn blocks(stream: &Collection) -> Result<Vec<[u8; 16]>, NotLoaded> {
    let all = state::entries_from(stream, Id::MIN, usize::MAX)?;
    let mut blocks: Vec<Id> = all
        .into_iter()
        .map(|(id, element)| entry::block_of(id, element))
        .collect();
    blocks.dedup();
    Ok(blocks.into_iter().map(Id::to_bytes).collect())
}

/// How many nodes a radix tree has that holds these sorted keys, where a run of
/// bytes without a branch is one node.
fn tree_nodes(keys: &[[u8; 16]]) -> usize {
    fn below(keys: &[[u8; 16]], depth: usize) -> usize {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
            return 1;
        };
        let shared = first[depth..].iter().zip(&last[depth..]);
        let shared = shared.take_while(|(one, other)| one == other).count();
        match (depth + shared, shared) {
            (16, 0) => 1,
            (16, _) => 2,
            (_, 1..) => 1 + below(keys, depth + shared),
            (_, 0) => {
                let branches = keys.chunk_by(|one, other| one[depth] == other[depth]);
                1 + branches.map(|keys| below(keys, depth + 1)).sum::<usize>()
            }
        }
    }
    below(keys, 0)
}

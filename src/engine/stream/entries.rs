//! `XADD`, `XLEN`, `XRANGE`, `XREVRANGE`, `XDEL`, `XTRIM`, `XSETID`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::dispatch::{Family, Run};
use super::super::{Need, Needs, Refusal};
use super::entry;
use super::id::{Id, NewId};
use super::options::{self, AddOptions, IfAbsent};
use super::state::Header;
use super::trim::{self, Keep, Trim};
use super::{first_key, header, log_ids, rebuild, words};
use crate::command::{Call, args};
use crate::model::{
    Collection, Db, Element, FieldRange, Kind, NotLoaded, Reply, STREAM_ENTRY, Side,
};

pub(in super::super) const COMMANDS: &[Family] = &[
    Family::new("XADD", add_needs, xadd),
    Family::new("XLEN", header, xlen),
    Family::new("XRANGE", range_needs, xrange),
    Family::new("XREVRANGE", reverse_range_needs, xrevrange),
    Family::new("XDEL", entries_named, xdel),
    Family::new("XTRIM", trim_needs, xtrim),
    Family::new("XSETID", last_needs, xsetid),
];

/// The most bytes that an entry may have, as in Redis.
const ENTRY_MAX: u64 = 1 << 30;

fn add_needs(call: &Call, db: Db) -> Needs {
    let need = match options::trim_of_add(call) {
        Some(trim) => Need::after(&[STREAM_ENTRY], trim::entries_to_load(&trim)),
        None => Need::header(),
    };
    Needs::from_iter([(first_key(call, db), need)])
}

fn xadd(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = AddOptions::parse(run)?;
    let arguments = run.len().saturating_sub(options.pairs_at);
    let Some(id) = options.id.filter(|_| arguments > 0 && arguments % 2 == 0) else {
        return Err(Refusal::arity(run.call.command));
    };
    if id == NewId::Given(Id::MIN) {
        return Err(Refusal::Other(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    let empty = Collection::new(Kind::Stream);
    let stream = match run.collection(&run.key(1), Kind::Stream)? {
        Some(stream) => stream,
        None if options.if_absent == IfAbsent::Nothing => return Ok(Reply::Null),
        None => &empty,
    };
    let mut header = Header::of(stream);
    let id = choose_id(id, header.last, run.now.0)?;
    let pairs: Vec<Bytes> = (options.pairs_at..run.len())
        .map(|index| run.arg_bytes(index))
        .collect();
    if pairs.iter().map(|part| part.len() as u64).sum::<u64>() > ENTRY_MAX {
        return Err(Refusal::Other("ERR Elements are too large to be stored"));
    }
    header.last = id;
    header.added = header.added.wrapping_add(1);
    header.block = header.block.push(id, &pairs);
    let element = entry::encode(header.block.first, id, &pairs);
    let gone = match &options.trim {
        Some(trim) => trim::plan(trim, stream, &header, Some((id, &element)))?,
        None => Vec::new(),
    };
    run.edit(1, Kind::Stream, |stream| {
        header.store(stream);
        stream.set_absent(id.field());
        stream.set(id.field(), element)?;
        let mut command = words(&["XADD"]);
        command.push(id.text());
        command.extend(pairs);
        stream.log(command);
        Ok(take_first(stream, &gone)?)
    })?;
    Ok(id.reply())
}

fn choose_id(id: NewId, last: Id, now_ms: i64) -> Result<Id, Refusal> {
    if last == Id::MAX {
        return Err(Refusal::Other(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let now_ms = u64::try_from(now_ms).unwrap_or(0);
    id.choose(last, now_ms).ok_or(Refusal::Other(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    ))
}

/// Takes out the first entries, which a trim chose.
fn take_first(stream: &mut Collection, gone: &[Id]) -> Result<(), NotLoaded> {
    if gone.is_empty() {
        return Ok(());
    }
    take(stream, gone)?;
    // What is behind the last of them stays, whatever the cache's own blocks are.
    let next = gone.last().and_then(|last| last.next());
    let command = match next.filter(|_| !stream.is_empty()) {
        Some(next) => [words(&["XTRIM", "MINID", "="]), vec![next.text()]].concat(),
        None => words(&["XTRIM", "MAXLEN", "=", "0"]),
    };
    stream.log(command);
    Ok(())
}

/// Takes entries out that are there.
fn take(stream: &mut Collection, gone: &[Id]) -> Result<(), NotLoaded> {
    let mut header = Header::of(stream);
    for id in gone {
        if let Some(element) = stream.remove(&id.field())? {
            header.forget(*id, &element);
        }
    }
    header.store(stream);
    Ok(())
}

fn xlen(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let length = run.length(&run.key(1), Kind::Stream)?;
    Ok(Reply::Integer(length as i64))
}

fn range_needs(call: &Call, db: Db) -> Needs {
    needs_of_ids(call, db, (2, 3), Side::Lowest)
}

fn reverse_range_needs(call: &Call, db: Db) -> Needs {
    needs_of_ids(call, db, (3, 2), Side::Highest)
}

/// The entries from one id to another, which these arguments name, as many as `COUNT` says.
fn needs_of_ids(call: &Call, db: Db, (start, end): (usize, usize), side: Side) -> Needs {
    let start = Id::parse_start(call.request.arg(start));
    let end = Id::parse_end(call.request.arg(end));
    let count = match call.request.len() {
        6 => args::integer(call.request.arg(5)).map_or(0, |count| count.max(0).unsigned_abs()),
        _ => u64::MAX,
    };
    let need = match (start, end) {
        (Ok(start), Ok(end)) => Need::range(ids(start, end, side), count),
        _ => Need::header(),
    };
    Needs::from_iter([(first_key(call, db), need)])
}

/// The entries from `start` to `end`, both included.
fn ids(start: Id, end: Id, side: Side) -> FieldRange {
    FieldRange {
        from: start.field(),
        below: Bytes::from([&end.field()[..], &[0]].concat()),
        side,
    }
}

/// The last entry.
fn last_needs(call: &Call, db: Db) -> Needs {
    let last = Need::range(ids(Id::MIN, Id::MAX, Side::Highest), 1);
    Needs::from_iter([(first_key(call, db), last)])
}

fn xrange(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let start = Id::parse_start(run.arg(2))?;
    let end = Id::parse_end(run.arg(3))?;
    range(run, (start, end), Side::Lowest)
}

fn xrevrange(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let start = Id::parse_start(run.arg(3))?;
    let end = Id::parse_end(run.arg(2))?;
    range(run, (start, end), Side::Highest)
}

/// The entries from `start` to `end`, those of the given side first.
fn range(run: &mut Run<'_>, (start, end): (Id, Id), side: Side) -> Result<Reply, Refusal> {
    let count = range_count(run)?;
    let Some(stream) = run.collection(&run.key(1), Kind::Stream)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    if count == Some(0) {
        return Ok(Reply::NullArray);
    }
    if start > end {
        return Ok(Reply::Array(Vec::new()));
    }
    let mut found = between(stream, &ids(start, end, side), count)?;
    if side == Side::Highest {
        found.reverse();
    }
    Ok(Reply::Array(found))
}

fn between(
    stream: &Collection,
    range: &FieldRange,
    count: Option<usize>,
) -> Result<Vec<Reply>, NotLoaded> {
    let count = count.map_or(u64::MAX, |count| count as u64);
    let found = stream.in_range(range, count)?.into_iter();
    let replies = found.filter_map(|(field, element)| {
        let id = Id::of_field(field)?;
        Some(entry::reply(id, element))
    });
    Ok(replies.collect())
}

/// What `COUNT` says; a negative one means none at all.
fn range_count(run: &Run<'_>) -> Result<Option<usize>, Refusal> {
    let mut count = None;
    let mut index = 4;
    while index < run.len() {
        if !run.is(index, "COUNT") || index + 1 == run.len() {
            return Err(Refusal::Syntax);
        }
        count = Some(usize::try_from(run.integer(index + 1)?).unwrap_or(0));
        index += 2;
    }
    Ok(count)
}

fn entries_named(call: &Call, db: Db) -> Needs {
    let ids = (2..call.request.len())
        .filter_map(|index| Id::parse_strict(call.request.arg(index), 0).ok());
    let need = Need::fields(ids.map(Id::field));
    Needs::from_iter([(first_key(call, db), need)])
}

fn xdel(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let Some(stream) = run.collection(&run.key(1), Kind::Stream)? else {
        return Ok(Reply::Integer(0));
    };
    let mut gone: BTreeSet<Id> = BTreeSet::new();
    let ids = (2..run.len()).map(|index| Id::parse_strict(run.arg(index), 0));
    for id in ids.collect::<Result<Vec<Id>, Refusal>>()? {
        if stream.get(&id.field())?.is_some() {
            gone.insert(id);
        }
    }
    let gone: Vec<Id> = gone.into_iter().collect();
    let Some(highest) = gone.last().copied() else {
        return Ok(Reply::Integer(0));
    };
    run.edit(1, Kind::Stream, |stream| {
        take(stream, &gone)?;
        let mut header = Header::of(stream);
        header.max_deleted = header.max_deleted.max(highest);
        header.store(stream);
        log_ids(stream, &words(&["XDEL"]), &gone, &[]);
        Ok(())
    })?;
    Ok(Reply::Integer(gone.len() as i64))
}

/// The first entries: those before `MINID`, or those that go if the stream was trimmed before.
fn trim_needs(call: &Call, db: Db) -> Needs {
    let first = |count| Need::after(&[STREAM_ENTRY], count);
    let need = match options::trim_of_trim(call) {
        Ok(trim) => match trim.keep {
            Keep::From(id) => {
                let mut need = Need::range(ids(Id::MIN, id, Side::Lowest), u64::MAX);
                // Behind those that go it has to be seen that they end.
                need.add(Need::after(&id.field(), 1));
                need.add(first(trim::entries_to_load(&trim)));
                need
            }
            Keep::Newest(_) => first(trim::entries_to_load(&trim)),
        },
        Err(_) => Need::header(),
    };
    Needs::from_iter([(first_key(call, db), need)])
}

fn xtrim(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let trim: Trim = options::trim_of_trim(run.call)?;
    let Some(stream) = run.collection(&run.key(1), Kind::Stream)? else {
        return Ok(Reply::Integer(0));
    };
    // Other than an `XADD`, it is not followed by another that could go on.
    let count = trim::entries_that_may_go(&trim, stream.len());
    if stream.after(&[STREAM_ENTRY], count).is_err() {
        return Err(run.want(1, Need::after(&[STREAM_ENTRY], count)));
    }
    let gone = trim::plan(&trim, stream, &Header::of(stream), None)?;
    if !gone.is_empty() {
        run.edit(1, Kind::Stream, |stream| Ok(take_first(stream, &gone)?))?;
    }
    Ok(Reply::Integer(gone.len() as i64))
}

fn xsetid(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let id = Id::parse_strict(run.arg(2), 0)?;
    let (added, max_deleted) = setid_options(run, id)?;
    let Some(stream) = run.collection(&run.key(1), Kind::Stream)? else {
        return Err(Refusal::NoSuchKey);
    };
    if let Some((top, _)) = last_entry(stream)? {
        if id < top {
            return Err(Refusal::Other(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            ));
        }
        if added.is_some_and(|added| added < stream.len()) {
            return Err(Refusal::Other(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            ));
        }
    }
    run.edit(1, Kind::Stream, |stream| {
        let mut header = Header::of(stream);
        header.last = id;
        header.added = added.unwrap_or(header.added);
        // Redis takes 0-0 for not given.
        if let Some(max_deleted) = max_deleted.filter(|id| !id.is_zero()) {
            header.max_deleted = max_deleted;
        }
        header.store(stream);
        stream.log(rebuild::set_id(id, added, max_deleted));
        Ok(())
    })?;
    Ok(Reply::OK)
}

fn setid_options(run: &Run<'_>, id: Id) -> Result<(Option<u64>, Option<Id>), Refusal> {
    let (mut added, mut max_deleted) = (None, None);
    let mut index = 3;
    while index < run.len() {
        let has_more = index + 1 < run.len();
        if run.is(index, "ENTRIESADDED") && has_more {
            let count = u64::try_from(run.integer(index + 1)?);
            let count = count.map_err(|_| Refusal::Other("ERR entries_added must be positive"))?;
            added = Some(count);
        } else if run.is(index, "MAXDELETEDID") && has_more {
            let deleted = Id::parse_strict(run.arg(index + 1), 0)?;
            if id < deleted {
                return Err(Refusal::Other(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
            max_deleted = Some(deleted);
        } else {
            return Err(Refusal::Syntax);
        }
        index += 2;
    }
    Ok((added, max_deleted))
}

/// The entry with the highest id.
pub(super) fn last_entry(stream: &Collection) -> Result<Option<(Id, &Element)>, NotLoaded> {
    if stream.is_empty() {
        return Ok(None);
    }
    let found = stream.in_range(&ids(Id::MIN, Id::MAX, Side::Highest), 1)?;
    let last = found.into_iter().next();
    Ok(last.and_then(|(field, element)| Some((Id::of_field(field)?, element))))
}

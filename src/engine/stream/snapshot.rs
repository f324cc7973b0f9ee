//! A stream as a whole, as Redis writes one in an RDB file: its blocks, each a
//! listpack; its header; its groups with their pending entries and consumers.
//!
//! A block begins with a master entry: entries, deleted ones, the number of
//! fields, the fields, 0. Each entry: flags, how far its id is above the
//! block's, its fields unless they are the master's, values, how many parts it has.

use bytes::Bytes;

use super::deliver::Counter;
use super::entry::{self, Block};
use super::id::Id;
use super::state::{self, Group, Header, Pending};
use crate::command::args;
use crate::engine::Refusal;
use crate::engine::rdb::{Listpack, Reader, listpack, write_length, write_string};
use crate::model::{Collection, Kind};

/// What is told beside the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Layout {
    /// Redis 5 and 6: neither what was deleted nor what groups have read.
    Before7,
    /// Redis 7.0.
    Of7,
}

/// The entry was deleted.
const DELETED: i64 = 1;
/// The entry has the fields of the master entry.
const SAME_FIELDS: i64 = 2;

/// An entry's id, and its fields and values in turn.
type Entry = (Id, Vec<Bytes>);

/// Appends the stream.
///
/// # Errors
/// Unless all of it is known.
pub(in crate::engine) fn write(out: &mut Vec<u8>, stream: &Collection) -> Result<(), Refusal> {
    let header = Header::of(stream);
    let entries = state::entries_from(stream, Id::MIN, usize::MAX)?;
    let mut blocks: Vec<(Id, Vec<Entry>)> = Vec::new();
    for (id, element) in &entries {
        let first = entry::block_of(*id, element);
        let entry = (*id, entry::decode(element));
        match blocks.last_mut() {
            Some((block, entries)) if *block == first => entries.push(entry),
            _ => blocks.push((first, vec![entry])),
        }
    }
    write_length(out, blocks.len());
    for (first, entries) in blocks {
        write_string(out, &first.to_bytes());
        write_string(out, &packed(first, &entries));
    }
    write_number(out, stream.len());
    write_id(out, header.last);
    write_id(out, entries.first().map_or(Id::MIN, |(id, _)| *id));
    write_id(out, header.max_deleted);
    write_number(out, header.added);
    write_groups(out, stream)
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    write_length(out, number as usize);
}

fn write_id(out: &mut Vec<u8>, id: Id) {
    write_number(out, id.ms());
    write_number(out, id.seq());
}

/// The block that began with `first`, of which these entries are left.
fn packed(first: Id, entries: &[Entry]) -> Vec<u8> {
    let mut pack = Listpack::default();
    let number = |pack: &mut Listpack, number: i64| pack.push(number.to_string().as_bytes());
    let names = |pairs: &[Bytes]| -> Vec<Bytes> { pairs.iter().step_by(2).cloned().collect() };
    let master = entries
        .first()
        .map_or(Vec::new(), |(_, pairs)| names(pairs));
    number(&mut pack, entries.len() as i64);
    number(&mut pack, 0);
    number(&mut pack, master.len() as i64);
    master.iter().for_each(|name| pack.push(name));
    number(&mut pack, 0);
    for (id, pairs) in entries {
        let is_same = names(pairs) == master;
        let fields = (pairs.len() / 2) as i64;
        number(&mut pack, if is_same { SAME_FIELDS } else { 0 });
        number(&mut pack, id.ms().wrapping_sub(first.ms()) as i64);
        number(&mut pack, id.seq().wrapping_sub(first.seq()) as i64);
        if is_same {
            pairs
                .iter()
                .skip(1)
                .step_by(2)
                .for_each(|value| pack.push(value));
            number(&mut pack, fields + 3);
        } else {
            number(&mut pack, fields);
            pairs.iter().for_each(|part| pack.push(part));
            number(&mut pack, 2 * fields + 4);
        }
    }
    pack.finish()
}

fn write_groups(out: &mut Vec<u8>, stream: &Collection) -> Result<(), Refusal> {
    let groups = state::groups(stream)?;
    write_length(out, groups.len());
    for (name, group) in groups {
        write_string(out, &name);
        write_id(out, group.last);
        // -1 says that it is not known.
        write_number(out, group.read.unwrap_or(u64::MAX));
        let pending = state::pending(stream, &name)?;
        write_length(out, pending.len());
        for (id, held) in &pending {
            out.extend_from_slice(&id.to_bytes());
            out.extend_from_slice(&held.delivered.to_le_bytes());
            write_number(out, held.count);
        }
        let consumers = state::consumers(stream, &name)?;
        write_length(out, consumers.len());
        for (consumer, seen) in consumers {
            write_string(out, &consumer);
            out.extend_from_slice(&seen.to_le_bytes());
            let own = pending.iter().filter(|(_, held)| held.consumer == consumer);
            write_length(out, own.clone().count());
            own.for_each(|(id, _)| out.extend_from_slice(&id.to_bytes()));
        }
    }
    Ok(())
}

/// Reads a stream; `None` if it is damaged.
pub(in crate::engine) fn read(layout: Layout, reader: &mut Reader<'_>) -> Option<Collection> {
    let mut stream = Collection::new(Kind::Stream);
    let mut header = Header::default();
    let mut before = None;
    for _ in 0..reader.plain_length()? {
        let first = Id::from_bytes(&reader.string()?)?;
        let bytes = reader.string()?;
        let (block, entries) = unpacked(first, &bytes)?;
        for (id, pairs) in entries {
            if before.replace(id) >= Some(id) {
                return None;
            }
            stream
                .set(id.field(), entry::encode(first, id, &pairs))
                .ok()?;
        }
        header.block = block;
    }
    if reader.number()? != stream.len() {
        return None;
    }
    header.last = read_id(reader)?;
    header.added = stream.len();
    if layout == Layout::Of7 {
        // The first entry is known.
        read_id(reader)?;
        header.max_deleted = read_id(reader)?;
        header.added = reader.number()?;
    }
    header.store(&mut stream);
    read_groups(layout, reader, &mut stream)?;
    Some(stream)
}

fn read_id(reader: &mut Reader<'_>) -> Option<Id> {
    Some(Id::new(reader.number()?, reader.number()?))
}

/// A block's state, and the entries that are left in it.
fn unpacked(first: Id, bytes: &[u8]) -> Option<(Block, Vec<Entry>)> {
    let mut parts = listpack(bytes)?.into_iter();
    let mut take = || parts.next();
    let mut number = || args::integer(&take()?);
    let (live, deleted, count) = (number()?, number()?, number()?);
    let (live, deleted) = (u32::try_from(live).ok()?, u32::try_from(deleted).ok()?);
    let master: Vec<Bytes> = (0..count).map(|_| parts.next()).collect::<Option<_>>()?;
    (parts.next()? == "0").then_some(())?;
    let mut entries = Vec::new();
    for _ in 0..live.checked_add(deleted)? {
        let (flags, entry) = entry_of(first, &master, &mut parts)?;
        if flags & DELETED == 0 {
            entries.push(entry);
        }
    }
    let is_whole = parts.next().is_none() && entries.len() == live as usize;
    let block = Block::restored(first, &master, [live, deleted], bytes.len());
    is_whole.then_some((block, entries))
}

/// The flags of the next entry of a block, and the entry.
fn entry_of(
    first: Id,
    master: &[Bytes],
    parts: &mut impl Iterator<Item = Bytes>,
) -> Option<(i64, Entry)> {
    let mut number = || args::integer(&parts.next()?);
    let (flags, ms, seq) = (number()?, number()?, number()?);
    let id = Id::new(
        first.ms().wrapping_add(ms as u64),
        first.seq().wrapping_add(seq as u64),
    );
    let mut pairs = Vec::new();
    if flags & SAME_FIELDS == 0 {
        for _ in 0..number()? {
            pairs.extend([parts.next()?, parts.next()?]);
        }
    } else {
        for name in master {
            pairs.extend([name.clone(), parts.next()?]);
        }
    }
    // How many parts that were, for reading backwards.
    args::integer(&parts.next()?)?;
    Some((flags, (id, pairs)))
}

fn read_groups(layout: Layout, reader: &mut Reader<'_>, stream: &mut Collection) -> Option<()> {
    for _ in 0..reader.plain_length()? {
        let name = reader.string()?;
        let last = read_id(reader)?;
        let read = match layout {
            Layout::Of7 => Some(reader.number()?).filter(|read| *read != u64::MAX),
            Layout::Before7 => Counter::of(stream).up_to(last).ok()?,
        };
        if Group::load(stream, &name).ok()?.is_some() {
            return None;
        }
        let mut pending: Vec<(Id, i64, u64)> = Vec::new();
        for _ in 0..reader.plain_length()? {
            let id = Id::from_bytes(&reader.array::<16>()?)?;
            let delivered = i64::from_le_bytes(reader.array()?);
            pending.push((id, delivered, reader.number()?));
        }
        pending.sort_unstable_by_key(|(id, ..)| *id);
        let mut group = Group::new(last, read);
        group.highest_pending = pending.last().map_or(Id::MIN, |(id, ..)| *id);
        group.store(stream, &name).ok()?;
        read_consumers(reader, stream, &name, &pending)?;
    }
    Some(())
}

/// Each pending entry must belong to one consumer.
fn read_consumers(
    reader: &mut Reader<'_>,
    stream: &mut Collection,
    group: &[u8],
    pending: &[(Id, i64, u64)],
) -> Option<()> {
    let mut owned = 0;
    for _ in 0..reader.plain_length()? {
        let consumer = reader.string()?;
        let seen = i64::from_le_bytes(reader.array()?);
        if state::seen(stream, group, &consumer).ok()?.is_some() {
            return None;
        }
        state::see(stream, group, &consumer, seen).ok()?;
        for _ in 0..reader.plain_length()? {
            let id = Id::from_bytes(&reader.array::<16>()?)?;
            let place = pending.binary_search_by_key(&id, |(id, ..)| *id).ok()?;
            if Pending::load(stream, group, id).ok()?.is_some() {
                return None;
            }
            let (_, delivered, count) = pending[place];
            let held = Pending {
                delivered,
                count,
                consumer: consumer.clone(),
            };
            held.store(stream, group, id).ok()?;
            owned += 1;
        }
    }
    (owned == pending.len()).then_some(())
}

//! What is kept of a stream beside its entries: the header in the collection's
//! `meta`, and of its groups one element for each group, consumer and pending
//! entry.
//!
//! | field | value |
//! |---|---|
//! | `g` + group | field of the entry delivered last; highest id ever pending; entries read |
//! | `c` + length of group + group + consumer | when it was last seen |
//! | `p` + length of group + group + id | when it was delivered, how often, to whom |
//!
//! Lengths and numbers are big-endian. The names stand in the order in which
//! Redis tells them.

use bytes::{BufMut, Bytes, BytesMut};

use super::entry::{self, Block};
use super::id::Id;
use crate::engine::Need;
use crate::model::{Collection, Element, FieldRange, NotLoaded, STREAM_ENTRY};

const GROUP: u8 = b'g';
const CONSUMER: u8 = b'c';
const PENDING: u8 = b'p';

/// What a stream knows of itself without any entry loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The highest id ever, or what `XSETID` said.
    pub last: Id,
    /// The highest id that `XDEL` took out.
    pub max_deleted: Id,
    /// Entries that were ever added.
    pub added: u64,
    /// The block that the last entry was put into.
    pub block: Block,
}

impl Header {
    pub fn of(stream: &Collection) -> Self {
        Self::decode(stream.meta()).unwrap_or_default()
    }

    pub fn store(self, stream: &mut Collection) {
        let mut meta = BytesMut::with_capacity(76);
        meta.put_slice(&self.last.to_bytes());
        meta.put_slice(&self.max_deleted.to_bytes());
        meta.put_u64(self.added);
        meta.put_slice(&self.block.first.to_bytes());
        meta.put_u32(self.block.added);
        meta.put_u32(self.block.live);
        meta.put_u32(self.block.bytes);
        meta.put_u64(self.block.names);
        stream.set_meta(meta.freeze());
    }

    fn decode(meta: &[u8]) -> Option<Self> {
        let mut rest = Parts(meta);
        Some(Self {
            last: rest.id()?,
            max_deleted: rest.id()?,
            added: rest.u64()?,
            block: Block {
                first: rest.id()?,
                added: rest.u32()?,
                live: rest.u32()?,
                bytes: rest.u32()?,
                names: rest.u64()?,
            },
        })
    }

    /// Notes that the entry `id` goes.
    pub fn forget(&mut self, id: Id, element: &Element) {
        if entry::block_of(id, element) == self.block.first {
            self.block.live = self.block.live.saturating_sub(1);
        }
    }
}

/// What a group has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The last entry that was delivered.
    pub last: Id,
    /// No id above this one was ever pending.
    pub highest_pending: Id,
    /// How many entries were delivered, as far as that can be told.
    pub read: Option<u64>,
}

impl Group {
    pub fn load(stream: &Collection, name: &[u8]) -> Result<Option<Self>, NotLoaded> {
        Ok(stream.get(&group_field(name))?.map(Self::decode))
    }

    pub fn new(last: Id, read: Option<u64>) -> Self {
        Self {
            last,
            highest_pending: Id::MIN,
            read,
        }
    }

    pub fn decode(element: &Element) -> Self {
        let mut rest = Parts(&element.value);
        let _kind = rest.take(1);
        let last = rest.id().unwrap_or_default();
        let highest_pending = rest.id().unwrap_or(Id::MAX);
        let read = rest.u64().and_then(|read| read.checked_sub(1));
        Self {
            last,
            highest_pending,
            read,
        }
    }

    pub fn store(self, stream: &mut Collection, name: &[u8]) -> Result<(), NotLoaded> {
        let mut value = BytesMut::with_capacity(41);
        // First the field behind which the next entries stand: see `Need::behind`.
        value.put_slice(&self.last.field());
        value.put_slice(&self.highest_pending.to_bytes());
        value.put_u64(self.read.map_or(0, |read| read.saturating_add(1)));
        stream.set(group_field(name), plain(value)).map(drop)
    }
}

/// An entry that was delivered and is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// When it was delivered last, in Unix milliseconds.
    pub delivered: i64,
    /// How often.
    pub count: u64,
    /// To whom.
    pub consumer: Bytes,
}

impl Pending {
    pub fn load(stream: &Collection, group: &[u8], id: Id) -> Result<Option<Self>, NotLoaded> {
        Ok(stream.get(&pending_field(group, id))?.map(Self::decode))
    }

    pub fn decode(element: &Element) -> Self {
        let mut rest = Parts(&element.value);
        Self {
            delivered: rest.u64().unwrap_or(0) as i64,
            count: rest.u64().unwrap_or(0),
            consumer: element.value.slice(element.value.len().min(16)..),
        }
    }

    pub fn store(&self, stream: &mut Collection, group: &[u8], id: Id) -> Result<(), NotLoaded> {
        let mut value = BytesMut::with_capacity(16 + self.consumer.len());
        value.put_u64(self.delivered as u64);
        value.put_u64(self.count);
        value.put_slice(&self.consumer);
        stream.set(pending_field(group, id), plain(value)).map(drop)
    }
}

/// When a consumer was last seen, in Unix milliseconds; `None` if there is none.
pub(super) fn seen(
    stream: &Collection,
    group: &[u8],
    consumer: &[u8],
) -> Result<Option<i64>, NotLoaded> {
    let element = stream.get(&consumer_field(group, consumer))?;
    Ok(element.map(|element| Parts(&element.value).u64().unwrap_or(0) as i64))
}

/// Notes that a consumer was seen; creates it if need be.
pub(super) fn see(
    stream: &mut Collection,
    group: &[u8],
    consumer: &[u8],
    now_ms: i64,
) -> Result<(), NotLoaded> {
    let value = BytesMut::from(&(now_ms as u64).to_be_bytes()[..]);
    let field = consumer_field(group, consumer);
    stream.set(field, plain(value)).map(drop)
}

fn plain(value: BytesMut) -> Element {
    Element {
        value: value.freeze(),
        rank: 0.0,
    }
}

pub(super) fn group_field(name: &[u8]) -> Bytes {
    joined(&[&[GROUP], name])
}

pub(super) fn consumer_field(group: &[u8], consumer: &[u8]) -> Bytes {
    joined(&[&of_group(CONSUMER, group), consumer])
}

pub(super) fn pending_field(group: &[u8], id: Id) -> Bytes {
    joined(&[&of_group(PENDING, group), &id.to_bytes()])
}

/// What the fields of a group's consumers or pending entries begin with.
fn of_group(kind: u8, group: &[u8]) -> Bytes {
    // A request is below 4 GiB, and so is every name in it.
    let len = u32::try_from(group.len()).unwrap_or(u32::MAX);
    joined(&[&[kind], &len.to_be_bytes(), group])
}

/// The longest name of a group whose fields the store keeps whole, so that what stands behind
/// the name is in order there.
const GROUP_NAME_MAX: usize = 512;

/// All pending entries of a group from `start` on, of the need to know `count` of them.
pub(super) fn pending_need(group: &[u8], start: Id, count: u64) -> Need {
    if group.len() > GROUP_NAME_MAX {
        return Need::value();
    }
    Need::range(pending_range(group, start), count)
}

/// All of a group: itself, its consumers and what is pending.
pub(super) fn group_need(group: &[u8]) -> Need {
    let mut need = pending_need(group, Id::MIN, u64::MAX);
    need.fields.insert(group_field(group));
    if !need.whole {
        let consumers = FieldRange::beginning(&of_group(CONSUMER, group));
        need.add(Need::range(consumers, u64::MAX));
    }
    need
}

fn pending_range(group: &[u8], start: Id) -> FieldRange {
    FieldRange {
        from: pending_field(group, start),
        ..FieldRange::beginning(&of_group(PENDING, group))
    }
}

fn joined(parts: &[&[u8]]) -> Bytes {
    Bytes::from(parts.concat())
}

/// All groups by name.
///
/// # Errors
/// Unless all of them are known; so for all that follow.
pub(super) fn groups(stream: &Collection) -> Result<Vec<(Bytes, Group)>, NotLoaded> {
    let found = beginning(stream, &[GROUP])?;
    Ok(found
        .into_iter()
        .map(|(name, element)| (name, Group::decode(element)))
        .collect())
}

/// A group's consumers by name, with the time when each was last seen.
pub(super) fn consumers(stream: &Collection, group: &[u8]) -> Result<Vec<(Bytes, i64)>, NotLoaded> {
    let found = beginning(stream, &of_group(CONSUMER, group))?;
    Ok(found
        .into_iter()
        .map(|(name, element)| (name, Parts(&element.value).u64().unwrap_or(0) as i64))
        .collect())
}

/// A group's pending entries by id.
pub(super) fn pending(stream: &Collection, group: &[u8]) -> Result<Vec<(Id, Pending)>, NotLoaded> {
    pending_from(stream, group, Id::MIN, u64::MAX)
}

/// The first `count` of them from `start` on.
pub(super) fn pending_from(
    stream: &Collection,
    group: &[u8],
    start: Id,
    count: u64,
) -> Result<Vec<(Id, Pending)>, NotLoaded> {
    let prefix = of_group(PENDING, group).len();
    let found = stream.in_range(&pending_range(group, start), count)?;
    Ok(found
        .into_iter()
        .filter_map(|(field, held)| {
            Some((Id::from_bytes(&field[prefix..])?, Pending::decode(held)))
        })
        .collect())
}

/// The elements whose fields begin with `prefix`, each with what follows it.
fn beginning<'a>(
    stream: &'a Collection,
    prefix: &[u8],
) -> Result<Vec<(Bytes, &'a Element)>, NotLoaded> {
    let found = stream.in_range(&FieldRange::beginning(prefix), u64::MAX)?;
    Ok(found
        .into_iter()
        .map(|(field, element)| (field.slice(prefix.len()..), element))
        .collect())
}

/// The first entry, if there is one.
pub(super) fn first_entry(stream: &Collection) -> Result<Option<(Id, &Element)>, NotLoaded> {
    if stream.is_empty() {
        return Ok(None);
    }
    next_entry(stream, &[STREAM_ENTRY])
}

/// The entry with the next field above `field`.
pub(super) fn next_entry<'a>(
    stream: &'a Collection,
    field: &[u8],
) -> Result<Option<(Id, &'a Element)>, NotLoaded> {
    let next = stream.after(field, 1)?.into_iter().next();
    Ok(next.and_then(|(field, element)| Some((Id::of_field(field)?, element))))
}

/// At most `count` entries from `start` on.
pub(super) fn entries_from(
    stream: &Collection,
    start: Id,
    count: usize,
) -> Result<Vec<(Id, &Element)>, NotLoaded> {
    let found = stream.after(&start.field_before(), count as u64)?;
    Ok(found
        .into_iter()
        .filter_map(|(field, element)| Some((Id::of_field(field)?, element)))
        .collect())
}

/// Takes fixed parts from the front.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(part)
    }

    fn id(&mut self) -> Option<Id> {
        Id::from_bytes(self.take(16)?)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn what_is_kept_is_read_back() {
        let mut stream = Collection::new(Kind::Stream);
        let header = Header {
            last: Id::new(5, 6),
            max_deleted: Id::new(1, 2),
            added: 77,
            block: Block::default().push(Id::new(5, 5), &["a".into(), "b".into()]),
        };
        header.store(&mut stream);
        assert_eq!(Header::of(&stream), header);
        let group = Group {
            last: Id::new(5, 6),
            highest_pending: Id::new(5, 5),
            read: Some(0),
        };
        group.store(&mut stream, b"g").unwrap();
        Group::new(Id::MIN, None).store(&mut stream, b"ga").unwrap();
        assert_eq!(Group::load(&stream, b"g"), Ok(Some(group)));
        assert_eq!(groups(&stream).unwrap()[1].1.read, None);
        let held = Pending {
            delivered: 12,
            count: 3,
            consumer: "c".into(),
        };
        held.store(&mut stream, b"g", Id::new(5, 5)).unwrap();
        assert_eq!(pending(&stream, b"g"), Ok(vec![(Id::new(5, 5), held)]));
        assert_eq!(pending(&stream, b"ga"), Ok(vec![]));
        see(&mut stream, b"g", b"c", 9).unwrap();
        assert_eq!(consumers(&stream, b"g"), Ok(vec![("c".into(), 9)]));
        assert_eq!(seen(&stream, b"g", b"d"), Ok(None));
        assert_eq!(stream.len(), 0);
    }
}

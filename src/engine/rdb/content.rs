//! The content of a payload behind its type.
//!
//! Read is whatever Redis up to 7.0 writes. Written is the plain form of each
//! type: Redis packs a small collection again when it restores it.

use bytes::Bytes;

use super::packed;
use super::text::{Reader, write_length, write_string};
use crate::engine::{Refusal, hash, list, sets, stream, zset};
use crate::model::{Collection, Element, Kind, Value};

const STRING: u8 = 0;
const LIST: u8 = 1;
const SET: u8 = 2;
const SORTED_SET_TEXT: u8 = 3;
const HASH: u8 = 4;
const SORTED_SET: u8 = 5;
const HASH_ZIPMAP: u8 = 9;
const LIST_ZIPLIST: u8 = 10;
const SET_INTSET: u8 = 11;
const SORTED_SET_ZIPLIST: u8 = 12;
const HASH_ZIPLIST: u8 = 13;
const LIST_OF_ZIPLISTS: u8 = 14;
const STREAM_BEFORE_7: u8 = 15;
const HASH_LISTPACK: u8 = 16;
const SORTED_SET_LISTPACK: u8 = 17;
const LIST_OF_LISTPACKS: u8 = 18;
const STREAM: u8 = 19;

/// A node of a list that is one large item, and one that is a listpack of items.
const NODE_PLAIN: usize = 1;
const NODE_PACKED: usize = 2;

/// Appends the type and the content.
pub(super) fn write(out: &mut Vec<u8>, value: &Value) -> Result<(), Refusal> {
    let collection = match value {
        Value::String(text) => {
            out.push(STRING);
            write_string(out, text);
            return Ok(());
        }
        Value::Collection(collection) => collection,
    };
    match collection.kind() {
        Kind::List => write_list(out, collection),
        Kind::Set => write_set(out, collection),
        Kind::Hash => write_hash(out, collection),
        Kind::SortedSet => write_sorted_set(out, collection),
        Kind::Stream => {
            out.push(STREAM);
            stream::write_snapshot(out, collection)
        }
        Kind::String => Err(Refusal::WrongType),
    }
}

fn write_list(out: &mut Vec<u8>, list: &Collection) -> Result<(), Refusal> {
    let items = list.iter()?;
    start(out, list.kind(), list.len());
    items.for_each(|(field, item)| write_element(out, Kind::List, field, item));
    Ok(())
}

fn write_set(out: &mut Vec<u8>, set: &Collection) -> Result<(), Refusal> {
    let members = sets::in_order(set)?;
    start(out, set.kind(), set.len());
    for (member, element) in members {
        write_element(out, Kind::Set, member, element);
    }
    Ok(())
}

fn write_hash(out: &mut Vec<u8>, hash: &Collection) -> Result<(), Refusal> {
    let pairs = hash::in_order(hash)?;
    start(out, hash.kind(), hash.len());
    for (field, element) in pairs {
        write_element(out, Kind::Hash, field, element);
    }
    Ok(())
}

/// From the highest to the lowest, as Redis does: it inserts each at the front.
fn write_sorted_set(out: &mut Vec<u8>, set: &Collection) -> Result<(), Refusal> {
    let members = set.by_rank()?;
    start(out, set.kind(), set.len());
    for ranked in members.rev() {
        write_member(out, &ranked.field, ranked.rank);
    }
    Ok(())
}

/// Appends the type and the number of elements of a collection; its elements follow.
pub(super) fn start(out: &mut Vec<u8>, kind: Kind, elements: u64) {
    out.push(match kind {
        Kind::String => STRING,
        Kind::Hash => HASH,
        Kind::List => LIST,
        Kind::Set => SET,
        Kind::SortedSet => SORTED_SET,
        Kind::Stream => STREAM,
    });
    write_length(out, elements as usize);
}

/// Appends an element of a collection that is no stream.
pub(super) fn write_element(out: &mut Vec<u8>, kind: Kind, field: &[u8], element: &Element) {
    match kind {
        Kind::SortedSet => write_member(out, field, element.rank),
        Kind::Set => write_string(out, field),
        Kind::List => write_string(out, &element.value),
        _ => {
            write_string(out, field);
            write_string(out, &element.value);
        }
    }
}

fn write_member(out: &mut Vec<u8>, member: &[u8], score: f64) {
    write_string(out, member);
    out.extend_from_slice(&score.to_le_bytes());
}

/// The value of type `kind`; `None` if it is damaged, empty or of a type that is not known.
pub(super) fn read(kind: u8, reader: &mut Reader<'_>) -> Option<Value> {
    let mut collection = match kind {
        STRING => return reader.string().map(Value::String),
        LIST => list_of(strings(reader, 1)?),
        LIST_ZIPLIST => list_of(packed::ziplist(&reader.string()?)?),
        LIST_OF_ZIPLISTS | LIST_OF_LISTPACKS => list_of(nodes(kind, reader)?),
        SET => set_of(strings(reader, 1)?),
        SET_INTSET => set_of(packed::intset(&reader.string()?)?),
        HASH => hash_of(strings(reader, 2)?),
        HASH_ZIPMAP => hash_of(packed::zipmap(&reader.string()?)?),
        HASH_ZIPLIST => hash_of(packed::ziplist(&reader.string()?)?),
        HASH_LISTPACK => hash_of(packed::listpack(&reader.string()?)?),
        SORTED_SET | SORTED_SET_TEXT => sorted_set_of(scored(kind, reader)?),
        SORTED_SET_ZIPLIST => sorted_set_of(scores_of(packed::ziplist(&reader.string()?)?)?),
        SORTED_SET_LISTPACK => sorted_set_of(scores_of(packed::listpack(&reader.string()?)?)?),
        STREAM_BEFORE_7 => stream::read_snapshot(stream::Layout::Before7, reader),
        STREAM => stream::read_snapshot(stream::Layout::Of7, reader),
        _ => None,
    }?;
    if collection.is_empty() && collection.kind() != Kind::Stream {
        return None;
    }
    collection.settle();
    Some(Value::Collection(Box::new(collection)))
}

/// As many strings as a count says, or twice as many. (What the count claims is not
/// believed before the strings are there.)
fn strings(reader: &mut Reader<'_>, each: usize) -> Option<Vec<Bytes>> {
    let count = reader.plain_length()?.checked_mul(each)?;
    let mut strings = Vec::new();
    for _ in 0..count {
        strings.push(reader.string()?);
    }
    Some(strings)
}

/// The items of a list of nodes.
fn nodes(kind: u8, reader: &mut Reader<'_>) -> Option<Vec<Bytes>> {
    let mut items = Vec::new();
    for _ in 0..reader.plain_length()? {
        if kind == LIST_OF_ZIPLISTS {
            items.extend(packed::ziplist(&reader.string()?)?);
            continue;
        }
        match reader.plain_length()? {
            NODE_PLAIN => items.push(reader.string()?),
            NODE_PACKED => items.extend(packed::listpack(&reader.string()?)?),
            _ => return None,
        }
    }
    Some(items)
}

/// Members and their scores, which are 8 bytes, or a text behind its length.
fn scored(kind: u8, reader: &mut Reader<'_>) -> Option<Vec<(Bytes, f64)>> {
    let mut members = Vec::new();
    for _ in 0..reader.plain_length()? {
        let member = reader.string()?;
        let score = match kind {
            SORTED_SET => f64::from_le_bytes(reader.array()?),
            _ => score_text(reader)?,
        };
        members.push((member, score));
    }
    Some(members)
}

fn score_text(reader: &mut Reader<'_>) -> Option<f64> {
    Some(match reader.byte()? {
        255 => f64::NEG_INFINITY,
        254 => f64::INFINITY,
        253 => f64::NAN,
        len => score(reader.bytes(usize::from(len))?)?,
    })
}

fn score(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Members and the texts of their scores in turn.
fn scores_of(parts: Vec<Bytes>) -> Option<Vec<(Bytes, f64)>> {
    let (pairs, rest) = parts.as_chunks::<2>();
    let pair = |[member, text]: &[Bytes; 2]| Some((member.clone(), score(text)?));
    rest.is_empty().then(|| pairs.iter().map(pair).collect())?
}

fn list_of(items: Vec<Bytes>) -> Option<Collection> {
    list::of(items.into_iter()).ok()
}

fn hash_of(parts: Vec<Bytes>) -> Option<Collection> {
    let (pairs, rest) = parts.as_chunks::<2>();
    let pairs = pairs
        .iter()
        .map(|[field, value]| (field.clone(), value.clone()));
    rest.is_empty().then(|| hash::from_pairs(pairs))?
}

/// `None` if a member stands there twice.
fn set_of(members: Vec<Bytes>) -> Option<Collection> {
    let mut set = Collection::new(Kind::Set);
    for member in members {
        if set.set(member, Element::default()).ok()?.is_some() {
            return None;
        }
    }
    Some(set)
}

/// `None` if a member stands there twice, or a score is none.
fn sorted_set_of(members: Vec<(Bytes, f64)>) -> Option<Collection> {
    if members.iter().any(|(_, score)| score.is_nan()) {
        return None;
    }
    let count = members.len() as u64;
    let set = zset::built(members).ok()?;
    (set.len() == count).then_some(set)
}

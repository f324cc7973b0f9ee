//! Entries as they are kept, and the blocks that they stand in.
//!
//! Redis packs the entries of a stream into blocks of at most 100 entries or
//! 4096 bytes, and a trim with `~` takes whole blocks only. So that `~` means
//! the same here, each entry says with which entry its block began, and the
//! stream's header tells of its last block how full it is.
//!
//! An entry's value: the milliseconds and the number that its id is above the
//! first id of its block, then length and bytes of each field and value. All
//! numbers are in LEB128.

use bytes::{BufMut, Bytes, BytesMut};

use super::id::Id;
use crate::command::args;
use crate::model::{Element, Reply};

/// Redis's `stream-node-max-entries`.
pub(super) const BLOCK_ENTRIES_MAX: u64 = 100;

/// Redis's `stream-node-max-bytes`.
const BLOCK_BYTES_MAX: u64 = 4096;

/// A stream's last block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// The id of the entry that it began with.
    pub first: Id,
    /// Entries that were added to it.
    pub added: u32,
    /// Entries in it that are still there.
    pub live: u32,
    /// How many bytes it takes in Redis.
    pub bytes: u32,
    /// A digest of the field names of its first entry, which Redis keeps only once.
    pub names: u64,
}

impl Block {
    /// Puts the entry `id` in: into this block, or into a new one that takes
    /// its place.
    pub fn push(self, id: Id, pairs: &[Bytes]) -> Self {
        let given: u64 = pairs.iter().map(|part| part.len() as u64).sum();
        let is_full = self.live == 0
            || u64::from(self.bytes) + given >= BLOCK_BYTES_MAX
            || u64::from(self.added) >= BLOCK_ENTRIES_MAX;
        let mut block = if is_full {
            Self::begin(id, pairs)
        } else {
            self
        };
        let size = block.size_of(id, pairs);
        block.bytes = block.bytes.saturating_add(size);
        block.added += 1;
        block.live += 1;
        block
    }

    /// The block that began with `first` and the fields `names`, as it was written: its
    /// entries that are there and that were deleted, and its bytes.
    pub fn restored(first: Id, names: &[Bytes], [live, deleted]: [u32; 2], bytes: usize) -> Self {
        let pairs: Vec<Bytes> = names
            .iter()
            .flat_map(|name| [name.clone(), Bytes::new()])
            .collect();
        Self {
            first,
            added: live.saturating_add(deleted),
            live,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            names: digest(&pairs),
        }
    }

    fn begin(id: Id, pairs: &[Bytes]) -> Self {
        // Header and end; two counts and a closing zero, each a small number.
        let fixed = 7 + 3 * packed_integer(0);
        let names: u64 = pairs.iter().step_by(2).map(|name| packed(name)).sum();
        let count = packed_integer((pairs.len() / 2) as i64);
        Self {
            first: id,
            bytes: u32::try_from(fixed + names + count).unwrap_or(u32::MAX),
            names: digest(pairs),
            ..Self::default()
        }
    }

    fn size_of(&self, id: Id, pairs: &[Bytes]) -> u32 {
        let has_same_names = self.names == digest(pairs);
        let count = (pairs.len() / 2) as i64;
        let ms = id.ms().wrapping_sub(self.first.ms()) as i64;
        let seq = id.seq().wrapping_sub(self.first.seq()) as i64;
        let mut size = packed_integer(0) + packed_integer(ms) + packed_integer(seq);
        if has_same_names {
            size += packed_integer(count + 3);
            size += pairs
                .iter()
                .skip(1)
                .step_by(2)
                .map(|v| packed(v))
                .sum::<u64>();
        } else {
            size += packed_integer(count) + packed_integer(2 * count + 4);
            size += pairs.iter().map(|part| packed(part)).sum::<u64>();
        }
        u32::try_from(size).unwrap_or(u32::MAX)
    }
}

/// The bytes that a string takes in a listpack of Redis.
fn packed(text: &[u8]) -> u64 {
    if let Some(integer) = args::integer(text) {
        return packed_integer(integer);
    }
    let len = text.len() as u64;
    with_length(match len {
        0..64 => 1 + len,
        64..4096 => 2 + len,
        _ => 5 + len,
    })
}

fn packed_integer(integer: i64) -> u64 {
    with_length(match integer {
        0..=127 => 1,
        -4096..=4095 => 2,
        -32_768..=32_767 => 3,
        -8_388_608..=8_388_607 => 4,
        -2_147_483_648..=2_147_483_647 => 5,
        _ => 9,
    })
}

/// Behind each element stands its length, for walking backwards.
fn with_length(size: u64) -> u64 {
    size + match size {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// FNV-1a over the names with their lengths.
fn digest(pairs: &[Bytes]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for name in pairs.iter().step_by(2) {
        (name.len() as u64)
            .to_be_bytes()
            .into_iter()
            .for_each(&mut add);
        name.iter().copied().for_each(&mut add);
    }
    hash
}

/// The entry `id` of `pairs` (field, value, field, value ...) in the block that
/// began with `first`.
pub(super) fn encode(first: Id, id: Id, pairs: &[Bytes]) -> Element {
    let given: usize = pairs.iter().map(|part| part.len() + 3).sum();
    let mut value = BytesMut::with_capacity(given + 8);
    put_number(id.ms().wrapping_sub(first.ms()), &mut value);
    put_number(id.seq().wrapping_sub(first.seq()), &mut value);
    for part in pairs {
        put_number(part.len() as u64, &mut value);
        value.put_slice(part);
    }
    Element {
        value: value.freeze(),
        rank: 0.0,
    }
}

/// The id that the block of the entry `id` began with.
pub(super) fn block_of(id: Id, element: &Element) -> Id {
    let mut rest = element.value.clone();
    let ms = take_number(&mut rest).unwrap_or(0);
    let seq = take_number(&mut rest).unwrap_or(0);
    Id::new(id.ms().wrapping_sub(ms), id.seq().wrapping_sub(seq))
}

/// The entry's fields and values in turn.
pub(super) fn decode(element: &Element) -> Vec<Bytes> {
    let mut rest = element.value.clone();
    let _block = (take_number(&mut rest), take_number(&mut rest));
    let mut pairs = Vec::new();
    while let Some(part) = take_part(&mut rest) {
        pairs.push(part);
    }
    pairs
}

/// The entry as replies show it: its id, and its fields and values.
pub(super) fn reply(id: Id, element: &Element) -> Reply {
    let pairs = decode(element).into_iter().map(Reply::Bulk).collect();
    Reply::Array(vec![id.reply(), Reply::Array(pairs)])
}

fn take_part(rest: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(take_number(rest)?).ok()?;
    (len <= rest.len()).then(|| rest.split_to(len))
}

pub(super) fn put_number(mut number: u64, out: &mut BytesMut) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn take_number(rest: &mut Bytes) -> Option<u64> {
    let mut number = 0_u64;
    for (index, byte) in rest.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let _taken = rest.split_to(index + 1);
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(texts: &[&'static str]) -> Vec<Bytes> {
        texts
            .iter()
            .map(|text| Bytes::from_static(text.as_bytes()))
            .collect()
    }

    #[test]
    fn an_entry_is_read_back() {
        let (first, id) = (Id::new(5, 900), Id::new(7, 3));
        let pairs = parts(&["a", "", "\x00\r\n", "12345"]);
        let element = encode(first, id, &pairs);
        assert_eq!(decode(&element), pairs);
        assert_eq!(block_of(id, &element), first);
        let damaged = Element {
            value: element.value.slice(..element.value.len() - 1),
            rank: 0.0,
        };
        assert_eq!(decode(&damaged), pairs[..3]);
    }

    #[test]
    fn a_block_ends_at_a_hundred_entries_or_at_4096_bytes() {
        let pairs = parts(&["f", "v"]);
        let mut block = Block::default();
        for seq in 1..=100 {
            block = block.push(Id::new(1, seq), &pairs);
        }
        assert_eq!((block.first, block.added), (Id::new(1, 1), 100));
        block = block.push(Id::new(1, 101), &pairs);
        assert_eq!((block.first, block.added), (Id::new(1, 101), 1));
        let large = [Bytes::from_static(b"f"), Bytes::from(vec![b'x'; 4000])];
        block = block.push(Id::new(1, 102), &large);
        assert_eq!((block.first, block.added), (Id::new(1, 101), 2));
        block = block.push(Id::new(1, 103), &pairs);
        assert_eq!((block.first, block.added), (Id::new(1, 101), 3));
        block = block.push(Id::new(1, 104), &large);
        assert_eq!(block.first, Id::new(1, 104));
        block.live = 0;
        assert_eq!(block.push(Id::new(1, 105), &pairs).first, Id::new(1, 105));
    }
}

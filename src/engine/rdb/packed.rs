//! The packed forms in which Redis keeps small collections, and writes them:
//! listpack (7.0), ziplist (2.6 to 6.2), intset, zipmap (before 2.6).
//!
//! Each is read to its end, or not at all: `None` is damage.

use bytes::Bytes;

use super::text::Reader;
use crate::command::args;

/// The last byte of a listpack, ziplist or zipmap.
const END: u8 = 0xff;

/// The elements of a listpack.
pub(in crate::engine) fn listpack(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut reader = Reader::of(bytes);
    let total = u32::from_le_bytes(reader.array()?);
    let count = u16::from_le_bytes(reader.array()?);
    let mut elements = Vec::new();
    loop {
        let first = reader.byte()?;
        if first == END {
            break;
        }
        let before = reader.left();
        elements.push(listpack_element(first, &mut reader)?);
        let len = before - reader.left() + 1;
        reader.bytes(backward_length(len))?;
    }
    let is_whole = reader.left() == 0 && u32::try_from(bytes.len()) == Ok(total);
    is_right(count, elements, is_whole)
}

/// More elements than two bytes can count are counted only by reading.
fn is_right(count: u16, elements: Vec<Bytes>, is_whole: bool) -> Option<Vec<Bytes>> {
    let is_counted = count == u16::MAX || usize::from(count) == elements.len();
    (is_whole && is_counted).then_some(elements)
}

fn listpack_element(first: u8, reader: &mut Reader<'_>) -> Option<Bytes> {
    let len = match first {
        0..0x80 => return Some(text(first)),
        0x80..0xc0 => usize::from(first & 0x3f),
        0xc0..0xe0 => {
            let number = i16::from(first & 0x1f) << 8 | i16::from(reader.byte()?);
            // 13 bits with a sign.
            return Some(text(number << 3 >> 3));
        }
        0xe0..0xf0 => usize::from(first & 0xf) << 8 | usize::from(reader.byte()?),
        0xf0 => usize::try_from(u32::from_le_bytes(reader.array()?)).ok()?,
        0xf1 => return Some(text(i16::from_le_bytes(reader.array()?))),
        0xf2 => return Some(text(int24(reader.array()?))),
        0xf3 => return Some(text(i32::from_le_bytes(reader.array()?))),
        0xf4 => return Some(text(i64::from_le_bytes(reader.array()?))),
        _ => return None,
    };
    reader.bytes(len).map(Bytes::copy_from_slice)
}

/// How many bytes behind an element of `len` bytes say so, 7 bits in each.
fn backward_length(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// How many bytes an element takes in a listpack.
pub(in crate::engine) fn element_len(text: &[u8]) -> usize {
    let len = match args::integer(text) {
        Some(0..=127) => 1,
        Some(-4096..=4095) => 2,
        Some(-32_768..=32_767) => 3,
        Some(-8_388_608..=8_388_607) => 4,
        Some(-2_147_483_648..=2_147_483_647) => 5,
        Some(_) => 9,
        None => match text.len() {
            len @ 0..64 => 1 + len,
            len @ 64..4096 => 2 + len,
            len => 5 + len,
        },
    };
    len + backward_length(len)
}

/// A listpack in the making.
pub(in crate::engine) struct Listpack {
    bytes: Vec<u8>,
    count: usize,
}

impl Default for Listpack {
    fn default() -> Self {
        // The total length and the count are put in at the end.
        Self {
            bytes: vec![0; 6],
            count: 0,
        }
    }
}

impl Listpack {
    /// Appends an element.
    pub fn push(&mut self, text: &[u8]) {
        let start = self.bytes.len();
        match args::integer(text) {
            Some(number) => self.push_integer(number),
            None => self.push_text(text),
        }
        let len = self.bytes.len() - start;
        // 7 bits in each byte, the highest first; all but the first say that more stand before.
        let bytes = backward_length(len);
        self.bytes.extend((0..bytes).rev().map(|place| {
            let more = if place + 1 < bytes { 0x80 } else { 0 };
            (len >> (7 * place)) as u8 & 0x7f | more
        }));
        self.count += 1;
    }

    fn push_integer(&mut self, number: i64) {
        let (kind, len) = match number {
            0..=127 => return self.bytes.push(number as u8),
            -4096..=4095 => {
                let bits = (number as u16 & 0x1fff) | 0xc000;
                return self.bytes.extend_from_slice(&bits.to_be_bytes());
            }
            -32_768..=32_767 => (0xf1, 2),
            -8_388_608..=8_388_607 => (0xf2, 3),
            -2_147_483_648..=2_147_483_647 => (0xf3, 4),
            _ => (0xf4, 8),
        };
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&number.to_le_bytes()[..len]);
    }

    fn push_text(&mut self, text: &[u8]) {
        match text.len() {
            len @ 0..64 => self.bytes.push(0x80 | len as u8),
            len @ 64..4096 => {
                let bits = len as u16 | 0xe000;
                self.bytes.extend_from_slice(&bits.to_be_bytes());
            }
            len => {
                self.bytes.push(0xf0);
                self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(text);
    }

    /// The whole listpack.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let total = self.bytes.len() as u32;
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
        self.bytes[4..6].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

fn text(number: impl Into<i64>) -> Bytes {
    Bytes::from(number.into().to_string())
}

fn int24([low, middle, high]: [u8; 3]) -> i32 {
    i32::from_le_bytes([0, low, middle, high]) >> 8
}

/// The elements of a ziplist.
pub(super) fn ziplist(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut reader = Reader::of(bytes);
    let total = u32::from_le_bytes(reader.array()?);
    let _tail: [u8; 4] = reader.array()?;
    let count = u16::from_le_bytes(reader.array()?);
    let mut elements = Vec::new();
    loop {
        // How long the element before this is, in one byte or five.
        match reader.byte()? {
            END => break,
            0xfe => drop(reader.bytes(4)?),
            _ => {}
        }
        let first = reader.byte()?;
        elements.push(ziplist_element(first, &mut reader)?);
    }
    let is_whole = reader.left() == 0 && u32::try_from(bytes.len()) == Ok(total);
    is_right(count, elements, is_whole)
}

fn ziplist_element(first: u8, reader: &mut Reader<'_>) -> Option<Bytes> {
    let len = match first {
        0..0x40 => usize::from(first),
        0x40..0x80 => usize::from(first & 0x3f) << 8 | usize::from(reader.byte()?),
        0x80 => usize::try_from(u32::from_be_bytes(reader.array()?)).ok()?,
        0xc0 => return Some(text(i16::from_le_bytes(reader.array()?))),
        0xd0 => return Some(text(i32::from_le_bytes(reader.array()?))),
        0xe0 => return Some(text(i64::from_le_bytes(reader.array()?))),
        0xf0 => return Some(text(int24(reader.array()?))),
        0xfe => return Some(text(i8::from_le_bytes(reader.array()?))),
        0xf1..=0xfd => return Some(text((first & 0xf) - 1)),
        _ => return None,
    };
    reader.bytes(len).map(Bytes::copy_from_slice)
}

/// The members of an intset.
pub(super) fn intset(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut reader = Reader::of(bytes);
    let width = u32::from_le_bytes(reader.array()?);
    let count = usize::try_from(u32::from_le_bytes(reader.array()?)).ok()?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(match width {
            2 => text(i16::from_le_bytes(reader.array()?)),
            4 => text(i32::from_le_bytes(reader.array()?)),
            8 => text(i64::from_le_bytes(reader.array()?)),
            _ => return None,
        });
    }
    (reader.left() == 0).then_some(members)
}

/// The fields and values of a zipmap, in turn.
pub(super) fn zipmap(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut reader = Reader::of(bytes);
    let _count = reader.byte()?;
    let mut parts = Vec::new();
    loop {
        let len = match reader.byte()? {
            END => break,
            0xfe => usize::try_from(u32::from_le_bytes(reader.array()?)).ok()?,
            len => usize::from(len),
        };
        // Behind the length of a value stands how much room is free behind the value.
        let is_value = parts.len() % 2 == 1;
        let free = if is_value { reader.byte()? } else { 0 };
        parts.push(Bytes::copy_from_slice(reader.bytes(len)?));
        reader.bytes(usize::from(free))?;
    }
    (reader.left() == 0 && parts.len() % 2 == 0).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(elements: Option<Vec<Bytes>>) -> String {
        let elements = elements.unwrap();
        let text = elements.iter().map(|e| e.escape_ascii().to_string());
        text.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_element_of_a_listpack_is_read() {
        let mut bytes = vec![0; 6];
        for element in [
            &b"\x05\x01"[..],
            b"\xc1\x00\x02",
            b"\xdf\xff\x02",
            b"\xf1\x00\x80\x03",
            b"\xf2\x00\x00\x80\x04",
            b"\xf3\x00\x00\x00\x80\x05",
            b"\xf4\x00\x00\x00\x00\x00\x00\x00\x80\x09",
            b"\x82ab\x03",
            b"\xe0\x02ab\x04",
            b"\xf0\x02\x00\x00\x00ab\x07",
            b"\xff",
        ] {
            bytes.extend_from_slice(element);
        }
        bytes[0] = bytes.len() as u8;
        bytes[4] = 10;
        assert_eq!(
            shown(listpack(&bytes)),
            "5 256 -1 -32768 -8388608 -2147483648 -9223372036854775808 ab ab ab"
        );
        for cut in 0..bytes.len() {
            assert_eq!(listpack(&bytes[..cut]), None);
        }
    }

    #[test]
    fn each_element_of_a_ziplist_is_read() {
        let mut bytes = vec![0; 10];
        for element in [
            &b"\x00\xf1"[..],
            b"\x02\xfd",
            b"\x02\xfe\xff",
            b"\x03\xc0\x00\x80",
            b"\x04\xf0\x00\x00\x80",
            b"\x05\xd0\x00\x00\x00\x80",
            b"\x06\xe0\x00\x00\x00\x00\x00\x00\x00\x80",
            b"\x0a\x02ab",
            b"\xfe\x04\x00\x00\x00\x40\x02ab",
            b"\x09\x80\x00\x00\x00\x02ab",
            b"\xff",
        ] {
            bytes.extend_from_slice(element);
        }
        bytes[0] = bytes.len() as u8;
        bytes[8] = 10;
        assert_eq!(
            shown(ziplist(&bytes)),
            "0 12 -1 -32768 -8388608 -2147483648 -9223372036854775808 ab ab ab"
        );
        for cut in 0..bytes.len() {
            assert_eq!(ziplist(&bytes[..cut]), None);
        }
    }

    #[test]
    fn what_is_packed_is_read_back() {
        let long: Vec<u8> = vec![b'x'; 300_000];
        let texts: Vec<&[u8]> = [
            "",
            "0",
            "127",
            "128",
            "-1",
            "-4096",
            "4095",
            "4096",
            "-32768",
            "32768",
            "-8388608",
            "8388608",
            "-2147483648",
            "2147483648",
            "9223372036854775807",
            "007",
            "a",
        ]
        .iter()
        .map(|text| text.as_bytes())
        .chain([
            &long[..63],
            &long[..64],
            &long[..4095],
            &long[..4096],
            &long[..20_000],
            &long,
        ])
        .collect();
        let mut pack = Listpack::default();
        for text in &texts {
            let before = pack.bytes.len();
            pack.push(text);
            assert_eq!(pack.bytes.len() - before, element_len(text));
        }
        assert_eq!(listpack(&pack.finish()).unwrap(), texts);
    }

    #[test]
    fn lengths_are_those_of_the_elements() {
        for (text, len) in [
            ("5", 2),
            ("256", 3),
            ("-32768", 4),
            ("-8388608", 5),
            ("-2147483648", 6),
            ("9223372036854775807", 10),
            ("ab", 4),
            ("", 2),
        ] {
            assert_eq!(element_len(text.as_bytes()), len, "{text}");
        }
        assert_eq!(element_len(&[b'x'; 64]), 67);
        assert_eq!(element_len(&[b'x'; 4096]), 4103);
    }

    #[test]
    fn intsets_and_zipmaps_are_read() {
        let set = b"\x02\x00\x00\x00\x02\x00\x00\x00\xff\xff\x05\x00";
        assert_eq!(shown(intset(set)), "-1 5");
        assert_eq!(intset(&set[..11]), None);
        let map = b"\x02\x01a\x02\x01xy_\x03bcd\x00\x00\xff";
        assert_eq!(shown(zipmap(map)), "a xy bcd ");
        assert_eq!(zipmap(&map[..11]), None);
    }
}

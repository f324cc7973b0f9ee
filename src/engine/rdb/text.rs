//! Lengths and strings of an RDB file: numbers are little-endian, lengths big-endian.

use bytes::Bytes;

use crate::command::args;
use crate::engine::{STRING_MAX, lzf};

/// Strings up to this length may be written as integers.
const INTEGER_TEXT_MAX: usize = 11;
/// Strings longer than this are compressed if that helps.
const COMPRESS_OVER: usize = 20;

const INT8: u8 = 0xc0;
const INT16: u8 = 0xc1;
const INT32: u8 = 0xc2;
const LZF: u8 = 0xc3;
const LENGTH_32: u8 = 0x80;
const LENGTH_64: u8 = 0x81;

/// Appends a string: as an integer, compressed or as it is, whichever is shortest.
pub(in crate::engine) fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() <= INTEGER_TEXT_MAX
        && let Some(number) = args::integer(text)
        && write_integer(out, number)
    {
        return;
    }
    if text.len() > COMPRESS_OVER
        && let Some(compressed) = lzf::compress(text, text.len() - 4)
    {
        out.push(LZF);
        write_length(out, compressed.len());
        write_length(out, text.len());
        out.extend_from_slice(&compressed);
        return;
    }
    write_length(out, text.len());
    out.extend_from_slice(text);
}

/// Writes a number of at most 32 bits; whether it was one.
fn write_integer(out: &mut Vec<u8>, number: i64) -> bool {
    if let Ok(number) = i8::try_from(number) {
        out.push(INT8);
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = i16::try_from(number) {
        out.push(INT16);
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        out.push(INT32);
        out.extend_from_slice(&number.to_le_bytes());
    } else {
        return false;
    }
    true
}

/// Appends a length or count.
pub(in crate::engine) fn write_length(out: &mut Vec<u8>, len: usize) {
    match len {
        0..64 => out.push(len as u8),
        64..16384 => out.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
        _ => match u32::try_from(len) {
            Ok(len) => {
                out.push(LENGTH_32);
                out.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                out.push(LENGTH_64);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        },
    }
}

/// What is left to be read; every method returns `None` at the end or on damage.
pub(in crate::engine) struct Reader<'a> {
    rest: &'a [u8],
}

/// A length, or the way in which a string is encoded.
enum Length {
    Plain(u64),
    Encoded(u8),
}

impl<'a> Reader<'a> {
    /// Reads `rest`.
    pub fn of(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn length(&mut self) -> Option<Length> {
        let first = self.byte()?;
        Some(match first >> 6 {
            0 => Length::Plain(u64::from(first)),
            1 => {
                let second = self.byte()?;
                Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(second))
            }
            3 => Length::Encoded(first),
            _ => match first {
                LENGTH_32 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
                LENGTH_64 => Length::Plain(u64::from_be_bytes(self.array()?)),
                _ => return None,
            },
        })
    }

    /// A number of 64 bits.
    pub fn number(&mut self) -> Option<u64> {
        match self.length()? {
            Length::Plain(number) => Some(number),
            Length::Encoded(_) => None,
        }
    }

    /// A length or count, not above that of the longest string.
    pub fn plain_length(&mut self) -> Option<usize> {
        match self.length()? {
            Length::Plain(len) => usize::try_from(len).ok().filter(|len| *len <= STRING_MAX),
            Length::Encoded(_) => None,
        }
    }

    pub fn string(&mut self) -> Option<Bytes> {
        let encoding = match self.length()? {
            Length::Plain(len) => {
                let len = usize::try_from(len).ok()?;
                return self.bytes(len).map(Bytes::copy_from_slice);
            }
            Length::Encoded(encoding) => encoding,
        };
        let number = match encoding {
            INT8 => i64::from(i8::from_le_bytes(self.array()?)),
            INT16 => i64::from(i16::from_le_bytes(self.array()?)),
            INT32 => i64::from(i32::from_le_bytes(self.array()?)),
            LZF => {
                let (packed_len, len) = (self.plain_length()?, self.plain_length()?);
                let packed = self.bytes(packed_len)?;
                return lzf::decompress(packed, len).map(Bytes::from);
            }
            _ => return None,
        };
        Some(Bytes::from(number.to_string()))
    }
}

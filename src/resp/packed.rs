//! Replies as they are kept for a later connection, whichever protocol that speaks.
//!
//! One byte for the form, then a byte for the kind of each reply and what it holds:
//! numbers and lengths big-endian, in 8 and 4 bytes. The bytes of one protocol would not do:
//! RESP3 writes both nulls alike, and in RESP2 a map is an array.

use bytes::{Buf, BufMut, Bytes};

use super::error::ProtocolError;
use super::reply::known;
use crate::model::Reply;

/// The form that this program writes, and the only one that it reads.
const FORM: u8 = 1;

/// Replies within replies; commands nest five deep, scripts as deep as they like.
const DEPTH_MAX: usize = 128;

/// `replies` in one piece; `None` if they are nested too deep, or longer than 4 GB.
pub fn pack(replies: &[Reply]) -> Option<Vec<u8>> {
    let mut out = vec![FORM];
    pack_all(replies, 0, &mut out)?;
    Some(out)
}

/// What [`pack`] was given. The replies share `packed`.
///
/// # Errors
/// These bytes do not come from it.
pub fn unpack(packed: &Bytes) -> Result<Vec<Reply>, ProtocolError> {
    let mut rest = packed.clone();
    if byte(&mut rest)? != FORM {
        return Err(ProtocolError::Kind(packed[0]));
    }
    let replies = unpack_all(&mut rest, 0)?;
    if rest.is_empty() {
        Ok(replies)
    } else {
        Err(ProtocolError::Extent)
    }
}

fn pack_all(replies: &[Reply], depth: usize, out: &mut Vec<u8>) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    out.put_u32(u32::try_from(replies.len()).ok()?);
    replies.iter().try_for_each(|one| pack_one(one, depth, out))
}

fn pack_pairs(pairs: &[(Reply, Reply)], depth: usize, out: &mut Vec<u8>) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    out.put_u32(u32::try_from(pairs.len()).ok()?);
    pairs.iter().try_for_each(|(first, second)| {
        pack_one(first, depth, out)?;
        pack_one(second, depth, out)
    })
}

fn pack_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.put_u32(u32::try_from(bytes.len()).ok()?);
    out.put_slice(bytes);
    Some(())
}

fn pack_one(reply: &Reply, depth: usize, out: &mut Vec<u8>) -> Option<()> {
    let deeper = depth + 1;
    out.put_u8(kind(reply));
    match reply {
        Reply::Simple(text) => pack_bytes(text.as_bytes(), out)?,
        Reply::Error(bytes)
        | Reply::Status(bytes)
        | Reply::Bulk(bytes)
        | Reply::Decimal(bytes)
        | Reply::BigNumber(bytes)
        | Reply::Raw(bytes) => pack_bytes(bytes, out)?,
        Reply::Integer(value) => out.put_i64(*value),
        Reply::Null | Reply::NullArray => {}
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            pack_all(items, deeper, out)?;
        }
        Reply::Map(pairs) | Reply::Pairs(pairs) | Reply::MapOfPairs(pairs) => {
            pack_pairs(pairs, deeper, out)?;
        }
        Reply::Double(value) => out.put_f64(*value),
        Reply::Boolean(value) => out.put_u8(u8::from(*value)),
        Reply::Verbatim(format, text) => {
            out.put_slice(format);
            pack_bytes(text, out)?;
        }
    }
    Some(())
}

/// The byte that says which reply follows: what the protocol writes, where it has one.
fn kind(reply: &Reply) -> u8 {
    match reply {
        Reply::Simple(_) | Reply::Status(_) => b'+',
        Reply::Error(_) => b'-',
        Reply::Integer(_) => b':',
        Reply::Bulk(_) => b'$',
        Reply::Null => b'_',
        Reply::NullArray => b'0',
        Reply::Array(_) => b'*',
        Reply::Map(_) => b'%',
        Reply::Pairs(_) => b'p',
        Reply::MapOfPairs(_) => b'm',
        Reply::Set(_) => b'~',
        Reply::Double(_) => b',',
        Reply::Decimal(_) => b'd',
        Reply::Boolean(_) => b'#',
        Reply::BigNumber(_) => b'(',
        Reply::Verbatim(..) => b'=',
        Reply::Push(_) => b'>',
        Reply::Raw(_) => b'r',
    }
}

fn unpack_one(rest: &mut Bytes, depth: usize) -> Result<Reply, ProtocolError> {
    let deeper = depth + 1;
    Ok(match byte(rest)? {
        b'+' => {
            let text = unpack_bytes(rest)?;
            match known(&text) {
                Some(text) => Reply::Simple(text),
                None if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) => {
                    return Err(ProtocolError::Terminator);
                }
                None => Reply::Status(text),
            }
        }
        b'-' => Reply::Error(unpack_bytes(rest)?),
        b':' => Reply::Integer(rest.try_get_i64().map_err(|_| ProtocolError::Extent)?),
        b'$' => Reply::Bulk(unpack_bytes(rest)?),
        b'_' => Reply::Null,
        b'0' => Reply::NullArray,
        b'*' => Reply::Array(unpack_all(rest, deeper)?),
        b'%' => Reply::Map(unpack_pairs(rest, deeper)?),
        b'p' => Reply::Pairs(unpack_pairs(rest, deeper)?),
        b'm' => Reply::MapOfPairs(unpack_pairs(rest, deeper)?),
        b'~' => Reply::Set(unpack_all(rest, deeper)?),
        b',' => Reply::Double(rest.try_get_f64().map_err(|_| ProtocolError::Extent)?),
        b'd' => Reply::Decimal(unpack_bytes(rest)?),
        b'#' => Reply::Boolean(byte(rest)? != 0),
        b'(' => Reply::BigNumber(unpack_bytes(rest)?),
        b'=' => {
            let format = [byte(rest)?, byte(rest)?, byte(rest)?];
            Reply::Verbatim(format, unpack_bytes(rest)?)
        }
        b'>' => Reply::Push(unpack_all(rest, deeper)?),
        b'r' => Reply::Raw(unpack_bytes(rest)?),
        other => return Err(ProtocolError::Kind(other)),
    })
}

fn byte(rest: &mut Bytes) -> Result<u8, ProtocolError> {
    rest.try_get_u8().map_err(|_| ProtocolError::Extent)
}

/// The number of items, of which each takes at least a byte: room for no more than can be there.
fn count(rest: &mut Bytes, depth: usize) -> Result<usize, ProtocolError> {
    if depth > DEPTH_MAX {
        return Err(ProtocolError::Depth);
    }
    let count = rest.try_get_u32().map_err(|_| ProtocolError::Extent)? as usize;
    if count > rest.len() {
        return Err(ProtocolError::Extent);
    }
    Ok(count)
}

fn unpack_all(rest: &mut Bytes, depth: usize) -> Result<Vec<Reply>, ProtocolError> {
    let count = count(rest, depth)?;
    (0..count).map(|_| unpack_one(rest, depth)).collect()
}

fn unpack_pairs(rest: &mut Bytes, depth: usize) -> Result<Vec<(Reply, Reply)>, ProtocolError> {
    let count = count(rest, depth)?;
    let pair = |_| Ok((unpack_one(rest, depth)?, unpack_one(rest, depth)?));
    (0..count).map(pair).collect()
}

fn unpack_bytes(rest: &mut Bytes) -> Result<Bytes, ProtocolError> {
    let length = rest.try_get_u32().map_err(|_| ProtocolError::Extent)? as usize;
    if length > rest.len() {
        return Err(ProtocolError::Extent);
    }
    Ok(rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<Reply> {
        let pair = || vec![(Reply::bulk("a"), Reply::Integer(1))];
        vec![
            Reply::OK,
            Reply::error("ERR text"),
            Reply::Integer(i64::MIN),
            Reply::bulk(""),
            Reply::Null,
            Reply::NullArray,
            Reply::Array(vec![Reply::Array(Vec::new()), Reply::Null]),
            Reply::Map(pair()),
            Reply::Pairs(pair()),
            Reply::MapOfPairs(pair()),
            Reply::Set(vec![Reply::bulk("x")]),
            Reply::Double(-0.5),
            Reply::Decimal("1.50".into()),
            Reply::Boolean(true),
            Reply::Status("a text of its own".into()),
            Reply::BigNumber("123".into()),
            Reply::Verbatim(*b"txt", "hi".into()),
            Reply::Push(vec![Reply::Boolean(false)]),
            Reply::Raw("+x\r\n".into()),
        ]
    }

    #[test]
    fn every_kind_of_reply_comes_back_as_it_was() {
        let packed = Bytes::from(pack(&every_kind()).unwrap());
        assert_eq!(unpack(&packed).unwrap(), every_kind());
        assert_eq!(unpack(&Bytes::from(pack(&[]).unwrap())).unwrap(), []);
    }

    #[test]
    fn simple_text_that_has_no_name_is_a_text_of_its_own() {
        let packed = Bytes::from(pack(&[Reply::Simple("custom")]).unwrap());
        assert_eq!(unpack(&packed).unwrap(), [Reply::Status("custom".into())]);
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_both_ways() {
        let nested = |depth| (0..depth).fold(Reply::Null, |inner, _| Reply::Array(vec![inner]));
        assert!(pack(&[nested(DEPTH_MAX)]).is_some());
        assert!(pack(&[nested(DEPTH_MAX + 1)]).is_none());
        let mut hostile = vec![FORM, 0, 0, 0, 1];
        for _ in 0..=DEPTH_MAX {
            hostile.extend_from_slice(&[b'*', 0, 0, 0, 1]);
        }
        hostile.push(b'_');
        assert_eq!(unpack(&hostile.into()), Err(ProtocolError::Depth));
    }

    #[test]
    fn anything_cut_or_changed_is_refused_or_read_without_harm() {
        let whole = pack(&every_kind()).unwrap();
        for end in 0..whole.len() {
            let cut = Bytes::copy_from_slice(&whole[..end]);
            assert!(unpack(&cut).is_err(), "cut at {end}");
        }
        for index in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[index] = value;
                let _ = unpack(&Bytes::from(changed));
            }
        }
        let mut longer = whole;
        longer.push(0);
        assert_eq!(unpack(&longer.into()), Err(ProtocolError::Extent));
    }
}

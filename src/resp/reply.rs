//! Replies, as the cache sends them, in either version of the protocol.

use bytes::Bytes;
use smallvec::SmallVec;

use super::error::ProtocolError;
use super::number::{parse_integer, plain_length};
use crate::model::Reply;

/// Aggregates within aggregates; Redis itself nests five deep (`COMMAND DOCS`).
const DEPTH_MAX: usize = 32;

/// The longest line; an error can hold arguments, but Redis cuts them.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The longest bulk string: a Redis can be told to allow more than 512 MB.
const BULK_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;

/// The most items of one aggregate.
const ITEMS_MAX: u64 = 1 << 32;

/// The length of the first reply in `buffer`; `None` if it is not complete.
///
/// For replies that may be large and arrive in pieces use a [`ReplyScanner`].
pub fn scan_reply(buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
    ReplyScanner::default().advance(buffer)
}

/// The items of `reply`, an array, each as it is encoded; `None` if it is anything else.
pub fn split_array(reply: &Bytes) -> Option<Vec<Bytes>> {
    let end = reply.iter().position(|byte| *byte == b'\n')? + 1;
    let count = std::str::from_utf8(reply[..end].strip_prefix(b"*")?).ok()?;
    let count: usize = count.trim_end().parse().ok()?;
    let mut items = Vec::with_capacity(count.min(1 << 16));
    let mut at = end;
    for _ in 0..count {
        let length = scan_reply(&reply[at..]).ok()??;
        items.push(reply.slice(at..at + length));
        at += length;
    }
    Some(items)
}

/// Finds the end of replies in a buffer that grows at its end.
///
/// It remembers how far it came in a reply that is not complete, so that each
/// byte is looked at once. The buffer given must begin with that same reply
/// until its length was returned; then the scanner is at the start of the next.
#[derive(Debug, Default)]
pub struct ReplyScanner {
    /// How far the reply is understood.
    at: usize,
    /// The items still missing in each open aggregate, the outermost first.
    open: SmallVec<[u64; 4]>,
}

/// What begins at a place in the buffer.
enum Item {
    /// Something without parts, which ends here.
    Ends(usize),
    /// An aggregate: where its first item begins, and how many there are.
    Opens(usize, u64),
}

impl ReplyScanner {
    /// The length of the reply that `buffer` begins with; `None` if it is not complete.
    pub fn advance(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        loop {
            if let Some(missing) = self.open.last_mut() {
                skip_short_bulks(buffer, &mut self.at, missing);
            }
            let Some(item) = item(buffer, self.at)? else {
                return Ok(None);
            };
            match item {
                Item::Ends(end) | Item::Opens(end, 0) => {
                    self.at = end;
                    if self.close() {
                        return Ok(Some(std::mem::take(&mut self.at)));
                    }
                }
                Item::Opens(start, count) => {
                    if self.open.len() == DEPTH_MAX {
                        return Err(ProtocolError::Depth);
                    }
                    self.at = start;
                    self.open.push(count);
                }
            }
        }
    }

    /// Notes that an item ended; whether the whole reply has.
    fn close(&mut self) -> bool {
        while let Some(missing) = self.open.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

/// Goes on behind short bulk strings, of which arrays mostly consist, and leaves
/// the last of an aggregate, and all that is not plain, to [`item`].
///
/// `LRANGE` of 600 items spent a fifth of the proxy's time in looking at each item
/// the general way.
fn skip_short_bulks(buffer: &[u8], at: &mut usize, missing: &mut u64) {
    while *missing > 1 {
        let (length, start) = match buffer.get(*at..) {
            Some([b'$', a @ b'0'..=b'9', b'\r', b'\n', ..]) => (digit(*a), 4),
            Some([b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..]) => {
                (digit(*a) * 10 + digit(*b), 5)
            }
            _ => return,
        };
        let end = *at + start + length;
        if buffer.get(end..end + 2) != Some(b"\r\n") {
            return;
        }
        *at = end + 2;
        *missing -= 1;
    }
}

fn digit(byte: u8) -> usize {
    usize::from(byte - b'0')
}

/// Looks at the item that begins at `at`; `None` if its header or body is incomplete.
fn item(buffer: &[u8], at: usize) -> Result<Option<Item>, ProtocolError> {
    let Some(rest @ [kind, ..]) = buffer.get(at..) else {
        return Ok(None);
    };
    match kind {
        b'$' | b'=' | b'!' => {
            let Some((length, start)) = length(rest, at)? else {
                return Ok(None);
            };
            let Some(length) = length else {
                return Ok(Some(Item::Ends(start)));
            };
            let end = start + length;
            match buffer.get(end..end + 2) {
                Some(b"\r\n") => Ok(Some(Item::Ends(end + 2))),
                Some(_) => Err(ProtocolError::Terminator),
                None => Ok(None),
            }
        }
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
            Ok(line(rest)?.map(|text| Item::Ends(at + 1 + text.len() + 2)))
        }
        b'*' | b'~' | b'>' | b'%' | b'|' => {
            let Some((count, start)) = length(rest, at)? else {
                return Ok(None);
            };
            let count = count.unwrap_or(0) as u64;
            Ok(Some(Item::Opens(start, items(*kind, count)?)))
        }
        other => Err(ProtocolError::Kind(*other)),
    }
}

/// How many items an aggregate of `count` has: a map's are pairs, and an
/// attribute is followed by the reply that it belongs to.
fn items(kind: u8, count: u64) -> Result<u64, ProtocolError> {
    if count > ITEMS_MAX {
        return Err(ProtocolError::Number);
    }
    Ok(match kind {
        b'%' => count * 2,
        b'|' => count * 2 + 1,
        _ => count,
    })
}

/// The length behind the kind that `rest` begins with (`None` for -1, which
/// is RESP2's null), and where the body begins.
fn length(rest: &[u8], at: usize) -> Result<Option<(Option<usize>, usize)>, ProtocolError> {
    if let Some((length, taken)) = plain_length(&rest[1..])
        && length <= BULK_BYTES_MAX
    {
        return Ok(Some((Some(length), at + 1 + taken)));
    }
    let Some(text) = line(rest)? else {
        return Ok(None);
    };
    let next = at + 1 + text.len() + 2;
    match parse_integer(text) {
        Some(-1) if matches!(rest[0], b'$' | b'*') => Ok(Some((None, next))),
        Some(length @ 0..) if length as usize <= BULK_BYTES_MAX => {
            Ok(Some((Some(length as usize), next)))
        }
        _ => Err(ProtocolError::Number),
    }
}

/// The text between the kind that `rest` begins with and the line's end.
fn line(rest: &[u8]) -> Result<Option<&[u8]>, ProtocolError> {
    let text = &rest[1..];
    match text.iter().position(|byte| *byte == b'\r') {
        Some(end) => match text.get(end + 1) {
            Some(b'\n') => Ok(Some(&text[..end])),
            Some(_) => Err(ProtocolError::Terminator),
            None => Ok(None),
        },
        None if text.len() > LINE_BYTES_MAX => Err(ProtocolError::Line),
        None => Ok(None),
    }
}

/// Decodes exactly one reply. Bulk strings share `bytes`.
///
/// Simple strings that Freshet has no name for, and numbers beyond 64 bits,
/// become [`Reply::Raw`]; attributes are dropped.
pub fn decode_reply(bytes: &Bytes) -> Result<Reply, ProtocolError> {
    let mut cursor = Cursor { bytes, at: 0 };
    let reply = cursor.reply(0)?;
    if cursor.at == bytes.len() {
        Ok(reply)
    } else {
        Err(ProtocolError::Extent)
    }
}

struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn reply(&mut self, depth: usize) -> Result<Reply, ProtocolError> {
        if depth > DEPTH_MAX {
            return Err(ProtocolError::Depth);
        }
        let start = self.at;
        let kind = *self.bytes.get(start).ok_or(ProtocolError::Extent)?;
        match item(self.bytes, start)?.ok_or(ProtocolError::Extent)? {
            Item::Ends(end) => {
                self.at = end;
                self.simple(kind, start, end)
            }
            Item::Opens(first, count) => {
                self.at = first;
                if kind == b'*' && self.bytes[start + 1] == b'-' {
                    return Ok(Reply::NullArray);
                }
                self.aggregate(kind, count, depth)
            }
        }
    }

    /// The reply without parts that lies between `start` and `end`.
    fn simple(&self, kind: u8, start: usize, end: usize) -> Result<Reply, ProtocolError> {
        let text = start + 1..end - 2;
        let number = || parse_integer(&self.bytes[text.clone()]).ok_or(ProtocolError::Number);
        Ok(match kind {
            b'+' => match known(&self.bytes[text]) {
                Some(text) => Reply::Simple(text),
                None => Reply::Raw(self.bytes.slice(start..end)),
            },
            b'-' => Reply::Error(self.bytes.slice(text)),
            b':' => Reply::Integer(number()?),
            b'_' if text.is_empty() => Reply::Null,
            b'#' => match &self.bytes[text] {
                b"t" => Reply::Boolean(true),
                b"f" => Reply::Boolean(false),
                _ => return Err(ProtocolError::Number),
            },
            b',' => Reply::Double(double(&self.bytes[text])?),
            b'(' => Reply::Raw(self.bytes.slice(start..end)),
            b'$' if self.bytes[start + 1] == b'-' => Reply::Null,
            b'$' => Reply::Bulk(self.body(start, end)?),
            b'!' => Reply::Error(self.body(start, end)?),
            b'=' => {
                let body = self.body(start, end)?;
                match body[..] {
                    [a, b, c, b':', ..] => Reply::Verbatim([a, b, c], body.slice(4..)),
                    _ => return Err(ProtocolError::Number),
                }
            }
            _ => return Err(ProtocolError::Terminator),
        })
    }

    /// The bytes of the bulk string whose header begins at `start` and whose end is `end`.
    fn body(&self, start: usize, end: usize) -> Result<Bytes, ProtocolError> {
        let (_, body) = length(&self.bytes[start..], start)?.ok_or(ProtocolError::Extent)?;
        Ok(self.bytes.slice(body..end - 2))
    }

    fn aggregate(&mut self, kind: u8, count: u64, depth: usize) -> Result<Reply, ProtocolError> {
        if kind == b'|' {
            for _ in 1..count {
                self.reply(depth + 1)?;
            }
            return self.reply(depth + 1);
        }
        // The shortest item has three bytes: room for no more than can be there.
        let room = (self.bytes.len() - self.at) / 3 + 1;
        let count = usize::try_from(count).map_err(|_| ProtocolError::Number)?;
        let mut items = Vec::with_capacity(count.min(room));
        for _ in 0..count {
            items.push(self.reply(depth + 1)?);
        }
        Ok(match kind {
            b'~' => Reply::Set(items),
            b'>' => Reply::Push(items),
            b'%' => Reply::Map(pairs(items)),
            _ => Reply::Array(items),
        })
    }
}

fn pairs(items: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

/// The simple strings that Redis answers with.
pub(super) fn known(text: &[u8]) -> Option<&'static str> {
    const KNOWN: [&str; 11] = [
        "OK", "PONG", "QUEUED", "RESET", "none", "string", "list", "set", "zset", "hash", "stream",
    ];
    KNOWN.into_iter().find(|known| known.as_bytes() == text)
}

fn double(text: &[u8]) -> Result<f64, ProtocolError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(ProtocolError::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::resp::encode;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use redis_protocol::resp2::types::BytesFrame;

    fn bytes(reply: &Reply, protocol: Protocol) -> Bytes {
        let mut out = BytesMut::new();
        encode(reply, protocol, &mut out);
        out.freeze()
    }

    fn reply() -> impl Strategy<Value = Reply> {
        let blob = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let leaf = prop_oneof![
            Just(Reply::OK),
            "[A-Z]{1,5} [a-z ]{0,9}".prop_map(Reply::error),
            any::<i64>().prop_map(Reply::Integer),
            blob().prop_map(Reply::Bulk),
            Just(Reply::Null),
            Just(Reply::NullArray),
            any::<f64>()
                .prop_filter("NaN equals nothing", |value| !value.is_nan())
                .prop_map(Reply::Double),
            any::<bool>().prop_map(Reply::Boolean),
            blob().prop_map(|text| Reply::Verbatim(*b"txt", text)),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let items = prop::collection::vec(inner.clone(), 0..6);
            prop_oneof![
                items.clone().prop_map(Reply::Array),
                items.clone().prop_map(Reply::Set),
                items.prop_map(Reply::Push),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
            ]
        })
    }

    /// What is left of a reply when RESP3 has written it: there is one null only.
    fn as_resp3(reply: Reply) -> Reply {
        let all = |items: Vec<Reply>| items.into_iter().map(as_resp3).collect();
        match reply {
            Reply::NullArray => Reply::Null,
            Reply::Array(items) => Reply::Array(all(items)),
            Reply::Set(items) => Reply::Set(all(items)),
            Reply::Push(items) => Reply::Push(all(items)),
            Reply::Map(pairs) => Reply::Map(
                pairs
                    .into_iter()
                    .map(|(key, value)| (as_resp3(key), as_resp3(value)))
                    .collect(),
            ),
            other => other,
        }
    }

    fn same(reply: &Reply, frame: &BytesFrame) -> bool {
        match (reply, frame) {
            (Reply::Simple(a), BytesFrame::SimpleString(b)) => a.as_bytes() == b,
            (Reply::Error(a), BytesFrame::Error(b)) => a == b.as_bytes(),
            (Reply::Integer(a), BytesFrame::Integer(b)) => a == b,
            (Reply::Bulk(a), BytesFrame::BulkString(b)) => a == b,
            (Reply::Null | Reply::NullArray, BytesFrame::Null) => true,
            (Reply::Array(a), BytesFrame::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            _ => false,
        }
    }

    #[test]
    fn attributes_belong_to_the_reply_that_follows() {
        let text = Bytes::from("|1\r\n+k\r\n:1\r\n*1\r\n|1\r\n+a\r\n+b\r\n:7\r\n");
        assert_eq!(scan_reply(&text), Ok(Some(text.len())));
        assert_eq!(
            decode_reply(&text),
            Ok(Reply::Array(vec![Reply::Integer(7)]))
        );
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for (text, error) in [
            ("x\r\n", ProtocolError::Kind(b'x')),
            ("$a\r\n", ProtocolError::Number),
            ("$-2\r\n", ProtocolError::Number),
            ("~-1\r\n", ProtocolError::Number),
            ("$9999999999999\r\n", ProtocolError::Number),
            ("*99999999999\r\n", ProtocolError::Number),
            ("$1\r\nabc", ProtocolError::Terminator),
            ("+a\rb", ProtocolError::Terminator),
        ] {
            assert_eq!(scan_reply(text.as_bytes()), Err(error), "{text:?}");
        }
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1) + ":1\r\n";
        assert_eq!(scan_reply(deep.as_bytes()), Err(ProtocolError::Depth));
        assert_eq!(decode_reply(&Bytes::from(deep)), Err(ProtocolError::Depth));
        let line = [b'+'; LINE_BYTES_MAX + 10];
        assert_eq!(scan_reply(&line), Err(ProtocolError::Line));
        assert_eq!(
            decode_reply(&Bytes::from("+OK\r\n:1\r\n")),
            Err(ProtocolError::Extent)
        );
        assert_eq!(
            decode_reply(&Bytes::from("*2\r\n:1\r\n")),
            Err(ProtocolError::Extent)
        );
    }

    #[test]
    fn a_large_array_in_small_pieces_is_scanned_in_linear_time() {
        let all = bytes(
            &Reply::Array(vec![Reply::bulk("0123456789"); 200_000]),
            Protocol::Resp2,
        );
        let mut scanner = ReplyScanner::default();
        let mut length = None;
        for end in (0..=all.len()).step_by(64).chain([all.len()]) {
            length = scanner.advance(&all[..end]).unwrap();
            assert!(length.is_none() || end == all.len());
        }
        assert_eq!(length, Some(all.len()));
    }

    proptest! {
        #[test]
        fn replies_come_out_as_they_went_in(reply in reply(), next in reply()) {
            let first = bytes(&reply, Protocol::Resp3);
            let mut both = BytesMut::from(&first[..]);
            encode(&next, Protocol::Resp3, &mut both);
            prop_assert_eq!(scan_reply(&both), Ok(Some(first.len())));
            prop_assert_eq!(decode_reply(&first), Ok(as_resp3(reply)));
        }

        #[test]
        fn no_part_of_a_reply_is_a_reply(reply in reply(), cut in any::<prop::sample::Index>()) {
            for protocol in [Protocol::Resp2, Protocol::Resp3] {
                let whole = bytes(&reply, protocol);
                let cut = cut.index(whole.len());
                let mut scanner = ReplyScanner::default();
                prop_assert_eq!(scanner.advance(&whole[..cut]), Ok(None));
                prop_assert_eq!(scanner.advance(&whole), Ok(Some(whole.len())));
            }
        }

        #[test]
        fn resp2_is_decoded_as_redis_protocol_does(reply in reply()) {
            let whole = bytes(&reply, Protocol::Resp2);
            let (frame, length) =
                redis_protocol::resp2::decode::decode_bytes(&whole).unwrap().unwrap();
            prop_assert_eq!(length, whole.len());
            let decoded = decode_reply(&whole).unwrap();
            prop_assert!(same(&decoded, &frame), "{:?} {:?}", decoded, frame);
        }

        #[test]
        fn resp3_is_measured_as_redis_protocol_does(reply in reply()) {
            let whole = bytes(&reply, Protocol::Resp3);
            let oracle = redis_protocol::resp3::decode::complete::decode_range(&whole);
            if let Ok(Some((_, length))) = oracle {
                prop_assert_eq!(scan_reply(&whole), Ok(Some(length)));
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(
            text in prop::collection::vec(
                prop::sample::select(b"*$%|~+-:=,_#12-\r\nabc".to_vec()), 0..60),
        ) {
            if let Ok(Some(length)) = scan_reply(&text) {
                let _ = decode_reply(&Bytes::copy_from_slice(&text[..length]));
            }
        }
    }
}

//! Requests, as clients send them: arrays of bulk strings, or inline commands.

use std::ops::Range;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::error::RequestError;
use super::inline;
use super::number::{parse_integer, plain_length};
use crate::model::Request;

/// The longest line without its end: Redis's `PROTO_INLINE_MAX_SIZE`.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// What somebody may send who has not authenticated, as in Redis.
const UNAUTHENTICATED_ARGS_MAX: usize = 10;
const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16_384;

/// How many arguments' places are set aside on the word of a header alone.
const ARGS_PREALLOCATED_MAX: usize = 1024;

/// Whether the sender of a request has authenticated, or need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It has, or no password is set.
    Known,
    /// It has not yet: tight limits hold.
    Unknown,
}

/// How large requests may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest argument (Redis: `proto-max-bulk-len`, 512 MB).
    pub bulk_bytes: usize,
    /// The most arguments of one request.
    pub args: usize,
    /// The longest request (Redis: `client-query-buffer-limit`, 1 GB); always below 4 GiB.
    pub request_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_bytes: 512 * 1024 * 1024,
            args: 1024 * 1024,
            request_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// Reads requests from a buffer that grows at its end; one per connection.
///
/// Between two calls the buffer may only grow: the decoder remembers how far
/// it came in a request that was not complete.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// How far the request at the front of the buffer is understood.
    at: usize,
    /// Up to here there is no end of the line that begins at `at`.
    searched: usize,
    /// Arguments still to come; 0 before a request's header.
    missing: usize,
    /// The length of the argument that begins at `at`, its header read.
    body: Option<usize>,
    /// The arguments that are complete.
    args: SmallVec<[Range<u32>; 4]>,
    form: Form,
}

/// Whether all line ends of a request are `\r\n`. Redis looks at the `\r`
/// only; what is passed on to the cache is put right first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Sloppy,
}

/// A number on a line of its own.
struct Line {
    value: Option<i64>,
    /// Where the next line begins.
    next: usize,
}

impl Decoder {
    /// A decoder at the start of a request.
    pub fn new(limits: Limits) -> Self {
        let request_bytes = limits.request_bytes.min(u32::MAX as usize);
        Self {
            limits: Limits {
                request_bytes,
                ..limits
            },
            at: 0,
            searched: 0,
            missing: 0,
            body: None,
            args: SmallVec::new(),
            form: Form::Plain,
        }
    }

    /// Takes the next request off the front of `buffer`; `None` if it is not
    /// complete yet. Empty requests are skipped, as Redis does.
    ///
    /// After an error the connection is to be closed: what follows in the
    /// buffer has no meaning.
    pub fn decode(
        &mut self,
        buffer: &mut BytesMut,
        trust: Trust,
    ) -> Result<Option<Request>, RequestError> {
        loop {
            if self.missing > 0 {
                return self.arguments(buffer, trust);
            }
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(line) = self.line(buffer, RequestError::MultibulkLine)? else {
                        return Ok(None);
                    };
                    self.begin(line, buffer, trust)?;
                }
                Some(_) => {
                    let Some(args) = self.inline(buffer)? else {
                        return Ok(None);
                    };
                    if !args.is_empty() {
                        return Ok(Some(Request::from_args(&args)));
                    }
                }
            }
        }
    }

    /// How many more bytes the argument that is being received needs, when
    /// `received` are in the buffer: what a reader may make room for at once.
    pub fn missing_bytes(&self, received: usize) -> usize {
        self.body
            .map_or(0, |length| (self.at + length + 2).saturating_sub(received))
    }

    /// Whether a part of a request has been understood already.
    pub fn is_within_request(&self) -> bool {
        self.missing > 0
    }

    fn begin(
        &mut self,
        line: Line,
        buffer: &mut BytesMut,
        trust: Trust,
    ) -> Result<(), RequestError> {
        let count = match line.value {
            Some(count) if count <= 0 => 0,
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
            None => return Err(RequestError::MultibulkLength),
        };
        if count > self.limits.args {
            return Err(RequestError::MultibulkLength);
        }
        if trust == Trust::Unknown && count > UNAUTHENTICATED_ARGS_MAX {
            return Err(RequestError::UnauthenticatedMultibulkLength);
        }
        if count == 0 {
            let _ = buffer.split_to(line.next);
            self.searched = 0;
            self.form = Form::Plain;
        } else {
            self.at = line.next;
            self.missing = count;
            self.args.reserve(count.min(ARGS_PREALLOCATED_MAX));
        }
        Ok(())
    }

    fn arguments(
        &mut self,
        buffer: &mut BytesMut,
        trust: Trust,
    ) -> Result<Option<Request>, RequestError> {
        while self.missing > 0 {
            let length = match self.body {
                Some(length) => length,
                None => match self.bulk_header(buffer, trust)? {
                    Some(length) => length,
                    None => return Ok(None),
                },
            };
            let end = self.at + length;
            let Some(terminator) = buffer.get(end..end + 2) else {
                self.body = Some(length);
                return Ok(None);
            };
            if terminator != b"\r\n" {
                self.form = Form::Sloppy;
            }
            self.args.push(place(self.at)..place(end));
            self.body = None;
            self.at = end + 2;
            self.missing -= 1;
        }
        Ok(Some(self.finish(buffer)))
    }

    /// Reads `$<length>` and moves behind it.
    fn bulk_header(&mut self, buffer: &[u8], trust: Trust) -> Result<Option<usize>, RequestError> {
        let plain = match buffer.get(self.at..) {
            Some([b'$', rest @ ..]) => plain_length(rest),
            _ => None,
        };
        let (length, next) = match plain {
            Some((length, taken)) => (length, self.at + 1 + taken),
            None => {
                let Some(line) = self.line(buffer, RequestError::BulkLine)? else {
                    return Ok(None);
                };
                if buffer[self.at] != b'$' {
                    return Err(RequestError::ExpectedBulk(buffer[self.at]));
                }
                let length = line
                    .value
                    .and_then(|length| usize::try_from(length).ok())
                    .ok_or(RequestError::BulkLength)?;
                (length, line.next)
            }
        };
        if length > self.limits.bulk_bytes {
            return Err(RequestError::BulkLength);
        }
        if trust == Trust::Unknown && length > UNAUTHENTICATED_BULK_BYTES_MAX {
            return Err(RequestError::UnauthenticatedBulkLength);
        }
        if next + length + 2 > self.limits.request_bytes {
            return Err(RequestError::RequestLength);
        }
        self.at = next;
        self.searched = next;
        Ok(Some(length))
    }

    /// Reads the line that begins at `at`: one byte of kind, then a number.
    fn line(
        &mut self,
        buffer: &[u8],
        too_long: RequestError,
    ) -> Result<Option<Line>, RequestError> {
        let Some(start) = buffer.get(self.at + 1..) else {
            return Ok(None);
        };
        if let Some((value, taken)) = plain_length(start) {
            return Ok(Some(Line {
                value: i64::try_from(value).ok(),
                next: self.at + 1 + taken,
            }));
        }
        let from = self.searched.max(self.at);
        let Some(found) = buffer[from..].iter().position(|byte| *byte == b'\r') else {
            self.searched = buffer.len();
            return if buffer.len() - self.at > LINE_BYTES_MAX {
                Err(too_long)
            } else {
                Ok(None)
            };
        };
        let end = from + found;
        let Some(terminator) = buffer.get(end..end + 2) else {
            self.searched = end;
            return Ok(None);
        };
        if terminator != b"\r\n" {
            self.form = Form::Sloppy;
        }
        // An empty line has not even a byte of kind.
        let number = buffer.get(self.at + 1..end).unwrap_or_default();
        Ok(Some(Line {
            value: parse_integer(number),
            next: end + 2,
        }))
    }

    fn inline(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Vec<u8>>>, RequestError> {
        let from = self.searched;
        let Some(found) = buffer[from..].iter().position(|byte| *byte == b'\n') else {
            self.searched = buffer.len();
            return if buffer.len() > LINE_BYTES_MAX {
                Err(RequestError::InlineLine)
            } else {
                Ok(None)
            };
        };
        self.searched = 0;
        let line = buffer.split_to(from + found + 1);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        inline::split(line)
            .map(Some)
            .map_err(|_| RequestError::UnbalancedQuotes)
    }

    fn finish(&mut self, buffer: &mut BytesMut) -> Request {
        let raw = buffer.split_to(self.at).freeze();
        let request = Request::new(raw, std::mem::take(&mut self.args));
        let form = std::mem::replace(&mut self.form, Form::Plain);
        self.at = 0;
        self.searched = 0;
        match form {
            Form::Plain => request,
            Form::Sloppy => Request::from_args(&request.args().collect::<Vec<_>>()),
        }
    }
}

fn place(offset: usize) -> u32 {
    u32::try_from(offset).expect("the limit on a request is below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use redis_protocol::resp2::types::RangeFrame;

    fn decoder() -> Decoder {
        Decoder::new(Limits::default())
    }

    fn words(request: &Request) -> Vec<Vec<u8>> {
        request.args().map(<[u8]>::to_vec).collect()
    }

    /// All requests in `bytes`, which arrive in pieces of `piece`.
    fn all(bytes: &[u8], piece: usize) -> Result<Vec<Vec<Vec<u8>>>, RequestError> {
        let mut decoder = decoder();
        let mut buffer = BytesMut::new();
        let mut requests = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            buffer.extend_from_slice(piece);
            while let Some(request) = decoder.decode(&mut buffer, Trust::Known)? {
                let again = Request::from_args(&words(&request));
                assert_eq!(request.raw(), again.raw(), "the raw form is canonical");
                requests.push(words(&request));
            }
        }
        Ok(requests)
    }

    fn refusal(bytes: &[u8]) -> String {
        all(bytes, usize::MAX).unwrap_err().to_string()
    }

    // Each case was asked of a redis-server 7.0.15.
    #[test]
    fn malformed_requests_are_refused_with_redis_texts() {
        let long = |start: &str| [start.as_bytes(), &[b'1'; 70_000]].concat();
        for (bytes, text) in [
            (&b"*2147483648\r\n"[..], "invalid multibulk length"),
            (b"*a\r\n", "invalid multibulk length"),
            (b"*03\r\n", "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*+1\r\n", "invalid multibulk length"),
            (b"*1 \r\n", "invalid multibulk length"),
            (b"*1\r\n:4\r\n", "expected '$', got ':'"),
            (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$a\r\n", "invalid bulk length"),
            (b"*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (&long("*"), "too big mbulk count string"),
            (&long("*1\r\n$"), "too big bulk count string"),
            (&long("x"), "too big inline request"),
            (b"set a \"b\r\n", "unbalanced quotes in request"),
        ] {
            assert_eq!(refusal(bytes), format!("Protocol error: {text}"));
        }
        assert!(refusal(b"*1\r\n\r\n").starts_with("Protocol error: expected '$', got '\r'"));
        let reply = RequestError::ExpectedBulk(0xff).reply();
        let text = b"ERR Protocol error: expected '$', got '\xff'";
        assert_eq!(reply, crate::model::Reply::Error(text[..].into()));
    }

    #[test]
    fn empty_requests_are_skipped() {
        let ping = vec![vec![b"PING".to_vec()]];
        for start in ["*0\r\n", "*-1\r\n", "*-5\r\n", "\r\n\r\n", "\n", "  \r\n"] {
            for piece in [1, 3, 100] {
                let bytes = format!("{start}*1\r\n$4\r\nPING\r\n");
                assert_eq!(all(bytes.as_bytes(), piece).unwrap(), ping, "{start:?}");
            }
        }
    }

    #[test]
    fn line_ends_of_any_second_byte_are_put_right() {
        let expected = vec![vec![b"PING".to_vec(), b"a".to_vec()]];
        let bytes = b"*2\rX$4\rYPINGab$1\r\na\rZ";
        assert_eq!(all(bytes, usize::MAX).unwrap(), expected);
        assert_eq!(all(bytes, 1).unwrap(), expected);
    }

    #[test]
    fn who_has_not_authenticated_may_send_little() {
        let mut buffer = BytesMut::from("*11\r\n");
        let error = decoder().decode(&mut buffer, Trust::Unknown).unwrap_err();
        assert_eq!(error, RequestError::UnauthenticatedMultibulkLength);
        let mut buffer = BytesMut::from("*1\r\n$16385\r\n");
        let error = decoder().decode(&mut buffer, Trust::Unknown).unwrap_err();
        assert_eq!(error, RequestError::UnauthenticatedBulkLength);
    }

    #[test]
    fn a_request_over_the_limit_is_refused_before_it_arrives() {
        let mut decoder = Decoder::new(Limits {
            request_bytes: 100,
            ..Limits::default()
        });
        let mut buffer = BytesMut::from("*2\r\n$50\r\n");
        assert!(matches!(
            decoder.decode(&mut buffer, Trust::Known),
            Ok(None)
        ));
        assert_eq!(decoder.missing_bytes(buffer.len()), 52);
        buffer.extend_from_slice(&[b'x'; 50]);
        buffer.extend_from_slice(b"\r\n$50\r\n");
        assert_eq!(
            decoder.decode(&mut buffer, Trust::Known).unwrap_err(),
            RequestError::RequestLength
        );
    }

    /// A request of 100,000 arguments in reads of 64 bytes: looking again at
    /// what was seen would take minutes.
    #[test]
    fn a_large_request_in_small_pieces_is_read_in_linear_time() {
        let args = vec![b"0123456789".to_vec(); 100_000];
        let request = Request::from_args(&args);
        assert_eq!(all(request.raw(), 64).unwrap(), vec![args]);
    }

    #[test]
    fn a_large_argument_is_not_copied() {
        let mut decoder = decoder();
        let mut buffer = BytesMut::with_capacity(2_000_100);
        buffer.extend_from_slice(b"*1\r\n$2000000\r\n");
        assert!(decoder.decode(&mut buffer, Trust::Known).unwrap().is_none());
        assert_eq!(decoder.missing_bytes(buffer.len()), 2_000_002);
        let address = buffer.as_ptr();
        buffer.resize(buffer.len() + 2_000_000, b'x');
        buffer.extend_from_slice(b"\r\n");
        let request = decoder.decode(&mut buffer, Trust::Known).unwrap().unwrap();
        assert_eq!(request.arg(0).len(), 2_000_000);
        assert_eq!(request.raw().as_ptr(), address);
    }

    proptest! {
        #[test]
        fn requests_come_out_as_they_went_in(
            requests in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8), 0..8),
            piece in 1_usize..64,
        ) {
            let mut bytes = BytesMut::new();
            for args in &requests {
                bytes.extend_from_slice(Request::from_args(args).raw());
            }
            prop_assert_eq!(all(&bytes, piece).unwrap(), requests);
        }

        #[test]
        fn what_redis_protocol_accepts_is_read_alike(
            args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 1..5),
            spoiled in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut bytes = Request::from_args(&args).raw().to_vec();
            if let Some((index, byte)) = spoiled {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            let oracle = redis_protocol::resp2::decode::decode_range(&bytes);
            if let Ok(Some((RangeFrame::Array(items), length))) = oracle {
                let expected: Option<Vec<Vec<u8>>> = items.iter().map(|item| match item {
                    RangeFrame::BulkString((start, end)) => Some(bytes[*start..*end].to_vec()),
                    _ => None,
                }).collect();
                if let Some(expected) = expected.filter(|args| !args.is_empty()) {
                    let mut buffer = BytesMut::from(&bytes[..]);
                    if let Ok(Some(request)) = decoder().decode(&mut buffer, Trust::Known) {
                        prop_assert_eq!(words(&request), expected);
                        prop_assert_eq!(buffer.len(), bytes.len() - length);
                    } else {
                        // The crate takes numbers that Redis refuses: `+1`, `01`.
                        let odd = bytes.windows(2).any(|w| {
                            matches!(w[0], b'*' | b'$') && matches!(w[1], b'+' | b'0')
                        });
                        prop_assert!(odd, "refused what redis-protocol reads");
                    }
                }
            }
        }

        #[test]
        fn any_bytes_are_read_alike_in_any_pieces(
            bytes in prop::collection::vec(
                prop::sample::select(b"*$0123:\r\n\"'ax \\".to_vec()), 0..60),
            piece in 1_usize..8,
        ) {
            prop_assert_eq!(all(&bytes, usize::MAX), all(&bytes, piece));
        }
    }
}

//! Replies, as the client's version of the protocol writes them.

use bytes::{BufMut, BytesMut};

use crate::model::{Protocol, Reply, format_double};

/// Appends `reply` to `out`, as `protocol` writes it.
pub fn encode(reply: &Reply, protocol: Protocol, out: &mut BytesMut) {
    match reply {
        Reply::Simple(text) => line(b'+', text.as_bytes(), out),
        Reply::Status(text) => line(b'+', text, out),
        Reply::Error(text) => error(text, out),
        Reply::Integer(value) => header(b':', *value, out),
        Reply::Bulk(bytes) => bulk(b'$', bytes, out),
        Reply::Null => null(protocol, b"$-1\r\n", out),
        Reply::NullArray => null(protocol, b"*-1\r\n", out),
        Reply::Array(items) => aggregate(b'*', items, protocol, out),
        Reply::Map(pairs) => map(pairs, protocol, out),
        Reply::Pairs(items) => pairs(items, protocol, out),
        Reply::MapOfPairs(pairs) => map_of_pairs(pairs, protocol, out),
        Reply::Set(items) => aggregate(resp3_kind(protocol, b'~'), items, protocol, out),
        Reply::Push(items) => aggregate(resp3_kind(protocol, b'>'), items, protocol, out),
        Reply::Double(value) => decimal(format_double(*value).as_bytes(), protocol, out),
        Reply::Decimal(text) => decimal(text, protocol, out),
        Reply::Boolean(value) => out.put_slice(match (protocol, value) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        }),
        Reply::BigNumber(digits) => match protocol {
            Protocol::Resp2 => bulk(b'$', digits, out),
            Protocol::Resp3 => line(b'(', digits, out),
        },
        Reply::Verbatim(format, text) => verbatim(*format, text, protocol, out),
        Reply::Raw(bytes) => out.put_slice(bytes),
    }
}

/// What is appended most, without a [`Reply`] around it.
pub mod append {
    use bytes::{BufMut, BytesMut};

    /// `+OK`.
    pub fn ok(out: &mut BytesMut) {
        out.put_slice(b"+OK\r\n");
    }

    /// A number.
    pub fn integer(value: i64, out: &mut BytesMut) {
        super::header(b':', value, out);
    }

    /// A bulk string.
    pub fn bulk(bytes: &[u8], out: &mut BytesMut) {
        super::bulk(b'$', bytes, out);
    }
}

/// In RESP2 all aggregates are arrays.
fn resp3_kind(protocol: Protocol, kind: u8) -> u8 {
    match protocol {
        Protocol::Resp2 => b'*',
        Protocol::Resp3 => kind,
    }
}

fn line(kind: u8, text: &[u8], out: &mut BytesMut) {
    out.reserve(text.len() + 3);
    out.put_u8(kind);
    out.put_slice(text);
    out.put_slice(b"\r\n");
}

/// An error is one line, whatever a client's argument in it holds; Redis
/// puts spaces in the place of line ends too.
fn error(text: &[u8], out: &mut BytesMut) {
    out.reserve(text.len() + 3);
    out.put_u8(b'-');
    if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        out.extend(text.iter().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            other => *other,
        }));
    } else {
        out.put_slice(text);
    }
    out.put_slice(b"\r\n");
}

fn null(protocol: Protocol, resp2: &[u8], out: &mut BytesMut) {
    out.put_slice(match protocol {
        Protocol::Resp2 => resp2,
        Protocol::Resp3 => b"_\r\n",
    });
}

fn header(kind: u8, value: i64, out: &mut BytesMut) {
    // Sign, 19 digits, kind, line end.
    let mut line = [0_u8; 24];
    let mut start = line.len() - 2;
    line[start..].copy_from_slice(b"\r\n");
    let mut rest = value.unsigned_abs();
    loop {
        start -= 1;
        line[start] = b'0' + u8::try_from(rest % 10).expect("a remainder of 10 fits");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        start -= 1;
        line[start] = b'-';
    }
    start -= 1;
    line[start] = kind;
    out.put_slice(&line[start..]);
}

fn length_header(kind: u8, length: usize, out: &mut BytesMut) {
    let length = i64::try_from(length).expect("nothing in memory is longer than i64::MAX");
    header(kind, length, out);
}

fn bulk(kind: u8, bytes: &[u8], out: &mut BytesMut) {
    out.reserve(bytes.len() + 24);
    length_header(kind, bytes.len(), out);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn aggregate(kind: u8, items: &[Reply], protocol: Protocol, out: &mut BytesMut) {
    length_header(kind, items.len(), out);
    for item in items {
        encode(item, protocol, out);
    }
}

fn map(pairs: &[(Reply, Reply)], protocol: Protocol, out: &mut BytesMut) {
    match protocol {
        Protocol::Resp2 => length_header(b'*', pairs.len() * 2, out),
        Protocol::Resp3 => length_header(b'%', pairs.len(), out),
    }
    for (key, value) in pairs {
        encode(key, protocol, out);
        encode(value, protocol, out);
    }
}

fn pairs(pairs: &[(Reply, Reply)], protocol: Protocol, out: &mut BytesMut) {
    match protocol {
        Protocol::Resp2 => length_header(b'*', pairs.len() * 2, out),
        Protocol::Resp3 => length_header(b'*', pairs.len(), out),
    }
    for (first, second) in pairs {
        if protocol == Protocol::Resp3 {
            length_header(b'*', 2, out);
        }
        encode(first, protocol, out);
        encode(second, protocol, out);
    }
}

fn map_of_pairs(pairs: &[(Reply, Reply)], protocol: Protocol, out: &mut BytesMut) {
    if protocol == Protocol::Resp3 {
        return map(pairs, protocol, out);
    }
    length_header(b'*', pairs.len(), out);
    for (key, value) in pairs {
        length_header(b'*', 2, out);
        encode(key, protocol, out);
        encode(value, protocol, out);
    }
}

fn decimal(text: &[u8], protocol: Protocol, out: &mut BytesMut) {
    match protocol {
        Protocol::Resp2 => bulk(b'$', text, out),
        Protocol::Resp3 => line(b',', text, out),
    }
}

fn verbatim(format: [u8; 3], text: &[u8], protocol: Protocol, out: &mut BytesMut) {
    match protocol {
        Protocol::Resp2 => bulk(b'$', text, out),
        Protocol::Resp3 => {
            out.reserve(text.len() + 28);
            length_header(b'=', text.len() + 4, out);
            out.put_slice(&format);
            out.put_u8(b':');
            out.put_slice(text);
            out.put_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(reply: &Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        encode(reply, protocol, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn each_form_is_written_as_each_protocol_has_it() {
        let item = || Reply::Integer(1);
        for (reply, resp2, resp3) in [
            (Reply::OK, "+OK\r\n", "+OK\r\n"),
            (Reply::error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (
                Reply::Integer(i64::MIN),
                ":-9223372036854775808\r\n",
                ":-9223372036854775808\r\n",
            ),
            (Reply::Integer(0), ":0\r\n", ":0\r\n"),
            (Reply::bulk("ab"), "$2\r\nab\r\n", "$2\r\nab\r\n"),
            (Reply::bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Reply::Null, "$-1\r\n", "_\r\n"),
            (Reply::NullArray, "*-1\r\n", "_\r\n"),
            (
                Reply::Array(vec![item(), Reply::Null]),
                "*2\r\n:1\r\n$-1\r\n",
                "*2\r\n:1\r\n_\r\n",
            ),
            (
                Reply::Map(vec![(item(), item())]),
                "*2\r\n:1\r\n:1\r\n",
                "%1\r\n:1\r\n:1\r\n",
            ),
            (
                Reply::Pairs(vec![(item(), Reply::Null)]),
                "*2\r\n:1\r\n$-1\r\n",
                "*1\r\n*2\r\n:1\r\n_\r\n",
            ),
            (
                Reply::MapOfPairs(vec![(item(), item())]),
                "*1\r\n*2\r\n:1\r\n:1\r\n",
                "%1\r\n:1\r\n:1\r\n",
            ),
            (Reply::Set(vec![item()]), "*1\r\n:1\r\n", "~1\r\n:1\r\n"),
            (Reply::Push(vec![item()]), "*1\r\n:1\r\n", ">1\r\n:1\r\n"),
            (Reply::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (Reply::Decimal("1.50".into()), "$4\r\n1.50\r\n", ",1.50\r\n"),
            (Reply::Boolean(true), ":1\r\n", "#t\r\n"),
            (
                Reply::Verbatim(*b"txt", "hi".into()),
                "$2\r\nhi\r\n",
                "=6\r\ntxt:hi\r\n",
            ),
            (Reply::Raw("+x\r\n".into()), "+x\r\n", "+x\r\n"),
        ] {
            assert_eq!(encoded(&reply, Protocol::Resp2), resp2);
            assert_eq!(encoded(&reply, Protocol::Resp3), resp3);
        }
    }
}

//! The few frames that are written and read here without a reply around them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::resp::append;

/// What stands before the keys of an invalidation in RESP3.
pub const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// The same in RESP2, as a message of the channel that Redis uses for it.
pub const INVALIDATE_MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";

/// Appends a request.
pub fn request<'a>(arguments: impl ExactSizeIterator<Item = &'a [u8]>, out: &mut BytesMut) {
    out.put_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        append::bulk(argument, out);
    }
}

/// An encoded array of keys.
pub fn keys<'a>(names: impl ExactSizeIterator<Item = &'a [u8]>) -> Bytes {
    let mut out = BytesMut::new();
    request(names, &mut out);
    out.freeze()
}

/// The first two strings of a push, and where the third item begins: what
/// kind of message it is, and its channel or pattern.
pub fn kind_and_name(push: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let start = push.iter().position(|&byte| byte == b'\n')? + 1;
    let (kind, next) = bulk(push, start)?;
    let (name, next) = bulk(push, next)?;
    Some((kind, name, next))
}

/// The bulk string at `at`, and where the next item begins.
pub fn bulk(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?.strip_prefix(b"$")?;
    let line = rest.iter().position(|&byte| byte == b'\r')?;
    let length: usize = std::str::from_utf8(&rest[..line]).ok()?.parse().ok()?;
    let start = line + 2;
    let text = rest.get(start..start + length)?;
    Some((text, at + 1 + start + length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_understood() {
        let push = b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$4\r\na\r\nb\r\n";
        let (kind, name, next) = kind_and_name(push).unwrap();
        assert_eq!((kind, name), (&b"message"[..], &b"ch"[..]));
        assert_eq!(bulk(push, next).unwrap().0, b"a\r\nb");
        assert_eq!(kind_and_name(b">1\r\n:1\r\n"), None);
        let null = b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n";
        assert_eq!(kind_and_name(null), None);
    }
}

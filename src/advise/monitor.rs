//! Lines of `MONITOR`: <https://redis.io/commands/monitor/>.

use bytes::Bytes;

use crate::command::{Call, resolve};
use crate::model::{Db, Request};

/// A command that a Redis has run.
#[derive(Debug)]
pub struct Ran {
    /// When, in seconds since 1970 by its clock.
    pub at: f64,
    /// In which database.
    pub db: Db,
    /// Which; none that Redis 7.0 does not know.
    pub call: Call,
}

/// What a line like `1339518083.107412 [0 127.0.0.1:60866] "get" "k"` tells; nothing of one of
/// another form, or of a command that is wrong.
pub fn parse(line: &[u8]) -> Option<Ran> {
    let line = line.strip_prefix(b"+").unwrap_or(line);
    let space = line.iter().position(|&byte| byte == b' ')?;
    let at: f64 = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    let source = line[space + 1..].strip_prefix(b"[")?;
    let end = source.windows(2).position(|pair| pair == b"] ")?;
    let db = std::str::from_utf8(&source[..end]).ok()?;
    let db = db.split(' ').next()?.parse().ok().and_then(Db::new)?;
    let words = words(&source[end + 2..])?;
    let call = resolve(Request::from_args(&words)).ok()?;
    Some(Ran { at, db, call })
}

/// Words in quotation marks, with C's escapes in them.
fn words(text: &[u8]) -> Option<Vec<Bytes>> {
    let mut all = Vec::new();
    let mut rest = text.trim_ascii_end();
    while !rest.is_empty() {
        let mut word = Vec::new();
        rest = rest.strip_prefix(b"\"")?;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            match byte {
                b'"' => break,
                b'\\' => {
                    let (byte, after) = escaped(rest)?;
                    word.push(byte);
                    rest = after;
                }
                byte => word.push(byte),
            }
        }
        all.push(word.into());
        rest = rest.strip_prefix(b" ").unwrap_or(rest);
    }
    (!all.is_empty()).then_some(all)
}

/// The byte behind a backslash, and what follows.
fn escaped(rest: &[u8]) -> Option<(u8, &[u8])> {
    let (&mark, after) = rest.split_first()?;
    let byte = match mark {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        b'x' => {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            return Some((u8::from_str_radix(digits, 16).ok()?, &after[2..]));
        }
        other => other,
    };
    Some((byte, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_its_command() {
        let line = br#"+1339518083.107412 [2 127.0.0.1:60866] "set" "a \"b\"\x00\r" "v""#;
        let ran = parse(line).unwrap();
        assert_eq!((ran.db.index(), ran.call.command.name), (2, "SET"));
        assert_eq!(ran.call.request.arg(1), b"a \"b\"\0\r");
        assert!((ran.at - 1_339_518_083.107_412).abs() < 1e-3);
        assert_eq!(
            parse(br#"1.5 [0 lua] "get" "k""#)
                .unwrap()
                .call
                .command
                .name,
            "GET"
        );
        for line in [
            &b"OK"[..],
            b"1.5 [0 lua] get k",
            br#"1.5 [0 lua] "nosuchcommand" "k""#,
            br#"1.5 [0 lua] "get" "k"#,
            br#"1.5 [99 x] "get" "k""#,
        ] {
            assert!(parse(line).is_none(), "{line:?}");
        }
    }
}

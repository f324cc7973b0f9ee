//! JSON to Lua values.

use mlua::{Lua, Value};

use super::{Mistake, Settings};

/// Deeper data than this is refused whatever the settings say: Rust's own stack ends.
const DEPTH_MAX: i64 = 2000;

/// The value that `data` is.
pub(super) fn decode(lua: &Lua, settings: &Settings, data: &[u8]) -> Result<Value, Mistake> {
    if data.len() >= 2 && (data[0] == 0 || data[1] == 0) {
        return Err(Mistake::of("JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut parser = Parser {
        lua,
        settings,
        data,
        at: 0,
        depth: 0,
    };
    let token = parser.next();
    let value = parser.value(token)?;
    let token = parser.next();
    match token.kind {
        Kind::End => Ok(value),
        _ => Err(token.instead_of("the end")),
    }
}

enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

struct Token {
    kind: Kind,
    /// Where it begins, or where it is wrong.
    at: usize,
}

impl Token {
    fn instead_of(&self, expected: &str) -> Mistake {
        let found = match self.kind {
            Kind::ObjectBegin => "T_OBJ_BEGIN",
            Kind::ObjectEnd => "T_OBJ_END",
            Kind::ArrayBegin => "T_ARR_BEGIN",
            Kind::ArrayEnd => "T_ARR_END",
            Kind::String(_) => "T_STRING",
            Kind::Number(_) => "T_NUMBER",
            Kind::Boolean(_) => "T_BOOLEAN",
            Kind::Null => "T_NULL",
            Kind::Colon => "T_COLON",
            Kind::Comma => "T_COMMA",
            Kind::End => "T_END",
            Kind::Error(what) => what,
        };
        Mistake::of(format!(
            "Expected {expected} but found {found} at character {}",
            self.at + 1
        ))
    }
}

struct Parser<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    data: &'a [u8],
    at: usize,
    depth: i64,
}

impl Parser<'_> {
    /// The byte so far ahead; behind the end a zero, as in a C string.
    fn peek(&self, ahead: usize) -> u8 {
        self.data.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn next(&mut self) -> Token {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let at = self.at;
        let single = match self.peek(0) {
            b'{' => Kind::ObjectBegin,
            b'}' => Kind::ObjectEnd,
            b'[' => Kind::ArrayBegin,
            b']' => Kind::ArrayEnd,
            b':' => Kind::Colon,
            b',' => Kind::Comma,
            0 => {
                let kind = Kind::End;
                return Token { kind, at };
            }
            _ => return self.longer(at),
        };
        self.at += 1;
        Token { kind: single, at }
    }

    fn longer(&mut self, at: usize) -> Token {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let words = [
            (&b"true"[..], Kind::Boolean(true)),
            (b"false", Kind::Boolean(false)),
            (b"null", Kind::Null),
        ];
        let kind = match self.peek(0) {
            b'"' => return self.string(at),
            b'-' | b'0'..=b'9' if !self.settings.decode_invalid && is_invalid_number(rest) => {
                Kind::Error("invalid number")
            }
            b'-' | b'0'..=b'9' => self.number(),
            b'f' | b'i' | b'I' | b'n' | b'N' | b't' | b'+' => {
                match words.into_iter().find(|(word, _)| rest.starts_with(word)) {
                    Some((word, kind)) => {
                        self.at += word.len();
                        kind
                    }
                    None if self.settings.decode_invalid && is_invalid_number(rest) => {
                        self.number()
                    }
                    None => Kind::Error("invalid token"),
                }
            }
            _ => Kind::Error("invalid token"),
        };
        Token { kind, at }
    }

    fn number(&mut self) -> Kind {
        let rest = self.data.get(self.at..).unwrap_or_default();
        match parse_number(rest) {
            Some((number, length)) => {
                self.at += length;
                Kind::Number(number)
            }
            None => Kind::Error("invalid number"),
        }
    }

    fn string(&mut self, at: usize) -> Token {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let error = |what, at| Token {
                kind: Kind::Error(what),
                at,
            };
            match self.peek(0) {
                b'"' => break,
                0 => return error("unexpected end of string", self.at),
                b'\\' => {
                    let plain = match self.peek(1) {
                        byte @ (b'"' | b'\\' | b'/') => byte,
                        b'b' => 0x08,
                        b'f' => 0x0c,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'u' => match self.unicode(&mut text) {
                            Some(length) => {
                                self.at += length;
                                continue;
                            }
                            None => return error("invalid unicode escape code", self.at),
                        },
                        _ => return error("invalid escape code", self.at),
                    };
                    text.push(plain);
                    self.at += 2;
                }
                byte => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Token {
            kind: Kind::String(text),
            at,
        }
    }

    /// Appends the character of `\uXXXX`, or of a pair of these; how long they are.
    fn unicode(&self, text: &mut Vec<u8>) -> Option<usize> {
        let first = self.hex(2)?;
        let (code, length) = match first & 0xF800 == 0xD800 {
            false => (first, 6),
            true => {
                if first & 0x400 != 0 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
                    return None;
                }
                let low = self.hex(8)?;
                if low & 0xFC00 != 0xDC00 {
                    return None;
                }
                let code = (((first & 0x3FF) << 10) | (low & 0x3FF)) + 0x10000;
                (code, 12)
            }
        };
        let character = char::from_u32(code)?;
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Some(length)
    }

    fn hex(&self, ahead: usize) -> Option<u32> {
        (0..4).try_fold(0, |code, index| {
            let digit = char::from(self.peek(ahead + index)).to_digit(16)?;
            Some((code << 4) | digit)
        })
    }

    fn value(&mut self, token: Token) -> Result<Value, Mistake> {
        Ok(match token.kind {
            Kind::String(text) => Value::String(self.lua.create_string(text)?),
            Kind::Number(number) => Value::Number(number),
            Kind::Boolean(flag) => Value::Boolean(flag),
            Kind::Null => Value::NULL,
            Kind::ObjectBegin => self.object()?,
            Kind::ArrayBegin => self.array()?,
            _ => return Err(token.instead_of("value")),
        })
    }

    fn descend(&mut self) -> Result<(), Mistake> {
        self.depth += 1;
        if self.depth > self.settings.decode_depth_max.min(DEPTH_MAX) {
            return Err(Mistake::of(format!(
                "Found too many nested data structures ({}) at character {}",
                self.depth, self.at
            )));
        }
        Ok(())
    }

    fn object(&mut self) -> Result<Value, Mistake> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if matches!(token.kind, Kind::ObjectEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        loop {
            let Kind::String(key) = &token.kind else {
                return Err(token.instead_of("object key string"));
            };
            let key = self.lua.create_string(key)?;
            let colon = self.next();
            if !matches!(colon.kind, Kind::Colon) {
                return Err(colon.instead_of("colon"));
            }
            let next = self.next();
            table.raw_set(key, self.value(next)?)?;
            let next = self.next();
            match next.kind {
                Kind::ObjectEnd => break,
                Kind::Comma => token = self.next(),
                _ => return Err(next.instead_of("comma or object end")),
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }

    fn array(&mut self) -> Result<Value, Mistake> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if matches!(token.kind, Kind::ArrayEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        for index in 1.. {
            table.raw_set(index, self.value(token)?)?;
            let next = self.next();
            match next.kind {
                Kind::ArrayEnd => break,
                Kind::Comma => token = self.next(),
                _ => return Err(next.instead_of("comma or array end")),
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }
}

/// What JSON does not take for a number, but `strtod` would.
fn is_invalid_number(text: &[u8]) -> bool {
    if text.first() == Some(&b'+') {
        return true;
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    match text.first() {
        Some(b'0') => text
            .get(1)
            .is_some_and(|next| matches!(next, b'x' | b'X' | b'0'..=b'9')),
        Some(byte) if *byte <= b'9' => false,
        _ => is_word(text, b"inf") || is_word(text, b"nan"),
    }
}

fn is_word(text: &[u8], word: &[u8]) -> bool {
    text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word)
}

/// The number that `text` begins with, as `strtod` reads it, and its length.
fn parse_number(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let is_negative = text.first() == Some(&b'-');
    let signed = |number: f64| if is_negative { -number } else { number };
    let rest = &text[sign..];
    if is_word(rest, b"infinity") {
        return Some((signed(f64::INFINITY), sign + 8));
    }
    if is_word(rest, b"inf") {
        return Some((signed(f64::INFINITY), sign + 3));
    }
    if is_word(rest, b"nan") {
        return Some((signed(f64::NAN), sign + 3));
    }
    if is_word(rest, b"0x") && rest.get(2).is_some_and(u8::is_ascii_hexdigit) {
        let digits = &rest[2..];
        let end = digits.iter().position(|byte| !byte.is_ascii_hexdigit());
        let digits = &digits[..end.unwrap_or(digits.len())];
        let value = digits.iter().fold(0.0, |value, digit| {
            value * 16.0 + f64::from(char::from(*digit).to_digit(16).unwrap_or(0))
        });
        return Some((signed(value), sign + 2 + digits.len()));
    }
    let digits = |from: usize| {
        let rest = rest.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let whole = digits(0);
    let mut length = whole;
    if rest.get(length) == Some(&b'.') {
        let decimals = digits(length + 1);
        if whole + decimals == 0 {
            return None;
        }
        length += 1 + decimals;
    } else if whole == 0 {
        return None;
    }
    if matches!(rest.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let number: f64 = std::str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
    Some((signed(number), sign + length))
}

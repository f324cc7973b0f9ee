//! Inline commands: what somebody types into a plain connection.

/// A quote that is not closed, or whose end is not followed by a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbalanced;

/// Splits a line into arguments by the rules of Redis's `sdssplitargs`:
/// spaces divide, `"..."` knows `\n \r \t \b \a \xHH`, `'...'` only `\'`.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
    let mut rest = line;
    let mut args = Vec::new();
    loop {
        while let [first, tail @ ..] = rest
            && is_space(*first)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Ok(args);
        }
        let mut arg = Vec::new();
        rest = word(rest, &mut arg)?;
        args.push(arg);
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Reads one argument into `arg`, and returns what follows it. Quotes may
/// begin within a word, but they end it.
fn word<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        match rest {
            // Not `is_space`: within a word Redis lets vertical tab and form feed stand.
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [b'"', tail @ ..] => return double_quoted(tail, arg),
            [b'\'', tail @ ..] => return single_quoted(tail, arg),
            [byte, tail @ ..] => {
                arg.push(*byte);
                rest = tail;
            }
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        rest = match rest {
            [] => return Err(Unbalanced),
            [b'"', tail @ ..] => return end_of_quotes(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                arg.push(hex_digit(*high) << 4 | hex_digit(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                tail
            }
            [byte, tail @ ..] => {
                arg.push(*byte);
                tail
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        rest = match rest {
            [] => return Err(Unbalanced),
            [b'\'', tail @ ..] => return end_of_quotes(tail),
            [b'\\', b'\'', tail @ ..] => {
                arg.push(b'\'');
                tail
            }
            [byte, tail @ ..] => {
                arg.push(*byte);
                tail
            }
        }
    }
}

fn end_of_quotes(rest: &[u8]) -> Result<&[u8], Unbalanced> {
    match rest {
        [byte, ..] if !is_space(*byte) => Err(Unbalanced),
        _ => Ok(rest),
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, Unbalanced> {
        let args = split(line.as_bytes())?;
        Ok(args
            .iter()
            .map(|arg| arg.escape_ascii().to_string())
            .collect())
    }

    #[test]
    fn spaces_and_quotes_divide_as_in_redis() {
        for (line, expected) in [
            ("", vec![]),
            ("  \t ", vec![]),
            ("PING", vec!["PING"]),
            (" set  a\tb ", vec!["set", "a", "b"]),
            ("set a \"b c\"", vec!["set", "a", "b c"]),
            ("set a ''", vec!["set", "a", ""]),
            ("a\"b\" c", vec!["ab", "c"]),
            (
                r#""\x41\n\q\"" 'it\'s' '\n'"#,
                vec!["A\\nq\\\"", "it\\'s", "\\\\n"],
            ),
            (r#""\x4""#, vec!["x4"]),
            ("a\u{b}b", vec!["a\\x0bb"]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(words(line), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in ["\"", "'", "\"a", "'a", "\"a\"b", "'a'b", "a\"b", "\"a\\"] {
            assert_eq!(words(line), Err(Unbalanced), "{line:?}");
        }
    }
}

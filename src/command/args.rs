//! How Redis reads arguments: numbers, option words, and what it repeats of
//! them in errors.

/// The integer that `text` is in Redis's strict form: no sign `+`, no leading
/// zero, no space, within 64 bits.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'0'] => return Some(0),
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    // 19 digits is the longest; the first may not be 0, which also refuses "-0".
    if digits.is_empty() || digits.len() > 19 || !(b'1'..=b'9').contains(&digits[0]) {
        return None;
    }
    let mut magnitude: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Whether `arg` is the option `word` in any case of letters.
pub fn is_word(arg: &[u8], word: &str) -> bool {
    c_text(arg).eq_ignore_ascii_case(word.as_bytes())
}

/// `arg` as C code sees it: up to the first zero byte. Redis compares option
/// words, and repeats arguments in errors, as C strings.
pub fn c_text(arg: &[u8]) -> &[u8] {
    let end = arg.iter().position(|b| *b == 0).unwrap_or(arg.len());
    &arg[..end]
}

/// Appends at most `limit` bytes of `arg` to the text of an error, which must
/// stay one line.
pub fn quote_into(text: &mut Vec<u8>, arg: &[u8], limit: usize) {
    let shown = c_text(arg).iter().take(limit);
    text.extend(shown.map(|b| match b {
        b'\r' | b'\n' => b' ',
        other => *other,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_strict() {
        for (text, value) in [
            ("0", 0),
            ("-1", -1),
            ("42", 42),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "-0",
            "+1",
            "01",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn words_end_at_a_zero_byte_as_in_c() {
        assert!(is_word(b"nx", "NX"));
        assert!(is_word(b"Nx\0tail", "NX"));
        assert!(!is_word(b"nxx", "NX"));
    }
}

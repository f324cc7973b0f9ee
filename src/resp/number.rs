//! Numbers as Redis reads and writes them.

/// Reads a number as Redis's `string2ll` does: no sign but `-`, no leading
/// zeros, no spaces, within 64 bits.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (digits, negative) = match text {
        [b'-', rest @ ..] => (rest, true),
        _ => (text, false),
    };
    match digits {
        [b'0'] => return (!negative).then_some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    // Gathered below zero, where i64::MIN has room.
    let mut value = 0_i64;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(byte - b'0'))?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

/// A length and its line end at the start of `bytes`, where they are of the
/// plain form that nearly all are: `3\r\n`. Returns the number and the bytes
/// it took. `None` says only that somebody must look more closely.
pub(super) fn plain_length(bytes: &[u8]) -> Option<(usize, usize)> {
    const DIGITS_MAX: usize = 10;
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(DIGITS_MAX + 1).enumerate() {
        match byte {
            b'0'..=b'9' => value = value * 10 + usize::from(byte - b'0'),
            b'\r' if index > 0 && bytes.get(index + 1) == Some(&b'\n') => {
                let padded = index > 1 && bytes[0] == b'0';
                return (!padded).then_some((value, index + 2));
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_redis_does() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), value, "{text:?}");
        }
    }
}

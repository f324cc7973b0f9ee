//! Scores as Redis reads them: the double nearest to a text, by C's `strtod`.

use crate::command::args;

/// Bits of a double's mantissa, the hidden one included.
const MANTISSA_BITS: i64 = 53;
/// The exponent of the smallest normal number.
const EXPONENT_MIN: i64 = -1022;
/// The exponent of the largest number.
const EXPONENT_MAX: i64 = 1023;
/// Powers of two that are beyond every number, whatever the digits: a request is
/// below 2^32 digits.
const POWER_MAX: i64 = 1 << 40;

/// The score that `text` is. Neither NaN, nor what is too big or too small for a
/// double (`string2d`).
pub(super) fn score(text: &[u8]) -> Option<f64> {
    let read = Number::read(text)?;
    let is_lost = read.value.is_infinite() || read.value == 0.0;
    (!(read.is_rounded_away && is_lost)).then_some(read.value)
}

/// The end of a range of scores that `text` is: up to a zero byte, behind space,
/// and nothing is 0; too big is infinite. Not NaN.
pub(super) fn bound(text: &[u8]) -> Option<f64> {
    let text = args::c_text(text);
    if text.is_empty() {
        return Some(0.0);
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_space(byte))?;
    Number::read(&text[start..]).map(|read| read.value)
}

/// What a text is as a double.
struct Number {
    value: f64,
    /// The text is finite and not zero, but the value is not.
    is_rounded_away: bool,
}

impl Number {
    fn read(text: &[u8]) -> Option<Self> {
        let (sign, rest) = match text {
            [b'-', rest @ ..] => (-1.0, rest),
            [b'+', rest @ ..] => (1.0, rest),
            _ => (1.0, text),
        };
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            return Some(Self {
                value: sign * f64::INFINITY,
                is_rounded_away: false,
            });
        }
        let (magnitude, is_zero) = match rest {
            [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits)?,
            [b'0'..=b'9' | b'.', ..] => decimal(rest)?,
            _ => return None,
        };
        Some(Self {
            value: sign * magnitude,
            is_rounded_away: magnitude.is_infinite() || magnitude == 0.0 && !is_zero,
        })
    }
}

/// A number without sign, and whether its digits are all zero.
fn decimal(text: &[u8]) -> Option<(f64, bool)> {
    let value = std::str::from_utf8(text).ok()?.parse().ok()?;
    let digits = text
        .split(|byte| byte.eq_ignore_ascii_case(&b'e'))
        .next()
        .unwrap_or(text);
    Some((
        value,
        !digits.iter().any(|digit| matches!(digit, b'1'..=b'9')),
    ))
}

/// The same of what stands behind `0x`.
fn hexadecimal(text: &[u8]) -> Option<(f64, bool)> {
    let (digits, mut power) = match text.iter().position(|b| b.eq_ignore_ascii_case(&b'p')) {
        Some(at) => (&text[..at], binary_power(&text[at + 1..])?),
        None => (text, 0),
    };
    let (mut mantissa, mut is_fraction, mut count) = (0u64, false, 0usize);
    for byte in digits {
        if *byte == b'.' && !is_fraction {
            is_fraction = true;
            continue;
        }
        let digit = u64::from(char::from(*byte).to_digit(16)?);
        count += 1;
        power -= if is_fraction { 4 } else { 0 };
        if mantissa < 1 << 60 {
            mantissa = mantissa << 4 | digit;
        } else {
            // What no longer fits only breaks ties.
            mantissa |= u64::from(digit != 0);
            power += 4;
        }
    }
    (count > 0).then(|| (nearest(mantissa, power), mantissa == 0))
}

fn binary_power(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = digits.iter().fold(0i64, |sum, digit| {
        (sum * 10 + i64::from(digit - b'0')).min(POWER_MAX)
    });
    Some(sign * magnitude)
}

/// The double nearest to `mantissa * 2^power`, ties to even.
fn nearest(mantissa: u64, power: i64) -> f64 {
    if mantissa == 0 {
        return 0.0;
    }
    let shift = mantissa.leading_zeros();
    let mantissa = u128::from(mantissa << shift);
    let exponent = power - i64::from(shift) + 63;
    if exponent > EXPONENT_MAX {
        return f64::INFINITY;
    }
    let kept = MANTISSA_BITS - (EXPONENT_MIN - exponent).max(0);
    if kept < 0 {
        return 0.0;
    }
    let dropped = 64 - kept;
    let (floor, half) = (mantissa >> dropped, 1u128 << (dropped - 1));
    let rest = mantissa & ((1 << dropped) - 1);
    let is_up = rest > half || rest == half && floor & 1 == 1;
    let rounded = floor as u64 + u64::from(is_up);
    // A carry out of the mantissa goes into the exponent's bits, as it should.
    let exponent_bits = (exponent - EXPONENT_MIN).max(0) as u64;
    f64::from_bits((exponent_bits << (MANTISSA_BITS - 1)) + rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_as_redis_does() {
        for (text, value) in [
            ("1", 1.0),
            ("+1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1e3),
            ("-Infinity", f64::NEG_INFINITY),
            ("0e-999", 0.0),
            ("1e-320", 1e-320),
            ("0x10", 16.0),
            ("0X1.8p1", 3.0),
            ("0x.8", 0.5),
            ("0x1p-1074", 5e-324),
            ("0x1.8p-1074", 1e-323),
            ("0x1.fffffffffffff8p0", 2.0),
            ("0x1.fffffffffffff7p0", 1.999_999_999_999_999_8),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080000000000001p0", 1.000_000_000_000_000_2),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1p-1022", f64::MIN_POSITIVE),
        ] {
            assert_eq!(score(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            " 1",
            "1 ",
            "x",
            ".",
            "1e",
            "1_0",
            "nan",
            "NAN(1)",
            "1e400",
            "-1e400",
            "1e-400",
            "0x",
            "0x1p",
            "0x1p-1080",
            "0x1p1024",
            "0x1.fffffffffffff8p1023",
            "1\0",
            "infinit",
            "e5",
            "--1",
            "0x1p99999999999999999999",
        ] {
            assert_eq!(score(text.as_bytes()), None, "{text}");
        }
        assert!(score(b"-0").is_some_and(|zero| zero.is_sign_negative()));
    }

    #[test]
    fn ends_of_ranges_are_read_more_freely() {
        for (text, value) in [
            ("", 0.0),
            ("\0x", 0.0),
            (" \t5", 5.0),
            ("1e400", f64::INFINITY),
            ("1e-400", 0.0),
            ("5\0x", 5.0),
        ] {
            assert_eq!(bound(text.as_bytes()), Some(value), "{text}");
        }
        for text in [" ", "x", "5 ", "nan", "1e"] {
            assert_eq!(bound(text.as_bytes()), None, "{text}");
        }
    }
}

//! Numbers as Redis computes `INCRBYFLOAT`: C's `long double` on x86-64, which
//! has 64 bits of mantissa, read by `strtold`, added once, and printed by
//! `%.17Lf` without trailing zeros.
//!
//! All steps are done in exact integers and rounded once each, to nearest,
//! ties to even, as the C library and the processor do; so the digits are
//! those of a Redis on x86-64 for every input.

use bytes::Bytes;
use num_bigint::{BigInt, BigUint, Sign};
use num_traits::{One, Zero};

use super::Refusal;

/// Bits of the mantissa.
const MANTISSA_BITS: i64 = 64;
/// The exponent of the lowest bit of the smallest (subnormal) number.
const EXPONENT_MIN: i64 = -16445;
/// A number of 2 to this power is too big.
const EXPONENT_OVER: i64 = 16384;
/// Texts of this length or longer are not numbers, as in Redis (`MAX_LONG_DOUBLE_CHARS`).
const TEXT_LEN_OVER: usize = 5 * 1024;
/// Digits behind the point.
const FRACTION_DIGITS: u32 = 17;
/// Powers of ten beyond this are too big or too small whatever the digits, of
/// which there are fewer than [`TEXT_LEN_OVER`].
const POWER_MAX: i64 = 20_000;

/// A `long double` that is not NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LongDouble {
    /// `mantissa * 2^exponent`, negative or not.
    Finite {
        sign: Sign,
        mantissa: u64,
        exponent: i64,
    },
    /// What "inf" and "-inf" read as; no sum with it is a finite number.
    Infinite,
}

/// The number that `text` is, if it is one.
pub(super) fn parse(text: &[u8]) -> Option<LongDouble> {
    if text.is_empty() || text.len() >= TEXT_LEN_OVER {
        return None;
    }
    let (sign, rest) = match text {
        [b'-', rest @ ..] => (Sign::Minus, rest),
        [b'+', rest @ ..] => (Sign::Plus, rest),
        _ => (Sign::Plus, text),
    };
    if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
        return Some(LongDouble::Infinite);
    }
    let number = match rest {
        [b'0', b'x' | b'X', hex @ ..] => {
            let (digits, power) = digits_and_power(hex, Base::Hexadecimal)?;
            nearest(sign, digits, &BigUint::one(), power)
        }
        _ => {
            let (digits, power) = digits_and_power(rest, Base::Decimal)?;
            nearest_decimal(sign, digits, power)
        }
    };
    // Neither overflow nor a number that vanishes is accepted.
    number.filter(|n| *n != LongDouble::Infinite)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Decimal,
    Hexadecimal,
}

/// The digits of `text` as one integer, and the power of ten (of two, for
/// hexadecimal) that it is to be multiplied with.
fn digits_and_power(text: &[u8], base: Base) -> Option<(BigUint, i64)> {
    let (radix, marker, per_digit) = match base {
        Base::Decimal => (10, b'e', 1),
        Base::Hexadecimal => (16, b'p', 4),
    };
    let is_marker = |byte: &u8| byte.to_ascii_lowercase() == marker;
    let (digits, power) = match text.iter().position(is_marker) {
        Some(at) => (&text[..at], written_power(&text[at + 1..])?),
        None => (text, 0),
    };
    let (whole, fraction) = match digits.iter().position(|b| *b == b'.') {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &[][..]),
    };
    let all = [whole, fraction].concat();
    // `parse_bytes` would also take underscores.
    if all.is_empty() || !all.iter().all(|b| char::from(*b).is_digit(radix)) {
        return None;
    }
    let number = BigUint::parse_bytes(&all, radix)?;
    Some((number, power - per_digit * fraction.len() as i64))
}

/// The exponent written behind `e` or `p`; huge ones are cut to a size that
/// is still beyond every number.
fn written_power(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = digits.iter().fold(0i64, |sum, digit| {
        (sum * 10 + i64::from(digit - b'0')).min(1_000_000)
    });
    Some(if negative { -magnitude } else { magnitude })
}

fn nearest_decimal(sign: Sign, digits: BigUint, power: i64) -> Option<LongDouble> {
    if digits.is_zero() || power > POWER_MAX {
        return nearest(sign, digits, &BigUint::one(), 2 * EXPONENT_OVER);
    }
    if power < -POWER_MAX {
        return None;
    }
    let scale = BigUint::from(10u8).pow(power.unsigned_abs() as u32);
    if power >= 0 {
        nearest(sign, digits * scale, &BigUint::one(), 0)
    } else {
        nearest(sign, digits, &scale, 0)
    }
}

/// The number nearest to `numerator / denominator * 2^power`; `None` if it is
/// not zero and yet too small for any.
fn nearest(
    sign: Sign,
    numerator: BigUint,
    denominator: &BigUint,
    power: i64,
) -> Option<LongDouble> {
    if numerator.is_zero() {
        return Some(LongDouble::Finite {
            sign: Sign::NoSign,
            mantissa: 0,
            exponent: 0,
        });
    }
    // Enough bits that those beyond the quotient's end only break ties.
    let shift = MANTISSA_BITS + 2 + denominator.bits() as i64 - numerator.bits() as i64;
    let shift = shift.max(0);
    let shifted = numerator << (shift as u64);
    let quotient = &shifted / denominator;
    let inexact = !(shifted - &quotient * denominator).is_zero();
    let mut exponent = power - shift;
    let drop = (quotient.bits() as i64 - MANTISSA_BITS)
        .max(EXPONENT_MIN - exponent)
        .max(0);
    exponent += drop;
    let mut mantissa = shifted_right(&quotient, drop as u64, inexact);
    if mantissa.bits() as i64 > MANTISSA_BITS {
        mantissa >>= 1u8;
        exponent += 1;
    }
    if mantissa.is_zero() {
        return None;
    }
    if mantissa.bits() as i64 + exponent > EXPONENT_OVER {
        return Some(LongDouble::Infinite);
    }
    let mantissa = mantissa.iter_u64_digits().next().unwrap_or(0);
    Some(LongDouble::Finite {
        sign,
        mantissa,
        exponent,
    })
}

/// `number / 2^bits`, rounded to nearest, ties to even; `more` says that the
/// true number is a little above `number`.
fn shifted_right(number: &BigUint, bits: u64, more: bool) -> BigUint {
    if bits == 0 {
        return number.clone();
    }
    let floor = number >> bits;
    let half = number.bit(bits - 1);
    let above_half = more
        || number
            .trailing_zeros()
            .is_some_and(|zeros| zeros < bits - 1);
    if half && (above_half || floor.bit(0)) {
        floor + 1u8
    } else {
        floor
    }
}

impl LongDouble {
    /// The sum, rounded; `None` if it is not finite.
    pub fn add(&self, other: &Self) -> Option<Self> {
        let (
            Self::Finite {
                sign: sign_a,
                mantissa: a,
                exponent: exponent_a,
            },
            Self::Finite {
                sign: sign_b,
                mantissa: b,
                exponent: exponent_b,
            },
        ) = (*self, *other)
        else {
            return None;
        };
        let exponent = exponent_a.min(exponent_b);
        let aligned = |sign, mantissa: u64, own: i64| {
            let magnitude = BigUint::from(mantissa) << ((own - exponent) as u64);
            BigInt::from_biguint(if mantissa == 0 { Sign::NoSign } else { sign }, magnitude)
        };
        let sum = aligned(sign_a, a, exponent_a) + aligned(sign_b, b, exponent_b);
        let (sign, magnitude) = sum.into_parts();
        nearest(sign, magnitude, &BigUint::one(), exponent).filter(|sum| *sum != Self::Infinite)
    }

    /// The text of the sum, as the commands that increment a float store it.
    pub fn incremented(&self, delta: &Self) -> Result<Bytes, Refusal> {
        self.add(delta)
            .and_then(Self::to_text)
            .map(Bytes::from)
            .ok_or(Refusal::Other(
                "ERR increment would produce NaN or Infinity",
            ))
    }

    /// The next integer that is not below a thousand times the number (which is
    /// rounded before); `i64::MIN`, as on x86-64, if that has more than 64 bits.
    pub fn ceil_of_thousandfold(self) -> i64 {
        let Self::Finite {
            sign,
            mantissa,
            exponent,
        } = self
        else {
            return i64::MIN;
        };
        let product = BigUint::from(mantissa) * 1000u32;
        let Some(Self::Finite {
            mantissa, exponent, ..
        }) = nearest(sign, product, &BigUint::one(), exponent)
        else {
            return i64::MIN;
        };
        let mantissa = BigUint::from(mantissa);
        let magnitude = if exponent >= 0 {
            mantissa << exponent.min(EXPONENT_OVER).unsigned_abs()
        } else {
            let floor = &mantissa >> exponent.unsigned_abs();
            let is_whole = (&floor << exponent.unsigned_abs()) == mantissa;
            let up = u8::from(sign == Sign::Plus && !is_whole);
            floor + up
        };
        i64::try_from(BigInt::from_biguint(sign, magnitude)).unwrap_or(i64::MIN)
    }

    /// The number as Redis writes it; `None` for infinity.
    pub fn to_text(self) -> Option<String> {
        let Self::Finite {
            sign,
            mantissa,
            exponent,
        } = self
        else {
            return None;
        };
        let scaled = BigUint::from(mantissa) * BigUint::from(10u8).pow(FRACTION_DIGITS);
        let scaled = if exponent >= 0 {
            scaled << (exponent as u64)
        } else {
            shifted_right(&scaled, exponent.unsigned_abs(), false)
        };
        let digits = scaled.to_string();
        let digits = format!("{digits:0>width$}", width = FRACTION_DIGITS as usize + 1);
        let (whole, fraction) = digits.split_at(digits.len() - FRACTION_DIGITS as usize);
        let fraction = fraction.trim_end_matches('0');
        let minus = if sign == Sign::Minus && !scaled.is_zero() {
            "-"
        } else {
            ""
        };
        let point = if fraction.is_empty() { "" } else { "." };
        Some(format!("{minus}{whole}{point}{fraction}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        parse(a.as_bytes())?.add(&parse(b.as_bytes())?)?.to_text()
    }

    #[test]
    fn sums_have_the_digits_of_long_double() {
        // Replies of Redis 7.0.15 on x86-64.
        for (a, b, expected) in [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0", "0.1", "0.1"),
            ("0.1", "0.2", "0.3"),
            ("1e17", "0.1", "100000000000000000.1015625"),
            ("-1e-20", "0", "0"),
            ("3", "-3", "0"),
            ("0x1p3", "0", "8"),
            ("1.", ".5", "1.5"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} {b}");
        }
        let big = sum("1e4000", "1").unwrap();
        // The nearest number is a little below 10^4000.
        assert!(big.len() == 4000 && big.starts_with("9999999999999999999"));
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in [
            "", " 1", "1 ", "x", ".", "1e", "1e+", "0x", "nan", "1_0", "--1", "1e5000", "1e-5000",
            "1\0", "infinit", "0x.p1",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse("1".repeat(5120).as_bytes()), None);
        assert_eq!(parse(b"-Infinity"), Some(LongDouble::Infinite));
        assert_eq!(sum("1e4932", "1e4932"), None);
    }

    #[test]
    fn thousandfolds_are_rounded_up() {
        let ceil = |text: &str| parse(text.as_bytes()).unwrap().ceil_of_thousandfold();
        for (text, expected) in [
            ("0", 0),
            ("0.0001", 1),
            ("0.001", 1),
            ("-0.001", 0),
            ("-0.0005", 0),
            ("-0.0011", -1),
            ("1.5", 1500),
            ("1.0005", 1001),
            ("0x10", 16_000),
            ("1e-4900", 1),
            ("9223372036854775", 9_223_372_036_854_775_000),
            ("9.3e15", i64::MIN),
            ("1e30", i64::MIN),
            ("inf", i64::MIN),
        ] {
            assert_eq!(ceil(text), expected, "{text}");
        }
    }

    #[test]
    fn extreme_powers_take_no_time() {
        assert_eq!(parse(b"1e999999999999999999"), None);
        assert_eq!(parse(b"1e-999999999999999999"), None);
        assert_eq!(sum("0e999999999999", "1").as_deref(), Some("1"));
        assert_eq!(parse(b"0x1p999999999"), None);
        assert_eq!(parse(b"0x1p-999999999"), None);
    }
}

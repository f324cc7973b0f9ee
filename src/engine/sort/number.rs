//! Numbers as `SORT` reads them: C's `strtod` on the whole text.

use super::super::float::{self, LongDouble};
use crate::command::args::c_text;

/// The number that `text` is, if it is one: neither NaN, nor too big or too
/// small for a `double`. An empty text is 0.
pub(super) fn parse(text: &[u8]) -> Option<f64> {
    let text = c_text(text);
    if text.is_empty() {
        return Some(0.0);
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_space(byte))?;
    let text = &text[start..];
    let (is_negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let magnitude = match digits {
        [b'0', b'x' | b'X', ..] => hexadecimal(digits)?,
        [b'0'..=b'9' | b'.', ..] => decimal(digits)?,
        _ if is_infinity(digits) => f64::INFINITY,
        _ => return None,
    };
    Some(if is_negative { -magnitude } else { magnitude })
}

fn is_infinity(text: &[u8]) -> bool {
    text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity")
}

fn decimal(digits: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let mantissa = digits
        .iter()
        .take_while(|byte| !matches!(byte, b'e' | b'E'));
    let is_zero = mantissa.into_iter().all(|byte| matches!(byte, b'0' | b'.'));
    within_range(number, is_zero)
}

fn hexadecimal(digits: &[u8]) -> Option<f64> {
    let LongDouble::Finite {
        mantissa, exponent, ..
    } = float::parse(digits)?
    else {
        return None;
    };
    // In two steps, so that neither factor leaves the range on its own.
    let half = i32::try_from(exponent / 2).ok()?;
    let rest = i32::try_from(exponent).ok()? - half;
    let number = mantissa as f64 * 2f64.powi(half) * 2f64.powi(rest);
    within_range(number, mantissa == 0)
}

fn within_range(number: f64, is_zero: bool) -> Option<f64> {
    (is_zero || number.is_normal()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_by_strtod() {
        for (text, expected) in [
            ("", Some(0.0)),
            ("0", Some(0.0)),
            (" 1", Some(1.0)),
            ("\t-2.5e3", Some(-2500.0)),
            ("+5", Some(5.0)),
            ("007", Some(7.0)),
            ("1.", Some(1.0)),
            (".5", Some(0.5)),
            ("0x10", Some(16.0)),
            ("-0x1p-3", Some(-0.125)),
            ("inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("1\0x", Some(1.0)),
            ("0e999999", Some(0.0)),
            ("1e400", None),
            ("1e-400", None),
            ("nan", None),
            ("1 ", None),
            (" ", None),
            ("+", None),
            ("1e", None),
            ("0x", None),
            ("1_0", None),
            (".", None),
            ("x", None),
            ("infinit", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }
}

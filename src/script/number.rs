//! Numbers as C writes, draws and casts them.

/// `x` as `printf("%.<digits>g")` writes it.
pub fn format_g(x: f64, digits: usize) -> String {
    if x.is_nan() {
        return if x.is_sign_negative() { "-nan" } else { "nan" }.to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let digits = digits.max(1);
    let scientific = format!("{:.*e}", digits - 1, x);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let without_zeros = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    without_zeros(&format!("{x:.decimals$}"))
}

/// `(long long)x` on x86-64: what does not fit is the smallest integer.
pub fn to_integer(x: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&x) {
        x as i64
    } else {
        i64::MIN
    }
}

/// The numbers that `math.random` gives: drawn as Redis does, so that a script draws
/// the same on every run of it.
#[derive(Clone, Copy, Debug)]
pub struct Draw(u64);

impl Draw {
    const MAX: f64 = i32::MAX as f64;

    /// Begins with `seed` (`srand48`).
    pub fn new(seed: i32) -> Self {
        Self((u64::from(seed as u32) << 16) | 0x330E)
    }

    /// A number from 0 to below 1.
    pub fn next(&mut self) -> f64 {
        let mask = (1 << 48) - 1;
        self.0 = self.0.wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & mask;
        let drawn = (self.0 >> 17) as i64;
        (drawn % i64::from(i32::MAX)) as f64 / Self::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_by_printf() {
        for (x, digits, text) in [
            (0.1, 17, "0.10000000000000001"),
            (3.0, 17, "3"),
            (1e20, 17, "1e+20"),
            (1.5, 17, "1.5"),
            (-0.0, 17, "-0"),
            (123_456_789_012_345_680.0, 17, "1.2345678901234568e+17"),
            (0.0001, 14, "0.0001"),
            (0.00001, 14, "1e-05"),
            (99_999_999_999_999.9, 14, "1e+14"),
            (f64::INFINITY, 14, "inf"),
        ] {
            assert_eq!(format_g(x, digits), text);
        }
    }

    #[test]
    fn numbers_are_drawn_as_by_redis() {
        let mut draw = Draw::new(1);
        let first: Vec<String> = (0..2).map(|_| format_g(draw.next(), 14)).collect();
        assert_eq!(first, ["0.041630344484761", "0.4544924448498"]);
        assert_eq!(to_integer(1e30), i64::MIN);
        assert_eq!(to_integer(-3.99), -3);
    }
}

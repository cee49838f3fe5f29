//! Numbers as other languages round and write them.

use rhai::{FLOAT, INT, ImmutableString, Module};
use rust_decimal::{Decimal, MathematicalOps};

use super::{fail, register::add};
use crate::call::HostResult;

pub(super) fn register(module: &mut Module) {
    add(module, "round_to", ["x", "digits"], |x: FLOAT, digits: INT| Ok(round_to(x, digits)));
    add(module, "round_to", ["x", "digits"], |x: INT, digits: INT| Ok(round_to(x as FLOAT, digits)));
    add(module, "sin", ["x"], |x: Decimal| in_range(x.checked_sin()));
    add(module, "cos", ["x"], |x: Decimal| in_range(x.checked_cos()));
    add(module, "tan", ["x"], |x: Decimal| in_range(x.checked_tan()));
    add(module, "float_text", ["x"], |x: FLOAT| text(x));
    add(module, "float_text", ["x"], |x: INT| text(x as FLOAT));
}

/// The result of a function where Rhai's own panics on what no decimal can be.
fn in_range(result: Option<Decimal>) -> HostResult<Decimal> {
    result.map_or_else(|| fail("the result is beyond what a decimal can be"), Ok)
}

fn text(x: FLOAT) -> HostResult<ImmutableString> {
    Ok(float_text(x).into())
}

/// `x` rounded to `digits` places behind the point, before it where negative: the decimal that is nearest to the exact
/// binary value, of two that are equally near the one that ends even. This is Python's `round(x, digits)`.
pub(crate) fn round_to(x: f64, digits: i64) -> f64 {
    // A double has no digit beyond these places.
    if !x.is_finite() || digits > 323 {
        return x;
    }
    if digits < -308 {
        return 0.0 * x;
    }
    match usize::try_from(digits) {
        // Rust writes the exact value, rounded half to even.
        Ok(places) => format!("{x:.places$}").parse().unwrap_or(x),
        Err(_) => round_before_point(x, usize::try_from(digits.unsigned_abs()).unwrap_or(usize::MAX)),
    }
}

/// Rounds to a multiple of ten to the power of `zeros`.
fn round_before_point(x: f64, zeros: usize) -> f64 {
    let whole = x.abs().trunc();
    let has_fraction = whole != x.abs();
    // Exact: a whole double is written with all its digits.
    let digits = format!("{whole:.0}");
    let padded = format!("{digits:0>width$}", width = zeros + 1);
    let (kept, dropped) = padded.split_at(padded.len() - zeros);
    let half = format!("5{}", "0".repeat(zeros.saturating_sub(1)));
    let is_odd = kept.bytes().last().is_some_and(|digit| digit % 2 == 1);
    let up = match dropped.cmp(half.as_str()) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => has_fraction || is_odd,
        std::cmp::Ordering::Less => false,
    };
    let kept = if up { increment(kept) } else { kept.to_owned() };
    let rounded: f64 = format!("{kept}e{zeros}").parse().unwrap_or(whole);
    rounded.copysign(x)
}

fn increment(digits: &str) -> String {
    let mut reversed = Vec::with_capacity(digits.len() + 1);
    let mut carry = true;
    for digit in digits.bytes().rev() {
        let (next, carried) = match (carry, digit) {
            (true, b'9') => (b'0', true),
            (true, digit) => (digit + 1, false),
            (false, digit) => (digit, false),
        };
        reversed.push(char::from(next));
        carry = carried;
    }
    if carry {
        reversed.push('1');
    }
    reversed.into_iter().rev().collect()
}

/// The shortest text that reads back as `x`, in Python's form: `3.0`, `1e+16`, `0.1`, `1e-05`, `nan`, `-inf`.
pub(crate) fn float_text(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    // Rust's `{:e}` gives the shortest digits; only the layout differs.
    let scientific = format!("{x:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{x}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_pythons() {
        let cases = [
            (2.675, 2, 2.67),
            (0.5, 0, 0.0),
            (1.5, 0, 2.0),
            (2.5, 0, 2.0),
            (0.25, 1, 0.2),
            (0.35, 1, 0.3),
            (1.005, 2, 1.0),
            (1250.0, -2, 1200.0),
            (1350.0, -2, 1400.0),
            (1250.5, -2, 1300.0),
            (-1250.5, -2, -1300.0),
            (99.0, -1, 100.0),
            (44.0, -2, 0.0),
            (1e300, 2, 1e300),
            (5e-324, 323, 0.0),
        ];
        for (x, digits, rounded) in cases {
            assert_eq!(round_to(x, digits), rounded, "round({x}, {digits})");
        }
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (3.0, "3.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (-0.0, "-0.0"),
            (1e100, "1e+100"),
        ];
        for (x, text) in cases {
            assert_eq!(float_text(x), text);
        }
    }
}

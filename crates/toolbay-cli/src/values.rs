//! How durations, sizes and pairs are written on the command line.

use std::{fmt::Display, str::FromStr, time::Duration};

/// `NAME=REST`, as in `--tenant-tools acme=tools/acme`.
#[derive(Debug, Clone)]
pub(crate) struct Pair<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
}

impl<K: FromStr<Err: Display>, V: FromStr<Err: Display>> FromStr for Pair<K, V> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty())
        else {
            return Err("write a name and a folder with = between them, as in acme=./tools".to_owned());
        };
        let key = key.parse().map_err(|error: K::Err| error.to_string())?;
        Ok(Self { key, value: value.parse().map_err(|error: V::Err| error.to_string())? })
    }
}

/// Parses a duration such as `50ms`, `2s`, `1.5s` or `1m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    /// Longer is taken for a slip.
    const MAX: Duration = Duration::from_secs(24 * 3600);
    let problem = || "write a duration of 1us to 24h such as 50ms, 2s or 1m".to_owned();
    let (number, unit) = number_and_unit(text).ok_or_else(problem)?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(problem()),
    };
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| problem())?;
    if duration < Duration::from_micros(1) || duration > MAX { Err(problem()) } else { Ok(duration) }
}

/// Parses a duration that may be days, such as `12h` or `90d`.
pub(crate) fn days(text: &str) -> Result<Duration, String> {
    /// Longer is taken for a slip.
    const MAX_DAYS: f64 = 3_660.0;
    match number_and_unit(text) {
        Some((days, "d")) if days > 0.0 && days <= MAX_DAYS => Ok(Duration::from_secs_f64(days * 86_400.0)),
        Some((_, "d")) | None => Err("write a duration such as 30m, 12h or 90d".to_owned()),
        Some(_) => duration(text).map_err(|_| "write a duration such as 30m, 12h or 90d".to_owned()),
    }
}

/// Parses a number of bytes such as `65536`, `64KiB` or `32MiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let problem = || "write a number of bytes such as 65536, 64KiB, 32MiB or 1GB".to_owned();
    let (number, unit) = number_and_unit(text).ok_or_else(problem)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(problem()),
    };
    #[allow(clippy::cast_precision_loss, reason = "the factors are small and exact")]
    let bytes = (number * factor as f64).round();
    if !(1.0..=1e15).contains(&bytes) {
        return Err(problem());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within 1 to 1e15")]
    Ok(bytes as u64)
}

/// [`bytes`] for limits that count in memory of this machine.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    usize::try_from(bytes(text)?).map_err(|_| "more bytes than this machine can count".to_owned())
}

/// The decimal number at the beginning of `text`, and what follows it.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5 s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        for wrong in ["", "5", "ms", "-1s", "0s", "1e3s", "1.2.3s", "99999999999999h", "2 parsecs"] {
            assert!(duration(wrong).unwrap_err().contains("such as 50ms"), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_take_both_kinds_of_unit() {
        assert_eq!(bytes("65536"), Ok(65_536));
        assert_eq!(bytes("32MiB"), Ok(32 << 20));
        assert_eq!(bytes("1.5kib"), Ok(1_536));
        assert_eq!(bytes("1GB"), Ok(1_000_000_000));
        for wrong in ["", "MiB", "-1", "0", "1TiB", "99999999999999999999"] {
            assert!(bytes(wrong).unwrap_err().contains("such as 65536"), "{wrong:?}");
        }
    }

    #[test]
    fn pairs_name_what_is_wrong_with_them() {
        let pair = |text: &str| text.parse::<Pair<toolbay::TenantId, std::path::PathBuf>>();
        assert_eq!(pair("acme=a=b").unwrap().value, std::path::PathBuf::from("a=b"));
        assert!(pair("acme").unwrap_err().contains("with = between"));
        assert!(pair("=x").unwrap_err().contains("with = between"));
        assert!(pair("a b=x").unwrap_err().contains("tenant id \"a b\" is not allowed"));
    }
}

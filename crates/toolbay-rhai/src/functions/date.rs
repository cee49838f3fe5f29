//! Instants as milliseconds since the Unix epoch, and their faces in time zones.
//!
//! A script without the `clock` permission can still compute with instants that it was given.

use std::fmt::Write as _;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use rhai::{Dynamic, INT, ImmutableString, Map, Module};

use super::{charge_bytes, fail, register::add};
use crate::call::HostResult;

type Text = ImmutableString;

/// Bytes of a format; what it writes is a small multiple of that.
const MAX_FORMAT_BYTES: usize = 256;

pub(super) fn register(module: &mut Module) {
    add(module, "date_parse", ["text"], |text: Text| parse(&text, Tz::UTC));
    add(module, "date_parse", ["text", "timezone"], |text: Text, timezone: Text| parse(&text, zone(&timezone)?));
    add(module, "date_parse_format", ["text", "format", "timezone"], |text: Text, format: Text, timezone: Text| {
        parse_format(&text, &format, zone(&timezone)?)
    });
    add(module, "date_format", ["ms", "text", "timezone"], |ms: INT, text: Text, timezone: Text| {
        format(ms, &text, zone(&timezone)?)
    });
    add(module, "date_parts", ["ms", "timezone"], |ms: INT, timezone: Text| parts(ms, zone(&timezone)?));
    add(module, "date_from_parts", ["parts", "timezone"], |parts: Map, timezone: Text| {
        from_parts(&parts, zone(&timezone)?)
    });
    add(
        module,
        "date_add",
        ["ms", "amount", "unit", "timezone"],
        |ms: INT, amount: INT, unit: Text, timezone: Text| shift(ms, amount, &unit, zone(&timezone)?),
    );
    add(module, "timezone_exists", ["name"], |name: Text| Ok(name.parse::<Tz>().is_ok()));
}

fn zone(name: &str) -> HostResult<Tz> {
    match name.parse() {
        Ok(zone) => Ok(zone),
        Err(_) => fail(format!(
            "{:?} is no time zone: use an IANA name such as \"Europe/Berlin\" or \"UTC\"",
            name.chars().take(60).collect::<String>()
        )),
    }
}

/// The instant in that zone.
fn local(ms: INT, zone: Tz) -> HostResult<DateTime<Tz>> {
    match DateTime::<Utc>::from_timestamp_millis(ms) {
        Some(instant) if is_far_from_the_ends(instant.year()) => Ok(instant.with_timezone(&zone)),
        _ => fail(format!("{ms} ms is outside of the years that dates have")),
    }
}

/// Whether no offset from UTC leads out of the years that chrono has: it panics where one does.
fn is_far_from_the_ends(year: i32) -> bool {
    NaiveDate::MIN.year() + 1 < year && year + 1 < NaiveDate::MAX.year()
}

/// The instant at which clocks in `zone` show `time`: the first of two, and where clocks skip it, as much later as they
/// skip.
fn instant(time: NaiveDateTime, zone: Tz) -> HostResult<INT> {
    if !is_far_from_the_ends(time.year()) {
        return fail("the date is outside of the years that dates have");
    }
    if let Some(found) = zone.from_local_datetime(&time).earliest() {
        return Ok(found.timestamp_millis());
    }
    // Within a gap the offset from before it applies; no gap is longer than a day.
    let before = time.checked_sub_days(Days::new(1)).unwrap_or(time);
    let offset = zone.offset_from_utc_datetime(&before).fix();
    match time.checked_sub_offset(offset) {
        Some(utc) => Ok(utc.and_utc().timestamp_millis()),
        None => fail("the date is outside of the years that dates have"),
    }
}

fn parse(text: &str, zone: Tz) -> HostResult<INT> {
    charge_bytes(text.len())?;
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_rfc2822(text)) {
        return Ok(time.timestamp_millis());
    }
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    if let Some(time) = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok()) {
        return instant(time, zone);
    }
    match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(date) => instant(date.and_time(NaiveTime::MIN), zone),
        Err(_) => fail(format!(
            "{:?} is no date: use \"2024-05-31\", \"2024-05-31 13:45:00\", RFC 3339 or RFC 2822",
            text.chars().take(60).collect::<String>()
        )),
    }
}

fn parse_format(text: &str, format: &str, zone: Tz) -> HostResult<INT> {
    check_format(format)?;
    charge_bytes(text.len())?;
    if let Ok(time) = DateTime::parse_from_str(text, format) {
        return Ok(time.timestamp_millis());
    }
    if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
        return instant(time, zone);
    }
    match NaiveDate::parse_from_str(text, format) {
        Ok(date) => instant(date.and_time(NaiveTime::MIN), zone),
        Err(error) => {
            fail(format!("{:?} does not have the form {format:?}: {error}", text.chars().take(60).collect::<String>()))
        }
    }
}

fn check_format(format: &str) -> HostResult<()> {
    if format.len() > MAX_FORMAT_BYTES {
        return fail(format!("the date format is longer than {MAX_FORMAT_BYTES} bytes"));
    }
    Ok(())
}

fn format(ms: INT, format: &str, zone: Tz) -> HostResult<ImmutableString> {
    check_format(format)?;
    let mut text = String::new();
    // An unknown specifier is an error of writing.
    match write!(text, "{}", local(ms, zone)?.format(format)) {
        Ok(()) => Ok(text.into()),
        Err(_) => fail(format!("{format:?} is no date format: use strftime's, such as \"%Y-%m-%d %H:%M\"")),
    }
}

fn parts(ms: INT, zone: Tz) -> HostResult<Map> {
    let time = local(ms, zone)?;
    let parts = [
        ("year", i64::from(time.year())),
        ("month", time.month().into()),
        ("day", time.day().into()),
        ("hour", time.hour().into()),
        ("minute", time.minute().into()),
        ("second", time.second().into()),
        ("millisecond", time.timestamp_subsec_millis().into()),
        ("weekday", time.weekday().number_from_monday().into()),
        ("yearday", time.ordinal().into()),
        ("week", time.iso_week().week().into()),
        ("offset_minutes", (time.offset().fix().local_minus_utc() / 60).into()),
    ];
    Ok(parts.into_iter().map(|(name, value)| (name.into(), Dynamic::from_int(value))).collect())
}

fn from_parts(parts: &Map, zone: Tz) -> HostResult<INT> {
    let part = |name: &str, default: Option<i64>| -> HostResult<i64> {
        match parts.get(name).map(|value| value.as_int()) {
            Some(Ok(value)) => Ok(value),
            Some(Err(given)) => fail(format!("the part {name:?} of a date must be a whole number, not {given}")),
            None => default.map_or_else(|| fail(format!("the part {name:?} of the date is missing")), Ok),
        }
    };
    let small = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let year = i32::try_from(part("year", None)?).unwrap_or(i32::MAX);
    let date = NaiveDate::from_ymd_opt(year, small(part("month", Some(1))?), small(part("day", Some(1))?));
    let (hour, minute) = (small(part("hour", Some(0))?), small(part("minute", Some(0))?));
    let (second, millisecond) = (small(part("second", Some(0))?), small(part("millisecond", Some(0))?));
    let time = NaiveTime::from_hms_milli_opt(hour, minute, second, millisecond);
    match date.zip(time) {
        Some((date, time)) => instant(date.and_time(time), zone),
        None => fail("there is no such day or time"),
    }
}

fn shift(ms: INT, amount: INT, unit: &str, zone: Tz) -> HostResult<INT> {
    let out_of_range = || fail("the date would be outside of the years that dates have");
    let milliseconds = match unit {
        "seconds" => Some(1_000),
        "minutes" => Some(60_000),
        "hours" => Some(3_600_000),
        _ => None,
    };
    if let Some(each) = milliseconds {
        return match amount.checked_mul(each).and_then(|by| ms.checked_add(by)) {
            Some(sum) => local(sum, zone).map(|_| sum),
            None => out_of_range(),
        };
    }
    // Days and longer follow the calendar: a day later is the same time of day, however long the day was.
    let time = local(ms, zone)?.naive_local();
    let count = amount.unsigned_abs();
    let months = |each: u64| count.checked_mul(each).and_then(|n| u32::try_from(n).ok()).map(Months::new);
    let days = |each: u64| count.checked_mul(each).map(Days::new);
    let forwards = amount >= 0;
    let by_months = |by: Option<Months>| {
        by.and_then(|by| if forwards { time.checked_add_months(by) } else { time.checked_sub_months(by) })
    };
    let by_days = |by: Option<Days>| {
        by.and_then(|by| if forwards { time.checked_add_days(by) } else { time.checked_sub_days(by) })
    };
    let moved = match unit {
        "years" => by_months(months(12)),
        "months" => by_months(months(1)),
        "weeks" => by_days(days(7)),
        "days" => by_days(days(1)),
        _ => {
            return fail(format!(
                "{:?} is no unit: use years, months, weeks, days, hours, minutes or seconds",
                unit.chars().take(60).collect::<String>()
            ));
        }
    };
    moved.map_or_else(out_of_range, |moved| instant(moved, zone))
}

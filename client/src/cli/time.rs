//! Times and durations for people.

use std::time::Duration;

use jiff::Timestamp;

/// Seconds from an RFC 3339 time until now; 0 when it lies ahead.
pub fn seconds_since(at: &str) -> Option<u64> {
    let then: Timestamp = at.parse().ok()?;
    u64::try_from(Timestamp::now().as_second() - then.as_second())
        .ok()
        .or(Some(0))
}

/// `5 minutes`.
pub fn rough(seconds: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (365 * 86400, "year"),
        (30 * 86400, "month"),
        (7 * 86400, "week"),
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    // A unit is used from two of it on: `90 minutes` says more than `1 hour`.
    let (size, name) = UNITS
        .into_iter()
        .find(|(size, _)| seconds >= 2 * size)
        .unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// How long ago an RFC 3339 time was: `5 minutes`; empty when it is none.
pub fn since(at: Option<&str>) -> String {
    at.and_then(seconds_since).map(rough).unwrap_or_default()
}

/// `1h`, `2m`, `30s`, `500ms`, or seconds (`30`, `0.5`).
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let units: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1.0));
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    digits
        .then(|| number.parse::<f64>().ok())
        .flatten()
        .and_then(|n| Duration::try_from_secs_f64(n * factor).ok())
        .ok_or_else(|| format!("not a duration: '{text}'; write for example 30s, 500ms, 2m or 1h"))
}

/// Nanoseconds as milliseconds with three digits.
pub fn millis(ns: u64) -> String {
    let us = ns / 1000;
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "s", "-1", "1d", "inf", "1e3", "nan", "1.2.3"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages_are_rounded_down() {
        assert_eq!(rough(0), "0 seconds");
        assert_eq!(rough(1), "1 second");
        assert_eq!(rough(119), "119 seconds");
        assert_eq!(rough(120), "2 minutes");
        assert_eq!(rough(7200), "2 hours");
        assert_eq!(rough(3 * 86400), "3 days");
    }

    #[test]
    fn times_that_are_none_have_no_age() {
        assert_eq!(since(Some("yesterday")), "");
        assert_eq!(since(None), "");
        assert_eq!(seconds_since("2999-01-01T00:00:00Z"), Some(0));
    }
}

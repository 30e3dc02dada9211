//! Clock and durations at the edges.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Nanoseconds since the epoch (CLOCK_REALTIME).
pub fn now_ns() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(ns: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}

/// A duration as queries write it: `30s`, `500ms`, `2m`, `1h`, or seconds as a plain number
/// (`0.5`). At most one day.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    if seconds > 86_400.0 {
        return None;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// A point in time as `since` and `until` write it: RFC 3339, seconds since the epoch, or a
/// duration back from now. Nanoseconds since the epoch.
pub fn parse_instant(text: &str, now_ns: i64) -> Option<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return i64::try_from(time.as_nanosecond()).ok();
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<i64>().ok()?.checked_mul(1_000_000_000);
    }
    let back = i64::try_from(parse_duration(text)?.as_nanos()).ok()?;
    Some(now_ns - back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for bad in [
            "", "s", "-1", "1d", "1e9", "nan", "inf", "25h", "1.2.3", "1 s",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn instants() {
        assert_eq!(
            parse_instant("1970-01-01T00:00:01Z", 0),
            Some(1_000_000_000)
        );
        assert_eq!(parse_instant("2", 0), Some(2_000_000_000));
        assert_eq!(parse_instant("1s", 5_000_000_000), Some(4_000_000_000));
        assert_eq!(parse_instant("yesterday", 0), None);
        assert_eq!(parse_instant("99999999999999999999", 0), None);
    }

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(rfc3339(1_000_000_001), "1970-01-01T00:00:01.000000001Z");
    }
}

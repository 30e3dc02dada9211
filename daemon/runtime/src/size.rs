//! Sizes with a suffix.

/// Bytes of `50M`, `1.5g`, `4096`, `32 MiB`; every unit is a power of 1024, as with runc and Docker.
/// `-1` stands for no limit.
///
/// # Errors
/// What is no such size, in words.
pub fn parse(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let wrong = || format!("not a size: {text:?}; write for example 512M, or -1 for no limit");
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = lower.split_at(end.unwrap_or(lower.len()));
    let shift = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(wrong()),
    };
    bytes(number.trim(), shift).ok_or_else(wrong)
}

/// `number` times 2 to the power of `shift`. A fraction is cut after nine digits, which no unit of
/// memory needs.
fn bytes(number: &str, shift: u32) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let nano: String = format!("{fraction:0<9}").chars().take(9).collect();
    let scale = 1i128 << shift;
    let whole = whole.parse::<i64>().ok()?;
    let below = i128::from(nano.parse::<u32>().ok()?) * scale / 1_000_000_000;
    i64::try_from(i128::from(whole) * scale + below).ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("-1", -1),
            ("0", 0),
            ("4096", 4096),
            ("50M", 50 << 20),
            ("50mb", 50 << 20),
            ("50 MiB", 50 << 20),
            ("1.5g", 3 << 29),
            ("7b", 7),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in [
            "", "-2", "M", "1x", "1mm", "1.", ".5g", "1ib", "1 2m", "9999999p", "1e3",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

//! Values of flags, parsed once.

use std::str::FromStr;

use littlebox_types::{DeviceConfig, IdMap, NamespaceSource, NamespaceType, Rlimit, TimeOffset};

/// `K=V`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Before the first `=`.
    pub key: String,
    /// After it.
    pub value: String,
}

impl FromStr for Pair {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (key, value) = s.split_once('=').ok_or("use KEY=VALUE")?;
        if key.is_empty() {
            return Err("the key before '=' is empty".to_owned());
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// `K=V`, or `K` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaybePair {
    /// Before the first `=`.
    pub key: String,
    /// After it, when there is one.
    pub value: Option<String>,
}

impl FromStr for MaybePair {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (key, value) = match s.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (s, None),
        };
        if key.is_empty() {
            return Err("the name is empty".to_owned());
        }
        Ok(Self {
            key: key.to_owned(),
            value,
        })
    }
}

/// A size in bytes: `512m`, `1.5GiB`, `1048576`; units are powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("not a size: '{text}'; write for example 512m");
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit.to_ascii_lowercase().trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(1 << shift)
            .ok_or_else(|| format!("'{text}' is too large"));
    }
    let fraction: f64 = number.parse().map_err(|_| wrong())?;
    fractional_size(fraction, shift).ok_or_else(wrong)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "bounded just before; a size with a fraction is an approximate wish"
)]
fn fractional_size(number: f64, shift: u32) -> Option<u64> {
    let bytes = number * (1u64 << shift) as f64;
    (bytes.is_finite() && (0.0..9e18).contains(&bytes)).then_some(bytes as u64)
}

/// As [`size`], or `-1` for no limit.
pub fn size_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    i64::try_from(size(text)?).map_err(|_| format!("'{text}' is too large"))
}

/// `DEVICE:SIZE`, a rate in bytes per second; a device may itself be `MAJOR:MINOR`.
pub fn rate_of_bytes(text: &str) -> Result<(String, u64), String> {
    let (device, rate) = text.rsplit_once(':').ok_or("use DEVICE:SIZE")?;
    Ok((device.to_owned(), size(rate)?))
}

/// `DEVICE:N`, operations per second.
pub fn rate(text: &str) -> Result<(String, u64), String> {
    let (device, rate) = text.rsplit_once(':').ok_or("use DEVICE:N")?;
    let rate = rate
        .parse()
        .map_err(|_| format!("not a number: '{rate}'"))?;
    Ok((device.to_owned(), rate))
}

/// A number of CPUs, at least 0.01.
pub fn cpus(text: &str) -> Result<f64, String> {
    let n: f64 = text
        .parse()
        .map_err(|_| format!("not a number: '{text}'; write for example 1.5"))?;
    if n.is_finite() && n >= 0.01 {
        Ok(n)
    } else {
        Err("must be at least 0.01".into())
    }
}

/// `-1` (no limit) or a number above 0.
pub fn pids(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(n) if n == -1 || n > 0 => Ok(n),
        _ => Err("use a positive number, or -1 for no limit".to_owned()),
    }
}

/// `NAME=SOFT[:HARD]`; `unlimited` or `-1` is none.
pub fn ulimit(text: &str) -> Result<(String, Rlimit), String> {
    let Pair { key, value } = text.parse()?;
    let (soft, hard) = value.split_once(':').unwrap_or((&value, &value));
    let limit = |text: &str| match text {
        "unlimited" | "-1" => Ok(None),
        n => n
            .parse()
            .map(Some)
            .map_err(|_| format!("not a limit: '{n}'; use a number or unlimited")),
    };
    let rlimit = Rlimit {
        soft: limit(soft)?,
        hard: limit(hard)?,
    };
    if rlimit.soft.unwrap_or(u64::MAX) > rlimit.hard.unwrap_or(u64::MAX) {
        return Err(format!("the soft limit of {key} exceeds the hard limit"));
    }
    Ok((key.to_ascii_lowercase(), rlimit))
}

/// `CONTAINER:HOST:SIZE`, ids of one line of an id map.
pub fn id_map(text: &str) -> Result<IdMap, String> {
    let numbers: Vec<u32> = text
        .split(':')
        .map(|n| n.parse().map_err(|_| format!("not an id: '{n}'")))
        .collect::<Result<_, _>>()?;
    match numbers[..] {
        [container_id, host_id, size] => Ok(IdMap {
            container_id,
            host_id,
            size,
        }),
        _ => Err("use CONTAINER:HOST:SIZE, for example 0:100000:65536".to_owned()),
    }
}

/// `TYPE=SOURCE` of a namespace; `mount` and `network` are known by their long names, too.
pub fn namespace(text: &str) -> Result<(NamespaceType, NamespaceSource), String> {
    let Pair { key, value } = text.parse()?;
    let kind = match key.as_str() {
        "mount" => NamespaceType::Mnt,
        "network" => NamespaceType::Net,
        key => key.parse()?,
    };
    Ok((kind, value.parse()?))
}

/// A network, as the namespace it is: `none`, `host`, `container:NAME`.
pub fn network(text: &str) -> Result<NamespaceSource, String> {
    match text {
        "none" => Ok(NamespaceSource::New),
        other => other
            .parse()
            .map_err(|_| format!("unknown network '{other}'; use none, host or container:NAME")),
    }
}

/// A user namespace: `auto` (a new one with ids of its own), `host`, `container:NAME`, `pid:N`.
pub fn userns(text: &str) -> Result<NamespaceSource, String> {
    match text {
        "auto" => Ok(NamespaceSource::New),
        other => other.parse().map_err(|_| {
            format!("unknown user namespace '{other}'; use auto, host, container:NAME or pid:N")
        }),
    }
}

/// The lines of an `--env-file`: `K=V`, or `K` for the value that we have; `#` starts a comment. A byte
/// order mark, which some editors put first, is no part of the first name.
pub fn env_file(text: &str) -> Result<Vec<MaybePair>, String> {
    text.strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|(i, line)| {
            line.trim_start()
                .parse()
                .map_err(|e| format!("line {}: {e}", i + 1))
        })
        .collect()
}

/// The fields of a line of CSV (RFC 4180): in a field that is quoted as a whole a comma is an ordinary
/// character, and a quote is written twice.
pub fn csv(line: &str) -> Result<Vec<String>, String> {
    let misplaced = || {
        "quote a field as a whole: type=bind,\"source=/a,b\",target=/c (a quote in it is written twice)"
            .to_owned()
    };
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (field, after) = match text.strip_prefix('"') {
            Some(text) => quoted(text).ok_or_else(misplaced)?,
            None => {
                let (field, after) = text.split_at(text.find(',').unwrap_or(text.len()));
                if field.contains('"') {
                    return Err(misplaced());
                }
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        rest = match after.strip_prefix(',') {
            None if !after.is_empty() => return Err(misplaced()),
            after => after,
        };
    }
    Ok(fields)
}

/// A field up to its closing quote, and what follows that.
fn quoted(mut text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (part, after) = text.split_once('"')?;
        field.push_str(part);
        let Some(after) = after.strip_prefix('"') else {
            return Some((field, after));
        };
        field.push('"');
        text = after;
    }
}

/// `SRC[:DST][:PERMISSIONS]`, as Docker and Podman have it.
pub fn device(text: &str) -> Result<DeviceConfig, String> {
    let permissions = |s: &str| {
        let known = s.bytes().all(|b| b"rwm".contains(&b));
        (!s.is_empty() && known).then(|| s.to_owned())
    };
    let wrong = || format!("not a device: '{text}'; use SRC, SRC:DST or SRC:DST:PERMISSIONS");
    let parts: Vec<&str> = text.split(':').collect();
    let (path, inside, allowed) = match parts[..] {
        [path] => (path, None, None),
        [path, second] => match permissions(second) {
            Some(allowed) => (path, None, Some(allowed)),
            None => (path, Some(second), None),
        },
        [path, inside, last] => (
            path,
            Some(inside),
            Some(permissions(last).ok_or_else(wrong)?),
        ),
        _ => return Err(wrong()),
    };
    if !path.starts_with('/') || inside.is_some_and(|inside| !inside.starts_with('/')) {
        return Err(wrong());
    }
    Ok(DeviceConfig {
        path: path.to_owned(),
        container_path: inside.map(str::to_owned),
        permissions: allowed,
    })
}

/// `monotonic=SECONDS` or `boottime=SECONDS`, with a fraction and a sign where they are wanted.
pub fn time_offset(text: &str) -> Result<(String, TimeOffset), String> {
    let (clock, seconds) = text.split_once('=').ok_or("use CLOCK=SECONDS")?;
    if !matches!(clock, "monotonic" | "boottime") {
        return Err(format!(
            "unknown clock '{clock}'; use monotonic or boottime"
        ));
    }
    let wrong =
        || format!("not a number of seconds: '{seconds}'; write for example 3600, -10 or 0.5");
    let (sign, digits) = match seconds.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, seconds),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let secs: i64 = whole.parse().map_err(|_| wrong())?;
    let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    // Nanoseconds count forwards: -0.5 is one second back and a half forth.
    let offset = match (sign, nanos) {
        (-1, 1..) => TimeOffset {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
        (sign, nanos) => TimeOffset {
            secs: sign * secs,
            nanos,
        },
    };
    Ok((clock.to_owned(), offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("1.5g", 3 << 29),
            ("1GiB", 1 << 30),
            ("64kb", 64 << 10),
            ("7b", 7),
            ("2t", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "m",
            "-1",
            "1x",
            "1.2.3m",
            "99999999999999999999",
            "20000000t",
            "1e3",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(size_or_unlimited("-1"), Ok(-1));
        assert_eq!(size_or_unlimited("1k"), Ok(1024));
    }

    #[test]
    fn rates() {
        assert_eq!(
            rate_of_bytes("/dev/sda:1m"),
            Ok(("/dev/sda".into(), 1 << 20))
        );
        assert_eq!(rate("8:16:500"), Ok(("8:16".into(), 500)));
        assert!(rate_of_bytes("/dev/sda").is_err() && rate("8:x").is_err());
    }

    #[test]
    fn ulimits() {
        let limit = |soft, hard| Rlimit { soft, hard };
        assert_eq!(
            ulimit("nofile=5"),
            Ok(("nofile".into(), limit(Some(5), Some(5))))
        );
        assert_eq!(
            ulimit("CORE=0:unlimited"),
            Ok(("core".into(), limit(Some(0), None)))
        );
        for bad in [
            "nofile",
            "nofile=",
            "nofile=x",
            "nofile=2:1",
            "nofile=-1:1",
            "=1",
        ] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn namespaces_and_networks() {
        let a = NamespaceSource::Container("a".into());
        assert_eq!(
            namespace("network=host"),
            Ok((NamespaceType::Net, NamespaceSource::Host))
        );
        assert_eq!(
            namespace("pid=container:a"),
            Ok((NamespaceType::Pid, a.clone()))
        );
        for bad in ["x=host", "net", "net=", "net=container:", "net=private"] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
        assert_eq!(network("none"), Ok(NamespaceSource::New));
        assert_eq!(network("container:a"), Ok(a.clone()));
        assert!(network("bridge").is_err());
        assert_eq!(userns("auto"), Ok(NamespaceSource::New));
        assert_eq!(userns("host"), Ok(NamespaceSource::Host));
        assert_eq!(userns("container:a"), Ok(a));
        assert!(userns("keep-id").is_err());
    }

    #[test]
    fn devices_have_a_place_and_permissions() {
        let parts = |text: &str| {
            device(text).map(|d| {
                let shown = |o: Option<String>| o.unwrap_or_default();
                [d.path, shown(d.container_path), shown(d.permissions)].join("|")
            })
        };
        for (text, expected) in [
            ("/dev/a", "/dev/a||"),
            ("/dev/a:/dev/b", "/dev/a|/dev/b|"),
            ("/dev/a:rw", "/dev/a||rw"),
            ("/dev/a:/dev/b:r", "/dev/a|/dev/b|r"),
        ] {
            assert_eq!(parts(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "dev/a",
            "/dev/a:b",
            "/dev/a:/dev/b:x",
            "/a:/b:r:w",
            "/dev/a:",
        ] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn clocks_are_set_forwards_and_back() {
        let set = |text: &str| time_offset(text).map(|(clock, o)| (clock, o.secs, o.nanos));
        assert_eq!(set("monotonic=3600"), Ok(("monotonic".into(), 3600, 0)));
        assert_eq!(set("boottime=1.05"), Ok(("boottime".into(), 1, 50_000_000)));
        assert_eq!(
            set("boottime=-0.5"),
            Ok(("boottime".into(), -1, 500_000_000))
        );
        for bad in [
            "realtime=1",
            "boottime",
            "boottime=",
            "boottime=x",
            "boottime=--1",
            "boottime=1.",
            "boottime=1.0123456789",
        ] {
            assert!(set(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn environment_files() {
        let pairs = env_file("# c\n\nA=b c=d\n  B\nC=\n").unwrap();
        let shown: Vec<_> = pairs
            .iter()
            .map(|p| (p.key.as_str(), p.value.as_deref()))
            .collect();
        assert_eq!(shown, [("A", Some("b c=d")), ("B", None), ("C", Some(""))]);
        assert_eq!(
            env_file("A=1\n=2\n"),
            Err("line 2: the name is empty".into())
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_name() {
        let pairs = env_file("\u{feff}A=1\r\nB=2\r\n").unwrap();
        let shown: Vec<_> = pairs.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(shown, ["A", "B"]);
        assert_eq!(pairs[1].value.as_deref(), Some("2"));
    }

    #[test]
    fn a_quoted_field_of_csv_may_have_commas_and_quotes() {
        for (line, fields) in [
            ("a,b=c", &["a", "b=c"][..]),
            ("", &[""]),
            ("a,,b,", &["a", "", "b", ""]),
            (r#""a,b",c"#, &["a,b", "c"]),
            (r#"a,"b ""c"", d""#, &["a", "b \"c\", d"]),
            (r#""""#, &[""]),
        ] {
            assert_eq!(csv(line).unwrap(), fields, "{line}");
        }
        for bad in [r#"a="b,c""#, r#""a"#, r#""a"b,c"#, r#"a","b"#] {
            assert!(csv(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn id_maps() {
        let map = IdMap {
            container_id: 0,
            host_id: 100_000,
            size: 65536,
        };
        assert_eq!(id_map("0:100000:65536"), Ok(map));
        assert!(id_map("0:1").is_err() && id_map("0:1:-2").is_err());
    }
}

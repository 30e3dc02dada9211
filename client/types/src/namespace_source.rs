//! Which namespaces a container gets.

use std::fmt;
use std::str::FromStr;

use super::text::{ValueError, serde_as_text};

/// A type of namespace, by its name in `/proc/PID/ns` (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceType {
    /// Mount points.
    Mnt,
    /// Host and NIS domain name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network devices, stacks, ports.
    Net,
    /// Process ids.
    Pid,
    /// User and group ids, capabilities.
    User,
    /// The cgroup root directory.
    Cgroup,
    /// Monotonic and boot time clocks.
    Time,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceSource {
    /// `new`: a fresh one.
    New,
    /// `host`: the host's.
    Host,
    /// `container:NAME`: that of another container, by its name, its id or a part of its id.
    Container(String),
    /// `pid:N`: that of a process of the host, 1 to 4194304.
    Pid(u32),
}

serde_as_text!(NamespaceType, NamespaceSource);

impl NamespaceType {
    /// All eight.
    pub const ALL: [Self; 8] = [
        Self::Mnt,
        Self::Uts,
        Self::Ipc,
        Self::Net,
        Self::Pid,
        Self::User,
        Self::Cgroup,
        Self::Time,
    ];

    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnt => "mnt",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }
}

impl FromStr for NamespaceType {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let hint = "use mnt, uts, ipc, net, pid, user, cgroup or time";
            ValueError::new(text, "is not a namespace type", hint)
        })
    }
}

impl fmt::Display for NamespaceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl NamespaceSource {
    /// The process ids that Linux can give: `PID_MAX_LIMIT` of proc_sys_kernel(5).
    const PIDS: std::ops::RangeInclusive<u32> = 1..=4_194_304;

    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "new" => Some(Self::New),
            None if text == "host" => Some(Self::Host),
            Some(("container", name)) if is_reference(name) => {
                Some(Self::Container(name.to_owned()))
            }
            Some(("pid", digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                let pid = digits.parse().ok().filter(|n| Self::PIDS.contains(n));
                pid.map(Self::Pid)
            }
            _ => None,
        }
    }
}

/// Whether a text can be a container's name, id, or a part of its id.
fn is_reference(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    first && text.len() <= 63 && text.bytes().all(inner)
}

impl FromStr for NamespaceSource {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse(text).ok_or_else(|| {
            let hint = "use new, host, container:NAME or pid:N";
            ValueError::new(text, "is not a namespace source", hint)
        })
    }
}

impl fmt::Display for NamespaceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::text::tests::survives;

    #[test]
    fn the_four_sources_are_written_as_they_are_read() {
        for (text, source) in [
            ("new", NamespaceSource::New),
            ("host", NamespaceSource::Host),
            (
                "container:a.b-c_1",
                NamespaceSource::Container("a.b-c_1".into()),
            ),
            ("pid:4194304", NamespaceSource::Pid(4_194_304)),
        ] {
            assert_eq!(source.to_string(), text);
            assert_eq!(text.parse(), Ok(source));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "bridge",
            "new:",
            "host:x",
            "container",
            "container:",
            "container:../x",
            "container:-x",
            "container:a:b",
            "pid:",
            "pid:0",
            "pid:+1",
            "pid:4194305",
            "pid:4294967297",
        ] {
            assert!(text.parse::<NamespaceSource>().is_err(), "{text:?}");
        }
        assert!("network".parse::<NamespaceType>().is_err());
    }

    #[test]
    fn types_are_keys_of_json_objects() {
        let text = r#"{"net":"host","user":"pid:7"}"#;
        let map: BTreeMap<NamespaceType, NamespaceSource> = serde_json::from_str(text).unwrap();
        assert_eq!(map[&NamespaceType::User], NamespaceSource::Pid(7));
        assert_eq!(serde_json::to_string(&map).unwrap(), text);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives(text in "(container:|pid:|)[a-z0-9.-]{0,9}|\\PC*") {
            survives::<NamespaceSource>(&text);
        }
    }
}

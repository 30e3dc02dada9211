//! `--security-opt`, with the grammar of Docker and Podman: `KEY=VALUE`, `KEY:VALUE` or `KEY`.

use std::str::FromStr;

use lbctl::types::{ContainerConfig, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS};

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityOpt {
    /// `no-new-privileges[=BOOL]`.
    NoNewPrivileges(bool),
    /// `mask=PATH[:PATH...]`: reads empty, beside the default paths.
    Mask(Vec<String>),
    /// `unmask=ALL` or `unmask=PATTERN[:PATTERN...]`: neither masked nor read-only.
    Unmask(Vec<String>),
    /// `systempaths=unconfined`: nothing is masked or read-only.
    SystemPathsUnconfined,
}

impl FromStr for SecurityOpt {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = match text.split_once(['=', ':']) {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        match (key, value) {
            ("no-new-privileges", None) => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", Some(value)) => value
                .parse()
                .map(Self::NoNewPrivileges)
                .map_err(|_| format!("no-new-privileges is true or false, not '{value}'")),
            ("mask", Some(value)) => paths(value).map(Self::Mask),
            ("unmask", Some("ALL" | "all")) => Ok(Self::Unmask(vec!["ALL".to_owned()])),
            ("unmask", Some(value)) => paths(value).map(Self::Unmask),
            ("systempaths", Some("unconfined")) => Ok(Self::SystemPathsUnconfined),
            ("systempaths", _) => Err("the only value of systempaths is unconfined".to_owned()),
            ("mask" | "unmask", None) => Err(format!("write {key}=PATH")),
            _ => Err(format!(
                "'{text}' is not known; there are no-new-privileges, mask=PATH, unmask=PATH, \
                 unmask=ALL and systempaths=unconfined"
            )),
        }
    }
}

fn paths(value: &str) -> Result<Vec<String>, String> {
    let list: Vec<String> = value.split(':').map(str::to_owned).collect();
    match list.iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(format!("'{path}' is not an absolute path")),
        None => Ok(list),
    }
}

/// Puts the options into a configuration, in their order.
pub fn apply(options: &[SecurityOpt], config: &mut ContainerConfig) {
    for option in options {
        match option {
            SecurityOpt::NoNewPrivileges(wanted) => config.no_new_privileges = Some(*wanted),
            SecurityOpt::Mask(paths) => masked(config).extend(paths.iter().cloned()),
            SecurityOpt::Unmask(patterns) => unmask(config, patterns),
            SecurityOpt::SystemPathsUnconfined => {
                config.masked_paths = Some(Vec::new());
                config.readonly_paths = Some(Vec::new());
            }
        }
    }
}

/// The list of the configuration, which begins as the default one.
fn masked(config: &mut ContainerConfig) -> &mut Vec<String> {
    let default = defaults(&DEFAULT_MASKED_PATHS, config.privileged);
    config.masked_paths.get_or_insert(default)
}

fn read_only(config: &mut ContainerConfig) -> &mut Vec<String> {
    let default = defaults(&DEFAULT_READONLY_PATHS, config.privileged);
    config.readonly_paths.get_or_insert(default)
}

fn defaults(paths: &[&str], privileged: bool) -> Vec<String> {
    let paths = if privileged { &[] } else { paths };
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn unmask(config: &mut ContainerConfig, patterns: &[String]) {
    let kept = |path: &String| {
        patterns
            .iter()
            .all(|pattern| pattern != "ALL" && !matches(pattern, path))
    };
    masked(config).retain(kept);
    read_only(config).retain(kept);
}

/// A path or a pattern in which `*` stands for any characters of one component.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((start, rest)) => path.strip_prefix(start).is_some_and(|left| {
            let component = left.find('/').unwrap_or(left.len());
            (0..=component)
                .filter(|at| left.is_char_boundary(*at))
                .any(|at| matches(rest, &left[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(options: &[&str]) -> ContainerConfig {
        let options: Vec<SecurityOpt> = options.iter().map(|o| o.parse().unwrap()).collect();
        let mut config = ContainerConfig::default();
        apply(&options, &mut config);
        config
    }

    #[test]
    fn no_new_privileges_is_a_switch_or_a_value() {
        for (text, wanted) in [
            ("no-new-privileges", true),
            ("no-new-privileges:true", true),
            ("no-new-privileges=false", false),
        ] {
            assert_eq!(applied(&[text]).no_new_privileges, Some(wanted), "{text}");
        }
    }

    #[test]
    fn masks_are_added_to_and_taken_from_the_default_ones() {
        let config = applied(&["mask=/a:/b", "unmask=/proc/kcore:/proc/s*"]);
        let masked = config.masked_paths.unwrap();
        for path in ["/a", "/b", "/proc/keys", "/sys/firmware"] {
            assert!(masked.iter().any(|p| p == path), "{path} in {masked:?}");
        }
        for path in ["/proc/kcore", "/proc/scsi", "/proc/sched_debug"] {
            assert!(masked.iter().all(|p| p != path), "{path} in {masked:?}");
        }
        assert_eq!(
            config.readonly_paths.unwrap(),
            ["/proc/bus", "/proc/fs", "/proc/irq"]
        );
    }

    #[test]
    fn everything_can_be_unmasked() {
        for option in ["unmask=ALL", "systempaths=unconfined"] {
            let config = applied(&[option]);
            assert_eq!(config.masked_paths, Some(vec![]), "{option}");
            assert_eq!(config.readonly_paths, Some(vec![]), "{option}");
        }
        assert_eq!(applied(&["mask=/x"]).readonly_paths, None);
    }

    #[test]
    fn a_star_stays_in_its_component() {
        assert!(matches("/proc/*", "/proc/keys") && matches("/proc/*d*", "/proc/sched_debug"));
        assert!(!matches("/proc/*", "/proc/a/b") && !matches("/proc/*x", "/proc/keys"));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "",
            "mask",
            "mask=proc",
            "unmask=",
            "systempaths=x",
            "no-new-privileges=1",
            "x=y",
        ] {
            assert!(text.parse::<SecurityOpt>().is_err(), "{text:?}");
        }
    }
}

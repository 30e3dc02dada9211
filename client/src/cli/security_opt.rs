//! `--security-opt`, with the grammar of Docker and Podman: `KEY=VALUE`, `KEY:VALUE` or `KEY`.

use std::str::FromStr;

use littlebox_types::{ContainerConfig, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, Seccomp};

/// One option.
#[derive(Debug, Clone, PartialEq)]
pub enum SecurityOpt {
    /// `seccomp=default|unconfined|FILE`; the file is read where lbctl runs.
    Seccomp(Seccomp),
    /// `no-new-privileges[=BOOL]`.
    NoNewPrivileges(bool),
    /// `mask=PATH[:PATH...]`: reads empty, beside the default paths.
    Mask(Vec<String>),
    /// `unmask=ALL` or `unmask=PATTERN[:PATTERN...]`: neither masked nor read-only.
    Unmask(Vec<String>),
    /// `systempaths=unconfined`: nothing is masked or read-only.
    SystemPathsUnconfined,
    /// `apparmor=PROFILE`, or `unconfined`.
    AppArmor(String),
    /// `label=PART:VALUE`: a part of the SELinux context.
    Label(LabelPart, String),
    /// `label=disable`: no SELinux context.
    LabelDisable,
}

/// A part of an SELinux context, `USER:ROLE:TYPE:LEVEL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelPart {
    /// `user`.
    User,
    /// `role`.
    Role,
    /// `type`.
    Type,
    /// `level`.
    Level,
}

impl FromStr for SecurityOpt {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = match text.split_once(['=', ':']) {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        match (key, value) {
            ("seccomp", Some(value)) => seccomp(value).map(Self::Seccomp),
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
            ("apparmor", Some(profile)) if !profile.is_empty() => {
                Ok(Self::AppArmor(profile.to_owned()))
            }
            ("label", Some(value)) => label(value),
            ("apparmor", _) => Err("write apparmor=PROFILE".to_owned()),
            ("label", None) => Err("write label=disable or label=PART:VALUE".to_owned()),
            ("mask" | "unmask", None) => Err(format!("write {key}=PATH")),
            _ => Err(format!(
                "'{text}' is not known; there are apparmor=PROFILE, label=PART:VALUE, mask=PATH, \
                 no-new-privileges, seccomp=default|unconfined|FILE, systempaths=unconfined and \
                 unmask=PATH|ALL"
            )),
        }
    }
}

fn seccomp(value: &str) -> Result<Seccomp, String> {
    match value {
        "" => Err("write seccomp=default, unconfined or a file".to_owned()),
        "default" => Ok(Seccomp::Default),
        "unconfined" => Ok(Seccomp::Unconfined),
        file => {
            let text = std::fs::read_to_string(file)
                .map_err(|e| format!("cannot read the seccomp profile {file}: {e}"))?;
            serde_json::from_str(&text)
                .map(Seccomp::Profile)
                .map_err(|e| format!("the seccomp profile {file} is not a JSON object: {e}"))
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

fn label(value: &str) -> Result<SecurityOpt, String> {
    if value == "disable" {
        return Ok(SecurityOpt::LabelDisable);
    }
    let part = match value.split_once(':') {
        Some(("user", value)) => (LabelPart::User, value),
        Some(("role", value)) => (LabelPart::Role, value),
        Some(("type", value)) => (LabelPart::Type, value),
        Some(("level", value)) => (LabelPart::Level, value),
        _ => {
            return Err(format!(
                "unknown label '{value}'; use disable, user:U, role:R, type:T or level:L"
            ));
        }
    };
    Ok(SecurityOpt::Label(part.0, part.1.to_owned()))
}

/// Changes one part of the context, which begins as that of containers.
fn set_label(config: &mut ContainerConfig, part: LabelPart, value: &str) {
    let context = config
        .selinux
        .get_or_insert_with(|| "system_u:system_r:container_t:s0".to_owned());
    // The level may contain colons itself.
    let mut parts: Vec<&str> = context.splitn(4, ':').collect();
    let index = match part {
        LabelPart::User => 0,
        LabelPart::Role => 1,
        LabelPart::Type => 2,
        LabelPart::Level => 3,
    };
    if let Some(slot) = parts.get_mut(index) {
        *slot = value;
    }
    *context = parts.join(":");
}

/// Puts the options into a configuration, in their order.
pub fn apply(options: &[SecurityOpt], config: &mut ContainerConfig) {
    for option in options {
        match option {
            SecurityOpt::Seccomp(wanted) => config.seccomp = Some(wanted.clone()),
            SecurityOpt::NoNewPrivileges(wanted) => config.no_new_privileges = Some(*wanted),
            SecurityOpt::Mask(paths) => masked(config).extend(paths.iter().cloned()),
            SecurityOpt::Unmask(patterns) => unmask(config, patterns),
            SecurityOpt::AppArmor(profile) => config.apparmor = Some(profile.clone()),
            SecurityOpt::Label(part, value) => set_label(config, *part, value),
            SecurityOpt::LabelDisable => config.selinux = None,
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
    fn a_seccomp_profile_is_read_here() {
        assert_eq!(
            applied(&["seccomp=unconfined"]).seccomp,
            Some(Seccomp::Unconfined)
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.json");
        let option = format!("seccomp:{}", file.display());
        std::fs::write(&file, r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        let Some(Seccomp::Profile(profile)) = applied(&[&option]).seccomp else {
            panic!("no profile")
        };
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
        std::fs::write(&file, "[]").unwrap();
        assert!(option.parse::<SecurityOpt>().is_err());
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
    fn labels_are_made_of_their_parts() {
        let config = applied(&["apparmor=p", "label=type:x_t", "label:level:s0:c1,c2"]);
        assert_eq!(config.apparmor.as_deref(), Some("p"));
        assert_eq!(
            config.selinux.as_deref(),
            Some("system_u:system_r:x_t:s0:c1,c2")
        );
        let config = applied(&["label=user:u", "label=disable"]);
        assert_eq!(config.selinux, None);
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
            "apparmor",
            "label=x",
            "label=colour:red",
            "unmask=",
            "systempaths=x",
            "no-new-privileges=1",
            "x=y",
            "seccomp",
            "seccomp=",
            "seccomp=/no/such",
        ] {
            assert!(text.parse::<SecurityOpt>().is_err(), "{text:?}");
        }
    }
}

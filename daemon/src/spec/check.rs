//! Grammars of single values that the wire types leave as text.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use littlebox_plan::pointer;
use littlebox_types::{RestartMode, RestartPolicy};

pub(super) use littlebox_types::shown;

use super::ConfigError;

/// The longest single argument or environment entry, with its zero byte (`MAX_ARG_STRLEN`,
/// execve(2)).
const ARG_LIMIT: usize = 128 * 1024 - 1;
/// The longest path, with its zero byte (`PATH_MAX`).
const PATH_LIMIT: usize = 4095;

/// An error without a hint.
pub(super) fn error(pointer: impl Into<String>, detail: impl Into<String>) -> ConfigError {
    ConfigError {
        pointer: pointer.into(),
        detail: detail.into(),
        hint: None,
    }
}

/// An error with a hint.
pub(super) fn error_with(
    pointer: impl Into<String>,
    detail: impl Into<String>,
    hint: impl Into<String>,
) -> ConfigError {
    ConfigError {
        pointer: pointer.into(),
        detail: detail.into(),
        hint: Some(hint.into()),
    }
}

/// Refuses more than `limit` of something.
pub(super) fn at_most(
    count: usize,
    limit: usize,
    pointer: &str,
    things: &str,
) -> Result<(), ConfigError> {
    if count <= limit {
        return Ok(());
    }
    Err(error(
        pointer,
        format!("there are {count} {things}; at most {limit} are taken"),
    ))
}

/// An absolute path without `..` and zero bytes; `.` and doubled slashes are dropped.
pub(super) fn path(text: &str, pointer: &str) -> Result<PathBuf, ConfigError> {
    if !text.starts_with('/') {
        return Err(error_with(
            pointer,
            format!("the path {} is not absolute", shown(text)),
            "start it with '/'",
        ));
    }
    if text.len() > PATH_LIMIT || text.contains('\0') {
        return Err(error(
            pointer,
            format!("a path has at most {PATH_LIMIT} bytes and no zero byte"),
        ));
    }
    let path = Path::new(text);
    if path.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(error_with(
            pointer,
            format!("the path {} contains '..'", shown(text)),
            "write the path that is meant",
        ));
    }
    Ok(path.components().collect())
}

/// The program and its arguments.
pub(super) fn command(args: &[String], pointer: &str) -> Result<(), ConfigError> {
    if args.first().is_none_or(String::is_empty) {
        return Err(error_with(
            pointer,
            "there is no program to run",
            "give the program and its arguments as a list of strings, like [\"sh\", \"-c\", \"date\"]",
        ));
    }
    for (i, arg) in args.iter().enumerate() {
        if arg.contains('\0') {
            return Err(error(
                format!("{pointer}/{i}"),
                "an argument cannot contain a zero byte",
            ));
        }
        if arg.len() > ARG_LIMIT {
            return Err(error(
                format!("{pointer}/{i}"),
                format!(
                    "an argument has at most {ARG_LIMIT} bytes, this one has {}",
                    arg.len()
                ),
            ));
        }
    }
    Ok(())
}

/// One variable of the environment.
pub(super) fn variable(key: &str, value: &str) -> Result<(), ConfigError> {
    let pointer = || pointer::below("/env", key);
    if key.is_empty() || key.contains(['=', '\0']) {
        return Err(error(
            pointer(),
            format!(
                "{} cannot name a variable: a name is not empty and has no '=' and no zero byte",
                shown(key)
            ),
        ));
    }
    if value.contains('\0') {
        return Err(error(
            pointer(),
            format!("the value of {} contains a zero byte", shown(key)),
        ));
    }
    if key.len() + value.len() + 1 > ARG_LIMIT {
        return Err(error(
            pointer(),
            format!(
                "the variable {} is longer than {ARG_LIMIT} bytes, the most that execve takes",
                shown(key)
            ),
        ));
    }
    Ok(())
}

/// A label.
pub(super) fn label(key: &str, value: &str) -> Result<(), ConfigError> {
    let pointer = || pointer::below("/labels", key);
    if key.is_empty() || key.len() > 256 || key.contains(|c: char| c.is_control() || c == '=') {
        return Err(error(
            pointer(),
            format!(
                "{} cannot be a label: its name has 1 to 256 bytes, no '=' and no control character",
                shown(key)
            ),
        ));
    }
    if value.len() > 16 * 1024 || value.contains('\0') {
        return Err(error(
            pointer(),
            format!(
                "the value of the label {} has a zero byte or more than 16384 bytes",
                shown(key)
            ),
        ));
    }
    Ok(())
}

/// A host or NIS domain name: at most 64 bytes (`__NEW_UTS_LEN`, uname(2)), letters, digits, `-`,
/// `_` and `.`, with a letter or digit at both ends.
pub(super) fn host_name(name: &str, pointer: &str) -> Result<(), ConfigError> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if bytes.len() <= 64
        && outer(bytes.first())
        && outer(bytes.last())
        && bytes.iter().all(|b| inner(*b))
    {
        return Ok(());
    }
    Err(error_with(
        pointer,
        format!("{} is not a valid name for a host", shown(name)),
        "use 1 to 64 letters, digits, '-', '_' and '.', with a letter or digit first and last",
    ))
}

/// A list of CPUs or memory nodes, `0-3,7` (cpuset(7), "List format").
pub(super) fn cpuset(text: &str, pointer: &str) -> Result<(), ConfigError> {
    let number = |s: &str| {
        let plain = (1..=5).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
        s.parse::<u32>().ok().filter(|n| plain && *n < 8192)
    };
    let range = |s: &str| match s.split_once('-') {
        None => number(s).is_some(),
        Some((a, b)) => matches!((number(a), number(b)), (Some(a), Some(b)) if a <= b),
    };
    if text.len() <= 4096 && text.split(',').all(range) {
        return Ok(());
    }
    Err(error_with(
        pointer,
        format!("{} is not a list of numbers and ranges", shown(text)),
        "write it like 0-3,7",
    ))
}

/// Checks labels, of a new container or of a patch.
///
/// # Errors
/// The first that is wrong, by its JSON pointer.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    at_most(labels.len(), 256, "/labels", "labels")?;
    labels.iter().try_for_each(|(key, value)| label(key, value))
}

/// Checks a restart policy, of a new container or of a patch.
///
/// # Errors
/// What is wrong, by its JSON pointer.
pub fn check_restart(restart: &RestartPolicy, auto_remove: bool) -> Result<(), ConfigError> {
    if auto_remove && restart.policy != RestartMode::No {
        return Err(error_with(
            "/restart",
            "a container that is removed when it has ended cannot be started again",
            "leave out auto_remove, or the restart policy",
        ));
    }
    match restart.max_retries {
        Some(_) if restart.policy != RestartMode::OnFailure => Err(error_with(
            "/restart/max_retries",
            format!("the policy '{}' has no maximum", restart.policy.name()),
            "leave it out, or choose the policy on-failure",
        )),
        Some(0) => Err(error_with(
            "/restart/max_retries",
            "a policy that never restarts is called 'no'",
            "give at least 1, or leave it out for no maximum",
        )),
        _ => Ok(()),
    }
}

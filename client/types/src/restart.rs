//! What follows when a container's program has ended.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether a container is started again by the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartPolicy {
    /// When.
    pub policy: RestartMode,
    /// With `on-failure`: how often at most; without end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

/// When a container is started again by the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartMode {
    /// Never.
    #[default]
    No,
    /// When its program did not end with 0.
    OnFailure,
    /// However it ended, unless a client stopped it; and at the next boot of the machine even then.
    Always,
    /// However it ended, unless a client stopped it.
    UnlessStopped,
}

impl RestartMode {
    /// The wire name.
    pub fn name(self) -> &'static str {
        match self {
            RestartMode::No => "no",
            RestartMode::OnFailure => "on-failure",
            RestartMode::Always => "always",
            RestartMode::UnlessStopped => "unless-stopped",
        }
    }
}

/// `on-failure:3` style, as command lines have it.
impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.policy.name())?;
        match self.max_retries {
            Some(max) => write!(f, ":{max}"),
            None => Ok(()),
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (mode, max) = match s.split_once(':') {
            Some((mode, max)) => (mode, Some(max)),
            None => (s, None),
        };
        let policy = [
            RestartMode::No,
            RestartMode::OnFailure,
            RestartMode::Always,
            RestartMode::UnlessStopped,
        ]
        .into_iter()
        .find(|m| m.name() == mode)
        .ok_or_else(|| {
            format!("unknown restart policy '{mode}'; use no, on-failure[:MAX], always or unless-stopped")
        })?;
        let max_retries = match max {
            None => None,
            Some(_) if policy != RestartMode::OnFailure => {
                return Err("only on-failure has a maximum".to_owned());
            }
            Some(max) => match max.parse() {
                Ok(n) if n > 0 => Some(n),
                _ => return Err(format!("not a positive number of restarts: '{max}'")),
            },
        };
        Ok(Self {
            policy,
            max_retries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_as_it_is_read() {
        for text in [
            "no",
            "on-failure",
            "on-failure:3",
            "always",
            "unless-stopped",
        ] {
            let policy: RestartPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
            let json = serde_json::to_value(policy).unwrap();
            assert_eq!(json["policy"], text.split(':').next().unwrap());
            assert_eq!(
                serde_json::from_value::<RestartPolicy>(json).unwrap(),
                policy
            );
        }
        for wrong in [
            "",
            "never",
            "always:3",
            "on-failure:",
            "on-failure:0",
            "on-failure:-1",
        ] {
            assert!(wrong.parse::<RestartPolicy>().is_err(), "{wrong}");
        }
    }
}

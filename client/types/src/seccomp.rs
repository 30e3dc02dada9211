//! Which system calls a program may make.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

/// `seccomp` of a container: `"default"`, `"unconfined"`, or a profile.
#[derive(Debug, Clone, PartialEq)]
pub enum Seccomp {
    /// The daemon's default profile.
    Default,
    /// No filter.
    Unconfined,
    /// A profile in the JSON of the OCI runtime specification (config-linux.md, "Seccomp") or of
    /// Docker and Podman. Read by the daemon.
    Profile(Map<String, Value>),
}

impl Serialize for Seccomp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Seccomp::Default => serializer.serialize_str("default"),
            Seccomp::Unconfined => serializer.serialize_str("unconfined"),
            Seccomp::Profile(profile) => profile.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Seccomp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;
        impl<'de> de::Visitor<'de> for Choice {
            type Value = Seccomp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"default\", \"unconfined\" or a seccomp profile")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Seccomp, E> {
                match text {
                    "default" => Ok(Seccomp::Default),
                    "unconfined" => Ok(Seccomp::Unconfined),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Seccomp, A::Error> {
                Map::deserialize(MapAccessDeserializer::new(map)).map(Seccomp::Profile)
            }
        }
        deserializer.deserialize_any(Choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms() {
        for text in [
            r#""default""#,
            r#""unconfined""#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","x":18446744073709551615}"#,
        ] {
            let read: Seccomp = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
        for bad in [r#""off""#, "true", "[]", "1"] {
            let error = serde_json::from_str::<Seccomp>(bad)
                .unwrap_err()
                .to_string();
            assert!(error.contains("unconfined"), "{error}");
        }
    }
}

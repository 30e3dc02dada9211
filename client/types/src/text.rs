//! What the values have in common that the API writes as text: they are parsed once, where they enter.

use std::borrow::Cow;

/// Why a text is not the value that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}: {hint}")]
pub struct ValueError {
    /// What is wrong, with the text.
    pub detail: String,
    /// What to write instead.
    pub hint: Cow<'static, str>,
}

impl ValueError {
    /// `is` goes on after the quoted text: "is not a signal".
    pub(crate) fn new(text: &str, is: &str, hint: impl Into<Cow<'static, str>>) -> Self {
        Self {
            detail: format!("{} {is}", shown(text)),
            hint: hint.into(),
        }
    }
}

impl From<ValueError> for String {
    fn from(error: ValueError) -> Self {
        error.to_string()
    }
}

/// A value as it is shown in a sentence: quoted, escaped, and cut when it is long.
pub fn shown(value: &str) -> String {
    let short: String = value.chars().take(64).collect();
    let dots = if short.len() < value.len() { "..." } else { "" };
    format!("'{}{dots}'", short.escape_debug())
}

/// In JSON the string that `Display` writes and `FromStr` reads.
macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use serde_as_text;

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt::{Debug, Display};
    use std::str::FromStr;

    use super::*;

    /// What is read from a text is written so that it is read back.
    pub(crate) fn survives<T: FromStr + Display + PartialEq + Debug>(text: &str) {
        if let Ok(value) = text.parse::<T>() {
            assert_eq!(value.to_string().parse::<T>().ok(), Some(value), "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_on_one_line() {
        assert_eq!(shown("a\n'"), r"'a\n\''");
        assert_eq!(shown(&"x".repeat(65)), format!("'{}...'", "x".repeat(64)));
    }

    #[test]
    fn an_error_says_what_is_wrong_and_what_to_do() {
        let error = ValueError::new("x", "is not a signal", "use a name like SIGTERM");
        assert_eq!(
            error.to_string(),
            "'x' is not a signal: use a name like SIGTERM"
        );
    }
}

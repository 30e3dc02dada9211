//! Who runs a program.

use std::fmt;
use std::str::FromStr;

use super::text::{ValueError, serde_as_text};

/// A user or a group: a number up to 4294967294 (the one above is `(uid_t) -1`, "no id"), or a name of the
/// container's own database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// By number.
    Id(u32),
    /// By name, which is looked up in the container when it starts.
    Name(String),
}

/// `USER[:GROUP]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// The user.
    pub user: UserRef,
    /// The primary group; that of the user's entry in the database when absent.
    pub group: Option<UserRef>,
}

serde_as_text!(UserRef, UserSpec);

const HINT: &str = "use a number from 0 to 4294967294 or a name";

impl FromStr for UserRef {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let id = text.parse().ok().filter(|id| *id != u32::MAX);
            let too_high = || ValueError::new(text, "is above the highest id", HINT);
            return id.map(UserRef::Id).ok_or_else(too_high);
        }
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let inner =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'@' | b'$');
        if first && text.len() <= 256 && text.bytes().all(inner) {
            return Ok(UserRef::Name(text.to_owned()));
        }
        let is = "is neither a number nor the name of a user or group";
        Err(ValueError::new(text, is, HINT))
    }
}

impl fmt::Display for UserRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserRef::Id(id) => id.fmt(f),
            UserRef::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for UserSpec {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group.parse()?)),
            None => (text, None),
        };
        let user = user.parse()?;
        Ok(Self { user, group })
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.user.fmt(f)?;
        match &self.group {
            Some(group) => write!(f, ":{group}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::tests::survives;

    #[test]
    fn users_and_groups_are_numbers_or_names() {
        let user = |text: &str| -> UserSpec { text.parse().unwrap() };
        assert_eq!(user("1000").user, UserRef::Id(1000));
        assert_eq!(user("1000").group, None);
        assert_eq!(user("4294967294:0").group, Some(UserRef::Id(0)));
        assert_eq!(user("www-data:adm").user, UserRef::Name("www-data".into()));
        for text in ["0", "root:0", "a.b@c$:_x", "1000:1000"] {
            assert_eq!(user(text).to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "-1",
            "4294967295",
            "4294967296",
            "99999999999999999999999",
            "1000:",
            ":0",
            "a b",
            "0:0:0",
            "root\n",
            "é",
        ] {
            assert!(text.parse::<UserSpec>().is_err(), "{text:?}");
        }
        assert!("x".repeat(257).parse::<UserRef>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives(text in "[a-z0-9_.@$-]{0,9}(:[a-z0-9]{0,11})?|\\PC*") {
            survives::<UserSpec>(&text);
        }
    }
}

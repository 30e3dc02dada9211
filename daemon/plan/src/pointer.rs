//! JSON pointers (RFC 6901): where in a document an error is.

use serde_path_to_error::{Path, Segment};

/// A key as one token of a pointer (section 3).
pub fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The pointer to a key of the object at `base`.
pub fn below(base: &str, key: &str) -> String {
    format!("{base}/{}", token(key))
}

/// Where a deserializer stopped; empty for the whole document.
pub fn of(path: &Path) -> String {
    path.iter()
        .fold(String::new(), |pointer, segment| match segment {
            Segment::Seq { index } => format!("{pointer}/{index}"),
            Segment::Map { key } | Segment::Enum { variant: key } => below(&pointer, key),
            Segment::Unknown => pointer,
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_key_is_one_token() {
        assert_eq!(below("/env", "a/b~c"), "/env/a~1b~0c");
    }

    #[test]
    fn a_path_leads_to_the_value() {
        type Lists = BTreeMap<String, Vec<u32>>;
        let error = |json| {
            let mut json = serde_json::Deserializer::from_str(json);
            let read: Result<Lists, _> = serde_path_to_error::deserialize(&mut json);
            of(read.unwrap_err().path())
        };
        assert_eq!(error(r#"{"a": [], "b/c": [1, "x"]}"#), "/b~1c/1");
        assert_eq!(error("[]"), "");
    }
}
